"""PCM16 little-endian mono, the audio of the wire, to and from float samples."""

from __future__ import annotations

import numpy as np

from ivas.engines import Samples

FULL_SCALE = 32768.0
SILENCE_DBFS = -120.0
"""What `level_dbfs` calls digital silence."""


class Pcm16Decoder:
    """One stream of PCM16 bytes; a byte that is half a sample waits for the other half."""

    def __init__(self) -> None:
        self._half = b""

    def feed(self, pcm: bytes) -> Samples:
        """The samples complete so far, float32 in [-1, 1)."""
        data = self._half + pcm if self._half else pcm
        whole = len(data) & ~1
        self._half = data[whole:]
        return to_samples(data[:whole])


def to_samples(pcm: bytes) -> Samples:
    """Even number of bytes -> float32 in [-1, 1)."""
    return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(FULL_SCALE)


def to_pcm16(samples: Samples) -> bytes:
    """Float samples -> bytes, clipped at full scale."""
    scaled = np.rint(samples * np.float32(FULL_SCALE))
    pcm: bytes = np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype("<i2").tobytes()
    return pcm


def scale(pcm: bytes, gain: float) -> bytes:
    """The same sound, `gain` times as loud, clipped at full scale."""
    return to_pcm16(to_samples(pcm) * np.float32(gain))


def level_dbfs(samples: Samples) -> float:
    """RMS level; 0 dBFS is a full-scale square wave."""
    if not len(samples):
        return SILENCE_DBFS
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    return max(SILENCE_DBFS, 20 * float(np.log10(max(rms, 1e-9))))
