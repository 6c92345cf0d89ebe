"""Audio as Whisper's engine keeps it, and what it wants to know of it: silence, voice, pauses.

Pure, on samples at 16 kHz. Loudness is the RMS of pieces of 20 ms.
"""

from __future__ import annotations

import numpy as np

from ivas.engines import SAMPLE_RATE_HZ, Samples

PIECE_SAMPLES = SAMPLE_RATE_HZ // 50
BLOCK_SAMPLES = 30 * SAMPLE_RATE_HZ
"""1.9 MB of address space; memory only as far as it is filled."""
SILENT_PEAK = 10 ** (-60 / 20)
"""-60 dBFS: below it there is no microphone or it is off."""
VOICE_RANGE = 10 ** (-25 / 20)
"""What is more than 25 dB softer than the loudest piece is taken for background."""


class Recording:
    """The audio of an utterance, in blocks: adding never moves what is there."""

    def __init__(self) -> None:
        self._blocks: dict[int, Samples] = {}
        self.begin = 0
        """The first sample that is still kept."""
        self.end = 0
        """How many samples were pushed."""

    def push(self, samples: Samples) -> None:
        at = 0
        while at < samples.size:
            number, inside = divmod(self.end, BLOCK_SAMPLES)
            if number not in self._blocks:
                self._blocks[number] = np.empty(BLOCK_SAMPLES, np.float32)
            block = self._blocks[number]
            count = min(samples.size - at, BLOCK_SAMPLES - inside)
            block[inside : inside + count] = samples[at : at + count]
            at += count
            self.end += count

    def read(self, begin: int, end: int) -> Samples:
        """The samples from `begin` to `end`; they never change. Neither may be forgotten."""
        parts = [np.zeros(0, np.float32)]
        while begin < end:
            number, inside = divmod(begin, BLOCK_SAMPLES)
            part = self._blocks[number][inside : inside + end - begin]
            parts.append(part)
            begin += part.size
        return parts[-1] if len(parts) <= 2 else np.concatenate(parts)

    def forget(self, before: int) -> None:
        """Give back the memory of what lies before this sample."""
        self.begin = before
        for number in [n for n in self._blocks if (n + 1) * BLOCK_SAMPLES <= before]:
            del self._blocks[number]


def is_silent(samples: Samples) -> bool:
    """Whether there is nothing in it that could be speech; true of no samples at all."""
    return samples.size == 0 or float(np.abs(samples).max()) < SILENT_PEAK


def voiced_s(samples: Samples) -> float:
    """Seconds that are about as loud as its loudest: speech without its pauses.

    Steady noise counts as well, so this is the most speech there can be.
    """
    loudness = _loudness(samples)
    if loudness.size == 0:
        return 0.0
    loud = np.count_nonzero(loudness >= max(float(loudness.max()) * VOICE_RANGE, SILENT_PEAK))
    return int(loud) * PIECE_SAMPLES / SAMPLE_RATE_HZ


def quietest_cut(samples: Samples, begin: int) -> int:
    """Where to cut it at or after the sample `begin`: the middle of the quietest 100 ms."""
    loudness = _loudness(samples[begin:])
    if loudness.size < 5:
        return samples.size
    quietest = int(np.convolve(loudness, np.ones(5), mode="valid").argmin())
    return begin + quietest * PIECE_SAMPLES + 5 * PIECE_SAMPLES // 2


def _loudness(samples: Samples) -> Samples:
    pieces = samples[: samples.size - samples.size % PIECE_SAMPLES].reshape(-1, PIECE_SAMPLES)
    power = np.einsum("ij,ij->i", pieces, pieces) / np.float32(PIECE_SAMPLES)
    loudness: Samples = np.sqrt(power)
    return loudness
