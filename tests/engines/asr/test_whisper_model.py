"""Whisper below the engine: windows, tokens, threads. Its faults are in test_whisper.py."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_whisper import TONE, noise, tiny_whisper, tone

from ivas import hardware
from ivas.engines.asr import whisper_model
from ivas.engines.asr.whisper_model import Encoded, load

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))
from random_whisper import Shape, random_spec, save, vocabulary


def loaded(directory: Path) -> whisper_model.WhisperModel:
    return load(directory, device="cpu", compute_type=None, threads=1)


@pytest.fixture(scope="module")
def model():
    return loaded(tiny_whisper())


@pytest.mark.parametrize(
    ("seconds", "whole", "positions"),
    [
        (0.001, False, 250),  # never below 5 s of window
        (1, False, 250),
        (4, False, 350),  # 2.5 s longer than the audio, in steps of 1 s
        (20.3, False, 1150),
        (28, False, 1500),
        (30, False, 1500),
        (1, True, 1500),
    ],
)
def test_the_window_is_cut_down_to_the_audio(model, seconds, whole, positions):
    audio = noise(seconds)
    encoded = model.encode(audio, whole=whole)
    assert encoded.output.shape[1] == positions
    assert encoded.whole is (positions == 1500)
    assert encoded.audio_s == len(audio) / 16_000


@pytest.mark.parametrize("whole", [False, True])
def test_hears_the_same_in_any_window(model, whole):
    encoded = model.encode(tone(2), whole=whole)
    language, probability = model.detect(encoded)
    decoding = model.decode(encoded, language=language, prompt=None)
    assert (language, decoding.text) == ("de", f" {TONE}")
    assert probability > 0.5
    assert -0.5 < decoding.avg_logprob < 0
    assert decoding.no_speech_prob < 0.01


def endless(directory: Path, *, mels: int = 80) -> Path:
    """A model that never says the end."""
    tokens = vocabulary()
    spec = random_spec(Shape(1, 1, 64, 1, mels=mels), tokens)
    spec.decoder.projection.weight[tokens.index("<|endoftext|>")] = 0
    spec.decoder.projection.bias[tokens.index("<|endoftext|>")] = -1000
    save(spec, tokens, directory)
    return directory


@pytest.mark.parametrize(
    ("seconds", "prompt", "most"),
    [(0.5, None, 52), (2, None, 112), (2, "word " * 500, 112), (10, None, 224), (30, "hi", 224)],
)
def test_a_loop_ends_where_no_speech_is_that_fast(
    tmp_path_factory, monkeypatch, seconds, prompt, most
):
    model = loaded(endless(tmp_path_factory.mktemp("endless")))
    lengths = []
    generate = model._model.generate

    class Counted:
        def generate(self, *what, **how):
            found = generate(*what, **how)
            lengths.append(len(found[0].sequences_ids[0]))
            return found

    monkeypatch.setattr(model, "_model", Counted())
    encoded = Encoded(model._library.encode(np.zeros((80, 500), np.float32)), seconds, False)
    model.decode(encoded, language="en", prompt=prompt)
    assert lengths == [most]


def test_the_number_of_mel_bands_is_the_models(tmp_path):
    """large-v3 has 128; without its preprocessor_config.json faster-whisper would take 80."""
    model = loaded(endless(tmp_path, mels=128))
    assert model.encode(tone(1), whole=False).output.shape[1] == 250


def test_knows_the_languages_of_its_vocabulary(model):
    assert len(model.languages) == 99
    assert {"en", "hi", "bn", "jw"} < model.languages
    assert "yue" not in model.languages
    assert loaded(tiny_whisper(multilingual=False)).languages == {"en"}


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (6, 5), (64, 8)])
def test_a_core_is_left_to_the_others(monkeypatch, cores, threads):
    """Of those a container's quota leaves: `test_hardware` tests what they are."""
    monkeypatch.setattr(hardware, "physical_cores", lambda: cores)
    assert whisper_model._spare_cores() == threads
