"""One reply: the LLM's tokens become clauses, clauses become sound.

The LLM is read as fast as it writes, so that it is free for the next turn; the TTS
is held back by the playout once enough sound is queued. Whatever breaks, what was
said before it is still said: the failure comes back as a value, after the sound.
An LLM that is slow or fails is said aloud too: who only listens sees no error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from .audio.resample import Resampler
from .conversation.events import Failure, Outcome
from .conversation.history import SpokenText
from .conversation.sentences import ClauseSplitter
from .engines import LLM, TTS, AudioChunk, Message, Priority, Tool, ToolCall
from .errors import EngineError, EngineTimeout
from .latency import Marks
from .playout import BYTES_PER_MS, RATE_HZ, Playout
from .text.notices import Notices
from .text.spoken import speakable

log = logging.getLogger(__name__)

PIECE_CHARACTERS = 200
"""What counts as one token of the longest reply at most; a real one has about four."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ReplyLimits:
    """How long an engine may keep us waiting, in seconds."""

    slow_after_s: float = 4.0
    """Without a token until then, the user is told to wait."""
    first_token_s: float = 15.0
    token_stall_s: float = 5.0
    queue_s: float = 20.0
    """For the voice to come to a clause: it speaks one at a time, for everybody."""
    first_audio_s: float = 5.0
    """From then on."""
    audio_stall_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Speech:
    """How to speak: None = write only."""

    tts: TTS
    voice: str
    language: str | None
    speed: float
    notices: Notices


@dataclass(slots=True)
class Production:
    """What came of it. `failure` None = all went well."""

    outcome: Outcome = "completed"
    failure: Failure | None = None
    tokens: int = 0


class Producer:
    """Makes one reply; `run` it once."""

    def __init__(
        self,
        *,
        llm: Callable[[], LLM],
        on_timeout: Callable[[LLM], None] = lambda llm: None,
        speech: Speech | None,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        tool_choice: str = "auto",
        max_tokens: int,
        playout: Playout,
        spoken: SpokenText,
        limits: ReplyLimits,
        marks: Marks,
        on_progress: Callable[[], None],
    ) -> None:
        self._llm = llm
        self._on_timeout = on_timeout
        self._speech = speech
        self._messages = messages
        self._tools = tools
        self._tool_choice = tool_choice
        self._offered = {tool.name for tool in tools} if tool_choice != "none" else set()
        self._max_tokens = max_tokens
        self._playout = playout
        self._spoken = spoken
        self._limits = limits
        self._marks = marks
        self._on_progress = on_progress
        self._clauses: asyncio.Queue[str | None] = asyncio.Queue()  # bounded by max_tokens
        self.result = Production()
        """What has come of it so far."""
        self._calls: list[ToolCall] = []
        self._uninvited = False
        self._sounded = False
        self._blank = True

    async def run(self) -> Production:
        """Put the whole reply into the playout. Cancellable at any point."""
        async with asyncio.TaskGroup() as tasks:
            thinking = tasks.create_task(self._think())
            try:
                await self._say()
            except Exception as error:
                self._fail(error, "tts_failed", "The voice")
                thinking.cancel()
        if self.result.failure is None:
            for call in self._calls:
                self._playout.put_call(call)
        return self.result

    def _fail(self, error: Exception, code: str, who: str) -> None:
        if isinstance(error, EngineError):
            failure = Failure(error.code, str(error))
        else:
            log.exception("%s failed unexpectedly", who, exc_info=error)
            failure = Failure(
                code, f"{who} failed unexpectedly; please try again (the server's log has more)."
            )
        self.result.failure = self.result.failure or failure

    # --- tokens to clauses ---------------------------------------------------

    async def _think(self) -> None:
        splitter = ClauseSplitter()
        loop = asyncio.get_running_loop()
        slow = loop.call_later(self._limits.slow_after_s, self._notify_slow)
        try:
            await self._read_from_one_that_answers(splitter)
            if self._blank and not self._calls:
                raise EngineError(
                    "The language model called a function that was not offered; please ask again."
                    if self._uninvited
                    else "The language model answered with nothing; please ask again.",
                    code="llm_empty",
                )
        except Exception as error:
            self._fail(error, "llm_failed", "The language model")
        finally:
            slow.cancel()
        last = ""
        for last in splitter.finish():
            self._marks.mark("first_clause")
            self._clauses.put_nowait(last)
        if self.result.failure is not None and self._speech is not None:
            notices = self._speech.notices
            space = "" if last[-1:].isspace() else " "
            broken = f"{space}{notices.broken}"
            self._clauses.put_nowait(notices.failed if self._blank else broken)
        self._clauses.put_nowait(None)

    def _notify_slow(self) -> None:
        if self._speech is not None and not self.result.tokens:
            self._clauses.put_nowait(f"{self._speech.notices.slow} ")

    async def _read_from_one_that_answers(self, splitter: ClauseSplitter) -> None:
        """An LLM that fails before its first token has said nothing yet: if by then another
        one serves, that one is asked, once."""
        llm = self._llm()
        try:
            await self._read(llm, splitter)
        except EngineError as error:
            if isinstance(error, EngineTimeout):
                self._on_timeout(llm)
            if self.result.tokens or self._calls or (other := self._llm()) is llm:
                raise
            log.warning("%s failed (%s); %s answers instead", llm.name, error, other.name)
            await self._read(other, splitter)

    async def _read(self, llm: LLM, splitter: ClauseSplitter) -> None:
        limits, result = self._limits, self.result
        stream = llm.stream(
            self._messages,
            tools=self._tools,
            tool_choice=self._tool_choice,
            max_tokens=self._max_tokens,
        )
        async with aclosing(stream):
            wait_s = limits.first_token_s
            while (token := await _next(stream, wait_s, "The language model")) is not None:
                if isinstance(token, ToolCall):
                    if token.name in self._offered:
                        self._calls.append(_fit_for_the_wire(token))
                    else:
                        self._uninvited = True
                    self._on_progress()
                    wait_s = limits.token_stall_s
                    continue
                if not result.tokens:
                    self._marks.mark("first_token")
                wait_s = limits.token_stall_s
                self._on_progress()
                # A piece is a token, whatever its length; one of megabytes is many.
                for at in range(0, len(token.text), PIECE_CHARACTERS):
                    if at:
                        await asyncio.sleep(0)
                    self._take(token.text[at : at + PIECE_CHARACTERS], splitter)
                    if result.tokens >= self._max_tokens:
                        result.outcome = "max_output_tokens"
                        return

    def _take(self, piece: str, splitter: ClauseSplitter) -> None:
        self.result.tokens += 1
        text = piece.encode(errors="replace").decode()  # half a surrogate pair cannot be sent
        self._blank = self._blank and not text.strip()
        for clause in splitter.push(text):
            self._marks.mark("first_clause")
            self._clauses.put_nowait(clause)

    # --- clauses to sound ----------------------------------------------------

    async def _say(self) -> None:
        speech = self._speech
        spoken_something = False
        priority: Priority = "first"
        while (clause := await self._clauses.get()) is not None:
            if speech is None:
                self._playout.put_words(clause)
                continue
            await self._playout.room()
            self._spoken.begin(clause)
            self._playout.put_words(clause)
            if text := speakable(clause):
                spoken_something = True
                await self._speak(speech, text, priority)
                priority = "later"
            self._spoken.end()
        if spoken_something and not self._sounded:
            raise EngineError(
                "The voice made no sound for this reply; choose another with IVAS_TTS__ENGINE.",
                code="tts_silent",
            )

    async def _speak(self, speech: Speech, text: str, priority: Priority) -> None:
        stream = speech.tts.stream(
            text,
            voice=speech.voice,
            language=speech.language,
            speed=speech.speed,
            priority=priority,
        )
        async with aclosing(sound_of(stream, self._limits)) as sound:
            async for pcm in sound:
                self._on_progress()
                if pcm:
                    await self._put(pcm)

    async def _put(self, pcm: bytes) -> None:
        if not self._sounded:
            self._sounded = True
            self._marks.mark("first_audio")
        self._spoken.add(len(pcm) / BYTES_PER_MS)
        self._playout.put_sound(pcm)
        await self._playout.room()


