"""Audio as Whisper's engine keeps it, and what is voice in it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.engines.asr.whisper_audio import (
    BLOCK_SAMPLES,
    Recording,
    is_silent,
    quietest_cut,
    voiced_s,
)


def counting(begin: int, end: int) -> np.ndarray:
    return np.arange(begin, end, dtype=np.float32)


@given(
    st.lists(st.sampled_from([0, 1, 512, 4097, BLOCK_SAMPLES - 1, BLOCK_SAMPLES]), max_size=6),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_gives_back_what_was_pushed(sizes, first, second):
    recording = Recording()
    for size in sizes:
        recording.push(counting(recording.end, recording.end + size))
    end = sum(sizes)
    assert (recording.begin, recording.end) == (0, end)
    one, two = sorted((int(first * end), int(second * end)))
    assert np.array_equal(recording.read(one, two), counting(one, two))
    recording.forget(one)
    assert recording.begin == one
    assert np.array_equal(recording.read(one, end), counting(one, end))


def test_what_was_read_stays_as_it_was():
    recording = Recording()
    recording.push(counting(0, 100))
    read = recording.read(0, 100)
    recording.push(np.zeros(BLOCK_SAMPLES, np.float32))
    recording.forget(BLOCK_SAMPLES)
    assert np.array_equal(read, counting(0, 100))


def test_what_is_forgotten_costs_nothing():
    recording = Recording()
    recording.push(np.zeros(3 * BLOCK_SAMPLES, np.float32))
    recording.forget(2 * BLOCK_SAMPLES + 5)
    assert list(recording._blocks) == [2]


@pytest.mark.parametrize(
    ("samples", "silent"),
    [
        (np.zeros(0, np.float32), True),
        (np.zeros(16_000, np.float32), True),
        (np.full(16_000, 0.0009, np.float32), True),
        (np.full(16_000, -0.002, np.float32), False),
    ],
)
def test_silence_is_below_60_db(samples, silent):
    assert is_silent(samples) is silent


def test_voice_is_what_stands_out(clip):
    speech = clip("what_time_is_it_slt")
    hum = np.random.default_rng(0).normal(0, 0.001, 32_000).astype(np.float32)
    alone, padded = voiced_s(speech), voiced_s(np.concatenate([hum, speech, hum]))
    assert 0.5 * len(speech) / 16_000 < alone <= len(speech) / 16_000
    assert padded == pytest.approx(alone, abs=0.06)
    assert voiced_s(np.zeros(0, np.float32)) == 0
    assert voiced_s(np.zeros(16_000, np.float32)) == 0


def test_cuts_in_the_pause():
    audio = np.random.default_rng(0).normal(0, 0.1, 80_000).astype(np.float32)
    audio[48_000:51_200] *= 0.01
    assert 48_000 < quietest_cut(audio, 32_000) < 51_200


@given(st.integers(0, 4000), st.floats(0, 1))
def test_cuts_within_the_audio(size, part):
    begin = int(size * part)
    assert begin <= quietest_cut(np.ones(size, np.float32), begin) <= size
