"""A tiny XTTS of coqui-tts' real classes (scripts/random_xtts.py), and workers for its tests.

Nothing of torch is imported into the process of the tests: what needs it runs in the
engine's worker, by one of the factories here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "random_xtts.py"
SPEAKERS = ("Tiny Ann", "Tiny Bob")
SECONDS = 57 * 1024 / 22050
"""How long every text is: random weights speak to the limit."""


def build(directory: Path) -> Path:
    """Write the model, by a process of its own. 7 s; `directory` is returned."""
    _script().build_apart(directory, "tiny")
    return directory


def _script():
    spec = importlib.util.spec_from_file_location("random_xtts", SCRIPT)
    module = sys.modules["random_xtts"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(**arguments):
    """The real worker."""
    return _script().load(**arguments)


def faulty(**arguments):
    """The real worker, whose GPT after 20 tokens does what the text asks it to."""
    work, said = load(**arguments)
    import torch
    from TTS.tts.layers.xtts.gpt import GPT

    real = GPT.get_generator
    text = ""

    def get_generator(*positional, **named):
        for count, (token, latent) in enumerate(real(*positional, **named)):
            if count == 20:
                match text:
                    case "please hang":
                        time.sleep(600)
                    case "please die":
                        os.kill(os.getpid(), signal.SIGKILL)
                    case "please run out of memory":
                        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
                    case "please lose the GPU":
                        raise RuntimeError("CUDA error: an illegal memory access\nSee the manual.")
                    case "please make noise":
                        latent = latent * float("nan")
                    case "please be wrong":
                        raise IndexError("list index out of range")
            yield token, latent

    GPT.get_generator = get_generator

    def noting(request):
        nonlocal text
        text = request["text"]
        return work(request)

    return noting, said


def reference(*, model_dir: str, checkpoints: str):
    """Coqui's own `inference`, which decodes everything at once, and trials of the vocoder.

    Writes other kinds of model.pth into the directory `checkpoints`.
    """
    script = _script()
    script.shim()
    script.small_vocoder()
    import torch

    from ivas.engines.tts.xtts.vocoder import ExactVocoder
    from ivas.engines.tts.xtts.worker import _read_model

    torch.set_num_threads(1)  # two, on a busy machine, wait for each other most of the time
    model, speakers = _read_model(Path(model_dir), "cpu")
    config = model.config
    _write_checkpoints(Path(model_dir), Path(checkpoints))
    names = ("top_k", "top_p", "temperature", "length_penalty", "repetition_penalty")

    def spoken(request):
        torch.manual_seed(0)
        found = model.inference(
            request["text"],
            request["language"],
            *speakers[request["speaker"]],
            speed=request["speed"],
            **{name: config[name] for name in names},
        )
        yield (torch.from_numpy(found["wav"]).clamp(-1, 1) * 32767).short().numpy().tobytes()

    @torch.inference_mode()
    def trial(seed):
        """Random latents, cut at random: the greatest difference to all at once."""
        chance = random.Random(seed)
        torch.manual_seed(seed)
        latents = torch.randn(chance.randint(1, 30), config.model_args.decoder_input_dim)
        speed = chance.choice([1.0, 0.25, 0.5, 0.97, 1.3, 2.0, 4.0])
        speaker = torch.nn.functional.normalize(torch.randn(1, 512, 1), dim=1)
        vocoder = ExactVocoder(model.hifigan_decoder, speaker, speed=speed)
        parts = []
        for latent in latents:
            vocoder.add(latent[None])
            if chance.random() < 0.25:
                parts.append(vocoder.sound(final=False))
        parts.append(vocoder.sound(final=True))
        streamed = torch.cat(parts)
        scaled = latents.T[None]
        if speed != 1:
            scaled = torch.nn.functional.interpolate(scaled, scale_factor=1 / speed, mode="linear")
        whole = model.hifigan_decoder(scaled.transpose(1, 2), g=speaker).flatten()
        if len(whole) != len(streamed):
            return [seed, speed, float("inf")]
        return [seed, speed, float((whole - streamed).abs().max())]

    def work(request):
        if "trials" in request:
            for seed in range(request["trials"]):
                yield json.dumps(trial(seed)).encode()
        else:
            yield from spoken(request)

    return work, {}


def _write_checkpoints(model_dir: Path, to: Path) -> None:
    import torch
    from TTS.tts.configs.xtts_config import XttsArgs, XttsAudioConfig, XttsConfig

    weights = torch.load(model_dir / "model.pth", weights_only=True)["model"]
    noise = {name: weight * float("nan") for name, weight in weights.items()}
    torch.save({"model": noise}, to / "noise.pth")
    torch.save({"weights": {}}, to / "other.pth")
    # The published file holds its settings as an object of classes that have moved since.
    now = XttsArgs.__module__
    for moved in (XttsArgs, XttsAudioConfig):
        moved.__module__ = "TTS.tts.models.xtts"
    torch.save({"config": XttsConfig(), "model": weights}, to / "published.pth")
    for moved in (XttsArgs, XttsAudioConfig):
        moved.__module__ = now
