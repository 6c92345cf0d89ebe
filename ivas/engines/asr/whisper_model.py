"""Whisper itself, through faster-whisper and CTranslate2: every call here blocks.

Called on threads by the engine in whisper.py; CTranslate2 and numpy release the GIL
while they work. Only local files are read. faster-whisper's own `transcribe` is not
used: it encodes the audio a second time to detect its language, always in a window
of 30 s, and tries failed decodings again and again; a conversation cannot wait.

The encoder's work grows with its window, so the window is cut down to the speech and a
margin, as whisper.cpp's `audio_ctx` does (https://github.com/ggml-org/whisper.cpp,
issues 1855 and 1951: three times faster, but too little context makes it repeat itself).
What comes out doubtful is decoded again in a full window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ivas import hardware
from ivas.engines import SAMPLE_RATE_HZ, Samples
from ivas.engines.asr.whisper_guard import Decoding
from ivas.errors import EngineError, EngineUnavailable

Task = Literal["transcribe", "translate"]
Device = Literal["cpu", "cuda"]

MODEL_FILES = ("config.json", "model.bin", "tokenizer.json")
WINDOW_S = 30
"""What Whisper hears at once: it was trained on windows of this length only."""
FRAME_SAMPLES = 160
WINDOW_FRAMES = WINDOW_S * SAMPLE_RATE_HZ // FRAME_SAMPLES
MARGIN_FRAMES = 250
LEAST_FRAMES = 500
"""A cut-down window is 2.5 s longer than the audio, and never below 5 s."""
ROUND_FRAMES = 100
MOST_POSITIONS = 448
"""Of the decoder: prompt and text together."""
PROMPT_TOKENS = 64
"""What is kept of a prompt: its end. Every one of them costs time in every decoding."""
MOST_TOKENS_PER_S = 40
SPARE_TOKENS = 32
"""Speech has 3-15 tokens a second, in scripts Whisper spells out up to 40; more is a loop."""

MOST_THREADS = 8
"""More make a window of 30 s hardly faster."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Audio after the encoder: read by `detect` and `decode`, as often as wanted."""

    output: Any
    """A StorageView on the device."""
    audio_s: float
    whole: bool
    """Whether the window was a full one."""


