"""PCM16 <-> samples: nothing is lost, whatever the cut, and nothing wraps around."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.audio.pcm import (
    SILENCE_DBFS,
    Pcm16Decoder,
    level_dbfs,
    scale,
    to_pcm16,
    to_samples,
)

whole_pcm = st.binary(max_size=200).map(lambda pcm: pcm[: len(pcm) & ~1])


@given(st.lists(st.binary(max_size=9), max_size=30))
def test_any_cut_of_the_bytes_gives_the_same_samples(pieces: list[bytes]) -> None:
    decoder = Pcm16Decoder()
    samples = np.concatenate([np.zeros(0, np.float32), *map(decoder.feed, pieces)])
    pcm = b"".join(pieces)
    assert samples.tolist() == to_samples(pcm[: len(pcm) & ~1]).tolist()


@given(whole_pcm)
def test_there_and_back_changes_nothing(pcm: bytes) -> None:
    assert to_pcm16(to_samples(pcm)) == pcm


def test_bytes_are_little_endian_and_the_range_is_one() -> None:
    samples = to_samples(b"\x01\x00\x00\x80\xff\x7f")
    assert samples.dtype == np.float32
    assert samples.tolist() == [1 / 32768, -1.0, 32767 / 32768]


def test_what_is_too_loud_is_clipped_not_wrapped() -> None:
    loud = np.array([1.0, 5.0, -1.0, -5.0], np.float32)
    assert np.frombuffer(to_pcm16(loud), "<i2").tolist() == [32767, 32767, -32768, -32768]
    assert np.frombuffer(scale(to_pcm16(loud), 2.0), "<i2").tolist() == [
        32767,
        32767,
        -32768,
        -32768,
    ]


@given(whole_pcm)
def test_scaling_by_nothing_is_silence_and_by_one_is_nothing(pcm: bytes) -> None:
    assert scale(pcm, 0.0) == bytes(len(pcm))
    assert scale(pcm, 1.0) == pcm


def test_levels() -> None:
    square = np.tile(np.array([1, -1], np.float32), 800)
    sine = np.sin(2 * np.pi * np.arange(1600) / 16).astype(np.float32)
    assert level_dbfs(square) == pytest.approx(0)
    assert level_dbfs(sine) == pytest.approx(-3.01, abs=0.01)
    assert level_dbfs(sine / 10) == pytest.approx(-23.01, abs=0.01)
    assert level_dbfs(np.zeros(512, np.float32)) == SILENCE_DBFS
    assert level_dbfs(np.zeros(0, np.float32)) == SILENCE_DBFS
