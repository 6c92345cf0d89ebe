"""Which engine runs on the CPU and which on CUDA: settled before any engine is made.

In production what was asked for must be there: no CUDA ends the start with the reason.
In development it is a warning, and the CPU does the work. Macs: everything runs on the
CPU, because neither CTranslate2 (Whisper) nor the streaming of XTTS has a Metal path;
Ollama uses the Mac's GPU by itself.
"""

from __future__ import annotations

from collections.abc import Callable

from . import hardware
from .errors import SettingsError
from .settings import Settings

CPU_VOICES = frozenset({"espeak", "fake", "kokoro", "openai", "piper"})
"""Voices that would not notice a GPU."""

Problem = Callable[[bool, bool], str | None]
"""Why torch (first) and CTranslate2 (second), where wanted, cannot use CUDA; None = they can."""


def _problem(torch: bool, ctranslate2: bool) -> str | None:
    return hardware.cuda_problem(torch=torch, ctranslate2=ctranslate2)


def settled(
    settings: Settings, warn: Callable[[str], None], problem: Problem = _problem
) -> Settings:
    """The settings with every device decided. Takes up to a second where CUDA is wanted.

    Raises SettingsError if production lacks CUDA; otherwise `warn` is told in one sentence.
    """
    production = settings.env == "production"
    hears = settings.asr.engine in ("auto", "whisper")
    device = settings.asr.device
    if device == "auto":
        device = "cuda" if production and hears else "cpu"
    speaks = bool(settings.tts.use_gpu)
    if speaks and settings.tts.engine in CPU_VOICES:
        if not production:
            warn(
                f"TTS_USE_GPU is on, but the voice {settings.tts.engine} runs on the CPU; "
                "unset it, or name an engine that uses a GPU."
            )
        speaks = False
    hears = hears and device == "cuda"
    if hears or speaks:
        why = problem(speaks, hears)
        if why is not None and production:
            raise SettingsError(f"IVAS_ENV=production runs on CUDA, and cannot here: {why}")
        if why is not None:
            warn(f"A GPU was asked for, but the CPU does the work: {why}")
            hears = speaks = False
    return settings.model_copy(
        update={
            "asr": settings.asr.model_copy(update={"device": "cuda" if hears else "cpu"}),
            "tts": settings.tts.model_copy(update={"use_gpu": speaks}),
        }
    )
