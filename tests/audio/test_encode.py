"""What is encoded is what was said, and it leaves as early as it can."""

from __future__ import annotations

import io
import sys
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.audio.decode import decode
from ivas.audio.encode import FORMATS, MEDIA_TYPES, RATE_HZ, AudioFormat, Encoder
from ivas.audio.pcm import to_pcm16
from ivas.audio.wav import read_wav
from ivas.engines import Samples
from ivas.errors import EngineUnavailable

COMPRESSED: tuple[AudioFormat, ...] = ("mp3", "opus", "aac", "flac")
CHUNK_BYTES = RATE_HZ * 2 // 20  # 50 ms: the shortest an engine here makes


def tone(seconds: float = 1.0, hz: float = 440) -> bytes:
    wave = 0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)
    return to_pcm16(wave.astype(np.float32))


def encoded(format_: AudioFormat, pcm: bytes, chunk_bytes: int = CHUNK_BYTES) -> list[bytes]:
    encoder = Encoder(format_)
    chunks = [pcm[at : at + chunk_bytes] for at in range(0, len(pcm), chunk_bytes)]
    return [*(encoder.push(chunk) for chunk in chunks), encoder.finish()]


def loudest_hz(samples: Samples) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * 16_000 / len(samples))


@pytest.mark.parametrize("format_", [*COMPRESSED, "wav"])
def test_others_can_read_it(format_: AudioFormat) -> None:
    heard = decode(io.BytesIO(b"".join(encoded(format_, tone()))), most_s=10)
    # Encoders put up to two frames of silence before and fill up the last one behind.
    assert 1.0 <= len(heard) / 16_000 < 1.13
    assert loudest_hz(heard) == pytest.approx(440, abs=3)
    assert np.abs(heard[4_000:12_000]).max() == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize(
    ("format_", "magic"),
    [("mp3", b"ID3"), ("opus", b"OggS"), ("aac", b"\xff\xf1"), ("flac", b"fLaC"), ("wav", b"RIFF")],
)
def test_it_is_what_it_says(format_: AudioFormat, magic: bytes) -> None:
    data = b"".join(encoded(format_, tone()))
    assert data.startswith(magic)
    with av.open(io.BytesIO(data)) as file:
        stream = file.streams.audio[0]
        # Opus always decodes at 48 kHz.
        assert stream.codec_context.sample_rate == (48_000 if format_ == "opus" else RATE_HZ)
        assert stream.codec_context.layout.nb_channels == 1


@pytest.mark.parametrize("format_", FORMATS)
def test_sound_leaves_with_the_first_chunk(format_: AudioFormat) -> None:
    headers = {"mp3": 45, "opus": 129, "flac": 92, "wav": 44, "pcm": 0, "aac": 0}
    pieces = encoded(format_, tone(0.5))
    if format_ == "aac":  # needs 2048 samples, and this is 1200
        assert (pieces[0], len(pieces[1])) == (b"", pytest.approx(300, abs=300))
        assert pieces[2]
    else:
        assert len(pieces[0]) > headers[format_] + 80
    # And it goes on leaving: at most two chunks are held back in a row.
    assert all(first or second for first, second in pairwise(pieces))


def test_pcm_and_wav_are_the_samples_themselves() -> None:
    sound = tone()
    assert b"".join(encoded("pcm", sound)) == sound
    wav = b"".join(encoded("wav", sound))
    assert (wav[44:], wav[4:8], wav[40:44]) == (sound, b"\xff" * 4, b"\xff" * 4)
    assert len(read_wav(wav, RATE_HZ)) == RATE_HZ


def test_flac_loses_nothing() -> None:
    sound = np.random.default_rng(3).integers(-3000, 3000, RATE_HZ).astype("<i2").tobytes()
    with av.open(io.BytesIO(b"".join(encoded("flac", sound)))) as file:
        frames = [frame.to_ndarray() for frame in file.decode(audio=0)]
    assert np.concatenate(frames, axis=1).astype("<i2").tobytes() == sound


@pytest.mark.parametrize("format_", COMPRESSED)
@given(st.lists(st.integers(0, 9_001), max_size=8))
def test_any_cut_gives_the_same(format_: AudioFormat, sizes: list[int]) -> None:
    sound = tone(0.7)
    encoder, out, at = Encoder(format_), b"", 0
    for size in sizes:  # bytes: often half a sample
        out += encoder.push(sound[at : at + size])
        at += size
    out += encoder.push(sound[at:]) + encoder.finish()
    whole = Encoder(format_)
    expected = whole.push(sound) + whole.finish()
    if format_ == "opus":  # the serial number of an Ogg stream is drawn by lot
        assert len(out) == len(expected)
        assert (decode(io.BytesIO(out), most_s=9) == decode(io.BytesIO(expected), most_s=9)).all()
    else:
        assert out == expected


@pytest.mark.parametrize("format_", FORMATS)
def test_nothing_in(format_: AudioFormat) -> None:
    encoder = Encoder(format_)
    header = encoder.push(b"")
    assert len(header + encoder.finish()) < 300


def test_every_format_has_a_media_type() -> None:
    assert set(MEDIA_TYPES) == set(FORMATS)


def test_without_the_package_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)  # what the import system takes for absent
    with pytest.raises(EngineUnavailable, match="pip install av"):
        Encoder("mp3")
    assert Encoder("wav").push(b"\1\0").endswith(b"\1\0")


def test_a_build_without_the_codec_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from ivas.audio import encode

    _, *rest = encode._CODECS["mp3"]
    monkeypatch.setitem(encode._CODECS, "mp3", ("libnotthere", *rest))
    with pytest.raises(EngineUnavailable, match=r"has no encoder for it .*; ask for wav"):
        Encoder("mp3")
