#!/usr/bin/env python3
"""An XTTS of any size with random weights, of coqui-tts' own classes: noise, but as slow as real.

    .venv/bin/python scripts/random_xtts.py tiny /tmp/xtts-tiny      36 MB
    .venv/bin/python scripts/random_xtts.py full /tmp/xtts-full      1.8 GB

All is as in the real one: the files, the languages, the cloning, the streaming. Random
weights hardly ever wish to end, so a text is as long as `audio_tokens` allows: of 60,
57 are said, which are 2.65 s.

`load` is the engine's worker for it where torch is built for the CPU and torchaudio for
CUDA, as they come from PyPI: a machine to develop on.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPEAKERS = ("Tiny Ann", "Tiny Bob")
LANGUAGES = [
    *("en", "es", "fr", "de", "it", "pt", "pl", "tr", "ru", "nl", "cs", "ar", "zh-cn", "hu"),
    *("ko", "ja", "hi"),
]


@dataclass(frozen=True, slots=True)
class Size:
    """Of the GPT, and whether the vocoder has its full width (23 M of the tiny one's weights)."""

    width: int
    layers: int
    heads: int
    audio_tokens: int
    full_vocoder: bool = True


SIZES = {"tiny": Size(64, 2, 2, 60, full_vocoder=False), "full": Size(1024, 30, 16, 605)}


def shim() -> None:
    """Let a torchaudio built for CUDA be imported beside a torch for the CPU.

    Its own library is left out, which XTTS does not call. Before anything imports it.
    """
    import torch

    if torch.version.cuda is not None or importlib.util.find_spec("torchaudio") is None:
        return
    extension: Any = types.ModuleType("torchaudio._extension")
    extension._IS_TORCHAUDIO_EXT_AVAILABLE = False
    extension._IS_ALIGN_AVAILABLE = False
    extension._check_cuda_version = lambda: None
    extension._load_lib = lambda _name: False
    extension.fail_if_no_align = lambda function: function
    sys.modules["torchaudio._extension"] = extension


def small_vocoder() -> None:
    """Most weights are the vocoder's, and no setting makes it smaller."""
    from TTS.tts.models import xtts

    xtts.HifiDecoder = functools.partial(xtts.HifiDecoder, upsample_initial_channel_decoder=32)


def build(directory: Path, size: Size) -> None:
    """Write config.json, model.pth, vocab.json and speakers_xtts.pth."""
    shim()
    import torch
    from TTS.tts.configs.xtts_config import XttsConfig
    from TTS.tts.layers.xtts.tokenizer import VoiceBpeTokenizer
    from TTS.tts.models.xtts import Xtts

    if not size.full_vocoder:
        small_vocoder()
    directory.mkdir(parents=True, exist_ok=True)
    _write_vocabulary(directory / "vocab.json")
    config = XttsConfig()
    args = config.model_args
    args.gpt_layers, args.gpt_n_model_channels, args.gpt_n_heads = (
        size.layers,
        size.width,
        size.heads,
    )
    args.decoder_input_dim = size.width
    args.gpt_max_audio_tokens = size.audio_tokens
    args.gpt_max_text_tokens, args.gpt_max_prompt_tokens = 402, 70
    args.gpt_num_audio_tokens = 1026
    args.gpt_start_audio_token, args.gpt_stop_audio_token = 1024, 1025
    args.gpt_use_perceiver_resampler = True
    args.num_chars = 255
    torch.manual_seed(0)
    model = Xtts(config)
    model.tokenizer = VoiceBpeTokenizer(vocab_file=str(directory / "vocab.json"))
    model.init_models()
    torch.save({"model": model.state_dict()}, directory / "model.pth")
    config.save_json(str(directory / "config.json"))
    speakers = {
        name: {
            "gpt_cond_latent": torch.randn(1, 32, size.width) * 0.1,
            "speaker_embedding": torch.nn.functional.normalize(torch.randn(1, 512, 1), dim=1),
        }
        for name in SPEAKERS
    }
    torch.save(speakers, directory / "speakers_xtts.pth")


def build_apart(directory: Path, size: str) -> None:
    """The same in a process of its own, so that no torch comes into this one."""
    command = [sys.executable, __file__, size, str(directory)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def _write_vocabulary(path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import Whitespace

    special = ["[STOP]", "[UNK]", "[SPACE]", "[START]", *(f"[{code}]" for code in LANGUAGES)]
    letters = list("abcdefghijklmnopqrstuvwxyz.,!?'-:;\"()")
    merges = [("t", "h"), ("i", "n"), ("e", "r")]
    tokens = [*special, *letters, *("".join(pair) for pair in merges)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    tokenizer.save(str(path))


def load(**arguments: Any) -> Any:
    """The engine's own worker factory, on a model that is tiny or not."""
    shim()
    from TTS.tts.configs.xtts_config import XttsConfig

    from ivas.engines.tts.xtts.worker import load as real

    config = XttsConfig()
    config.load_json(str(Path(arguments["model_dir"]) / "config.json"))
    if config.model_args.decoder_input_dim == SIZES["tiny"].width:
        small_vocoder()
    return real(**arguments)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("directory", type=Path)
    chosen = parser.parse_args()
    build(chosen.directory, SIZES[chosen.size])
