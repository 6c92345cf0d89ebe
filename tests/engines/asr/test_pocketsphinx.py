"""What is pocketsphinx's own; what every ASR promises is in test_contract_asr.py."""

from __future__ import annotations

import asyncio
import os
import signal

import numpy as np
import psutil
import pytest
from worker_processes import templates

from ivas.engines.asr import pocketsphinx
from ivas.engines.asr.pocketsphinx import PocketsphinxASR, plain_words
from ivas.errors import EngineError, EngineUnavailable

SAID = "what_time_is_it_slt"
TEXT = "what time is it"


@pytest.fixture
async def asr(no_leaks):
    asr = PocketsphinxASR(most_utterances=2)
    await asr.start()
    yield asr
    await asr.aclose()


def template() -> psutil.Process:
    (process,) = templates()
    return process


async def only_child(eventually) -> int:
    """The pid of the one worker that is leased."""
    await eventually(lambda: len(template().children()) == 1)
    return template().children()[0].pid


async def hears(asr, audio) -> str:
    utterance = asr.open()
    utterance.push(audio)
    transcript = await utterance.transcript()
    utterance.close()
    return transcript.text


@pytest.mark.parametrize(
    ("hypothesis", "text"),
    [
        ("", ""),
        ("<s> i read(2) it </s>", "i read it"),
        ("<sil> [NOISE] hello ++UM++ there [SPEECH]", "hello there"),
        ("it's o'clock", "it's o'clock"),
    ],
)
def test_fillers_and_variants_are_dropped(hypothesis, text):
    assert plain_words(hypothesis) == text


async def test_a_transcript_waits_for_no_more_than_the_tail(asr, clip):
    """Pieces are sent as they come: all but the last are with the worker before the question."""
    utterance = asr.open()
    utterance.push(clip(SAID)[: pocketsphinx.PIECE_SAMPLES * 3])
    utterance.push(np.zeros(100, np.float32))
    assert utterance._piece_samples == 100
    assert (await utterance.transcript()).end_sample == pocketsphinx.PIECE_SAMPLES * 3 + 100
    assert utterance._piece_samples == 0
    utterance.close()


async def test_too_loud_is_clipped_not_wrapped(asr, clip):
    """Wrapped samples would be noise; clipped ones can still be understood."""
    loud = clip("can_you_hear_me_rms") * 4
    assert np.count_nonzero(np.abs(loud) > 1) > 400
    assert await hears(asr, loud) == "can you hear me"


@pytest.mark.parametrize("language", [None, "en", "en-GB", "EN_us"])
async def test_english_of_any_region_is_heard(asr, clip, language):
    utterance = asr.open(language=language, prompt="time")
    utterance.push(clip(SAID))
    transcript = await utterance.transcript()
    utterance.close()
    assert (transcript.text, transcript.language) == (TEXT, "en")


@pytest.mark.parametrize("language", ["hi", "de-DE"])
async def test_another_language_is_refused_with_the_fix(asr, clip, language):
    utterance = asr.open(language=language)
    utterance.push(clip(SAID))
    with pytest.raises(EngineError, match="only knows English; speak English"):
        await utterance.transcript()
    utterance.close()


async def test_too_many_utterances_are_refused_plainly(asr, clip):
    utterances = [asr.open() for _ in range(3)]
    utterances[2].push(clip(SAID))
    with pytest.raises(EngineError, match="2 utterances already") as refused:
        await utterances[2].transcript()
    assert refused.value.code == "engine_busy"
    for utterance in utterances:
        utterance.close()
    assert await hears(asr, clip(SAID)) == TEXT


async def test_not_started_is_what_the_transcript_says():
    utterance = PocketsphinxASR().open()
    with pytest.raises(EngineUnavailable, match="not started"):
        await utterance.transcript()


async def test_says_which_package_is_missing(monkeypatch):
    monkeypatch.setattr(pocketsphinx, "find_spec", lambda name: None)
    asr = PocketsphinxASR()
    assert 'pip install "ivas[embedded]"' in asr.status().reason
    with pytest.raises(EngineUnavailable, match=r"CPython 3\.11 and 3\.13"):
        await asr.start()


async def test_a_killed_worker_costs_one_utterance(asr, clip, eventually):
    utterance = asr.open()
    utterance.push(clip(SAID))
    os.kill(await only_child(eventually), signal.SIGKILL)
    with pytest.raises(EngineError, match="worker process died"):
        await utterance.transcript()
    utterance.push(clip(SAID))
    utterance.close()
    assert await hears(asr, clip(SAID)) == TEXT


async def test_a_killed_template_comes_back_with_the_next_utterance(asr, clip):
    utterance = asr.open()
    utterance.push(clip(SAID))
    template().kill()
    with pytest.raises(EngineError, match="worker process died"):
        await utterance.transcript()
    utterance.close()
    assert asr.status().ready
    assert await hears(asr, clip(SAID)) == TEXT


async def test_a_hung_worker_is_killed_when_the_caller_gives_up(asr, clip, eventually):
    utterance = asr.open()
    utterance.push(clip(SAID))
    os.kill(await only_child(eventually), signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await utterance.transcript()
    utterance.close()
    await eventually(lambda: not template().children())
    assert await hears(asr, clip(SAID)) == TEXT
