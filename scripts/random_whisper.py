#!/usr/bin/env python3
"""A Whisper model directory of any size with random weights: what time and memory cost, unheard.

Made with CTranslate2's own model classes, so the engine loads and runs it like a
downloaded one. It says nonsense, but as many tokens as a person says in a few seconds.

    .venv/bin/python scripts/random_whisper.py base /tmp/whisper-base-random
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float32]

AUDIO_POSITIONS = 1500
TEXT_POSITIONS = 448
TASK_TOKENS = 4
"""<|startoftranscript|>, language, task, <|notimestamps|>: what stands before the text."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a Whisper is; the figures of the sizes are those of the paper's table 1."""

    encoder_layers: int
    decoder_layers: int
    width: int
    heads: int
    mels: int = 80
    multilingual: bool = True


SIZES = {
    "tiny": Shape(4, 4, 384, 6),
    "base": Shape(6, 6, 512, 8),
    "small": Shape(12, 12, 768, 12),
    "medium": Shape(24, 24, 1024, 16),
    "large-v3-turbo": Shape(32, 4, 1280, 20, mels=128),
    "large-v3": Shape(32, 32, 1280, 20, mels=128),
}


def vocabulary(*, multilingual: bool = True, words: tuple[str, ...] = ()) -> list[str]:
    """Whisper's vocabulary, specials in its places; the text tokens are bytes, `words`, filler.

    Only the multilingual one has an empty token, and by that CTranslate2 tells the two
    apart. A word is written byte-level: `Ġ` for a space.
    """
    from faster_whisper.tokenizer import _LANGUAGE_CODES
    from tokenizers import pre_tokenizers

    text = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *words]
    text += [f"Ġ{number}" for number in range(len(text), 50256)]
    return [
        *text,
        *([""] if multilingual else []),
        "<|endoftext|>",
        "<|startoftranscript|>",
        *(f"<|{code}|>" for code in _LANGUAGE_CODES[:99]),
        *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"),
        *("<|nospeech|>", "<|notimestamps|>"),
        *(f"<|{step * 0.02:.2f}|>" for step in range(1501)),
    ]


def random_spec(shape: Shape, tokens: list[str], *, seed: int = 0) -> Any:
    """CTranslate2's specification of a Whisper, every weight drawn at random."""
    WhisperSpec = _whisper_spec()
    random = np.random.default_rng(seed)
    width = shape.width

    def draw(*size: int) -> Weights:
        return random.standard_normal(size, dtype=np.float32) * np.float32(0.02)

    def linear(layer: Any, into: int, out_of: int) -> None:
        layer.weight, layer.bias = draw(into, out_of), np.zeros(into, np.float32)

    def norm(layer: Any) -> None:
        layer.gamma, layer.beta = np.ones(width, np.float32), np.zeros(width, np.float32)

    def attention(layer: Any, *sizes: int) -> None:
        norm(layer.layer_norm)
        for part, size in zip(layer.linear, sizes, strict=True):
            linear(part, size * width, width)

    def ffn(layer: Any) -> None:
        norm(layer.layer_norm)
        linear(layer.linear_0, 4 * width, width)
        linear(layer.linear_1, width, 4 * width)

    spec = WhisperSpec(shape.encoder_layers, shape.heads, shape.decoder_layers, shape.heads)
    encoder, decoder = spec.encoder, spec.decoder
    encoder.conv1.weight = draw(width, shape.mels, 3)
    encoder.conv2.weight = draw(width, width, 3)
    encoder.conv1.bias = encoder.conv2.bias = np.zeros(width, np.float32)
    encoder.position_encodings.encodings = draw(AUDIO_POSITIONS, width)
    decoder.position_encodings.encodings = draw(TEXT_POSITIONS, width)
    decoder.embeddings.weight = draw(len(tokens), width)
    linear(decoder.projection, len(tokens), width)
    norm(encoder.layer_norm)
    norm(decoder.layer_norm)
    for layer in encoder.layer:
        attention(layer.self_attention, 3, 1)
        ffn(layer.ffn)
    for layer in decoder.layer:
        attention(layer.self_attention, 3, 1)
        attention(layer.attention, 1, 2, 1)
        ffn(layer.ffn)
    return spec


def save(spec: Any, tokens: list[str], directory: Path, *, quantization: str = "int8") -> None:
    """Write model.bin, config.json, vocabulary.json and tokenizer.json."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    directory.mkdir(parents=True, exist_ok=True)
    end = tokens.index("<|endoftext|>")
    start = tokens.index("<|startoftranscript|>")
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [end]
    spec.config.lang_ids = list(range(start + 1, start + 100))
    spec.config.alignment_heads = [(0, 0)]
    spec.register_vocabulary(tokens)
    spec.validate()
    spec.optimize(quantization=quantization)
    spec.save(str(directory))
    tokenizer = Tokenizer(BPE(vocab={token: at for at, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [AddedToken(token, normalized=False, special=True) for token in tokens[end:]]
    tokenizer.add_special_tokens(specials)
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)


def build(directory: Path, *, size: str = "base", words: int = 12, seed: int = 0) -> Path:
    """A model of that size that says about `words` tokens, then ends; the directory."""
    shape = SIZES[size]
    tokens = vocabulary(multilingual=shape.multilingual)
    spec = random_spec(shape, tokens, seed=seed)
    decoder = spec.decoder
    # The place decides, not the sound: another word at each, and at last the end. And it is
    # sure of it, so that nobody decodes it a second time.
    places = decoder.position_encodings.encodings
    places *= 100
    places[TASK_TOKENS + words - 1 :] = (
        100 * decoder.projection.weight[tokens.index("<|endoftext|>")]
    )
    decoder.projection.weight *= 100
    save(spec, tokens, directory)
    return directory


def _whisper_spec() -> Any:
    """CTranslate2's class. Its module would import torch if there is one: seconds, for nothing."""
    without_torch = "torch" not in sys.modules
    if without_torch:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from ctranslate2.specs import WhisperSpec
    finally:
        if without_torch:
            del sys.modules["torch"]
    return WhisperSpec


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("directory", type=Path)
    asked = parser.parse_args()
    print(build(asked.directory, size=asked.size))


if __name__ == "__main__":
    main()
