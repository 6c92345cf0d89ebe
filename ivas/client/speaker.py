"""The loudspeaker of this machine, if there is one: sound is played as it comes.

The only file that imports sounddevice, and only when something is to be heard.
"""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any

from .wire import RATE_HZ


class Speaker:
    """Plays PCM16 mono at 24 kHz; `play` never waits."""

    def __init__(self, sounddevice: Any) -> None:
        """Raises what the library raises when there is no device."""
        self._lock = threading.Lock()
        self._queue = bytearray()
        self._stream = sounddevice.RawOutputStream(
            samplerate=RATE_HZ, channels=1, dtype="int16", callback=self._fill
        )
        self._stream.start()

    def play(self, pcm: bytes) -> None:
        """Sound after what is queued already."""
        with self._lock:
            self._queue += pcm

    def flush(self) -> None:
        """Fall silent at once."""
        with self._lock:
            self._queue.clear()

    def close(self) -> None:
        """Let what the device already has sound out, then give it back."""
        self._stream.stop()
        self._stream.close()

    def _fill(self, out: Any, frames: int, time: object, status: object) -> None:
        """Called on a thread of the audio system for the next `frames` samples."""
        wanted = 2 * frames
        with self._lock:
            pcm = bytes(self._queue[:wanted])
            del self._queue[:wanted]
        out[:] = pcm.ljust(wanted, b"\0")


def open_speaker() -> Speaker | None:
    """The default loudspeaker; None without one, or without the package or its library."""
    try:
        return Speaker(import_module("sounddevice"))
    except Exception:  # ImportError, OSError (no PortAudio), PortAudioError (no device)
        return None