class WhisperModel:
    """A loaded model. Not for two threads at once."""

    def __init__(self, library_model: Any, extractor: Any) -> None:
        from faster_whisper.tokenizer import _LANGUAGE_CODES

        self._library = library_model
        self._model = library_model.model
        self._extractor = extractor
        self._multilingual = bool(self._model.is_multilingual)
        known = library_model.hf_tokenizer.token_to_id
        self.languages = (
            frozenset(code for code in _LANGUAGE_CODES if known(f"<|{code}|>") is not None)
            if self._multilingual
            else frozenset({"en"})
        )
        """Codes as Whisper writes them."""
        self._suppressed: list[int] | None = None

    def encode(self, samples: Samples, *, whole: bool) -> Encoded:
        """Of at most 30 s. `whole` False cuts the window down to the audio and a margin."""
        frames = min(-(-samples.size // FRAME_SAMPLES), WINDOW_FRAMES)
        window = -(-max(frames + MARGIN_FRAMES, LEAST_FRAMES) // ROUND_FRAMES) * ROUND_FRAMES
        if whole or window > WINDOW_FRAMES:
            window = WINDOW_FRAMES
        features = self._extractor(samples)[:, :frames]
        padded = np.zeros((features.shape[0], window), np.float32)
        padded[:, : features.shape[1]] = features
        output = self._library.encode(padded)
        return Encoded(output, samples.size / SAMPLE_RATE_HZ, window == WINDOW_FRAMES)

    def detect(self, encoded: Encoded) -> tuple[str, float]:
        """The most probable language and its probability; one step of the decoder."""
        if not self._multilingual:
            return "en", 1.0
        token, probability = self._model.detect_language(encoded.output)[0][0]
        return token.strip("<|>"), float(probability)

    def decode(
        self, encoded: Encoded, *, language: str, prompt: str | None, task: Task = "transcribe"
    ) -> Decoding:
        """The text; `language` is one of `languages`, `prompt` what was said or spelled before.

        `task` translate: the text in English, whatever is spoken.
        """
        from faster_whisper.tokenizer import Tokenizer
        from faster_whisper.transcribe import get_suppressed_tokens

        tokenizer = Tokenizer(
            self._library.hf_tokenizer, self._multilingual, task=task, language=language
        )
        if self._suppressed is None:
            suppressed = get_suppressed_tokens(tokenizer, [-1])
            self._suppressed = [token for token in suppressed if token is not None]
        before = [*tokenizer.sot_sequence, tokenizer.no_timestamps]
        hint = (prompt or "").encode(errors="replace").decode().strip()
        if hint and (words := tokenizer.encode(f" {hint}")[-PROMPT_TOKENS:]):
            before = [tokenizer.sot_prev, *words, *before]
        most = math.ceil(SPARE_TOKENS + MOST_TOKENS_PER_S * encoded.audio_s)
        [result] = self._model.generate(
            encoded.output,
            [before],
            beam_size=1,
            sampling_temperature=0,
            # CTranslate2 gives the text at most half of it, and what the prompt leaves.
            max_length=min(MOST_POSITIONS, max(2 * most, most + len(before))),
            suppress_tokens=self._suppressed,
            return_scores=True,
            return_no_speech_prob=True,
        )
        tokens = result.sequences_ids[0]
        # The score is the mean over the text tokens; Whisper's own counts the end as well.
        logprob = float(result.scores[0]) * len(tokens) / (len(tokens) + 1)
        return Decoding(
            # A character cut in two by the length limit is no text.
            text=tokenizer.decode(tokens).replace("\ufffd", ""),
            avg_logprob=logprob if math.isfinite(logprob) else -math.inf,
            no_speech_prob=float(result.no_speech_prob),
        )


def load(
    directory: Path, *, device: Device, compute_type: str | None, threads: int
) -> WhisperModel:
    """Read the model from `directory` and run it once on silence.

    `compute_type` None is int8 on the CPU and float16 on CUDA. `threads` 0 is one for each
    physical core but one, 8 at most. Raises EngineUnavailable with the fix.
    """
    if device == "cuda":
        problem = hardware.cuda_problem(torch=False, ctranslate2=True)
        if problem is not None:
            raise EngineUnavailable(
                f"{problem} Whisper runs on the CPU with IVAS_ASR__DEVICE=cpu.",
                code="device_unavailable",
            )
    try:
        import faster_whisper
        from faster_whisper.feature_extractor import FeatureExtractor
    except (ImportError, OSError) as error:
        raise _package_broken(error) from error
    try:
        library_model = faster_whisper.WhisperModel(
            str(directory),
            device=device,
            compute_type=compute_type or ("float16" if device == "cuda" else "int8"),
            cpu_threads=threads or _spare_cores(),
            local_files_only=True,
        )
        extractor = FeatureExtractor(feature_size=library_model.model.n_mels)
        model = WhisperModel(library_model, extractor)
        silence = model.encode(np.zeros(SAMPLE_RATE_HZ, np.float32), whole=False)
        language, _ = model.detect(silence)
        model.decode(silence, language=language, prompt=None)
    except Exception as error:
        raise _cannot_load(error, directory, device, compute_type) from error
    return model


def failure(error: Exception) -> EngineError:
    """What to tell about an exception at work; code `device_lost` ends the model's life."""
    said = str(error)
    if isinstance(error, MemoryError) or _is_memory(said):
        return EngineError(
            "Whisper ran out of memory; say less at once, end what else uses the memory, or "
            "choose a smaller model with IVAS_ASR__MODEL.",
            code="out_of_memory",
        )
    if "CUDA" in said or "cuBLAS" in said.replace("CUBLAS", "cuBLAS"):
        return EngineError(
            f"Whisper lost the NVIDIA card ({_first(error)}); see whether nvidia-smi finds it, "
            "then restart the server.",
            code="device_lost",
        )
    return EngineError(
        f"Whisper failed at this utterance ({_first(error)}); say it again, and if it stays so "
        "restart the server."
    )


def _cannot_load(
    error: Exception, directory: Path, device: Device, compute_type: str | None
) -> EngineUnavailable:
    said = str(error)
    if isinstance(error, ImportError | AttributeError):  # not the version this was written for
        return _package_broken(error)
    if isinstance(error, MemoryError) or _is_memory(said):
        return EngineUnavailable(
            f"Whisper cannot load {directory.name} because there is not enough memory for it; "
            "choose a smaller model with IVAS_ASR__MODEL, or end what else uses the memory.",
            code="out_of_memory",
        )
    if "compute type" in said:
        return EngineUnavailable(
            f"Whisper cannot compute in {compute_type or 'float16'} on this {device}; set "
            f"IVAS_ASR__COMPUTE_TYPE to {'int8' if device == 'cpu' else 'int8 or float32'}.",
            code="device_unavailable",
        )
    if "CUDA" in said or "cublas" in said.lower() or "cudnn" in said.lower():
        return EngineUnavailable(
            f"Whisper cannot run on CUDA ({_first(error)}); ask `ivas doctor` what is missing, or "
            "set IVAS_ASR__DEVICE=cpu.",
            code="device_unavailable",
        )
    return EngineUnavailable(
        f"The Whisper model in {directory} is damaged or is not one ({_first(error)}); remove it "
        f"with: ivas models remove {directory.name}, and fetch it again with: "
        f"ivas models download {directory.name}",
        code="model_broken",
    )


def _package_broken(error: Exception) -> EngineUnavailable:
    return EngineUnavailable(
        f"Whisper cannot load because its package faster-whisper is broken ({_first(error)}); "
        "install it anew with: pip install --force-reinstall 'ivas[whisper]'",
        code="package_broken",
    )


def _is_memory(said: str) -> bool:
    return "out of memory" in said or "bad_alloc" in said or "allocate memory" in said


def _first(error: Exception) -> str:
    """The first sentence of its text, without the full stop."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).split(". ")[0][:200].rstrip(". ")


def _spare_cores() -> int:
    """All but one, which the event loop and everybody else need: threads of OpenMP wait for
    each other in a loop, and one that has to share its core holds up all. Measured on 2 busy
    cores: 2 threads take 4 to 14 times as long as 1.
    """
    return min(MOST_THREADS, max(1, hardware.physical_cores() - 1))
