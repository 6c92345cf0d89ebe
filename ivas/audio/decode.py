"""An audio file somebody uploaded -> samples, whatever it is and however broken.

FFmpeg's libraries in the package `av` read it. They also read playlists that name
other files and addresses, and dozens of formats nobody uploads, so only the
containers and codecs listed here are opened at all.

Work and memory are bounded: by the seconds that may come out, not by the size of the
file, for a small file can hold days of silence. Call `decode` on a thread: it takes
about 2 ms a second of sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ivas.engines import SAMPLE_RATE_HZ, Samples
from ivas.errors import ClientError, EngineUnavailable

from .pcm import FULL_SCALE

SUPPORTED = "flac, mp3, mp4, mpeg, mpga, m4a, ogg, wav or webm"

_CONTAINERS = "flac,mp3,mp4,mov,m4a,ogg,wav,webm,matroska,mpeg,aac"
_CODECS = (
    "aac,alac,flac,mp2,mp2float,mp3,mp3float,opus,libopus,vorbis,libvorbis,pcm_u8,pcm_s16le,"
    "pcm_s24le,pcm_s32le,pcm_f32le,pcm_f64le,pcm_s16be,pcm_mulaw,pcm_alaw"
)
_SLOWEST_HZ = 4_000
"""A recording at 1 Hz, which no microphone makes, would be resampled to 16,000 times its size."""
_FASTEST_HZ = 384_000
_MOST_CHANNELS = 16


def decode(file: BinaryIO, *, most_s: float, wanted: Callable[[], bool] = lambda: True) -> Samples:
    """The first sound track of `file` as mono samples at 16 kHz; stereo is mixed.

    `file` can seek. A recording that breaks off, or is damaged in places, gives what
    can be read of it. `wanted` is asked again and again; once it says no the result is
    empty.

    Raises ClientError (`param` is `file`): it holds no sound, is none of the formats,
    or is longer than `most_s`. Raises EngineUnavailable if the package is missing.
    """
    try:
        import av
    except ImportError as error:
        raise EngineUnavailable(
            f"Audio files cannot be read because the package av is missing or broken ({error}); "
            "install it with: pip install av",
            code="package_missing",
        ) from None
    if not file.read(1):
        raise _refusal("The audio file is empty; record it again.")
    file.seek(0)
    try:
        source = av.open(
            file,
            "r",  # by itself it would look at `file.mode`: a temporary file is opened for writing
            container_options={
                "format_whitelist": _CONTAINERS,
                "codec_whitelist": _CODECS,
                "protocol_whitelist": "",
            },
            metadata_errors="replace",
        )
    except (av.FFmpegError, ValueError, OSError) as error:
        raise _unreadable(error) from None
    pieces: list[npt.NDArray[np.int16]] = []
    try:
        with source:
            for piece in _pieces(av, source, most_s):
                if not wanted():
                    return np.zeros(0, np.float32)
                pieces.append(piece)
    except (av.FFmpegError, ValueError, OSError) as error:
        if not pieces:
            raise _unreadable(error) from None
    if not sum(map(len, pieces)):
        raise _refusal(f"The audio file holds no sound; send {SUPPORTED} with sound in it.")
    samples = np.concatenate(pieces).astype(np.float32)
    samples /= np.float32(FULL_SCALE)  # in place: an hour is 230 MB
    return samples


def _pieces(av: Any, source: Any, most_s: float) -> Iterator[npt.NDArray[np.int16]]:
    """The samples of the first sound track, as its packets come."""
    if not source.streams.audio:
        raise _refusal(f"The file has no sound track; send {SUPPORTED} with sound in it.")
    stream = source.streams.audio[0]
    if stream.codec_context is None or stream.codec_context.name not in _CODECS.split(","):
        raise _refusal(
            f"The sound of this file is coded in a way that is not read here; send {SUPPORTED}."
        )
    # Not to floats: FFmpeg scales what it mixes to fit only for whole numbers, and a file of
    # floats may hold NaN.
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
    seconds = 0.0
    for packet in source.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue  # one damaged packet; what comes after it may be sound
        for frame in frames:
            rate_hz, channels = frame.sample_rate, frame.layout.nb_channels
            if not (_SLOWEST_HZ <= rate_hz <= _FASTEST_HZ and channels <= _MOST_CHANNELS):
                raise _refusal(
                    f"The recording has {channels} channels at {rate_hz} Hz, which is not read "
                    "here; send it with one or two channels at 16000 Hz."
                )
            seconds += frame.samples / rate_hz
            if seconds > most_s:
                raise _refusal(
                    f"The recording is longer than the {most_s:g} s this server takes; send it in "
                    "parts.",
                    code="audio_too_long",
                )
            yield from _resampled(resampler, frame)
    yield from _resampled(resampler, None)


def _resampled(resampler: Any, frame: Any) -> Iterator[npt.NDArray[np.int16]]:
    for piece in resampler.resample(frame):
        yield piece.to_ndarray().reshape(-1)


def _refusal(sentence: str, *, code: str = "invalid_value") -> ClientError:
    return ClientError(sentence, code=code, param="file")


def _unreadable(error: Exception) -> ClientError:
    why = getattr(error, "strerror", None) or str(error)
    return _refusal(f"The audio file could not be read ({why}); send {SUPPORTED}.")
