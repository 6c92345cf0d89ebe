"""Deterministic stand-ins for the four engines: no models, known delays, known faults.

Tests, the profiler and the benchmarks run the whole server on them. What they
say never varies, and every delay is an `asyncio.sleep` on the running loop up to
an absolute deadline, so that timer overshoot never adds up and a virtual-time
loop governs them. A `Fault` makes one misbehave on purpose.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ivas.engines import (
    AudioChunk,
    Message,
    Priority,
    Samples,
    Status,
    Token,
    Tool,
    ToolCall,
    Transcript,
    Voice,
)
from ivas.errors import EngineError

DEFAULT_REPLY = (
    "This is the fake engine speaking to you in its usual calm way, and it always says "
    "the same thing. Every word comes on a fixed schedule, so delays can be measured. "
    "Nothing here was thought up by a model."
)
"""Its first clause ends with the 13th token, so 13 tokens in it can be spoken."""

CHUNK_MS = 100
"""Length of every audio chunk but the last of a text."""
MS_PER_CHARACTER = 60
"""Length of the speech; about 16 characters a second is how people talk."""
SPEECH_RMS = 0.01
"""A frame louder than this is speech to the fake VAD."""

_GARBAGE_TOKEN = " \x00\x1b[31m</s><|im_end|>**[{\ufffd"
_GARBAGE_TRANSCRIPT = ("blah " * 2000)[:10_000]
_TONE_LEVEL = 0.3
"""Amplitude of the tones, of 1: clearly speech to the fake VAD, never clipping."""


@dataclass(frozen=True, slots=True)
class Fault:
    """How, and when, a fake misbehaves.

    `raise` an EngineError; `crash` with an exception no engine should raise;
    `hang` until cancelled; `end` the stream early (an empty transcript, a deaf
    VAD); `garbage` instead of the item: markup and control characters as a token,
    half a sample as audio, 10,000 characters as a transcript, NaN as a probability.
    """

    kind: Literal["raise", "crash", "hang", "end", "garbage"]
    after: int = 0
    """Items (frames, transcripts, tokens, chunks) of each stream that pass before."""
    times: int | None = None
    """How often it strikes in the engine's life; None: always."""


class _Trouble:
    """Counts the strikes of one engine's fault."""

    def __init__(self, engine: str, fault: Fault | None) -> None:
        self._engine = engine
        self._fault = fault
        self._struck = 0

    def kind(self, passed: int) -> str:
        """What goes wrong after `passed` items of a stream; "" if nothing does.

        Raises the exception of a `raise` or `crash` fault.
        """
        fault = self._fault
        if fault is None or passed < fault.after:
            return ""
        if fault.times is not None and self._struck >= fault.times:
            return ""
        self._struck += 1
        if fault.kind == "raise":
            raise EngineError(
                f"The fake {self._engine} failed because a fault was set for it; "
                "take the fault away to make it work."
            )
        if fault.kind == "crash":
            raise RuntimeError(f"the fake {self._engine} crashed on purpose")
        return fault.kind

    async def strike(self, passed: int) -> str:
        """Like `kind`, but a `hang` waits here for ever."""
        kind = self.kind(passed)
        if kind == "hang":
            await asyncio.get_running_loop().create_future()
        return kind


async def _until(deadline: float) -> None:
    """Sleep to `deadline` on the running loop's clock; always gives others a turn."""
    await asyncio.sleep(max(0.0, deadline - asyncio.get_running_loop().time()))


class _Startable:
    """What every fake has: a name, and being ready between start and close."""

    name = "fake"

    def __init__(self) -> None:
        self._ready = False

    def status(self) -> Status:
        if self._ready:
            return Status(ready=True)
        return Status(ready=False, reason="The fake engine has not been started; start it first.")

    async def start(self) -> None:
        self._ready = True

    async def aclose(self) -> None:
        self._ready = False


class FakeVAD(_Startable):
    """Takes whatever is louder than `SPEECH_RMS` for speech: tones, not zeros.

    Raises ValueError for a `hang` fault: a VAD is called inline and cannot wait.
    """

    frame_samples = 512

    def __init__(self, *, fault: Fault | None = None) -> None:
        super().__init__()
        if fault is not None and fault.kind == "hang":
            raise ValueError("a fake VAD cannot hang: it would stop the event loop with it")
        self._trouble = _Trouble("VAD", fault)

    def open(self) -> FakeDetector:
        return FakeDetector(self._trouble)


class FakeDetector:
    """The state of one session: how many frames it has seen."""

    def __init__(self, trouble: _Trouble) -> None:
        self._trouble = trouble
        self._frames = 0

    def probability(self, frame: Samples) -> float:
        """1.0 for speech, 0.0 for silence; `frame` shape (n,), any n."""
        kind = self._trouble.kind(self._frames)
        self._frames += 1
        if kind:
            return math.nan if kind == "garbage" else 0.0
        if frame.size == 0:
            return 0.0
        mean_square = float(np.dot(frame, frame)) / frame.size
        return 1.0 if mean_square > SPEECH_RMS**2 else 0.0


class FakeASR(_Startable):
    """Hears the same words in any audio; nothing where there is none.

    `ms`: how long each transcript takes, 0 or more.
    `open_utterances` counts those not closed yet.
    """

    def __init__(
        self,
        *,
        ms: float = 100,
        transcript: str = "what time is it",
        fault: Fault | None = None,
    ) -> None:
        super().__init__()
        self.open_utterances = 0
        self._delay_s = ms / 1000
        self._text = transcript
        self._trouble = _Trouble("ASR", fault)

    def open(self, *, language: str | None = None, prompt: str | None = None) -> FakeUtterance:
        return FakeUtterance(self, language)


