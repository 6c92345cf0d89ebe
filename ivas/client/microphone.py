"""A microphone that plays recordings: what is said now, else silence, for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ivas.audio.pcm import to_pcm16
from ivas.audio.wav import read_wav
from ivas.engines import Samples

from .wire import FRAME_BYTES, FRAME_MS, RATE_HZ, Connection, WireError

FRAME_SAMPLES = FRAME_BYTES // 2
SPEECH_BELOW_PEAK_DB = 35.0
"""Quieter than the loudest 20 ms by this, and it is the room, not the speaker."""

_SILENCE = bytes(FRAME_BYTES)


@dataclass(frozen=True, slots=True)
class Question:
    """A recording to ask with."""

    name: str
    pcm: bytes
    """PCM16 at 24 kHz."""
    speech_end_sample: int
    """Where the last speech in it ends."""


def read_question(path: Path) -> Question:
    """A PCM16 WAV file. Raises SettingsError if it is none, or has nothing in it."""
    samples = read_wav(path, RATE_HZ)
    return Question(path.name, to_pcm16(samples), speech_end(samples))


def speech_end(samples: Samples) -> int:
    """The end of the last 20 ms that belong to speech, in samples; 0 for pure silence."""
    windows = -(-len(samples) // FRAME_SAMPLES)
    padded = np.zeros(windows * FRAME_SAMPLES, np.float32)
    padded[: len(samples)] = samples
    power = np.square(padded.reshape(windows, FRAME_SAMPLES)).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (-SPEECH_BELOW_PEAK_DB / 10))
    return min(len(samples), (int(loud[-1]) + 1) * FRAME_SAMPLES) if len(loud) else 0


class Microphone:
    """Frames for `Connection.stream`; see the module."""

    def __init__(self, start_s: float) -> None:
        """`start_s`: when frame 0 is due, by the clock of the running loop."""
        self._start_s = start_s
        self._frames = 0
        self._saying = b""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._frames += 1
        if not self._saying:
            return _SILENCE
        frame, self._saying = self._saying[:FRAME_BYTES], self._saying[FRAME_BYTES:]
        return frame.ljust(FRAME_BYTES, b"\0")

    @property
    def position(self) -> int:
        """Of the next frame's first sample in all that is ever sent."""
        return self._frames * FRAME_SAMPLES

    def say(self, pcm: bytes) -> None:
        """Speak from `position` on, cutting off what was being said."""
        self._saying = pcm

    def captured_s(self, sample: int) -> float:
        """When the world made this sample: a frame is sent as its last one is captured."""
        return self._start_s - FRAME_MS / 1000 + sample / RATE_HZ


@asynccontextmanager
async def open_microphone(
    connection: Connection, on_sent: Callable[[int, float], None] = lambda number, at_s: None
) -> AsyncIterator[Microphone]:
    """A microphone that streams into `connection` while the context lasts."""
    start_s = asyncio.get_running_loop().time()
    microphone = Microphone(start_s)

    async def stream() -> None:
        with suppress(WireError):  # whoever receives from the connection is told
            await connection.stream(microphone, start_s=start_s, on_sent=on_sent)

    streaming = asyncio.create_task(stream())
    try:
        yield microphone
    finally:
        streaming.cancel()
        await asyncio.gather(streaming, return_exceptions=True)
