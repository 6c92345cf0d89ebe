"""The microphone's converter never wanders; the speaker's loses nothing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.audio.pcm import to_pcm16, to_samples
from ivas.audio.resample import DELAY_MS, Downsampler24to16, Resampler, resample, resample_pcm
from ivas.engines import Samples


def tone(hz: float, rate_hz: int, samples: int) -> Samples:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(samples) / rate_hz)).astype(np.float32)


def gain_db(hz: float) -> float:
    """What is left of a tone; beyond 8 kHz that is its alias."""
    out = Downsampler24to16().push(tone(hz, 24_000, 24_000))[200:]
    return float(10 * np.log10(8 * np.mean(np.square(out, dtype=np.float64)) + 1e-12))


@pytest.mark.parametrize("hz", [50, 300, 1_000, 3_000, 5_000, 7_000])
def test_speech_passes(hz: float) -> None:
    assert gain_db(hz) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("hz", [8_600, 9_000, 10_000, 11_500])
def test_what_would_alias_does_not(hz: float) -> None:
    assert gain_db(hz) < -50


def test_the_delay_is_as_stated() -> None:
    at_ms = np.arange(2_400) / 24
    bump = np.exp(-np.square(at_ms - 50)).astype(np.float32)
    out = Downsampler24to16().push(bump)
    centre_ms = float(np.dot(np.arange(len(out)) / 16, out) / out.sum())
    assert centre_ms - 50 == pytest.approx(DELAY_MS, abs=0.005)
    assert 0.5 <= DELAY_MS <= 1.5


@given(st.lists(st.integers(0, 700), max_size=20))
def test_any_cut_gives_the_same_and_at_once(sizes: list[int]) -> None:
    sound = np.random.default_rng(7).uniform(-1, 1, sum(sizes)).astype(np.float32)
    whole = Downsampler24to16().push(sound)
    downsampler = Downsampler24to16()
    ends = np.cumsum([0, *sizes])
    out = [np.zeros(0, np.float32)]
    for start, end in pairwise(ends):
        out.append(downsampler.push(sound[start:end]))
        # Never more than one sample from the input's share, and never less than it.
        assert 0 <= sum(map(len, out)) - end * 2 // 3 <= 1
    np.testing.assert_allclose(np.concatenate(out), whole, atol=1e-6)


def test_a_frame_at_24_khz_is_a_frame_at_16_khz() -> None:
    downsampler = Downsampler24to16()
    assert {len(downsampler.push(np.zeros(768, np.float32))) for _ in range(9)} == {512}
    assert {len(downsampler.push(np.zeros(480, np.float32))) for _ in range(9)} == {320}


@pytest.mark.parametrize(
    ("in_hz", "out_hz"), [(22_050, 24_000), (16_000, 24_000), (48_000, 24_000)]
)
def test_the_speaking_path_loses_and_shifts_nothing(in_hz: int, out_hz: int) -> None:
    sound = tone(440, in_hz, in_hz)
    pcm = to_pcm16(sound)
    resampler = Resampler(in_hz, out_hz)
    out = b"".join(resampler.push(pcm[at : at + 700]) for at in range(0, len(pcm), 700))
    out += resampler.finish()
    assert len(out) == out_hz * 2
    # Its edges ring, since a tone that is switched on and off has all frequencies.
    middle = slice(out_hz // 20, -out_hz // 20)
    expected = tone(440, out_hz, out_hz)
    np.testing.assert_allclose(to_samples(out)[middle], expected[middle], atol=2e-3)


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_equal_rates_pass_through(pieces: list[bytes]) -> None:
    resampler = Resampler(24_000, 24_000)
    assert [resampler.push(piece) for piece in pieces] == pieces
    assert resampler.finish() == b""


def test_nothing_in_nothing_out() -> None:
    assert Resampler(22_050, 24_000).finish() == b""
    assert len(Downsampler24to16().push(np.zeros(0, np.float32))) == 0


def test_a_whole_recording() -> None:
    out = resample(tone(440, 22_050, 22_050), 22_050, 16_000)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out[800:-800], tone(440, 16_000, 16_000)[800:-800], atol=1e-3)
    assert resample_pcm(tone(440, 22_050, 22_050), 22_050, 16_000) == to_pcm16(out)
