"""Samples in any cut -> whole frames, and the recent past to look back into."""

from __future__ import annotations

import numpy as np

from ivas.engines import SAMPLE_RATE_HZ, Samples


class Framer:
    """One microphone. Keeps at least the last `keep_ms` for pre-roll; memory is bounded."""

    def __init__(self, frame_samples: int, *, keep_ms: int) -> None:
        self._frame = frame_samples
        self._keep = max(keep_ms * SAMPLE_RATE_HZ // 1000, frame_samples)
        self._buffer: Samples = np.zeros(2 * self._keep + frame_samples, np.float32)
        self._filled = 0
        self._base = 0  # absolute position of the buffer's first sample
        self._framed = 0  # absolute end of the newest frame
        self.received = 0
        """Samples taken in so far."""

    def push(self, samples: Samples) -> list[tuple[Samples, int]]:
        """Every frame that is complete now, with the absolute position of its end."""
        frames = []
        for at in range(0, len(samples), self._keep):
            self._store(samples[at : at + self._keep])
            while self.received - self._framed >= self._frame:
                begin = self._framed - self._base
                self._framed += self._frame
                frames.append((self._buffer[begin : begin + self._frame].copy(), self._framed))
        return frames

    def since(self, start_sample: int) -> Samples:
        """Audio from an absolute position to now; what is no longer kept is left out."""
        begin = max(0, start_sample - self._base)
        return self._buffer[begin : self._filled].copy()

    def _store(self, samples: Samples) -> None:
        if self._filled + len(samples) > len(self._buffer):
            # Whatever is not framed yet is younger than a frame, so it is kept too.
            kept = self._buffer[self._filled - self._keep : self._filled].copy()
            self._base += self._filled - self._keep
            self._buffer[: self._keep] = kept
            self._filled = self._keep
        self._buffer[self._filled : self._filled + len(samples)] = samples
        self._filled += len(samples)
        self.received += len(samples)
