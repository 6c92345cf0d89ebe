"""What is WebRTC's own; what every VAD promises is in test_contract_vad.py."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ivas.conversation.endpointing import Endpointer, Finished, Onset
from ivas.conversation.events import TurnSettings
from ivas.engines.vad import webrtc
from ivas.errors import EngineUnavailable

SIZE = webrtc.FRAME_SAMPLES


@pytest.fixture
async def vad():
    vad = webrtc.WebrtcVAD()
    await vad.start()
    return vad


def hum(samples: int, seed: int = 0, loudness: float = 1e-3) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, loudness, samples).astype(np.float32)


def in_a_room(speech) -> np.ndarray:
    """With 1.2 s of its own background before and after."""
    around = np.zeros(SIZE * 40, np.float32)
    audio = np.concatenate([around, speech, around])
    return audio + hum(len(audio))


def heard(detector, audio) -> list[float]:
    return [
        detector.probability(audio[at : at + SIZE]) for at in range(0, len(audio) - SIZE + 1, SIZE)
    ]


async def test_hears_where_the_speech_is(vad, clip):
    audio = in_a_room(clip("can_you_hear_me_slt"))
    voiced = np.array(heard(vad.open(), audio)) > 0.5
    loud = np.flatnonzero(np.abs(audio) > 0.02) // SIZE
    where = np.flatnonzero(voiced)
    assert 0 <= where[0] - loud[0] <= 2
    assert 0 <= where[-1] - loud[-1] <= 8
    assert voiced[where[0] : where[-1] + 1].mean() > 0.9


@pytest.mark.parametrize("loudness", [1e-4, 1e-3, 1e-2])
async def test_background_is_not_speech_even_at_first(vad, loudness):
    assert max(heard(vad.open(), hum(SIZE * 100, 1, loudness))) < 0.5


async def test_a_steady_tone_is_not_speech(vad):
    tone = 0.1 * np.sin(np.arange(SIZE * 60) * 2 * np.pi * 440 / 16_000).astype(np.float32)
    assert max(heard(vad.open(), tone)[4:]) < 0.5


async def test_its_frames_make_utterances(vad, clip):
    """The endpointing counts samples: 30 ms a frame serve as well as 32."""
    audio = in_a_room(clip("what_time_is_it_slt"))
    endpointer = Endpointer(TurnSettings())
    steps = [
        endpointer.step(probability, SIZE * (number + 1))
        for number, probability in enumerate(heard(vad.open(), audio))
    ]
    onset, finished = [step for step in steps if step is not None]
    assert isinstance(onset, Onset)
    assert isinstance(finished, Finished)
    loud = np.flatnonzero(np.abs(audio) > 0.02)
    assert onset.start_sample <= loud[0] < loud[-1] <= finished.end_sample


@pytest.mark.parametrize("samples", [0, 1, 479, 481, 512])
async def test_another_length_is_refused(vad, samples):
    with pytest.raises(ValueError, match="480 samples"):
        vad.open().probability(np.zeros(samples, np.float32))


async def test_too_loud_is_clipped(vad):
    loud = 4 * hum(SIZE * 20, loudness=1)
    assert set(heard(vad.open(), loud)) <= {0, 1 / 3, 2 / 3, 1}


@pytest.mark.parametrize("aggressiveness", [-1, 4])
def test_knows_four_kinds_of_aggressiveness(aggressiveness):
    with pytest.raises(ValueError, match="0, 1, 2 or 3"):
        webrtc.WebrtcVAD(aggressiveness=aggressiveness)


async def test_opens_only_when_started():
    with pytest.raises(EngineUnavailable, match="not loaded"):
        webrtc.WebrtcVAD().open()


async def test_says_which_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "webrtcvad", None)
    vad = webrtc.WebrtcVAD()
    with pytest.raises(EngineUnavailable, match="pip install --force-reinstall webrtcvad-wheels"):
        await vad.start()
    assert "webrtcvad-wheels" in vad.status().reason
    monkeypatch.undo()
    await vad.start()
    assert vad.status().ready


def test_importing_it_loads_no_webrtcvad():
    program = "import sys, ivas.engines.vad.webrtc; print('webrtcvad' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert answer.stdout.split() == [b"False"]
