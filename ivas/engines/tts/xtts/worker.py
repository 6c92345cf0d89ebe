"""XTTS itself, in its worker process: loads the model once, speaks one text at a time."""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ivas.audio.wav import read_wav
from ivas.engines.model_process_worker import CRASHED, Work
from ivas.errors import EngineError, EngineUnavailable, SettingsError
from ivas.hardware import physical_cores

from .files import DOWNLOAD_AGAIN, SPEAKERS, damaged
from .install import import_all
from .text import MOST_CHARACTERS, digits_one_by_one, hindi_digit, speakable
from .vocoder import ExactVocoder
from .voices import voice_id

SEED = 0
"""Of every request: the same text by the same voice always sounds the same."""
STEPS = (8, 4, 6, 8, 12, 16, 24)
"""Tokens (46 ms each) from chunk to chunk, the last one again and again. The first chunk
comes early; it and each that follows last longer than the next takes to make, if a token
takes less than 30 ms and the vocoder 20 ms."""
WARM_UP = "Hello there."

Latents = tuple[Any, Any]
"""Of one voice: for the GPT, shape (1, 32, channels), and for the vocoder, (1, 512, 1)."""


def load(
    *, model_dir: str, device: str, recordings: dict[str, str], threads: int
) -> tuple[Work, dict[str, Any]]:
    """Factory of `ModelProcess`: the model on `device`, warm.

    `recordings`: WAV file of each cloned voice. `threads`: for the CPU, 0 leaves one core
    to the server. Says `speakers`, `device` (its name) and `languages`.
    """
    warnings.simplefilter("ignore")  # other people's deprecations
    for chatty in ("TTS", "transformers", "torio", "numba"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    torch = import_all(device)
    torch.set_num_threads(threads or max(1, physical_cores() - 1))
    try:
        model, speakers = _read_model(Path(model_dir), device)
        engine = _Engine(torch, model, device, speakers, recordings)
        engine.warm_up()
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(device, EngineUnavailable) from error
    name = "cpu" if device == "cpu" else torch.cuda.get_device_name(device)
    return engine.speak, {"speakers": list(speakers), "device": name}


class _Engine:
    """The loaded model and the latents of the voices used so far."""

    def __init__(
        self,
        torch: Any,
        model: Any,
        device: str,
        speakers: Mapping[str, Latents],
        recordings: Mapping[str, str],
    ) -> None:
        self._torch = torch
        self._model = model
        self._device = device
        self._recordings = recordings
        self._latents = {voice_id(name): latents for name, latents in speakers.items()}
        for cloned in recordings:
            self._latents.pop(cloned, None)

    def warm_up(self) -> None:
        """Speak a little: the first call on a GPU takes seconds, and noise shows here."""
        voice = next(iter([*self._recordings, *self._latents]))
        request = {"text": WARM_UP, "voice": voice, "language": "en", "speed": 1.0}
        try:
            next(chunk for chunk in self.speak(request) if chunk)
        except EngineError as error:
            raise EngineUnavailable(str(error), code=error.code) from error

    def speak(self, request: Mapping[str, Any]) -> Iterator[bytes]:
        """PCM16 at 24 kHz; b"" after each token that brings none yet."""
        torch = self._torch
        try:
            with torch.inference_mode():
                latents = self._voice(request["voice"])
                language = request["language"]
                most = MOST_CHARACTERS[language]
                for piece in speakable(request["text"], most_characters=most):
                    for tokens in self._tokens(piece, language):
                        yield from self._say(tokens, latents, request["speed"])
        except torch.OutOfMemoryError as error:
            if self._device != "cpu":
                torch.cuda.empty_cache()
            raise _out_of_memory(self._device, EngineError) from error
        except RuntimeError as error:
            if "probability tensor" in str(error):
                raise _noise() from error
            if "CUDA" in str(error) or "CUBLAS" in str(error) or "CUDNN" in str(error):
                first = str(error).partition("\n")[0]
                raise EngineError(
                    f"xtts lost the GPU while speaking ({first}); speak again, it is being "
                    "started anew.",
                    code=CRASHED,
                ) from error
            raise

    def _say(self, tokens: Any, latents: Latents, speed: float) -> Iterator[bytes]:
        """The very samples of coqui-tts' `inference`, as they come."""
        torch, model, config = self._torch, self._model, self._model.config
        for_gpt, speaker = latents
        torch.manual_seed(SEED)
        generated = model.gpt.get_generator(
            fake_inputs=model.gpt.compute_embeddings(for_gpt, tokens),
            top_k=config.top_k,
            top_p=config.top_p,
            temperature=config.temperature,
            do_sample=True,
            num_beams=1,
            num_return_sequences=1,
            length_penalty=float(config.length_penalty),
            repetition_penalty=float(config.repetition_penalty),
            output_attentions=False,
            output_hidden_states=True,
            return_dict_in_generate=True,
        )
        vocoder = ExactVocoder(model.hifigan_decoder, speaker, speed=speed)
        steps = iter(STEPS)
        wait = next(steps)
        for _token, latent in generated:
            vocoder.add(latent)
            wait -= 1
            if wait == 0:
                wait = next(steps, STEPS[-1])
                yield _pcm(vocoder.sound(final=False))
            else:
                yield b""
        yield _pcm(vocoder.sound(final=True))

    def _tokens(self, text: str, language: str) -> Iterator[Any]:
        """The text as the GPT takes it; in parts if numbers make it too long when spoken."""
        ids = self._encode(text, language)
        if len(ids) < self._model.args.gpt_max_text_tokens:
            yield self._torch.IntTensor(ids)[None].to(self._device)
        else:
            for half in speakable(text, most_characters=(len(text) + 1) // 2):
                yield from self._tokens(half, language)

    def _encode(self, text: str, language: str) -> list[int]:
        """Coqui's own normalisation and tokens. It has no number words for some languages."""
        encode = self._model.tokenizer.encode
        try:
            return list(encode(text.lower(), lang=language))
        except ImportError as error:
            raise EngineError(
                f"xtts cannot speak {language} because a package is missing ({error}); run: "
                f"pip install 'coqui-tts[{language.split('-')[0]}]', then restart the server.",
                code="package_missing",
            ) from error
        except Exception:  # num2words raises NotImplementedError, OverflowError, KeyError ...
            spelled = digits_one_by_one(text.lower(), _digit_words(language))
        try:
            return list(encode(spelled, lang=language))
        except Exception as error:
            raise EngineError(
                f"xtts cannot read this text aloud in {language} "
                f"({type(error).__name__}: {error}); put it in words."
            ) from error

    def _voice(self, voice: str) -> Latents:
        if voice not in self._latents:
            self._latents[voice] = self._clone(Path(self._recordings[voice]))
        for_gpt, speaker = self._latents[voice]
        return for_gpt.to(self._device), speaker.to(self._device)

    def _clone(self, recording: Path) -> Latents:
        """The latents of a recorded voice, as Xtts.get_conditioning_latents makes them.

        It would read the file with torchcodec, which often does not load.
        """
        config, rate_hz = self._model.config, 22050
        try:
            samples = read_wav(recording, rate_hz)[: rate_hz * int(config.max_ref_len)]
        except SettingsError as error:
            raise EngineError(f"xtts cannot clone this voice: {error}") from error
        audio = self._torch.from_numpy(samples)[None].to(self._device)
        return (
            self._model.get_gpt_cond_latents(
                audio,
                rate_hz,
                length=config.gpt_cond_len,
                chunk_length=config.gpt_cond_chunk_len,
            ),
            self._model.get_speaker_embedding(audio, rate_hz),
        )


def _read_model(directory: Path, device: str) -> tuple[Any, dict[str, Latents]]:
    """The model on `device` and its speakers, file by file, so that a bad one is named."""
    import torch
    from TTS.tts.configs.xtts_config import XttsConfig
    from TTS.tts.layers.xtts.tokenizer import VoiceBpeTokenizer
    from TTS.tts.models.xtts import Xtts

    config, speakers = XttsConfig(), {}
    part = "config.json"
    try:
        config.load_json(str(directory / part))
        part = "vocab.json"
        VoiceBpeTokenizer(vocab_file=str(directory / part))
        part = SPEAKERS
        if (directory / part).exists():
            stored = torch.load(directory / part, map_location="cpu", weights_only=True)
            for name, latents in stored.items():
                speakers[name] = (latents["gpt_cond_latent"], latents["speaker_embedding"])
        part = "model.pth"
        model = Xtts(config)
        # Its own would rewrite the file when it holds the settings as an object, as the
        # published one does: other checksum, and not possible in a read-only directory.
        model._load_checkpoint = _read_weights
        model.load_checkpoint(config, checkpoint_dir=str(directory), eval=True)
        model.to(device)
        return model, speakers
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # torch, pickle, json and coqui raise what they like
        raise damaged(directory / part, error) from error


def _read_weights(path: Path) -> dict[str, Any]:
    """The weights of a checkpoint. No code in it is run: only known classes are made."""
    import torch
    from TTS.config.shared_configs import BaseDatasetConfig
    from TTS.tts.configs.xtts_config import XttsArgs, XttsAudioConfig, XttsConfig

    known = [
        (XttsArgs, "TTS.tts.models.xtts.XttsArgs"),  # where they were when it was published
        (XttsAudioConfig, "TTS.tts.models.xtts.XttsAudioConfig"),
        BaseDatasetConfig,
        XttsConfig,
    ]
    with torch.serialization.safe_globals(known):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(checkpoint, dict) or "model" not in checkpoint:
        raise pickle.UnpicklingError("it holds no model")
    weights: dict[str, Any] = checkpoint["model"]
    return weights


def _pcm(samples: Any) -> bytes:
    """Float samples as PCM16. Raises EngineError if they are no sound."""
    if not samples.isfinite().all():
        raise _noise()
    pcm: bytes = (samples.clamp(-1, 1) * 32767).short().cpu().numpy().astype("<i2").tobytes()
    return pcm


def _noise() -> EngineError:
    return EngineError(
        f"xtts made noise instead of speech, so its weights are damaged; {DOWNLOAD_AGAIN}.",
        code="model_broken",
    )


def _digit_words(language: str) -> Any:
    if language == "hi":
        return hindi_digit

    def words(digit: int) -> str:
        from num2words import num2words  # type: ignore[import-untyped]

        return str(num2words(digit, lang=language))

    return words


def _out_of_memory(device: str, kind: type[EngineError]) -> EngineError:
    where, fix = "the GPU", "end what else uses it (see nvidia-smi)"
    if device == "cpu":
        where, fix = "this machine", "end other programs"
    return kind(
        f"xtts ran out of memory on {where}; {fix}, or choose a smaller engine such as piper.",
        code="out_of_memory",
    )