async def sound_of(
    stream: AsyncGenerator[AudioChunk, None], limits: ReplyLimits
) -> AsyncGenerator[bytes, None]:
    """What a TTS engine makes of one text, as PCM16 at `RATE_HZ`; closes `stream`.

    b"" where nothing is heard yet but something goes on.
    Raises EngineError, EngineTimeout if the engine keeps us waiting beyond `limits`.
    """
    resampler: Resampler | None = None
    wait_s, who = limits.queue_s, "The voice, which serves one after the other,"
    async with aclosing(stream):
        while (chunk := await _next(stream, wait_s, who)) is not None:
            wait_s, who = limits.audio_stall_s, "The voice"
            if len(chunk.pcm) % 2:
                raise EngineError("The voice sent broken audio (half a sample).")
            if chunk.pcm:
                resampler = resampler or Resampler(chunk.rate_hz, RATE_HZ)
                yield resampler.push(chunk.pcm)
            else:
                if resampler is None:
                    wait_s = limits.first_audio_s
                yield b""
    if resampler is not None:
        yield resampler.finish()


def _fit_for_the_wire(call: ToolCall) -> ToolCall:
    """Half a surrogate pair cannot be sent to anybody."""
    return ToolCall(
        call.call_id,
        call.name.encode(errors="replace").decode(),
        call.arguments.encode(errors="replace").decode(),
    )


async def _next(stream: AsyncGenerator[_T, None], wait_s: float, who: str) -> _T | None:
    """The next item, None at the end. Raises EngineTimeout after `wait_s`."""
    try:
        async with asyncio.timeout(wait_s):
            return await anext(stream, None)
    except TimeoutError:
        raise EngineTimeout(
            f"{who} did not answer within {wait_s:g} s; please ask again."
        ) from None
