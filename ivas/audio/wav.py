"""WAV files: read any PCM16 one, write mono ones."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np

from ivas.engines import Samples
from ivas.errors import SettingsError

from .resample import resample

UNKNOWN_LENGTH = 0x7FFF0000
"""Bytes from which a header's length means nothing: programs that write into a pipe
cannot know it and put the largest number there."""


def read_wav(source: Path | bytes, rate_hz: int) -> Samples:
    """A recording as mono float samples at `rate_hz`; stereo is mixed.

    Raises SettingsError with one sentence if it is not a PCM16 WAV with sound in it.
    """
    name = source if isinstance(source, Path) else "the recording"
    fix = "make one with: ffmpeg -i INPUT -ac 1 -c:a pcm_s16le OUTPUT.wav"
    try:
        data = source.read_bytes() if isinstance(source, Path) else source
        with wave.open(io.BytesIO(data)) as recording:
            channels, width, from_hz, *_ = recording.getparams()
            promised = recording.getnframes()
            pcm = recording.readframes(promised)
    except OSError as error:
        raise SettingsError(
            f"{name} cannot be read: {error.strerror}; check its name and permissions."
        ) from None
    except (wave.Error, EOFError) as error:
        why = str(error) or "it ends within its header"
        raise SettingsError(f"{name} is not a PCM WAV file ({why}); {fix}.") from None
    if width != 2:
        raise SettingsError(f"{name} has {8 * width}-bit samples, not 16; {fix}.")
    whole = len(pcm) - len(pcm) % (2 * channels)
    if whole < promised * 2 * channels < UNKNOWN_LENGTH:
        raise SettingsError(
            f"{name} is cut short: {whole // (2 * channels)} of {promised} samples are there; "
            "copy or record it again."
        )
    if not whole:
        raise SettingsError(f"{name} holds no sound; {fix}.")
    frames = np.frombuffer(pcm[:whole], "<i2").reshape(-1, channels)
    samples: Samples = frames.mean(axis=1, dtype=np.float32) / np.float32(32768)
    return samples if from_hz == rate_hz else resample(samples, from_hz, rate_hz)


def wav_bytes(pcm: bytes, rate_hz: int) -> bytes:
    """PCM16 mono as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setparams((1, 2, rate_hz, 0, "NONE", ""))
        recording.writeframes(pcm)
    return file.getvalue()