class FakeUtterance:
    """Counts the samples of one stretch of speech."""

    def __init__(self, engine: FakeASR, language: str | None) -> None:
        self._engine = engine
        self._language = language
        self._samples = 0
        self._asked = 0
        self._closed = False
        engine.open_utterances += 1

    def push(self, samples: Samples) -> None:
        self._samples += samples.size

    async def transcript(self, *, urgent: bool = True) -> Transcript:
        """The engine's text once anything was pushed. Raises EngineError when closed."""
        if self._closed:
            raise EngineError("This utterance is closed; open a new one to hear more.")
        start = asyncio.get_running_loop().time()
        end_sample = self._samples
        passed, self._asked = self._asked, self._asked + 1
        await _until(start + self._engine._delay_s)
        kind = await self._engine._trouble.strike(passed)
        text = self._engine._text if end_sample and kind != "end" else ""
        return Transcript(
            text=_GARBAGE_TRANSCRIPT if kind == "garbage" else text,
            revision=passed + 1,
            end_sample=end_sample,
            language=self._language,
        )

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._engine.open_utterances -= 1


class FakeLLM(_Startable):
    """Gives the same reply to everything, one word with its leading space a token.

    `first_ms`: delay of the first token, 0 or more. `tokens_per_s`: above 0; token
    i comes at first_ms + i / tokens_per_s. `live_streams` counts unfinished replies.
    """

    def __init__(
        self,
        *,
        first_ms: float = 150,
        tokens_per_s: float = 50,
        reply: str = DEFAULT_REPLY,
        fault: Fault | None = None,
    ) -> None:
        super().__init__()
        self.live_streams = 0
        self._first_s = first_ms / 1000
        self._token_s = 1 / tokens_per_s
        first, *others = reply.split(" ")
        self._tokens = tuple(token for token in (first, *(f" {word}" for word in others)) if token)
        self._trouble = _Trouble("LLM", fault)

    async def stream(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        tool_choice: str = "auto",
        max_tokens: int | None = None,
    ) -> AsyncGenerator[Token | ToolCall, None]:
        """The fixed reply, cut at `max_tokens`. Messages and tools are not looked at."""
        start = asyncio.get_running_loop().time()
        self.live_streams += 1
        try:
            for number, token in enumerate(self._tokens[:max_tokens]):
                await _until(start + self._first_s + number * self._token_s)
                kind = await self._trouble.strike(number)
                if kind == "end":
                    return
                yield Token(_GARBAGE_TOKEN if kind else token)
        finally:
            self.live_streams -= 1

    async def prefill(self, messages: Sequence[Message]) -> None:
        """Nothing to warm."""


_PITCHES_HZ = {"fake-low": 300, "fake-middle": 600, "fake-high": 1200}


class FakeTTS(_Startable):
    """Speaks a steady tone, as long as the text needs, at the pitch of the voice.

    `first_ms`: delay of the first chunk, 0 or more. `rtf`: time to make a second of
    audio, in seconds, 0 or more; chunk i comes at first_ms + i * CHUNK_MS * rtf.
    `rate_hz`: of the audio, a multiple of 10. `live_streams` counts unfinished ones.
    """

    voices = tuple(
        Voice(id=voice, name=f"Tone of {hz} Hz", language="en") for voice, hz in _PITCHES_HZ.items()
    )

    def __init__(
        self,
        *,
        first_ms: float = 100,
        rtf: float = 0.2,
        rate_hz: int = 24_000,
        fault: Fault | None = None,
    ) -> None:
        super().__init__()
        self.live_streams = 0
        self._first_s = first_ms / 1000
        self._rtf = rtf
        self._rate_hz = rate_hz
        self._chunk_samples = rate_hz * CHUNK_MS // 1000
        # Every pitch has whole periods in a chunk, so one chunk repeats without a seam.
        self._tones = {
            voice: _tone(hz, self._chunk_samples, rate_hz) for voice, hz in _PITCHES_HZ.items()
        }
        self._trouble = _Trouble("TTS", fault)

    async def stream(
        self,
        text: str,
        *,
        voice: str,
        language: str | None = None,
        speed: float = 1.0,
        priority: Priority = "later",
    ) -> AsyncGenerator[AudioChunk, None]:
        """A tone of `MS_PER_CHARACTER` a character of the stripped text, over `speed`."""
        start = asyncio.get_running_loop().time()
        tone = self._tones.get(voice) or self._tones[self.voices[0].id]
        seconds = len(text.strip()) * MS_PER_CHARACTER / 1000 / speed
        left = round(seconds * self._rate_hz)
        number = 0
        self.live_streams += 1
        try:
            if left > 0:
                yield AudioChunk(b"", self._rate_hz)  # there is no queue: it is its turn
            while left > 0:
                await _until(start + self._first_s + number * CHUNK_MS / 1000 * self._rtf)
                kind = await self._trouble.strike(number)
                if kind == "end":
                    return
                pcm = tone[: 2 * left]
                yield AudioChunk(pcm=pcm[:-1] if kind else pcm, rate_hz=self._rate_hz)
                left -= self._chunk_samples
                number += 1
        finally:
            self.live_streams -= 1


def _tone(hz: int, samples: int, rate_hz: int) -> bytes:
    """A sine as PCM16."""
    wave = np.sin(2 * np.pi * hz * np.arange(samples) / rate_hz)
    return np.round(wave * _TONE_LEVEL * 32767).astype("<i2").tobytes()
