"""What is Silero's own; what every VAD promises is in test_contract_vad.py."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ivas.engines.vad import silero
from ivas.errors import EngineUnavailable


@pytest.fixture
async def vad():
    vad = silero.SileroVAD()
    await vad.start()
    return vad


async def test_hears_where_the_speech_is(vad, clip):
    pause = np.zeros(512 * 20, np.float32)
    speech = clip("can_you_hear_me_slt")
    audio = np.concatenate([pause, speech, pause])
    detector = vad.open()
    heard = [
        detector.probability(audio[i : i + 512]) > 0.5 for i in range(0, len(audio) - 511, 512)
    ]
    loud = np.flatnonzero(np.abs(audio) > 0.02) // 512
    assert 0 <= heard.index(True) - loud[0] <= 3
    assert abs(len(heard) - 1 - heard[::-1].index(True) - loud[-1]) <= 5
    assert sum(heard) > 0.6 * len(speech) / 512


async def test_noise_is_not_speech(vad):
    noise = np.random.default_rng(1).normal(0, 0.05, 512 * 60).astype(np.float32)
    detector = vad.open()
    assert max(detector.probability(noise[i : i + 512]) for i in range(0, len(noise), 512)) < 0.5


async def test_remembers_the_frames_before(vad, clip):
    """The context and the LSTM state are carried: the same frame is judged by its past."""
    audio = clip("what_time_is_it_slt")
    frame = audio[512 * 15 : 512 * 16]
    detector = vad.open()
    for i in range(15):
        detector.probability(audio[i * 512 : (i + 1) * 512])
    assert detector.probability(frame) != vad.open().probability(frame)


@pytest.mark.parametrize("samples", [0, 1, 511, 513])
async def test_another_length_is_refused(vad, samples):
    with pytest.raises(ValueError, match="512 samples"):
        vad.open().probability(np.zeros(samples, np.float32))


async def test_opens_only_when_started():
    with pytest.raises(EngineUnavailable, match="not loaded"):
        silero.SileroVAD().open()


async def test_says_which_package_is_missing(monkeypatch):
    monkeypatch.setattr(silero, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    vad = silero.SileroVAD()
    assert "pip install onnxruntime" in vad.status().reason
    with pytest.raises(EngineUnavailable, match="pip install onnxruntime"):
        await vad.start()


def test_importing_it_loads_no_onnxruntime():
    program = "import sys, ivas.engines.vad.silero; print('onnxruntime' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert answer.stdout.split() == [b"False"]
