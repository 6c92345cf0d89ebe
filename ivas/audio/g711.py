"""G.711, the audio of telephones: mu-law and A-law at 8 kHz, to and from 24 kHz PCM16.

The codes are those of ITU-T G.711; where its tables leave open to which side a value
on a decision boundary belongs, the ITU's reference code (G.191, module g711) decides.

The converters of the rate have a constant delay and hide no look-ahead: what a chunk
brings leaves with it. They compute in whole numbers, so that the result is the same
to the last bit however the input was cut.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

TAPS = 67
"""Length of the filter at 24 kHz."""
CUTOFF_HZ = 4_000
DELAY_MS = (TAPS - 1) / 2 / 24
"""How much later the sound comes out of either converter: 1.375 ms, 11 samples at 8 kHz."""

_RATIO = 3
_UNIT = 1 << 15
"""What a coefficient of 1 is: products with PCM16 and their sums stay exact in float64."""

_Table = npt.NDArray[np.int16] | npt.NDArray[np.uint8]


# --- the codes -------------------------------------------------------------------


def decode_ulaw(codes: bytes) -> bytes:
    """One byte a sample -> PCM16 little-endian, twice as long."""
    return _look_up(_ULAW_DECODED, codes, "u1")


def encode_ulaw(pcm: bytes) -> bytes:
    """PCM16 little-endian, an even number of bytes -> one byte a sample."""
    return _look_up(_ULAW_ENCODED, pcm, "<u2")


def decode_alaw(codes: bytes) -> bytes:
    """One byte a sample -> PCM16 little-endian, twice as long."""
    return _look_up(_ALAW_DECODED, codes, "u1")


def encode_alaw(pcm: bytes) -> bytes:
    """PCM16 little-endian, an even number of bytes -> one byte a sample."""
    return _look_up(_ALAW_ENCODED, pcm, "<u2")


def _look_up(table: _Table, data: bytes, type_: str) -> bytes:
    found: bytes = table[np.frombuffer(data, type_)].tobytes()
    return found


def _ulaw_decoded() -> _Table:
    """G.191 `ulaw_expand`: 14 bits of linear value in 16, the bias of 33 taken away."""
    inverted = ~np.arange(256) & 0xFF
    exponent, mantissa = inverted >> 4 & 7, inverted & 0xF
    step = 8 << exponent
    magnitude = (0x80 << exponent) + step * mantissa + step // 2 - 4 * 33
    return _int16(np.where(inverted & 0x80, -magnitude, magnitude))


def _alaw_decoded() -> _Table:
    """G.191 `alaw_expand`: 13 bits of linear value in 16; even bits are inverted."""
    code = np.arange(256) ^ 0x55
    exponent, mantissa = code >> 4 & 7, code & 0xF
    linear = (mantissa + np.where(exponent, 16, 0)) * 16 + 8
    magnitude = linear << np.maximum(exponent - 1, 0)
    return _int16(np.where(code & 0x80, magnitude, -magnitude))


def _int16(values: npt.NDArray[np.int64]) -> _Table:
    result: _Table = values.astype("<i2")
    return result


def _magnitudes(bits: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Of every PCM16 value by its bits: the upper `bits` without sign, and the sign.

    One's complement, as G.191 has it: -1 has the magnitude of 0.
    """
    linear = np.arange(1 << 16).astype("u2").view("i2").astype(np.int64)
    negative = linear < 0
    return np.where(negative, ~linear, linear) >> (15 - bits), negative


def _ulaw_encoded() -> _Table:
    """G.191 `ulaw_compress`."""
    magnitude, negative = _magnitudes(13)
    biased = np.minimum(magnitude + 33, 0x1FFF)
    exponent = np.frexp(biased)[1] - 6  # 33..63 -> 0, 64..127 -> 1, ...
    code = exponent << 4 | biased >> (exponent + 1) & 0xF
    inverted = ~code & 0x7F
    result: _Table = np.where(negative, inverted, inverted | 0x80).astype(np.uint8)
    return result


def _alaw_encoded() -> _Table:
    """G.191 `alaw_compress`."""
    magnitude, negative = _magnitudes(11)
    exponent = np.maximum(np.frexp(magnitude)[1] - 4, 0)  # 0..15 -> 0, 16..31 -> 1, ...
    mantissa = magnitude >> np.maximum(exponent - 1, 0) & 0xF
    code = exponent << 4 | mantissa
    result: _Table = (np.where(negative, code, code | 0x80) ^ 0x55).astype(np.uint8)
    return result


