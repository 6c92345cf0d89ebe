"""The codes are the ITU's, and the converters of the rate lose and shift nothing."""

from __future__ import annotations

from collections.abc import Callable

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.audio.g711 import (
    DELAY_MS,
    Downsampler24to8,
    Upsampler8to24,
    decode_alaw,
    decode_ulaw,
    encode_alaw,
    encode_ulaw,
)
from ivas.audio.pcm import to_pcm16, to_samples
from ivas.engines import Samples

ALL_CODES = bytes(range(256))
ALL_PCM = np.arange(-32768, 32768, dtype=np.int32).astype("<i2").tobytes()

Codec = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes], str]
LAWS: list[Codec] = [
    (encode_ulaw, decode_ulaw, "pcm_mulaw"),
    (encode_alaw, decode_alaw, "pcm_alaw"),
]


def pcm(*values: int) -> bytes:
    return np.array(values, "<i2").tobytes()


def of_bytes(data: bytes) -> list[int]:
    values: list[int] = np.frombuffer(data, "<i2").tolist()
    return values


def ffmpeg_decoded(codec: str, codes: bytes) -> bytes:
    context = av.CodecContext.create(codec, "r")
    context.sample_rate, context.layout = 8000, "mono"
    context.open()
    return b"".join(
        frame.to_ndarray().astype("<i2").tobytes() for frame in context.decode(av.Packet(codes))
    )


# --- the codes -------------------------------------------------------------------


def test_the_tables_of_the_standard() -> None:
    """Ends, zero and first steps, from tables 1 and 2 of G.711 (there in 13 and 14 bits)."""
    assert of_bytes(decode_ulaw(b"\x80\x00\xff\x7f\xfe\x7e\xef")) == [
        32124, -32124, 0, 0, 8, -8, 132,
    ]  # fmt: skip
    assert of_bytes(decode_alaw(b"\xaa\x2a\xd5\x55\xd4\x54")) == [
        32256, -32256, 8, -8, 24, -24,
    ]  # fmt: skip


@pytest.mark.parametrize(("encode", "decode", "name"), LAWS)
def test_decodes_as_others_do(
    encode: Callable[[bytes], bytes], decode: Callable[[bytes], bytes], name: str
) -> None:
    assert decode(ALL_CODES) == ffmpeg_decoded(name, ALL_CODES)


@pytest.mark.parametrize(("encode", "decode", "name"), LAWS)
def test_every_code_survives_the_round_trip(
    encode: Callable[[bytes], bytes], decode: Callable[[bytes], bytes], name: str
) -> None:
    there_and_back = encode(decode(ALL_CODES))
    if name == "pcm_mulaw":  # it has a second zero, which comes back as the first
        assert there_and_back[0x7F] == 0xFF
        there_and_back = there_and_back[:0x7F] + b"\x7f" + there_and_back[0x80:]
    assert there_and_back == ALL_CODES


@pytest.mark.parametrize(("encode", "decode", "name"), LAWS)
def test_a_code_stands_for_the_middle_of_its_values(
    encode: Callable[[bytes], bytes], decode: Callable[[bytes], bytes], name: str
) -> None:
    """G.711: a quantised value lies in the middle between its two decision values."""
    codes = np.frombuffer(encode(ALL_PCM), "u1")
    changes = np.flatnonzero(np.diff(codes)) + 1
    runs = np.split(np.arange(-32768, 32768), changes)
    assert len(runs) == 256  # each code for one stretch of values
    decoded = of_bytes(decode(bytes(codes[[0, *changes]])))
    assert decoded == sorted(decoded)
    # The first and the last also stand for what is beyond the scale.
    for values, level in list(zip(runs, decoded, strict=True))[1:-1]:
        middle = (int(values[0]) + int(values[-1])) / 2
        # mu-law's lowest values are written as 0 although they reach from 0 to 3.
        assert abs(level - middle) <= (2.5 if level == 0 else 0.5)


def test_silence_is_silent() -> None:
    assert encode_ulaw(pcm(0)) == b"\xff"
    assert encode_alaw(pcm(0)) == b"\xd5"
    assert decode_ulaw(b"") == encode_ulaw(b"") == decode_alaw(b"") == encode_alaw(b"") == b""


# --- the rate --------------------------------------------------------------------


def tone(hz: float, rate_hz: int) -> Samples:
    """One second."""
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(rate_hz) / rate_hz)).astype(np.float32)


