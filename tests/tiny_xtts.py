"""A tiny XTTS with random weights, of coqui-tts' real classes, and worker factories for it.

    python tests/tiny_xtts.py DIRECTORY     builds one (36 MB, 3 s)

What it says is noise, but everything about it is as in the real one: the files, the
languages, the cloning, the streaming. Random weights never wish to end, so each text is
as long as `gpt_max_audio_tokens` allows: 57 tokens, 2.65 s.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
from pathlib import Path

SPEAKERS = ("Tiny Ann", "Tiny Bob")
LANGUAGES = "en es fr de it pt pl tr ru nl cs ar zh-cn hu ko ja hi".split()
FULL_SIZE = {"dim": 1024, "layers": 30, "heads": 16, "audio_tokens": 605}


def shim() -> None:
    """Let a torchaudio built for CUDA be imported beside a torch for the CPU.

    Its own library is left out, which XTTS does not call.
    """
    import torch

    if torch.version.cuda is not None or importlib.util.find_spec("torchaudio") is None:
        return
    extension = types.ModuleType("torchaudio._extension")
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


def build(
    directory: Path,
    *,
    dim: int = 64,
    layers: int = 2,
    heads: int = 2,
    audio_tokens: int = 60,
    small: bool = True,
) -> None:
    """Write config.json, model.pth, vocab.json and speakers_xtts.pth."""
    shim()
    import torch
    from TTS.tts.configs.xtts_config import XttsConfig
    from TTS.tts.layers.xtts.tokenizer import VoiceBpeTokenizer
    from TTS.tts.models.xtts import Xtts

    if small:
        small_vocoder()
    directory.mkdir(parents=True, exist_ok=True)
    _write_vocabulary(directory / "vocab.json")
    config = XttsConfig()
    size = config.model_args
    size.gpt_layers, size.gpt_n_model_channels, size.gpt_n_heads = layers, dim, heads
    size.decoder_input_dim = dim
    size.gpt_max_audio_tokens = audio_tokens
    size.gpt_max_text_tokens, size.gpt_max_prompt_tokens = 402, 70
    size.gpt_num_audio_tokens = 1026
    size.gpt_start_audio_token, size.gpt_stop_audio_token = 1024, 1025
    size.gpt_use_perceiver_resampler = True
    size.num_chars = 255
    torch.manual_seed(0)
    model = Xtts(config)
    model.tokenizer = VoiceBpeTokenizer(vocab_file=str(directory / "vocab.json"))
    model.init_models()
    torch.save({"model": model.state_dict()}, directory / "model.pth")
    config.save_json(str(directory / "config.json"))
    speakers = {
        name: {
            "gpt_cond_latent": torch.randn(1, 32, dim) * 0.1,
            "speaker_embedding": torch.nn.functional.normalize(torch.randn(1, 512, 1), dim=1),
        }
        for name in SPEAKERS
    }
    torch.save(speakers, directory / "speakers_xtts.pth")


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


def load(**arguments):
    """The real worker on the tiny model."""
    shim()
    small_vocoder()
    from ivas.engines.tts.xtts.worker import load as real

    return real(**arguments)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