_ULAW_DECODED = _ulaw_decoded()
_ULAW_ENCODED = _ulaw_encoded()
_ALAW_DECODED = _alaw_decoded()
_ALAW_ENCODED = _alaw_encoded()


# --- the rate --------------------------------------------------------------------


def _filter() -> npt.NDArray[np.float64]:
    """One low-pass for both directions, in whole numbers of `_UNIT`; it sums to one unit.

    A sinc windowed by Kaiser's beta for 55 dB (Kaiser 1974: 0.1102 (A - 8.7)): flat to
    3.4 kHz, the upper end of telephone speech, more than 50 dB down from 4.6 kHz, whose
    alias that is.
    """
    n = np.arange(TAPS) - (TAPS - 1) / 2
    ideal = 2 * CUTOFF_HZ / 24_000 * np.sinc(2 * CUTOFF_HZ / 24_000 * n)
    shaped = ideal * np.kaiser(TAPS, 0.1102 * (55 - 8.7))
    for phase in range(_RATIO):  # alike, or upsampled silence with an offset would whistle
        shaped[phase::_RATIO] /= _RATIO * shaped[phase::_RATIO].sum()
    result: npt.NDArray[np.float64] = np.rint(shaped * _UNIT)
    return result


def _phases() -> npt.NDArray[np.float64]:
    """The filter as a matrix: a window of input gives three outputs."""
    padded = np.zeros(-(-TAPS // _RATIO) * _RATIO)
    padded[:TAPS] = _RATIO * _filter()
    return padded.reshape(-1, _RATIO)[::-1].copy()


_DOWN = _filter()[:, None]
_UP = _phases()


class Downsampler24to8:
    """24 kHz -> 8 kHz for one stream of PCM16.

    After n samples in, (n + 2) // 3 have come out, each `DELAY_MS` late; `finish` adds
    the 11 samples that are still on their way.
    """

    def __init__(self) -> None:
        self._stream = _Stream(_DOWN, stride=_RATIO)

    def push(self, pcm: bytes) -> bytes:
        """PCM16 at 24 kHz, cut anywhere -> what it completes at 8 kHz."""
        return self._stream.push(pcm)

    def finish(self) -> bytes:
        """The sound's last `DELAY_MS`; nothing may be pushed after it."""
        return self._stream.push(bytes(TAPS // 2 * 2))


class Upsampler8to24:
    """8 kHz -> 24 kHz for one stream of PCM16.

    After n samples in, 3 n have come out, each `DELAY_MS` late; `finish` adds the 33
    samples that are still on their way.
    """

    def __init__(self) -> None:
        self._stream = _Stream(_UP, stride=1)

    def push(self, pcm: bytes) -> bytes:
        """PCM16 at 8 kHz, cut anywhere -> what it completes at 24 kHz."""
        return self._stream.push(pcm)

    def finish(self) -> bytes:
        """The sound's last `DELAY_MS`; nothing may be pushed after it."""
        return self._stream.push(bytes(TAPS // 2 // _RATIO * 2))


class _Stream:
    """A window of input, moved on by `stride`, times a matrix."""

    def __init__(self, matrix: npt.NDArray[np.float64], *, stride: int) -> None:
        self._matrix = matrix
        self._stride = stride
        self._half = b""
        self._kept = np.zeros(len(matrix) - 1)

    def push(self, pcm: bytes) -> bytes:
        data = self._half + pcm
        whole = len(data) & ~1
        self._half = data[whole:]
        samples = np.concatenate((self._kept, np.frombuffer(data[:whole], "<i2")))
        width = len(self._matrix)
        count = max(0, (len(samples) - width) // self._stride + 1)
        step = samples.strides[0]
        windows = np.lib.stride_tricks.as_strided(
            samples, (count, width), (self._stride * step, step), writeable=False
        )
        self._kept = samples[self._stride * count :]
        scaled = np.rint((windows @ self._matrix).ravel() / _UNIT)
        return np.clip(scaled, -32768, 32767).astype("<i2").tobytes()
