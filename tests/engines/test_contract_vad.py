"""What every VAD engine promises."""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest

from ivas.engines import VAD, Samples, SpeechDetector
from ivas.engines.fake import FakeVAD
from ivas.engines.vad.silero import SileroVAD
from ivas.engines.vad.webrtc import WebrtcVAD

ENGINES = {"silero": SileroVAD, "webrtc": WebrtcVAD, "fake": FakeVAD}


@pytest.fixture(params=ENGINES)
async def vad(request, no_leaks):
    engine: VAD = ENGINES[request.param]()
    await engine.start()
    yield engine
    await engine.aclose()


def probabilities(detector: SpeechDetector, audio: Samples, size: int) -> list[float]:
    frames = len(audio) // size
    return [detector.probability(audio[i * size : (i + 1) * size]) for i in range(frames)]


@pytest.mark.parametrize("name", ENGINES)
async def test_says_whether_it_is_ready(name):
    engine = ENGINES[name]()
    assert engine.name == name
    assert not engine.status().ready
    assert engine.status().reason.endswith((".", "it"))
    await engine.start()
    await engine.start()
    assert engine.status().ready
    await engine.aclose()
    await engine.aclose()
    assert not engine.status().ready


async def test_tells_speech_from_silence(vad, clip):
    size = vad.frame_samples
    speech = probabilities(vad.open(), clip("what_time_is_it_slt"), size)
    silence = probabilities(vad.open(), np.zeros(size * 30, np.float32), size)
    assert all(0 <= p <= 1 for p in speech + silence)
    assert max(speech) > 0.9
    assert max(silence) < 0.2


async def test_sessions_do_not_mix(vad, clip):
    size = vad.frame_samples
    one, two = clip("what_time_is_it_slt"), clip("can_you_hear_me_rms")
    alone = probabilities(vad.open(), one, size), probabilities(vad.open(), two, size)
    first, second = vad.open(), vad.open()
    mixed: tuple[list[float], list[float]] = ([], [])
    for i in range(max(len(one), len(two)) // size):
        for detector, audio, into in ((first, one, mixed[0]), (second, two, mixed[1])):
            frame = audio[i * size : (i + 1) * size]
            if len(frame) == size:
                into.append(detector.probability(frame))
    assert mixed == alone


async def test_a_frame_costs_well_under_a_millisecond(vad, clip):
    detector, audio = vad.open(), clip("what_time_is_it_slt")
    costs_ms = []
    for i in range(len(audio) // vad.frame_samples):
        frame = audio[i * vad.frame_samples : (i + 1) * vad.frame_samples]
        before = time.perf_counter()
        detector.probability(frame)
        costs_ms.append((time.perf_counter() - before) * 1000)
    assert statistics.median(costs_ms) < 1
