"""The fakes keep their schedules, count what is open, and fail exactly as told."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual_time import run, virtual_time

from ivas.engines import ASR, LLM, TTS, VAD, AudioChunk, Message, Samples, Token, ToolCall
from ivas.engines.fake import DEFAULT_REPLY, FakeASR, FakeLLM, FakeTTS, FakeVAD, Fault
from ivas.errors import EngineError

T = TypeVar("T")
ASKED = (Message("user", "hello"),)


def engines() -> tuple[VAD, ASR, LLM, TTS]:
    """mypy proves here that the fakes follow the Protocols."""
    return FakeVAD(), FakeASR(), FakeLLM(), FakeTTS()


def tone(seconds: float = 0.032, level: float = 0.1) -> Samples:
    at = np.arange(int(seconds * 16_000)) / 16_000
    return (level * np.sin(2 * np.pi * 440 * at)).astype(np.float32)


async def timed(stream: AsyncGenerator[T, None]) -> list[tuple[float, T]]:
    """Everything a stream yields but empty chunks, with the seconds since it was asked."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    return [(loop.time() - start, item) async for item in stream if is_something(item)]


def is_something(item: object) -> bool:
    return not isinstance(item, AudioChunk) or item.pcm != b""


async def collect(stream: AsyncGenerator[T, None], into: list[T]) -> None:
    async for item in stream:
        if is_something(item):
            into.append(item)


def words(items: list[tuple[float, Token | ToolCall]]) -> list[str]:
    return [item.text for _, item in items if isinstance(item, Token)]


@pytest.mark.parametrize("engine", engines())
async def test_ready_from_start_to_close(engine: VAD | ASR | LLM | TTS) -> None:
    assert engine.name == "fake"
    assert not engine.status().ready
    assert engine.status().reason
    for _ in range(2):
        await engine.start()
    assert engine.status().ready
    for _ in range(2):
        await engine.aclose()
    assert not engine.status().ready


def test_vad_hears_tones_and_not_silence() -> None:
    detector = FakeVAD().open()
    assert detector.probability(tone()) == 1.0
    assert detector.probability(np.zeros(512, np.float32)) == 0.0
    assert detector.probability(tone(level=0.005)) == 0.0
    assert detector.probability(np.zeros(0, np.float32)) == 0.0


@virtual_time
async def test_asr_answers_after_its_delay_for_the_audio_it_had_when_asked() -> None:
    loop = asyncio.get_running_loop()
    utterance = FakeASR(ms=100, transcript="good morning").open(language="en")
    utterance.push(tone(1.0))
    asking = asyncio.create_task(utterance.transcript())
    await asyncio.sleep(0.05)
    utterance.push(tone(1.0))
    first = await asking
    assert loop.time() == pytest.approx(0.1)
    second = await utterance.transcript()
    assert (first.text, first.revision, first.end_sample) == ("good morning", 1, 16_000)
    assert (second.text, second.revision, second.end_sample) == ("good morning", 2, 32_000)


@virtual_time
async def test_asr_hears_nothing_in_nothing() -> None:
    assert (await FakeASR().open().transcript()).text == ""


@virtual_time
async def test_asr_counts_open_utterances_and_refuses_a_closed_one() -> None:
    asr = FakeASR()
    one, two = asr.open(), asr.open()
    assert asr.open_utterances == 2
    one.close()
    one.close()
    assert asr.open_utterances == 1
    one.push(tone())
    with pytest.raises(EngineError, match="closed"):
        await one.transcript()
    two.close()
    assert asr.open_utterances == 0


def test_the_first_clause_ends_at_the_thirteenth_token() -> None:
    tokens = words(run(timed(FakeLLM().stream(ASKED))))
    assert "".join(tokens) == DEFAULT_REPLY
    assert tokens[12].endswith(",")
    assert all(token.strip().isalpha() for token in tokens[:12])
    assert not tokens[0].startswith(" ")
    assert all(token.startswith(" ") for token in tokens[1:])


@virtual_time
async def test_llm_tokens_keep_an_absolute_schedule_for_a_slow_reader() -> None:
    loop = asyncio.get_running_loop()
    times = []
    async for _ in FakeLLM(first_ms=150, tokens_per_s=50).stream(ASKED):
        times.append(loop.time())
        await asyncio.sleep(0.019)  # slow, but within the 20 ms of a token
    assert times == [pytest.approx(0.15 + i / 50) for i in range(len(DEFAULT_REPLY.split()))]


@virtual_time
async def test_llm_honours_max_tokens_and_an_own_reply() -> None:
    llm = FakeLLM(reply="one two three")
    assert words(await timed(llm.stream(ASKED, max_tokens=2))) == ["one", " two"]
    assert words(await timed(llm.stream(ASKED))) == ["one", " two", " three"]
    await llm.prefill(ASKED)


@virtual_time
async def test_tts_keeps_its_schedule_and_its_length() -> None:
    items = await timed(FakeTTS(first_ms=100, rtf=0.2).stream("x" * 10, voice=""))
    assert [at for at, _ in items] == [pytest.approx(0.1 + i * 0.02) for i in range(6)]
    assert sum(len(chunk.pcm) for _, chunk in items) == 2 * 24_000 * 600 // 1000
    fast = await timed(FakeTTS().stream("x" * 10, voice="", speed=2.0))
    assert sum(len(chunk.pcm) for _, chunk in fast) == 2 * 24_000 * 300 // 1000


