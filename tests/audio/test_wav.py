"""WAV files come out as they went in, and a bad one is named in one sentence."""

from __future__ import annotations

import io
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.audio.pcm import to_pcm16, to_samples
from ivas.audio.wav import read_wav, wav_bytes
from ivas.errors import SettingsError

CLIP = Path(__file__).parent.parent / "clips" / "what_time_is_it_slt.wav"


def recording(pcm: bytes, *, channels: int = 1, width: int = 2, rate_hz: int = 16_000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((channels, width, rate_hz, 0, "NONE", ""))
        out.writeframes(pcm)
    return file.getvalue()


@given(st.binary(min_size=2, max_size=100).map(lambda pcm: pcm[: len(pcm) & ~1]))
def test_there_and_back_changes_nothing(pcm: bytes) -> None:
    assert to_pcm16(read_wav(wav_bytes(pcm, 16_000), 16_000)) == pcm


def test_channels_are_mixed() -> None:
    left_right = np.array([1000, 3000, -500, 500], "<i2").tobytes()
    assert read_wav(recording(left_right, channels=2), 16_000).tolist() == [2000 / 32768, 0]


def test_a_file_comes_at_the_rate_that_is_wanted() -> None:
    with wave.open(str(CLIP)) as clip:
        seconds = clip.getnframes() / clip.getframerate()
        pcm = clip.readframes(clip.getnframes())
        rate_hz = clip.getframerate()
    assert read_wav(CLIP, rate_hz).tolist() == to_samples(pcm).tolist()
    assert len(read_wav(CLIP, 24_000)) == pytest.approx(seconds * 24_000, abs=1)


def test_a_header_written_into_a_pipe_knows_no_length() -> None:
    data = bytearray(wav_bytes(b"\x01\x00" * 10, 16_000))
    data[40:44] = struct.pack("<I", 0xFFFFFFFF)
    assert len(read_wav(bytes(data), 16_000)) == 10


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a PCM WAV file"),
        (b"ID3 this is an mp3, or so", "not a PCM WAV file"),
        (wav_bytes(b"", 16_000), "holds no sound"),
        (wav_bytes(bytes(200), 16_000)[:20], "ends within its header"),
        (wav_bytes(bytes(200), 16_000)[:-51], "74 of 100 samples"),
        (recording(bytes(300), width=3), "24-bit"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "question.wav"
    path.write_bytes(data)
    for source, name in ((path, str(path)), (data, "the recording")):
        with pytest.raises(SettingsError, match=says) as raised:
            read_wav(source, 16_000)
        sentence = str(raised.value)
        assert sentence.startswith(name)
        assert sentence.endswith(".")
        assert ";" in sentence


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.wav cannot be read: No such file"):
        read_wav(tmp_path / "gone.wav", 16_000)
