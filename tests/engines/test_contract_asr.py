"""What every ASR engine promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import pytest
from openai_asr_server import TranscriptionServer
from tiny_whisper import HEARD, tiny_whisper

from ivas.engines import ASR, Samples, Utterance
from ivas.engines.asr.openai import OpenaiASR
from ivas.engines.asr.pocketsphinx import PocketsphinxASR
from ivas.engines.asr.whisper import WhisperASR
from ivas.engines.fake import FakeASR
from ivas.errors import EngineError


@dataclass(frozen=True)
class Case:
    make: Callable[[], AbstractAsyncContextManager[ASR]]
    clips: dict[str, str]
    """Clips and what the engine hears in them."""


@asynccontextmanager
async def openai():
    async with TranscriptionServer() as server:
        yield OpenaiASR(base_url=server.base_url)


ENGINES = {
    "pocketsphinx": Case(
        lambda: nullcontext(PocketsphinxASR()),
        {
            "what_time_is_it_slt": "what time is it",
            "what_time_is_it_rms": "what time is it",
            "what_is_seven_times_six_rms": "what is seven times six",
            "can_you_hear_me_slt": "can you hear me",
            "can_you_hear_me_rms": "can you hear me",
            "what_can_you_do_slt": "what can you do",
            "what_can_you_do_rms": "what can you do",
        },
    ),
    "whisper": Case(lambda: nullcontext(WhisperASR(model_dir=tiny_whisper())), HEARD),
    "openai": Case(openai, HEARD),
    "fake": Case(
        lambda: nullcontext(FakeASR(ms=20)),
        {
            "what_time_is_it_slt": "what time is it",
            "what_time_is_it_rms": "what time is it",
        },
    ),
}


@pytest.fixture(params=ENGINES)
async def asr(request, no_leaks):
    async with ENGINES[request.param].make() as engine:
        await engine.start()
        yield engine
        await engine.aclose()


@pytest.fixture
def heard(asr) -> dict[str, str]:
    return ENGINES[asr.name].clips


def push(utterance: Utterance, audio: Samples) -> None:
    """In frames of 32 ms, as a session does."""
    for start in range(0, len(audio), 512):
        utterance.push(audio[start : start + 512])


@pytest.mark.parametrize("name", ENGINES)
async def test_says_whether_it_is_ready(name, no_leaks):
    async with ENGINES[name].make() as engine:
        assert engine.name == name
        assert not engine.status().ready
        assert engine.status().reason
        await engine.start()
        await engine.start()
        assert engine.status().ready
        await engine.aclose()
        await engine.aclose()
        assert not engine.status().ready


async def test_hears_what_was_said(asr, heard, clip):
    for name, text in heard.items():
        audio = clip(name)
        utterance = asr.open()
        push(utterance, audio)
        transcript = await utterance.transcript()
        utterance.close()
        assert (transcript.text, transcript.revision) == (text, 1), name
        assert transcript.end_sample == len(audio)


async def test_partials_and_the_final_are_one_verb(asr, clip):
    audio = clip("what_time_is_it_slt")
    utterance = asr.open()
    transcripts = []
    for third in np.array_split(audio, 3):
        push(utterance, third)
        transcripts.append(await utterance.transcript())
    again = await utterance.transcript()
    utterance.close()
    assert [t.revision for t in (*transcripts, again)] == [1, 2, 3, 4]
    assert [t.end_sample for t in transcripts] == [
        sum(len(part) for part in np.array_split(audio, 3)[: count + 1]) for count in range(3)
    ]
    assert transcripts[-1].text == again.text == "what time is it"


async def test_a_partial_covers_no_more_than_was_pushed(asr, clip):
    audio = clip("what_time_is_it_slt")
    utterance = asr.open()
    push(utterance, audio)
    partial = await utterance.transcript(urgent=False)
    final = await utterance.transcript()
    utterance.close()
    assert partial.text in ("", "what time is it")
    assert partial.end_sample in (0, len(audio))
    assert (final.text, final.end_sample) == ("what time is it", len(audio))
    assert partial.revision < final.revision


async def test_survives_nothing_said(asr):
    utterance = asr.open()
    assert (await utterance.transcript()).text == ""
    utterance.push(np.zeros(0, np.float32))
    transcript = await utterance.transcript()
    utterance.close()
    assert (transcript.text, transcript.end_sample) == ("", 0)


async def test_a_cancelled_transcript_can_be_asked_again(asr, clip):
    utterance = asr.open()
    push(utterance, clip("what_time_is_it_slt"))
    asking = asyncio.create_task(utterance.transcript())
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (await utterance.transcript()).text == "what time is it"
    utterance.close()


async def test_a_closed_utterance_is_over(asr, clip):
    utterance = asr.open()
    push(utterance, clip("what_time_is_it_slt"))
    utterance.close()
    utterance.close()
    push(utterance, clip("what_time_is_it_slt"))
    with pytest.raises(EngineError, match="closed"):
        await utterance.transcript()
    other = asr.open()
    push(other, clip("what_time_is_it_slt"))
    assert (await other.transcript()).text == "what time is it"
    other.close()


async def test_works_again_after_it_was_closed(asr, clip):
    await asr.aclose()
    await asr.start()
    utterance = asr.open()
    push(utterance, clip("what_time_is_it_slt"))
    assert (await utterance.transcript()).text == "what time is it"
    utterance.close()


async def test_utterances_at_once_do_not_mix(asr, heard, clip):
    async def hear(name: str) -> tuple[str, int]:
        utterance = asr.open()
        audio = clip(name)
        for start in range(0, len(audio), 1600):
            utterance.push(audio[start : start + 1600])
            await asyncio.sleep(0)
        transcript = await utterance.transcript()
        utterance.close()
        return transcript.text, transcript.end_sample

    names = list(heard)[:4]
    assert await asyncio.gather(*(hear(name) for name in names)) == [
        (heard[name], len(clip(name))) for name in names
    ]


async def test_never_stalls_the_loop(asr, clip, never_stalls):
    audio = clip("what_time_is_it_slt")

    async def work() -> None:
        utterance = asr.open()
        for start in range(0, len(audio), 512):
            utterance.push(audio[start : start + 512])
            await asyncio.sleep(0)
        await utterance.transcript()
        utterance.close()

    await never_stalls(work)