def level_db(samples: Samples) -> float:
    """Against the tone of `tone`, its edges left out."""
    middle = samples[len(samples) // 10 : -len(samples) // 10]
    return float(10 * np.log10(8 * np.mean(np.square(middle, dtype=np.float64)) + 1e-12))


@pytest.mark.parametrize("hz", [50, 300, 1_000, 2_000, 3_400])
def test_telephone_speech_passes_both_ways(hz: float) -> None:
    down = to_samples(Downsampler24to8().push(to_pcm16(tone(hz, 24_000))))
    up = to_samples(Upsampler8to24().push(to_pcm16(tone(hz, 8_000))))
    assert level_db(down) == pytest.approx(0, abs=0.1)
    assert level_db(up) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("hz", [4_600, 6_000, 9_000, 11_500])
def test_what_would_alias_does_not(hz: float) -> None:
    assert level_db(to_samples(Downsampler24to8().push(to_pcm16(tone(hz, 24_000))))) < -50


@pytest.mark.parametrize("hz", [300, 1_000, 3_400])
def test_no_images(hz: float) -> None:
    up = to_samples(Upsampler8to24().push(to_pcm16(tone(hz, 8_000))))[2400:-2400]
    spectrum = np.abs(np.fft.rfft(up * np.hanning(len(up))))
    beyond = spectrum[round(4_550 / 24_000 * len(up)) :].max()
    assert 20 * np.log10(beyond / spectrum.max()) < -50


def test_a_constant_stays_constant() -> None:
    up = of_bytes(Upsampler8to24().push(pcm(*[12_345] * 200)))[100:]
    assert max(abs(value - 12_345) for value in up) <= 1


@pytest.mark.parametrize(
    ("converter", "in_hz", "out_hz"), [(Downsampler24to8, 24, 8), (Upsampler8to24, 8, 24)]
)
def test_the_delay_is_as_stated(
    converter: type[Downsampler24to8] | type[Upsampler8to24], in_hz: int, out_hz: int
) -> None:
    at_ms = np.arange(100 * in_hz) / in_hz
    bump = (0.9 * np.exp(-np.square((at_ms - 50) / 2))).astype(np.float32)
    out = to_samples(converter().push(to_pcm16(bump)))
    centre_ms = float(np.dot(np.arange(len(out)) / out_hz, out) / out.sum())
    assert centre_ms - 50 == pytest.approx(DELAY_MS, abs=0.01)


def test_finish_gives_the_end_of_the_sound() -> None:
    click = pcm(*[0] * 300, 30_000)
    down, up = Downsampler24to8(), Upsampler8to24()
    pushed, rest = of_bytes(down.push(click)), of_bytes(down.finish())
    assert max(map(abs, pushed)) < 1_000 < max(map(abs, rest))
    assert len(rest) == 11
    pushed, rest = of_bytes(up.push(click)), of_bytes(up.finish())
    assert max(map(abs, pushed)) < 1_000 < max(map(abs, rest))
    assert len(rest) == 33


def test_full_scale_clips_and_does_not_wrap() -> None:
    square = pcm(*([32_767] * 40 + [-32_768] * 40) * 10)
    for converter in (Downsampler24to8(), Upsampler8to24()):
        out = np.array(of_bytes(converter.push(square)))[60:]
        # The overshoot of a square wave is cut off; wrapped, neighbours would jump about.
        assert (np.abs(np.diff(np.sign(out))) > 0).sum() <= 20


@given(st.lists(st.integers(0, 700), max_size=20), st.integers(0, 9))
def test_any_cut_gives_the_same_and_at_once(sizes: list[int], seed: int) -> None:
    sound = np.random.default_rng(seed).integers(-32768, 32768, sum(sizes)).astype("<i2").tobytes()
    for make in (Downsampler24to8, Upsampler8to24):
        whole = make()
        expected = whole.push(sound) + whole.finish()
        cut = make()
        out, at = b"", 0
        for size in sizes:
            out += cut.push(sound[at : at + size])  # bytes: often half a sample
            at += size
            samples_in = at // 2
            share = (samples_in + 2) // 3 if make is Downsampler24to8 else 3 * samples_in
            assert len(out) == 2 * share
        rest = sound[at:]
        assert out + cut.push(rest) + cut.finish() == expected
