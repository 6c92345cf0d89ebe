"""Settings -> engines. The only importer of concrete engines, each inside its case.

One `match` per kind. With `auto` a kind has several candidates, the best first, of
which the last runs anywhere: see `choice.py`.
"""

from __future__ import annotations

import importlib
from typing import Any, TypeVar

from .choice import Choice, Engines
from .engines import ASR, LLM, TTS, VAD, Engine
from .errors import SettingsError
from .settings import Settings

E = TypeVar("E", bound=Engine)


def make_vad(name: str, settings: Settings) -> VAD:
    match name:
        case "silero":
            from .engines.vad.silero import SileroVAD

            return SileroVAD()
        case "fake":
            from .engines.fake import FakeVAD

            return FakeVAD()
        case _:
            return _third_party(name, "frame_samples", "open")  # type: ignore[no-any-return]


def make_asr(name: str, settings: Settings) -> ASR:
    match name:
        case "pocketsphinx":
            from .engines.asr.pocketsphinx import PocketsphinxASR

            return PocketsphinxASR()
        case "fake":
            from .engines.fake import FakeASR

            return FakeASR(ms=settings.fake.asr_ms, transcript=settings.fake.transcript)
        case _:
            return _third_party(name, "open")  # type: ignore[no-any-return]


def make_llm(name: str, settings: Settings) -> LLM:
    match name:
        case "builtin":
            from .engines.llm.builtin import BuiltinLLM

            return BuiltinLLM()
        case "fake":
            from .engines.fake import DEFAULT_REPLY, FakeLLM

            return FakeLLM(
                first_ms=settings.fake.llm_first_ms,
                tokens_per_s=settings.fake.llm_tokens_per_s,
                reply=DEFAULT_REPLY if settings.fake.reply is None else settings.fake.reply,
            )
        case _:
            return _third_party(name, "stream", "prefill")  # type: ignore[no-any-return]


def make_tts(name: str, settings: Settings) -> TTS:
    match name:
        case "espeak":
            from .engines.tts.espeak import EspeakTTS

            return EspeakTTS()
        case "fake":
            from .engines.fake import FakeTTS

            return FakeTTS(first_ms=settings.fake.tts_first_ms, rtf=settings.fake.tts_rtf)
        case _:
            return _third_party(name, "voices", "stream")  # type: ignore[no-any-return]


def _third_party(name: str, *members: str) -> Any:
    """`package.module:factory`, called without arguments.

    `members`: what an engine of this kind has, beside what every engine has.
    """
    module, _, factory = name.partition(":")
    try:
        engine = getattr(importlib.import_module(module), factory)()
    except Exception as error:
        raise SettingsError(
            f"The engine {name} could not be made ({type(error).__name__}: {error}); "
            "install its package or correct the name."
        ) from error
    for member in ("name", "status", "start", "aclose", *members):
        if not hasattr(engine, member):
            raise SettingsError(
                f"The engine {name} is none of this kind (it has no {member!r}); correct the "
                "name, or give it the shape shown in ivas/engines/__init__.py."
            )
    return engine


def choose_vad(settings: Settings) -> Choice[VAD]:
    names = _candidates(settings.vad.engine, "silero")
    return Choice("vad", [make_vad(name, settings) for name in names], auto=len(names) > 1)


def choose_asr(settings: Settings) -> Choice[ASR]:
    names = _candidates(settings.asr.engine, "pocketsphinx")
    return Choice("asr", [make_asr(name, settings) for name in names], auto=len(names) > 1)


def choose_llm(settings: Settings) -> Choice[LLM]:
    names = _candidates(settings.llm.engine, "builtin")
    return Choice("llm", [make_llm(name, settings) for name in names], auto=len(names) > 1)


def choose_tts(settings: Settings) -> Choice[TTS]:
    names = _candidates(settings.tts.engine, "espeak")
    return Choice("tts", [make_tts(name, settings) for name in names], auto=len(names) > 1)


def _candidates(engine: str, *auto: str) -> tuple[str, ...]:
    return auto if engine == "auto" else (engine,)


def choose_engines(settings: Settings) -> Engines:
    """The engines the settings name; none is loaded yet."""
    return Engines(
        vad=choose_vad(settings),
        asr=choose_asr(settings),
        llm=choose_llm(settings),
        tts=choose_tts(settings),
    )
