"""Whatever somebody uploads: samples, or one sentence; never a file of this machine."""

from __future__ import annotations

import base64
import io
import math
import shutil
import struct
import sys
import tempfile
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.audio.decode import decode
from ivas.audio.encode import AudioFormat, Encoder
from ivas.audio.pcm import to_pcm16
from ivas.audio.wav import wav_bytes
from ivas.engines import Samples
from ivas.errors import ClientError, EngineUnavailable

MOST_S = 60.0


def tone(rate_hz: int, seconds: float = 1.0) -> Samples:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(rate_hz * seconds) / rate_hz)).astype("f4")


def speech_file(format_: AudioFormat, seconds: float = 1.0) -> bytes:
    encoder = Encoder(format_)
    return encoder.push(to_pcm16(tone(24_000, seconds))) + encoder.finish()


def container(
    format_: str, codec: str, rate_hz: int, *, layout: str = "mono", video: bool = False
) -> bytes:
    """A second of the tone; the left channel alone where there are two."""
    file = io.BytesIO()
    with av.open(file, "w", format=format_) as out:
        picture = out.add_stream("mpeg4", rate=10) if video else None
        stream: Any = out.add_stream(
            codec, rate=rate_hz, layout=layout, options={"strict": "experimental"}
        )
        if picture is not None:
            picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
            for _ in range(10):
                out.mux(picture.encode(av.VideoFrame(32, 32, "yuv420p")))
            out.mux(picture.encode(None))
        channels = [tone(rate_hz)] + [np.zeros(rate_hz, "f4")] * (layout == "stereo")
        frame = av.AudioFrame.from_ndarray(np.stack(channels), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate_hz, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def refused(data: bytes, **how: Any) -> ClientError:
    with pytest.raises(ClientError) as caught:
        decode(io.BytesIO(data), **{"most_s": MOST_S} | how)
    assert caught.value.param == "file"
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return caught.value


def assert_is_the_tone(samples: Samples, *, level: float = 0.3) -> None:
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples) / 16_000 == pytest.approx(1.0, abs=0.13)
    middle = samples[4_000:12_000]
    assert np.abs(np.fft.rfft(middle)).argmax() == 440 / 2
    assert np.abs(middle).max() == pytest.approx(level, abs=0.04)


@pytest.mark.parametrize("format_", ["mp3", "opus", "aac", "flac", "wav"])
def test_reads_what_we_make(format_: AudioFormat) -> None:
    assert_is_the_tone(decode(io.BytesIO(speech_file(format_)), most_s=MOST_S))


@pytest.mark.parametrize(
    ("format_", "codec", "rate_hz"),
    [
        ("mp4", "aac", 44_100),  # mp4, m4a: what iPhones record
        ("ipod", "alac", 44_100),
        ("webm", "libopus", 48_000),  # what browsers record
        ("ogg", "flac", 16_000),
        ("mp3", "libmp3lame", 8_000),
        ("mpeg", "mp2", 48_000),
        ("wav", "pcm_s24le", 96_000),
        ("wav", "pcm_f32le", 16_000),
        ("wav", "pcm_mulaw", 8_000),
        ("wav", "pcm_u8", 11_025),
    ],
)
def test_reads_what_others_make(format_: str, codec: str, rate_hz: int) -> None:
    assert_is_the_tone(decode(io.BytesIO(container(format_, codec, rate_hz)), most_s=MOST_S))


@pytest.mark.parametrize(
    ("format_", "codec"), [("webm", "libopus"), ("ogg", "vorbis"), ("mp4", "aac"), ("flac", "flac")]
)
def test_stereo_is_mixed(format_: str, codec: str) -> None:
    data = container(format_, codec, 48_000, layout="stereo")
    assert_is_the_tone(decode(io.BytesIO(data), most_s=MOST_S), level=0.15)


def test_of_a_video_the_sound() -> None:
    data = container("mp4", "aac", 48_000, video=True)
    assert_is_the_tone(decode(io.BytesIO(data), most_s=MOST_S))


def test_reads_a_temporary_file_as_uploads_are() -> None:
    with tempfile.SpooledTemporaryFile() as file:
        file.write(speech_file("mp3"))
        file.seek(0)
        assert_is_the_tone(decode(cast(BinaryIO, file), most_s=MOST_S))


@pytest.mark.browser
@pytest.mark.parametrize("media_type", ["audio/webm;codecs=opus", "audio/mp4"])
def test_reads_what_chromium_records(media_type: str) -> None:
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if chromium is None:
        pytest.skip("chromium is not installed; its recordings are made by a real browser only")
    record = """async type => {
        if (!MediaRecorder.isTypeSupported(type)) return null;
        const context = new AudioContext(), to = context.createMediaStreamDestination();
        const tone = new OscillatorNode(context), level = new GainNode(context, {gain: 0.3});
        tone.connect(level).connect(to);
        tone.start();
        const recorder = new MediaRecorder(to.stream, {mimeType: type}), parts = [];
        recorder.ondataavailable = ({data}) => parts.push(data);
        const stopped = new Promise(resolve => recorder.onstop = resolve);
        recorder.start(100);
        await new Promise(resolve => setTimeout(resolve, 1000));
        recorder.stop();
        await stopped;
        const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
        return btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join(""));
    }"""
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=flags)
        recording = browser.new_page().evaluate(record, media_type)
        browser.close()
    if recording is None:
        pytest.skip(f"this Chromium records no {media_type}")
    heard = decode(io.BytesIO(base64.b64decode(recording)), most_s=MOST_S)
    assert 0.5 < len(heard) / 16_000 < 3
    assert np.abs(heard).max() > 0.05


