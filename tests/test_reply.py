"""The making of one reply: tokens to clauses to sound, and what breaks in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from memory_client import NotingLLM
from virtual_time import virtual_time

from ivas.conversation.history import SpokenText
from ivas.engines import AudioChunk, Message, Token, Tool, ToolCall
from ivas.engines.fake import DEFAULT_REPLY, MS_PER_CHARACTER, FakeLLM, FakeTTS, Fault
from ivas.latency import Marks
from ivas.playout import BYTES_PER_MS, Playout
from ivas.reply import Producer, Production, ReplyLimits, Speech
from ivas.text.notices import notices

LIMITS = ReplyLimits(
    slow_after_s=1, first_token_s=3, token_stall_s=2, first_audio_s=3, audio_stall_s=2
)


class Outlet:
    congested = False

    def __init__(self) -> None:
        self.pieces: list[str | bytes | ToolCall] = []

    def words(self, text: str) -> None:
        self.pieces.append(text)

    def sound(self, pcm: bytes) -> None:
        self.pieces.append(pcm)

    def call(self, call: ToolCall) -> None:
        self.pieces.append(call)

    def drained(self) -> None:
        pass

    @property
    def calls(self) -> list[ToolCall]:
        return [piece for piece in self.pieces if isinstance(piece, ToolCall)]

    @property
    def order(self) -> list[str]:
        names = {str: "words", bytes: "sound", ToolCall: "call"}
        kinds = [names[type(piece)] for piece in self.pieces]
        return [kind for at, kind in enumerate(kinds) if at == 0 or kinds[at - 1] != kind]

    @property
    def text(self) -> str:
        return "".join(piece for piece in self.pieces if isinstance(piece, str))

    @property
    def sound_ms(self) -> float:
        return sum(len(p) for p in self.pieces if isinstance(p, bytes)) / BYTES_PER_MS


class Tokens(FakeLLM):
    """Gives these tokens, without delay."""

    def __init__(self, *tokens: object) -> None:
        super().__init__()
        self._given = tokens

    async def stream(
        self, messages: Sequence[Message], **how: Any
    ) -> AsyncGenerator[Token | ToolCall, None]:
        for token in self._given:
            yield Token(token) if isinstance(token, str) else token  # type: ignore[misc]


class Chunks(FakeTTS):
    """Gives these chunks for every text, and keeps how it was asked."""

    def __init__(self, *chunks: Any) -> None:
        super().__init__()
        self._given = chunks
        self.asked: list[tuple[str, str]] = []

    async def stream(
        self, text: str, *, priority: str = "later", **how: Any
    ) -> AsyncGenerator[AudioChunk, None]:
        self.asked.append((text, priority))
        for chunk in self._given:
            yield chunk


async def produce(
    llm: FakeLLM,
    tts: FakeTTS | None = None,
    *,
    max_tokens: int = 1024,
    outlet: Outlet | None = None,
    tools: Sequence[Tool] = (),
    tool_choice: str = "auto",
) -> tuple[Production, Outlet, SpokenText]:
    loop = asyncio.get_running_loop()
    outlet = outlet or Outlet()
    playout = Playout(outlet, now_ms=lambda: loop.time() * 1000, lead_ms=1e9)
    playout.open_gate()
    spoken = SpokenText()
    producer = Producer(
        llm=lambda: llm,
        speech=None if tts is None else Speech(tts, "", None, 1.0, notices("en")),
        messages=[Message("user", "hello")],
        tools=tools,
        tool_choice=tool_choice,
        max_tokens=max_tokens,
        playout=playout,
        spoken=spoken,
        limits=LIMITS,
        marks=Marks(lambda: loop.time() * 1000),
        on_progress=lambda: None,
    )
    return await producer.run(), outlet, spoken


@virtual_time
async def test_every_clause_has_its_words_its_sound_and_its_share_of_time() -> None:
    production, outlet, spoken = await produce(NotingLLM(), FakeTTS())
    tokens = len(DEFAULT_REPLY.split())
    assert production == Production("completed", None, tokens)
    assert outlet.text == DEFAULT_REPLY
    assert spoken.heard(outlet.sound_ms) == (DEFAULT_REPLY, True)
    clause = DEFAULT_REPLY.partition(",")[0] + ","
    assert spoken.heard(len(clause) * MS_PER_CHARACTER) == (clause, False)


@virtual_time
async def test_the_first_clause_goes_before_all_others_in_the_voice() -> None:
    tts = Chunks(AudioChunk(bytes(480), 24_000))
    await produce(
        Tokens("**Well, well.** ", "It is noon. ", "And that is all of it, my friend."), tts
    )
    assert [priority for _, priority in tts.asked] == ["first", *["later"] * (len(tts.asked) - 1)]
    assert len(tts.asked) > 1
    assert "*" not in "".join(text for text, _ in tts.asked)


@virtual_time
async def test_other_rates_are_brought_to_the_rate_of_the_wire() -> None:
    for rate_hz in (16_000, 22_050, 24_000, 48_000):
        _, outlet, spoken = await produce(Tokens("Hello there."), FakeTTS(rate_hz=rate_hz))
        assert outlet.sound_ms == pytest.approx(12 * MS_PER_CHARACTER, abs=2)
        assert spoken.heard(outlet.sound_ms) == ("Hello there.", True)


@virtual_time
async def test_written_only() -> None:
    production, outlet, _ = await produce(NotingLLM(), None)
    assert production.failure is None
    assert (outlet.text, outlet.sound_ms) == (DEFAULT_REPLY, 0)


@virtual_time
async def test_a_limit_of_tokens() -> None:
    production, outlet, _ = await produce(NotingLLM(), FakeTTS(), max_tokens=5)
    assert (production.outcome, production.tokens) == ("max_output_tokens", 5)
    assert outlet.text == "This is the fake engine"


@virtual_time
async def test_a_tool_that_was_not_offered_is_not_called() -> None:
    production, outlet, _ = await produce(Tokens(ToolCall("1", "run", "{}"), "Hello."), FakeTTS())
    assert (production.failure, outlet.text) == (None, "Hello.")
    for offered, choice in ([Tool("look")], "auto"), ([Tool("run")], "none"):
        production, outlet, _ = await produce(
            Tokens(ToolCall("1", "run", "{}")), tools=offered, tool_choice=choice
        )
        assert outlet.calls == []
        assert production.failure is not None
        assert "function that was not offered" in production.failure.message


@virtual_time
async def test_calls_come_after_all_that_was_said() -> None:
    call, more = ToolCall("1", "look", '{"at": "\ud800"}'), ToolCall("2", "wait", "{}")
    production, outlet, _ = await produce(
        Tokens(call, "Let me look. ", more), FakeTTS(), tools=[Tool("look"), Tool("wait")]
    )
    assert production.failure is None
    assert outlet.calls == [ToolCall("1", "look", '{"at": "?"}'), more]
    assert outlet.order == ["words", "sound", "call"]


@virtual_time
async def test_calls_of_a_reply_that_broke_are_not_made() -> None:
    llm = NotingLLM(fault=Fault("raise", after=1))
    production, outlet, _ = await produce(llm, FakeTTS(), tools=[Tool("look")])
    assert production.failure is not None
    assert outlet.calls == []


@virtual_time
async def test_a_call_needs_no_words() -> None:
    production, outlet, _ = await produce(Tokens(ToolCall("1", "x", "{}")), tools=[Tool("x")])
    assert (production.failure, len(outlet.calls), outlet.text) == (None, 1, "")


@virtual_time
async def test_an_llm_that_fails_is_said_aloud() -> None:
    said = notices("en")
    _, outlet, _ = await produce(NotingLLM(fault=Fault("raise")), FakeTTS())
    assert outlet.text == said.failed
    assert outlet.sound_ms > 0
    _, outlet, _ = await produce(NotingLLM(fault=Fault("raise", after=14)), FakeTTS())
    assert outlet.text.endswith(f" {said.broken}")
    assert outlet.text.startswith("This is the fake engine")
    _, outlet, _ = await produce(NotingLLM(fault=Fault("raise")))
    assert outlet.text == ""  # who reads is told by the event


@virtual_time
async def test_who_waits_long_for_the_first_token_is_told_so_once() -> None:
    slow_ms = LIMITS.slow_after_s * 1000 + 500
    _, outlet, _ = await produce(NotingLLM(first_ms=slow_ms), FakeTTS())
    assert outlet.text == f"{notices('en').slow} {DEFAULT_REPLY}"
    _, outlet, _ = await produce(NotingLLM(first_ms=slow_ms - 1000), FakeTTS())
    assert outlet.text == DEFAULT_REPLY


@pytest.mark.parametrize("tokens", [(), (" ",), ("\n", "  ", "\n"), (ToolCall("1", "x", "{}"),)])
def test_an_empty_answer_is_a_failure(tokens: tuple[object, ...]) -> None:
    @virtual_time
    async def check() -> None:
        production, _, _ = await produce(Tokens(*tokens), FakeTTS())
        assert production.failure is not None
        assert production.failure.code == "llm_empty"
        called = any(isinstance(token, ToolCall) for token in tokens)
        assert ("function that was not offered" in production.failure.message) == called

    check()


@virtual_time
async def test_markup_alone_is_shown_and_not_spoken() -> None:
    tts = Chunks()
    production, outlet, _ = await produce(Tokens("***"), tts)
    assert (production.failure, outlet.text, tts.asked) == (None, "***", [])


@virtual_time
async def test_a_voice_that_says_nothing_is_found_out() -> None:
    production, outlet, _ = await produce(Tokens("Hello."), Chunks())
    assert production.failure is not None
    assert production.failure.code == "tts_silent"
    assert outlet.text == "Hello."
    production, _, _ = await produce(Tokens("Hello."), Chunks(AudioChunk(b"", 24_000)))
    assert production.failure is not None


@pytest.mark.parametrize(
    ("turn_s", "work_s", "code", "after_s"),
    [
        (LIMITS.queue_s - 1, LIMITS.first_audio_s - 1, None, None),
        (LIMITS.queue_s + 1, 0, "engine_timeout", LIMITS.queue_s),
        (1, LIMITS.first_audio_s + 1, "engine_timeout", 1 + LIMITS.first_audio_s),
    ],
)
def test_a_voice_has_its_time_from_its_turn_on(
    turn_s: float, work_s: float, code: str | None, after_s: float | None
) -> None:
    class Queued(FakeTTS):
        async def stream(self, text: str, **how: Any) -> AsyncGenerator[AudioChunk, None]:
            await asyncio.sleep(turn_s)
            yield AudioChunk(b"", 8000)  # of no sound the rate is nothing to go by
            await asyncio.sleep(work_s)
            yield AudioChunk(bytes(4800), 24_000)

    @virtual_time
    async def check() -> None:
        production, outlet, _ = await produce(Tokens("Hello."), Queued())
        if code is None:
            assert production.failure is None
            assert outlet.sound_ms == 100
        else:
            assert production.failure is not None
            assert production.failure.code == code
            assert asyncio.get_running_loop().time() == pytest.approx(after_s, abs=0.1)

    check()


@virtual_time
async def test_half_of_a_surrogate_pair_does_not_reach_the_wire() -> None:
    _, outlet, _ = await produce(Tokens("Fine \ud83d", " thanks."), FakeTTS())
    assert outlet.text == "Fine ? thanks."


@pytest.mark.parametrize(
    "chunk",
    [AudioChunk(b"\0", 24_000), AudioChunk(b"\0\0", 0), None, b"pcm", AudioChunk("", 1)],  # type: ignore[arg-type]
)
def test_sound_that_is_none_is_a_failure_of_the_voice(chunk: object) -> None:
    @virtual_time
    async def check() -> None:
        production, outlet, _ = await produce(Tokens("Hello."), Chunks(chunk))
        assert production.failure is not None
        assert outlet.sound_ms == 0

    check()


@virtual_time
async def test_cancelling_closes_both_streams_at_any_time() -> None:
    for ms in range(0, 4000, 90):
        llm, tts = NotingLLM(), FakeTTS(rtf=0.9)
        task = asyncio.create_task(produce(llm, tts))
        await asyncio.sleep(ms / 1000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (llm.live_streams, tts.live_streams) == (0, 0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
