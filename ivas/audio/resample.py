"""Streaming sample rate conversion.

Two converters, because the two directions need different things. The microphone
path needs every sample as soon as it exists: soxr emits in blocks, so that its lag
wanders between 2.5 and 37 ms for 20 ms chunks (measured with soxr 1.1.0, qualities
LQ to HQ), and a turn would end that much later. So that path has a small filter of
our own with a constant delay. The speaking path is ahead of time anyway: soxr.
"""

from __future__ import annotations

import numpy as np
import soxr

from ivas.engines import Samples

from .pcm import to_pcm16

TAPS = 96
"""Length of the filter at 48 kHz, the rate common to 24 and 16 kHz."""
CUTOFF_HZ = 7_750
DELAY_MS = (TAPS - 1) / 2 / 48
"""How much later the sound comes out: 1 ms."""


def _polyphase() -> Samples:
    """The filter as a matrix: a window of input gives one even and one odd output.

    A sinc windowed by Kaiser's beta for 55 dB (Kaiser 1974: 0.1102 (A - 8.7)): flat
    to 7 kHz, more than 50 dB down from 8.6 kHz, where aliases would begin to matter.
    """
    n = np.arange(TAPS) - (TAPS - 1) / 2
    ideal = 2 * CUTOFF_HZ / 48_000 * np.sinc(2 * CUTOFF_HZ / 48_000 * n)
    filter_ = ideal * np.kaiser(TAPS, 0.1102 * (55 - 8.7))
    filter_ *= 2 / filter_.sum()  # every second sample at 48 kHz is a zero put in
    half = TAPS // 2
    matrix = np.zeros((half + 1, 2), np.float32)
    matrix[:half, 0] = filter_[0::2][::-1]
    matrix[1:, 1] = filter_[1::2][::-1]
    return matrix


_MATRIX = _polyphase()


class Downsampler24to16:
    """24 kHz -> 16 kHz without hidden look-ahead, for one stream.

    After n samples in, 2 * ((n + 1) // 3) have come out, however the input was cut.
    """

    def __init__(self) -> None:
        self._kept: Samples = np.zeros(TAPS // 2 - 1, np.float32)

    def push(self, samples: Samples) -> Samples:
        """Samples at 24 kHz -> what they complete at 16 kHz."""
        data = np.concatenate((self._kept, samples))
        width = len(_MATRIX)
        pairs = max(0, (len(data) - width) // 3 + 1)
        step = data.strides[0]
        windows = np.lib.stride_tricks.as_strided(
            data, (pairs, width), (3 * step, step), writeable=False
        )
        self._kept = data[3 * pairs :]
        result: Samples = (windows @ _MATRIX).ravel()
        return result


class Resampler:
    """PCM16 mono from one rate to another (soxr), for one stream."""

    def __init__(self, in_hz: int, out_hz: int) -> None:
        self._stream = (
            None
            if in_hz == out_hz
            else soxr.ResampleStream(in_hz, out_hz, 1, dtype="int16", quality="HQ")
        )

    def push(self, pcm: bytes) -> bytes:
        """Whole samples in; what is ready out (often more or less than their share)."""
        return self._run(pcm, last=False)

    def finish(self) -> bytes:
        """The rest."""
        return self._run(b"", last=True)

    def _run(self, pcm: bytes, *, last: bool) -> bytes:
        if self._stream is None:
            return pcm
        out = self._stream.resample_chunk(np.frombuffer(pcm, "<i2"), last=last)
        return bytes(out.astype("<i2", copy=False).tobytes())


def resample(samples: Samples, in_hz: int, out_hz: int) -> Samples:
    """A whole recording at once."""
    return np.asarray(soxr.resample(samples, in_hz, out_hz, quality="HQ"), np.float32)


def resample_pcm(samples: Samples, in_hz: int, out_hz: int) -> bytes:
    """A whole recording at once, to PCM16."""
    return to_pcm16(resample(samples, in_hz, out_hz))