# --- what is no recording ----------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"R",
        b"hello there",
        bytes(5_000),
        b"\x89PNG\r\n\x1a\n" + bytes(500),
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        np.random.default_rng(1).bytes(5_000),
        Encoder("mp3").push(b""),
        Encoder("opus").push(b""),
        wav_bytes(b"", 16_000),
        speech_file("opus")[:200],
    ],
    ids=["empty", "byte", "text", "zeros", "png", "lfs", "noise", "mp3", "ogg", "wav", "cut"],
)
def test_is_refused_in_a_sentence(data: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    refused(data)
    assert capfd.readouterr() == ("", "")  # FFmpeg keeps its own comments to itself


def test_a_silent_film() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        picture = out.add_stream("mpeg4", rate=10)
        picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
        out.mux(picture.encode(av.VideoFrame(32, 32, "yuv420p")))
        out.mux(picture.encode(None))
    assert "no sound track" in str(refused(file.getvalue()))


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat", "sdp", "dash"])
def test_no_file_of_this_machine_is_opened(kind: str, tmp_path: Path) -> None:
    """FFmpeg follows the names in a playlist, if it is let."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(speech_file("wav"))
    playlist = {
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n",
        "ffconcat": f"ffconcat version 1.0\nfile {secret}\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=audio 5004 RTP/AVP 0\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
        f"<Period><AdaptationSet><Representation><BaseURL>file://{secret}</BaseURL>"
        "</Representation></AdaptationSet></Period></MPD>",
    }[kind]
    refused(playlist.encode())


@pytest.mark.parametrize(
    ("format_", "codec"), [("aiff", "pcm_s16be"), ("wav", "adpcm_ms"), ("matroska", "ac3")]
)
def test_what_is_not_listed_is_not_opened(format_: str, codec: str) -> None:
    """FFmpeg reads these very well; every reader of a file is also a way in."""
    refused(container(format_, codec, 16_000 if format_ != "matroska" else 48_000))


# --- bounds --------------------------------------------------------------------------


def test_an_hour_in_a_small_file_is_refused_early() -> None:
    encoder = Encoder("flac")
    silence = bytes(48_000 * 60)
    hour = b"".join([*(encoder.push(silence) for _ in range(60)), encoder.finish()])
    assert len(hour) < 2_000_000
    tracemalloc.start()
    error = refused(hour, most_s=10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.code == "audio_too_long"
    assert "10 s" in str(error)
    assert peak < 20 * 16_000 * 4 + 1_000_000


def test_as_long_as_allowed_is_allowed() -> None:
    assert len(decode(io.BytesIO(speech_file("wav", 2)), most_s=2)) == 32_000


@pytest.mark.parametrize(
    ("rate_hz", "channels"), [(1, 1), (3_999, 1), (2_000_000, 1), (16_000, 64)]
)
def test_an_impossible_microphone(rate_hz: int, channels: int) -> None:
    """4 KB that would become 128 MB at 16 kHz."""
    header = struct.pack("<HHIIHH", 1, channels, rate_hz, 2 * channels * rate_hz, 2 * channels, 16)
    data = (
        b"fmt " + struct.pack("<I", 16) + header + b"data" + struct.pack("<I", 4096) + bytes(4096)
    )
    refused(b"RIFF" + struct.pack("<I", len(data) + 4) + b"WAVE" + data, most_s=math.inf)


def test_nobody_wants_it_any_more() -> None:
    asked = 0

    def wanted() -> bool:
        nonlocal asked
        asked += 1
        return asked < 3

    assert len(decode(io.BytesIO(speech_file("mp3", 5)), most_s=MOST_S, wanted=wanted)) == 0
    assert asked == 3


# --- damage ----------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["mp3", "opus", "aac", "flac", "wav"])
def test_what_breaks_off_is_heard_until_there(format_: AudioFormat) -> None:
    whole = speech_file(format_, 4)
    heard = decode(io.BytesIO(whole[: len(whole) // 2]), most_s=MOST_S)
    assert 1.5 < len(heard) / 16_000 < 2.5


def test_floats_that_are_none() -> None:
    floats = np.full(16_000, np.nan, "<f4")
    floats[8_000:] = np.inf
    header = struct.pack("<HHIIHH", 3, 1, 16_000, 64_000, 4, 32)
    data = b"fmt " + struct.pack("<I", 16) + header + b"data" + struct.pack("<I", 64_000)
    heard = decode(
        io.BytesIO(b"RIFF" + struct.pack("<I", 64_036) + b"WAVE" + data + floats.tobytes()),
        most_s=MOST_S,
    )
    assert np.isfinite(heard).all()
    assert np.abs(heard).max() <= 1


@pytest.mark.parametrize("format_", ["mp3", "opus", "aac", "flac", "wav"])
@given(st.lists(st.tuples(st.integers(0, 5_000), st.binary(min_size=1, max_size=40)), max_size=5))
def test_any_damage_is_survived(format_: AudioFormat, wounds: list[tuple[int, bytes]]) -> None:
    data = bytearray(_WHOLE[format_])
    for at, wound in wounds:
        data[at : at + len(wound)] = wound
    with suppress(ClientError):
        heard = decode(io.BytesIO(bytes(data)), most_s=MOST_S)
        assert 0 < len(heard) <= MOST_S * 16_000 + 16_000
        assert np.abs(heard).max() <= 1


_WHOLE = {format_: speech_file(format_, 0.3) for format_ in ("mp3", "opus", "aac", "flac", "wav")}


def test_without_the_package_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)  # what the import system takes for absent
    with pytest.raises(EngineUnavailable, match="pip install av"):
        decode(io.BytesIO(b"x"), most_s=MOST_S)
