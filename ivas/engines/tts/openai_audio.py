"""The sound in the answer of an OpenAI-compatible speech server, as it comes.

Asked for `pcm`, a server answers with PCM16 mono at 24 kHz and no header
(https://platform.openai.com/docs/api-reference/audio/createSpeech); some answer with a
WAV file whatever they were asked for, and that says itself what is in it.
"""

from __future__ import annotations

import re
import struct

import numpy as np

PCM_RATE_HZ = 24_000
MOST_HEADER_BYTES = 65_536
"""A WAV file whose sound begins later is none."""

_WAV_PCM, _WAV_EXTENSIBLE = 1, 0xFFFE
_OTHER_FORMATS = {b"ID3": "MP3", b"OggS": "Opus", b"fLaC": "FLAC"}
_MP3_FRAME = re.compile(rb"\xff[\xe2-\xff]")
_RATE = re.compile(r"\brate=(\d{4,5})\b")


class AudioReader:
    """The bytes of one answer to PCM16 mono. `kind` is its Content-Type.

    `rate_hz` is right from the first sound on. Every error is a ValueError that says
    what came instead of sound.
    """

    def __init__(self, kind: str) -> None:
        rate = _RATE.search(kind)
        self.rate_hz = int(rate[1]) if rate else PCM_RATE_HZ
        self._mp3 = "mpeg" in kind or "mp3" in kind
        self._channels = 1
        self._waiting = b""
        self._begun = False
        self._left: int | None = None  # bytes of sound still to come; None: until the end

    def push(self, data: bytes) -> bytes:
        """Whole samples, as far as there are any; what is over waits."""
        self._waiting += data
        if not self._begun and not self._begin():
            return b""
        block = 2 * self._channels
        whole = len(self._waiting) - len(self._waiting) % block
        if self._left is not None:
            whole = min(whole, self._left)
            self._left -= whole
        sound, self._waiting = self._waiting[:whole], self._waiting[whole:]
        if self._left == 0:
            self._waiting = b""  # what follows the sound in a WAV file is not sound
        return _mono(sound, self._channels)

    def end(self) -> None:
        """The answer is over. Raises ValueError if it says itself that this is too soon."""
        if not self._begun and self._waiting:
            raise ValueError("an answer that ends within its header")
        if self._left:
            raise ValueError("a WAV file that is cut short")

    def _begin(self) -> bool:
        """Whether it is known where the sound begins, and of what kind it is."""
        start = self._waiting
        if len(start) < 4:
            return False
        for magic, name in _OTHER_FORMATS.items():
            if start.startswith(magic):
                raise ValueError(f"{name} instead of PCM or WAV")
        if self._mp3 and _MP3_FRAME.match(start):
            raise ValueError("MP3 instead of PCM or WAV")
        self._begun = not start.startswith(b"RIFF") or self._read_header()
        return self._begun

    def _read_header(self) -> bool:
        """Go to the sound of a WAV file; False if that has not come yet."""
        header, at, described = self._waiting, 12, False
        if len(header) >= 12 and header[8:12] != b"WAVE":
            raise ValueError("a RIFF file without sound")
        while len(header) >= at + 8:
            name, size = struct.unpack_from("<4sI", header, at)
            at += 8
            if name == b"data":
                if not described:
                    raise ValueError("a WAV file that does not say what is in it")
                # Who streams cannot know the length, and writes 0 or the largest number.
                self._left = None if size == 0 or size >= 0x7FFF0000 else size
                self._waiting = header[at:]
                return True
            if name == b"fmt " and len(header) >= at + 16:
                self._read_format(header, at)
                described = True
            at += size + size % 2
            if at > MOST_HEADER_BYTES:
                break
        if len(header) > MOST_HEADER_BYTES or at > MOST_HEADER_BYTES:
            raise ValueError("a WAV file without sound")
        return False

    def _read_format(self, header: bytes, at: int) -> None:
        kind, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", header, at)
        if kind not in (_WAV_PCM, _WAV_EXTENSIBLE) or bits != 16:
            raise ValueError(f"a WAV file of {bits}-bit samples (format {kind}), not PCM16")
        if not 1 <= channels <= 8 or not 8000 <= rate_hz <= 48_000:
            raise ValueError(f"a WAV file of {channels} channels at {rate_hz} Hz")
        self._channels, self.rate_hz = channels, rate_hz


def _mono(sound: bytes, channels: int) -> bytes:
    if channels == 1:
        return sound
    mixed = np.frombuffer(sound, "<i2").reshape(-1, channels).mean(axis=1)
    return bytes(mixed.astype("<i2").tobytes())
