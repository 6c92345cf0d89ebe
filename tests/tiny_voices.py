"""Kokoro and Piper models of a few hundred bytes, of the same inputs and outputs as the real ones.

Each token is a tone of 1/14 s: as loud as its number, as high as the voice. So the
packages' real code runs on them (phonemes, styles, trimming, sentences), and different
text, voice and speed can be told from the sound. The ONNX files are written here byte
by byte (protobuf, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), which needs
no further package.
"""

from __future__ import annotations

import functools
import json
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime  # noqa: F401 - what it opens when imported stays open: no leak of an engine

Fault = Literal["nan", "silent", "empty"]

KOKORO_VOICES = ("af_heart", "af_nova", "am_echo", "bf_emma", "bm_george", "ff_siwis", "hf_alpha")
PIPER_RATE_HZ = 22_050

_OPSET, _IR_VERSION = 17, 8
_FLOAT, _INT64 = 1, 7
_NUMPY = {_FLOAT: np.float32, _INT64: np.int64}


def write_kokoro(
    directory: Path,
    *,
    model: str = "kokoro-v1.0.onnx",
    voices: Sequence[str] = KOKORO_VOICES,
    token_input: str = "tokens",
    fault: Fault | None = None,
) -> Path:
    """Write a model and its voices into `directory`, which is returned."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / model).write_bytes(kokoro_onnx(token_input=token_input, fault=fault))
    styles = {}
    for number, voice in enumerate(voices):
        styles[voice] = np.full((510, 1, 256), 0.02 * (number + 1), np.float32)
    with (directory / "voices-v1.0.bin").open("wb") as file:
        np.savez_compressed(file, **styles)
    return directory


def kokoro_onnx(*, token_input: str = "tokens", fault: Fault | None = None) -> bytes:
    """Inputs of Kokoro v1.0: tokens [1, n], style [1, 256], speed [1]; output audio [m]."""
    return _model(
        inputs=[
            (token_input, _INT64, (1, 0)),
            ("style", _FLOAT, (1, 256)),
            ("speed", _FLOAT, (1,)),
        ],
        output=("audio", (0,)),
        constants={
            "natural": np.array([24_000 / 14], np.float32),
            "first": np.array([0, 0], np.int64),
        },
        nodes=[
            ("Div", ("natural", "speed"), "samples_a_token", {}),
            ("GatherND", ("style", "first"), "step", {}),
            *_tones(token_input, fault),
            ("Identity", ("tones",), "audio", {}),
        ],
    )


def write_piper(
    models_dir: Path,
    voice: str,
    *,
    speakers: Sequence[str] = (),
    fault: Fault | None = None,
    **config: object,
) -> Path:
    """Write `models_dir`/piper-`voice`/ with a model and its configuration; that directory."""
    directory = models_dir / f"piper-{voice}"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{voice}.onnx").write_bytes(piper_onnx(speakers=len(speakers), fault=fault))
    from piper.phoneme_ids import DEFAULT_PHONEME_ID_MAP

    code = voice.split("-")[0]
    described = {
        "audio": {"sample_rate": PIPER_RATE_HZ, "quality": "medium"},
        "espeak": {"voice": code.split("_")[0]},
        "language": {"code": code, "name_english": "Tiny", "country_english": "Nowhere"},
        "inference": {"noise_scale": 0.667, "length_scale": 1, "noise_w": 0.8},
        "phoneme_type": "espeak",
        "phoneme_id_map": DEFAULT_PHONEME_ID_MAP,
        "num_symbols": 256,
        "num_speakers": max(1, len(speakers)),
        "speaker_id_map": {name: number for number, name in enumerate(speakers)},
        "dataset": voice.split("-")[1] if "-" in voice else voice,
        **config,
    }
    (directory / f"{voice}.onnx.json").write_text(json.dumps(described), encoding="utf-8")
    return directory


def piper_onnx(*, speakers: int = 0, fault: Fault | None = None) -> bytes:
    """Inputs of Piper: input [1, n], input_lengths [1], scales [3], sid [1] if many speak."""
    many = [("sid", _INT64, (1,))] if speakers else []
    return _model(
        inputs=[
            ("input", _INT64, (1, 0)),
            ("input_lengths", _INT64, (1,)),
            ("scales", _FLOAT, (3,)),
            *many,
        ],
        output=("output", (1, 1, 1, 0)),
        constants={
            # Between any two phonemes Piper puts a pad, so a token is half as long.
            "natural": np.array([PIPER_RATE_HZ / 28], np.float32),
            "length_scale": np.array([1], np.int64),
            "low": np.array([0.05], np.float32),
            "row": np.array([1, 1, 1, -1], np.int64),
        },
        nodes=[
            ("Gather", ("scales", "length_scale"), "length", {}),
            ("Mul", ("natural", "length"), "samples_a_token", {}),
            *(
                [
                    ("Cast", ("sid",), "speaker", {"to": _FLOAT}),
                    ("Mul", ("speaker", "low"), "higher", {}),
                    ("Add", ("low", "higher"), "step", {}),
                ]
                if speakers
                else [("Identity", ("low",), "step", {})]
            ),
            *_tones("input", fault),
            ("Reshape", ("tones", "row"), "output", {}),
        ],
    )


@functools.cache
def tiny_models() -> Path:
    """A models directory with kokoro/ and two piper voices, written once in a test run."""
    directory = tempfile.TemporaryDirectory(prefix="ivas-tiny-voices-")
    _kept.append(directory)
    models_dir = Path(directory.name)
    write_kokoro(models_dir / "kokoro")
    write_piper(models_dir, "en_US-lessac-medium")
    write_piper(models_dir, "de_DE-mls-low", speakers=("anna", "bert"))
    return models_dir


_kept: list[tempfile.TemporaryDirectory[str]] = []

_Node = tuple[str, tuple[str, ...], str, dict[str, int]]
_Value = tuple[str, int, tuple[int, ...]]


def _tones(tokens: str, fault: Fault | None) -> list[_Node]:
    """`tones` [m] from the tokens, `samples_a_token` [1] and `step` (radians a sample)."""
    spoil: dict[Fault | None, list[_Node]] = {
        None: [("Identity", ("made",), "tones", {})],
        "nan": [("Mul", ("made", "not_a_number"), "tones", {})],
        "silent": [("Mul", ("made", "zero_f"), "tones", {})],
        "empty": [("Slice", ("made", "zeros", "zeros"), "tones", {})],
    }
    return [
        ("Reshape", (tokens, "flat"), "line", {}),
        ("Size", (tokens,), "count", {}),
        ("Cast", ("count",), "count_f", {"to": _FLOAT}),
        ("Mul", ("count_f", "samples_a_token"), "total_f", {}),
        ("Cast", ("total_f",), "total_1", {"to": _INT64}),
        ("Squeeze", ("total_1",), "total", {}),
        ("Range", ("zero", "total", "one"), "at", {}),
        ("Cast", ("at",), "at_f", {"to": _FLOAT}),
        ("Div", ("at_f", "samples_a_token"), "which_f", {}),
        ("Cast", ("which_f",), "which_over", {"to": _INT64}),
        ("Sub", ("count", "one"), "last", {}),
        ("Min", ("which_over", "last"), "which", {}),
        ("Gather", ("line", "which"), "token", {}),
        ("Cast", ("token",), "token_f", {"to": _FLOAT}),
        ("Mul", ("token_f", "quiet"), "loudness", {}),
        ("Mul", ("at_f", "step"), "phase", {}),
        ("Sin", ("phase",), "wave", {}),
        ("Mul", ("loudness", "wave"), "made", {}),
        *spoil[fault],
    ]


_CONSTANTS = {
    "flat": np.array([-1], np.int64),
    "zero": np.array(0, np.int64),
    "one": np.array(1, np.int64),
    "zeros": np.array([0], np.int64),
    "quiet": np.array(0.004, np.float32),
    "zero_f": np.array(0, np.float32),
    "not_a_number": np.array(np.nan, np.float32),
}


def _model(
    *,
    inputs: Sequence[_Value],
    output: tuple[str, tuple[int, ...]],
    constants: dict[str, np.ndarray],
    nodes: Sequence[_Node],
) -> bytes:
    used = {name for _, names, _, _ in nodes for name in names}
    known = {name: value for name, value in (_CONSTANTS | constants).items() if name in used}
    graph = [
        *(_bytes(1, _node(*node)) for node in nodes),
        _bytes(2, b"tiny"),
        *(_bytes(5, _tensor(*item)) for item in known.items()),
        *(_bytes(11, _value(*value)) for value in inputs),
        _bytes(12, _value(output[0], _FLOAT, output[1])),
    ]
    opset = _bytes(8, _bytes(1, b"") + _int(2, _OPSET))
    return _int(1, _IR_VERSION) + _bytes(7, b"".join(graph)) + opset


def _node(op: str, inputs: tuple[str, ...], output: str, attributes: dict[str, int]) -> bytes:
    return b"".join(
        [
            *(_bytes(1, name.encode()) for name in inputs),
            _bytes(2, output.encode()),
            _bytes(3, output.encode()),
            _bytes(4, op.encode()),
            *(
                _bytes(5, _bytes(1, name.encode()) + _int(3, value) + _int(20, 2))
                for name, value in attributes.items()
            ),
        ]
    )


def _tensor(name: str, values: np.ndarray) -> bytes:
    kind = next(number for number, dtype in _NUMPY.items() if values.dtype == dtype)
    dims = b"".join(_int(1, size) for size in values.shape)
    return dims + _int(2, kind) + _bytes(8, name.encode()) + _bytes(9, values.tobytes())


def _value(name: str, kind: int, shape: tuple[int, ...]) -> bytes:
    """A typed input or output; a size of 0 is not fixed."""
    sizes = [_int(1, size) if size else _bytes(2, f"{name}_size".encode()) for size in shape]
    dims = b"".join(_bytes(1, size) for size in sizes)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _int(1, kind) + _bytes(2, dims)))


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return struct.pack(f"{len(parts) + 1}B", *parts, value)
