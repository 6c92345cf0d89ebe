"""Speech into files that are sent while they are made: mp3, opus, aac, flac, wav, pcm.

What can leave early does: headers at once, a compressed frame as soon as its encoder
gives it out. Each frame is complete in itself (no bit reservoir, a page an Opus
packet), so the first sound leaves with the first chunk: 50 ms are enough for every
format but aac, which needs 85 ms (a frame of 1024 samples and one of look-ahead).

mp3, opus, aac and flac come from FFmpeg's libraries in the package `av`. To encode
takes up to 15 ms of CPU a second of speech: call `push` on a thread.
"""

from __future__ import annotations

import struct
from typing import Any, Literal, get_args

import numpy as np

from ivas.errors import EngineError, EngineUnavailable

RATE_HZ = 24_000
"""Of everything that is encoded: what `pcm` is in the OpenAI API, and what Opus, MPEG-2
layer III, AAC and FLAC take without another conversion."""

AudioFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
FORMATS: tuple[AudioFormat, ...] = get_args(AudioFormat)

MEDIA_TYPES: dict[AudioFormat, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}

_SLICE_SAMPLES = 2400
"""Given to an encoder at once: the GIL is held for no more than 2 ms at a stretch."""

_CODECS: dict[str, tuple[str, str, str, dict[str, str], dict[str, str]]] = {
    # format: codec, its samples, container, options of the codec, options of the container
    "mp3": (
        "libmp3lame", "s16p", "mp3",
        {"b": "64000", "reservoir": "0"},
        # An ID3 tag first: with it browsers and servers know mp3 by its first bytes.
        {"write_xing": "0", "id3v2_version": "3"},
    ),
    "opus": (
        "libopus", "s16", "ogg",
        {"b": "32000", "application": "voip", "frame_duration": "20"},
        {"page_duration": "20000"},
    ),
    "aac": ("aac", "fltp", "adts", {"b": "64000"}, {}),
    "flac": ("flac", "s16", "flac", {"frame_size": "1024"}, {"metadata_header_padding": "0"}),
}  # fmt: skip


class Encoder:
    """One stream of speech: `push` it piece by piece, then `finish` once.

    Not for two threads at the same time. Raises EngineUnavailable if this installation
    cannot write the format.
    """

    def __init__(self, format_: AudioFormat) -> None:
        self._half = b""
        self._header = b""
        self._codec: _Codec | None = None
        if format_ == "wav":
            self._header = _endless_wav_header()
        elif format_ != "pcm":
            self._codec = _Codec(format_)

    def push(self, pcm: bytes) -> bytes:
        """PCM16 mono at `RATE_HZ`, cut anywhere -> what is ready to be sent, header first.

        Raises EngineError if the encoder fails.
        """
        data = self._half + pcm
        whole = len(data) & ~1
        self._half = data[whole:]
        header, self._header = self._header, b""
        return header + (data[:whole] if self._codec is None else self._codec.push(data[:whole]))

    def finish(self) -> bytes:
        """What the encoder still held. Raises EngineError if it fails."""
        return self.push(b"") + (b"" if self._codec is None else self._codec.finish())


class _Sink:
    """A file that is emptied while it is written; it cannot seek, so nobody tries."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: Any) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


class _Codec:
    """One of FFmpeg's encoders and the container around it."""

    def __init__(self, format_: str) -> None:
        try:
            import av
        except ImportError as error:
            raise EngineUnavailable(
                f"{format_} cannot be made because the package av is missing or broken ({error}); "
                "ask for wav, or install it with: pip install av",
                code="package_missing",
            ) from None
        codec, samples, container, codec_options, options = _CODECS[format_]
        self._format = format_
        self._av = av
        self._sink = _Sink()
        self._position = 0
        try:
            # Without flush_packets FFmpeg would keep 32 KiB back.
            options = {"flush_packets": "1", **options}
            self._file = av.open(self._sink, "w", format=container, options=options)
            stream: Any = self._file.add_stream(
                codec, rate=RATE_HZ, options=codec_options, layout="mono"
            )
            stream.codec_context.format = samples
            self._stream = stream
            self._file.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            raise EngineUnavailable(
                f"{format_} cannot be made because this build of the package av has no encoder "
                f"for it ({error}); ask for wav, or install av from its wheel.",
                code="encoder_missing",
            ) from error

    def push(self, pcm: bytes) -> bytes:
        samples = np.frombuffer(pcm, "<i2")
        for at in range(0, len(samples), _SLICE_SAMPLES):
            piece = samples[at : at + _SLICE_SAMPLES]
            frame = self._av.AudioFrame.from_ndarray(
                piece.astype(np.int16)[None], format="s16", layout="mono"
            )
            frame.sample_rate = RATE_HZ
            frame.pts = self._position
            self._position += len(piece)
            self._encode(frame)
        return self._sink.take()

    def finish(self) -> bytes:
        self._encode(None)
        try:
            self._file.close()
        except self._av.FFmpegError as error:
            raise self._failure(error) from error
        return self._sink.take()

    def _encode(self, frame: Any) -> None:
        try:
            for packet in self._stream.encode(frame):
                self._file.mux(packet)
        except self._av.FFmpegError as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> EngineError:
        return EngineError(
            f"The {self._format} encoder failed ({error}); try again, or ask for wav.",
            code="encoder_failed",
        )


def _endless_wav_header() -> bytes:
    """Of PCM16 mono whose length nobody knows yet: both sizes the largest there is."""
    endless = 0xFFFFFFFF
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF", endless, b"WAVE",
        b"fmt ", 16, 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16,
        b"data", endless,
    )  # fmt: skip
