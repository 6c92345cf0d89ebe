"""Sound out of the bytes of an answer, however they are cut."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.engines.tts.openai_audio import AudioReader

SOUND = np.arange(-100, 100, dtype="<i2").tobytes()


def wav(
    sound: bytes = SOUND,
    *,
    size: int | None = None,
    kind: int = 1,
    channels: int = 1,
    rate_hz: int = 22_050,
    bits: int = 16,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels, rate_hz, rate_hz * block, block, bits)
    data = struct.pack("<4sI", b"data", len(sound) if size is None else size) + sound
    body = b"WAVE" + struct.pack("<4sI", b"fmt ", len(form)) + form + before + data + after
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack("<4sI", name, len(data)) + data + b"\0" * (len(data) % 2)


def read(answer: bytes, cuts=(), kind: str = "audio/wav") -> tuple[bytes, int]:
    reader = AudioReader(kind)
    edges = [0, *sorted(cut % (len(answer) + 1) for cut in cuts), len(answer)]
    heard = b""
    for start, end in itertools.pairwise(edges):
        new = reader.push(answer[start:end])
        assert len(new) % 2 == 0
        heard += new
    reader.end()
    return heard, reader.rate_hz


cuts = st.lists(st.integers(0, 10_000), max_size=12)


@given(st.binary(max_size=300), cuts)
def test_pcm_is_the_same_however_it_is_cut(sound, cuts):
    start = b"\1\0\1\0" + sound
    assert read(start, cuts, "audio/pcm") == (start[: len(start) & ~1], 24_000)


@given(cuts, st.sampled_from([None, 0, 0xFFFFFFFF, 0x7FFFFFFF]))
def test_wav_is_the_same_however_it_is_cut(cuts, size):
    assert read(wav(size=size), cuts) == (SOUND, 22_050)


@given(cuts)
def test_only_the_sound_of_a_wav_file_is_heard(cuts):
    file = wav(before=chunk(b"LIST", b"odd"), after=chunk(b"id3 ", b"x" * 50))
    assert read(file, cuts) == (SOUND, 22_050)


@given(cuts)
def test_stereo_is_mixed(cuts):
    left, right = np.array([100, 200, -50], "<i2"), np.array([300, 0, -150], "<i2")
    sound = np.stack([left, right], axis=1).tobytes()
    heard, _ = read(wav(sound, channels=2, kind=0xFFFE), cuts)
    assert np.frombuffer(heard, "<i2").tolist() == [200, 100, -100]


def test_the_type_may_say_the_rate():
    assert read(SOUND, kind="audio/pcm;rate=16000")[1] == 16_000
    assert read(SOUND, kind="audio/l16; rate=44100; channels=1")[1] == 44_100
    assert read(SOUND, kind="")[1] == 24_000


@pytest.mark.parametrize(
    ("answer", "kind", "problem"),
    [
        (b"ID3\x04 and so on", "application/octet-stream", "MP3 instead"),
        (b"\xff\xfb\x90\x00", "audio/mpeg", "MP3 instead"),
        (b"OggS....", "audio/ogg", "Opus instead"),
        (b"fLaC....", "", "FLAC instead"),
        (b"RIFF\0\0\0\0AVI LIST....", "", "without sound"),
        (wav(bits=8), "", "8-bit samples"),
        (wav(kind=3, bits=32), "", "format 3"),
        (wav(channels=0), "", "0 channels"),
        (wav(rate_hz=1_000_000), "", "1000000 Hz"),
        (b"RIFF\0\0\0\0WAVE" + chunk(b"data", SOUND), "", "does not say"),
        (b"RIFF\0\0\0\0WAVE" + struct.pack("<4sI", b"LIST", 2**31), "", "without sound"),
        (wav()[:30], "", "ends within its header"),
        (b"RI", "", "ends within its header"),
        (wav()[:-10], "", "cut short"),
    ],
)
def test_what_is_no_sound(answer, kind, problem):
    with pytest.raises(ValueError, match=problem):
        read(answer, kind=kind)


def test_sound_that_begins_like_mp3_is_sound():
    loud = b"\xff\xfb\x00\x01"
    assert read(loud, kind="audio/pcm")[0] == loud


@given(st.binary(max_size=200), cuts)
def test_garbage_in_a_header_never_breaks_it(garbage, cuts):
    reader = AudioReader("")
    try:
        for each in (b"RIFF", b"\0\0\0\0WAVE", garbage):
            reader.push(each)
        reader.end()
    except ValueError:
        pass