@given(
    text=st.text(max_size=60),
    speed=st.floats(0.25, 4.0),
    rate_hz=st.sampled_from([8_000, 16_000, 22_050, 24_000]),
)
def test_tts_makes_whole_samples_as_long_as_the_text(text: str, speed: float, rate_hz: int) -> None:
    items = run(timed(FakeTTS(rate_hz=rate_hz).stream(text, voice="?", speed=speed)))
    samples = sum(len(chunk.pcm) for _, chunk in items) / 2
    assert abs(samples - len(text.strip()) * 0.06 / speed * rate_hz) <= 1
    assert all(chunk.pcm and chunk.rate_hz == rate_hz for _, chunk in items)


@virtual_time
async def test_each_voice_has_its_pitch_without_seams_between_chunks() -> None:
    tts = FakeTTS()
    peaks = set()
    for voice in tts.voices:
        chunks = [chunk async for chunk in tts.stream("x" * 50, voice=voice.id)]
        pcm = np.frombuffer(b"".join(chunk.pcm for chunk in chunks), "<i2")
        power = np.abs(np.fft.rfft(pcm)) ** 2
        assert power.max() > 0.999 * power.sum()  # one pure line: no click anywhere
        peaks.add(int(power.argmax()) * 24_000 // pcm.size)
    assert len(peaks) == len(tts.voices) >= 2


@virtual_time
async def test_zero_delays_leave_the_loop_to_others() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        for _ in range(1000):
            turns += 1
            await asyncio.sleep(0)

    busy = asyncio.create_task(other())
    await timed(FakeLLM(first_ms=0, tokens_per_s=math.inf).stream(ASKED))
    assert turns >= len(DEFAULT_REPLY.split())
    before = turns
    await timed(FakeTTS(first_ms=0, rtf=0).stream("x" * 50, voice=""))
    assert turns >= before + 30
    await busy


@virtual_time
async def test_streams_are_counted_until_they_end_or_are_closed() -> None:
    llm, tts = FakeLLM(), FakeTTS()
    tokens, chunks = llm.stream(ASKED), tts.stream("some text", voice="")
    await anext(tokens)
    await anext(chunks)
    assert (llm.live_streams, tts.live_streams) == (1, 1)
    await tokens.aclose()
    async for _ in chunks:
        pass
    assert (llm.live_streams, tts.live_streams) == (0, 0)


@pytest.mark.parametrize(
    ("fault", "error"),
    [(Fault("raise", after=2), EngineError), (Fault("crash", after=2), RuntimeError)],
)
@virtual_time
async def test_a_failing_fault_strikes_after_its_items(
    fault: Fault, error: type[Exception]
) -> None:
    llm, tts = FakeLLM(fault=fault), FakeTTS(fault=fault)
    tokens: list[Token | ToolCall] = []
    chunks: list[AudioChunk] = []
    for _ in range(2):  # again and again, as `times` is None
        with pytest.raises(error):
            await collect(llm.stream(ASKED), tokens)
        with pytest.raises(error):
            await collect(tts.stream("a longer text", voice=""), chunks)
    assert (len(tokens), len(chunks)) == (4, 4)
    assert (llm.live_streams, tts.live_streams) == (0, 0)
    detector, utterance = FakeVAD(fault=fault).open(), FakeASR(fault=fault).open()
    for _ in range(2):
        detector.probability(tone())
        await utterance.transcript()
    with pytest.raises(error):
        detector.probability(tone())
    with pytest.raises(error):
        await utterance.transcript()


@virtual_time
async def test_a_fault_strikes_only_so_many_times() -> None:
    llm = FakeLLM(reply="one two", fault=Fault("raise", after=1, times=1))
    with pytest.raises(EngineError):
        await timed(llm.stream(ASKED))
    assert words(await timed(llm.stream(ASKED))) == ["one", " two"]


@virtual_time
async def test_a_hang_lasts_until_cancelled() -> None:
    fault = Fault("hang", after=1)
    llm, tts, asr = FakeLLM(fault=fault), FakeTTS(fault=fault), FakeASR(fault=fault)
    utterance = asr.open()
    await utterance.transcript()
    for endless in (
        timed(llm.stream(ASKED)),
        timed(tts.stream("some text", voice="")),
        utterance.transcript(),
    ):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(endless, timeout=900)
    assert (llm.live_streams, tts.live_streams) == (0, 0)


def test_a_vad_may_not_hang_the_loop() -> None:
    with pytest.raises(ValueError, match="cannot hang"):
        FakeVAD(fault=Fault("hang"))


@virtual_time
async def test_streams_that_end_early() -> None:
    fault = Fault("end", after=1)
    assert words(await timed(FakeLLM(fault=fault).stream(ASKED))) == ["This"]
    assert len(await timed(FakeTTS(fault=fault).stream("a longer text", voice=""))) == 1
    utterance, detector = FakeASR(fault=fault).open(), FakeVAD(fault=fault).open()
    utterance.push(tone())
    assert [(await utterance.transcript()).text for _ in range(2)] == ["what time is it", ""]
    assert [detector.probability(tone()) for _ in range(2)] == [1.0, 0.0]


@virtual_time
async def test_garbage_replaces_one_item_and_the_stream_goes_on() -> None:
    fault = Fault("garbage", after=1, times=1)
    tokens = words(await timed(FakeLLM(reply="one two three", fault=fault).stream(ASKED)))
    assert (tokens[0], tokens[2]) == ("one", " three")
    assert "\x00" in tokens[1]
    chunks = await timed(FakeTTS(fault=fault).stream("x" * 10, voice=""))
    assert [len(chunk.pcm) % 2 for _, chunk in chunks] == [0, 1, 0, 0, 0, 0]
    utterance, detector = FakeASR(fault=fault).open(), FakeVAD(fault=fault).open()
    utterance.push(tone())
    assert [len((await utterance.transcript()).text) for _ in range(3)] == [15, 10_000, 15]
    assert [math.isnan(detector.probability(tone())) for _ in range(3)] == [False, True, False]
