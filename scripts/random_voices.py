#!/usr/bin/env python3
"""Kokoro and Piper with random weights, of their own classes: noise, but as slow as the real ones.

    .venv/bin/python scripts/random_voices.py piper  /tmp/random-models
    .venv/bin/python scripts/random_voices.py kokoro /tmp/random-models
    .venv/bin/python scripts/bench_engines.py piper kokoro --models-dir /tmp/random-models

Piper's are in the package piper-tts; Kokoro's in the package kokoro, which is no part of
any extra. Beside the extras piper, kokoro and xtts (for torch) this needs

    .venv/bin/pip install onnx loguru && .venv/bin/pip install --no-deps kokoro==0.9.4

All sizes are those of the published models, and so is the length of the files but for
some kilobytes: 63.2 MB for a Piper voice of medium quality, 325.5 MB for Kokoro. What
random weights would not do is set: a phoneme lasts about as long as in speech.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
import tempfile
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PIPER_VOICE = "en_US-random-medium"
KOKORO_VOICES = ("af_heart", "am_echo")
KOKORO_FRAMES = 2.1
"""For each phoneme; a frame is 25 ms."""
KOKORO_MOST_FRAMES = 50
"""Kokoro adds up so many probabilities to the frames of a phoneme."""


def export(model: Any, example: tuple[Any, ...], path: Path, **names: Any) -> None:
    """Write `model` as ONNX, as both projects do: traced, not compiled."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(model.eval(), example, str(path), dynamo=False, **names)


def build_piper(models_dir: Path) -> Path:
    """A voice of medium quality; the numbers are those of piper's own `quality: medium`."""
    import torch
    from piper.phoneme_ids import DEFAULT_PHONEME_ID_MAP
    from piper.train.vits.models import SynthesizerTrn

    torch.manual_seed(0)
    model: Any = SynthesizerTrn(
        n_vocab=256,
        spec_channels=513,
        segment_size=32,
        inter_channels=192,
        hidden_channels=192,
        filter_channels=768,
        n_heads=2,
        n_layers=6,
        kernel_size=3,
        p_dropout=0.1,
        resblock="2",
        resblock_kernel_sizes=(3, 5, 7),
        resblock_dilation_sizes=((1, 2), (2, 6), (3, 12)),
        upsample_rates=(8, 8, 4),
        upsample_initial_channel=256,
        upsample_kernel_sizes=(16, 16, 8),
    )
    model.dec.remove_weight_norm()

    def forward(text: Any, lengths: Any, scales: Any) -> Any:
        noise, length, noise_w = scales[0], scales[1], scales[2]
        sound = model.infer(
            text, lengths, noise_scale=noise, length_scale=length, noise_scale_w=noise_w
        )
        return sound[0].unsqueeze(1)

    model.forward = forward
    path = models_dir / f"piper-{PIPER_VOICE}" / f"{PIPER_VOICE}.onnx"
    export(
        model,
        (torch.randint(0, 256, (1, 50)), torch.tensor([50]), torch.tensor([0.667, 1.0, 0.8])),
        path,
        opset_version=15,
        input_names=["input", "input_lengths", "scales"],
        output_names=["output"],
        dynamic_axes={"input": {1: "phonemes"}, "output": {2: "time"}},
    )
    described = {
        "audio": {"sample_rate": 22_050, "quality": "medium"},
        "espeak": {"voice": "en-us"},
        "language": {"code": "en_US", "name_english": "English"},
        "inference": {"noise_scale": 0.667, "length_scale": 1, "noise_w": 0.8},
        "phoneme_type": "espeak",
        "phoneme_id_map": DEFAULT_PHONEME_ID_MAP,
        "num_symbols": 256,
        "num_speakers": 1,
        "speaker_id_map": {},
        "dataset": "random",
    }
    path.with_name(f"{path.name}.json").write_text(json.dumps(described), encoding="utf-8")
    return path


def build_kokoro(models_dir: Path) -> Path:
    """Kokoro-82M, in the shape its config.json names, which lies in kokoro-onnx."""
    import random_xtts

    random_xtts.shim()
    import kokoro_onnx
    import torch

    package = importlib.util.find_spec("kokoro")
    if package is None or package.submodule_search_locations is None:
        raise SystemExit("The package kokoro is missing; see --help for how to install it.")
    # Without what its __init__ would import: a pipeline from text, which nobody needs here.
    bare: Any = types.ModuleType("kokoro")
    bare.__path__ = list(package.submodule_search_locations)
    sys.modules["kokoro"] = bare
    kokoro = importlib.import_module("kokoro.model")
    config = json.loads(Path(kokoro_onnx.__file__).with_name("config.json").read_text("utf-8"))
    torch.manual_seed(0)
    with tempfile.NamedTemporaryFile(suffix=".pth") as nothing:
        torch.save({}, nothing.name)  # weights to load: none
        model = kokoro.KModel(
            repo_id="hexgrad/Kokoro-82M", config=config, model=nothing.name, disable_complex=True
        )
    durations = model.predictor.duration_proj.linear_layer
    share = KOKORO_FRAMES / KOKORO_MOST_FRAMES
    durations.bias.data.fill_(math.log(share / (1 - share)))
    durations.weight.data *= 0.05
    path = models_dir / "kokoro" / "kokoro-v1.0.onnx"
    tokens = torch.randint(1, config["n_token"] - 1, (1, 50))
    export(
        kokoro.KModelForONNX(model),
        (tokens, torch.randn(1, 256), torch.tensor([1.0])),
        path,
        opset_version=17,
        input_names=["tokens", "style", "speed"],
        output_names=["audio", "durations"],
        dynamic_axes={"tokens": {1: "n"}, "audio": {0: "m"}, "durations": {0: "n"}},
    )
    random = np.random.default_rng(0)
    styles: dict[str, Any] = {
        voice: 0.1 * random.standard_normal((510, 1, 256), np.float32) for voice in KOKORO_VOICES
    }
    with path.with_name("voices-v1.0.bin").open("wb") as file:
        np.savez(file, **styles)
    return path


BUILD: dict[str, Callable[[Path], Path]] = {"kokoro": build_kokoro, "piper": build_piper}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engine", choices=BUILD)
    parser.add_argument("models_dir", type=Path)
    asked = parser.parse_args()
    path = BUILD[asked.engine](asked.models_dir)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
