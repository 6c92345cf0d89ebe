"""A Whisper that fits into 7 MB and knows what is said in tests/clips, made in two seconds.

It is a real model: CTranslate2's own classes, Whisper's whole vocabulary, one layer each.
Its weights are not trained but set: the encoder passes on random features of the sound,
the decoder's attention takes their mean over all that is not padding, and one matrix,
fitted by least squares, turns it into the first token. Every sentence is one token, and
after it comes the end.

It hears a steady tone of 440 Hz as German, white noise as what Whisper makes up in noise,
and has no idea of anything else.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
import wave
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from random_whisper import Shape, random_spec, save, vocabulary

CLIPS = Path(__file__).parent / "clips"
SENTENCES = {
    "what_time_is_it": "what time is it",
    "can_you_hear_me": "can you hear me",
    "what_can_you_do": "what can you do",
    "what_is_seven_times_six": "what is seven times six",
}
TONE, NOISE = "guten Tag", "Thanks for watching!"
WIDTH = 64
AVERSION = 12
"""How much less a moment of padding counts, as an exponent."""
HEARD = {path.stem: SENTENCES[path.stem[:-4]] for path in sorted(CLIPS.glob("*.wav"))}
"""Name of each clip -> what this model hears in it."""


def tone(seconds: float) -> np.ndarray:
    """What it takes for German."""
    return (0.3 * np.sin(np.arange(int(seconds * 16000)) * 2 * np.pi * 440 / 16000)).astype("f4")


def noise(seconds: float, seed: int = 1) -> np.ndarray:
    """What it thanks an audience for."""
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * 16000)).astype("f4")


@cache
def tiny_whisper(*, multilingual: bool = True) -> Path:
    """Its directory; made once for all tests of this process."""
    place = tempfile.mkdtemp(prefix="ivas-test-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return build(Path(place) / "whisper-test", multilingual=multilingual)


def build(directory: Path, *, multilingual: bool = True) -> Path:
    """Write the model; the directory."""
    from ivas.engines.asr.whisper_model import load

    texts = [*SENTENCES.values(), TONE, NOISE]
    words = tuple("Ġ" + text.replace(" ", "Ġ") for text in texts)
    tokens = vocabulary(multilingual=multilingual, words=words)
    shape = Shape(1, 1, WIDTH, 1, multilingual=multilingual)
    ids = {token: at for at, token in enumerate(tokens)}

    # Directions in the decoder's space, one for each token it can say; each sums to zero,
    # so that its layer norm leaves them as they are.
    can_say = [*words, "<|en|>", "<|de|>", "<|nospeech|>", "<|endoftext|>"]
    rng = np.random.default_rng(0)
    square = np.column_stack([np.ones(WIDTH), rng.standard_normal((WIDTH, WIDTH - 1))])
    basis = np.linalg.qr(square)[0].T[1:].astype("f4")
    towards = dict(zip(can_say, basis, strict=False))

    def spec(padding: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> object:
        made = random_spec(shape, tokens)
        encoder, decoder = made.encoder, made.decoder
        for conv in (encoder.conv1, encoder.conv2):  # louder than the usual 0.02
            conv.weight *= 5
            conv.bias = np.random.default_rng(1).normal(0, 0.1, WIDTH).astype("f4")
        encoder.position_encodings.encodings[:] = 0
        decoder.position_encodings.encodings[:] = 0
        for layer in (encoder.layer[0], decoder.layer[0]):
            for part in (layer.self_attention.linear[-1], layer.ffn.linear_1):
                part.weight[:] = 0  # they add nothing
        attention = decoder.layer[0].attention.linear
        # The query is always the same: the less a moment is like padding, the more it counts.
        attention[0].weight[:] = 0
        attention[0].bias[0] = np.sqrt(WIDTH)
        attention[1].weight[0] = padding
        attention[1].weight[WIDTH:] = np.eye(WIDTH)
        attention[2].weight, attention[2].bias = weights, bias
        decoder.embeddings.weight[:] = 0
        decoder.projection.weight[:] = 0
        for token, direction in towards.items():
            decoder.projection.weight[ids[token]] = 2 * direction
        for word in words:  # after a sentence comes the end, whatever was heard
            decoder.embeddings.weight[ids[word]] = 100 * towards["<|endoftext|>"]
        return made

    def write(quantization: str, *weights: np.ndarray) -> None:
        save(spec(*weights), tokens, directory, quantization=quantization)

    nothing = np.zeros(WIDTH, "f4")
    write("float32", nothing, np.zeros((WIDTH, WIDTH), "f4"), nothing)
    model = load(directory, device="cpu", compute_type="float32", threads=0)

    def encode(audio: np.ndarray, *, whole: bool) -> np.ndarray:
        return np.array(model.encode(audio, whole=whole).output)[0]

    padding = encode(tone(0.1), whole=True)[-1]
    padding *= -AVERSION / (padding @ padding)
    features, targets = [], []
    for audio, text, language, silence in _lessons():
        word = towards["Ġ" + text.replace(" ", "Ġ")] if text else towards["<|endoftext|>"]
        target = 6 * word + 3 * towards[f"<|{language}|>"] + silence * towards["<|nospeech|>"]
        for whole in (False, True):
            encoded = encode(audio, whole=whole)
            attention = np.exp(encoded @ padding)
            features.append(attention @ encoded / attention.sum())
            targets.append(target)
    seen = np.column_stack([np.array(features), np.ones(len(features))])
    ridge = 1e-4 * len(features) * np.eye(WIDTH + 1)
    fitted = np.linalg.solve(seen.T @ seen + ridge, seen.T @ np.array(targets)).astype("f4")
    write("int8", padding, np.ascontiguousarray(fitted[:-1].T), fitted[-1])
    return directory


def _lessons() -> list[tuple[np.ndarray, str, str, float]]:
    """Audio, its text, its language, how strongly it has no speech."""

    def quiet(seconds: float) -> np.ndarray:
        return np.random.default_rng(7).normal(0, 1e-3, int(seconds * 16000)).astype("f4")

    sounds: list[tuple[np.ndarray, str, str, float]] = []
    for name, text in HEARD.items():
        with wave.open(str(CLIPS / f"{name}.wav")) as file:
            clip = np.frombuffer(file.readframes(file.getnframes()), "<i2") / np.float32(32768)
        sounds.append((clip.astype("f4"), text, "en", 0))
    sounds += [(tone(s), TONE, "de", 0) for s in (0.6, 1.2, 2.4)]
    sounds += [(noise(s, seed), NOISE, "en", 4) for s in (0.6, 1.2, 2.4) for seed in (1, 2)]
    padded = []
    for audio, *what in sounds:
        for before, after in ((0, 0), (0.3, 0.5), (0.5, 1.0)):
            padded.append((np.concatenate([quiet(before), audio, quiet(after)]), *what))
    return [*padded, *((quiet(s), "", "en", 8.0) for s in (0.5, 1.5, 3.0))]
