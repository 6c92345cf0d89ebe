"""Settings -> engines. The only importer of concrete engines, each inside its case.

One `match` per kind. With `auto` a kind has several candidates, the best first, of
which the last runs anywhere: see `choice.py`. Devices are settled before (`devices.py`).
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from .choice import Choice, Engines
from .engines import ASR, LLM, TTS, VAD
from .errors import SettingsError
from .hardware import nvidia
from .models.store import ModelStore
from .settings import Settings


def make_vad(name: str, settings: Settings) -> VAD:
    match name:
        case "silero":
            from .engines.vad.silero import SileroVAD

            return SileroVAD()
        case "webrtc":
            from .engines.vad.webrtc import WebrtcVAD

            return WebrtcVAD(aggressiveness=settings.vad.aggressiveness)
        case "fake":
            from .engines.fake import FakeVAD

            return FakeVAD()
        case _:
            return _third_party(name, "frame_samples", "open")  # type: ignore[no-any-return]


def make_asr(name: str, settings: Settings) -> ASR:
    match name:
        case "whisper":
            from .engines.asr.whisper import WhisperASR

            asr = settings.asr
            return WhisperASR(
                model_dir=whisper_dir(settings),
                device="cuda" if on_cuda(asr.device, settings) else "cpu",
                compute_type=None if asr.compute_type == "auto" else asr.compute_type,
                threads=asr.threads,
                language=asr.language,
            )
        case "openai":
            from .engines.asr.openai import OpenaiASR

            return OpenaiASR(
                base_url=_url("asr", settings.asr.url),
                api_key=_revealed(settings.asr.api_key),
                model=settings.asr.model,
                language=settings.asr.language,
                partials=settings.asr.partials,
            )
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
        case "ollama":
            from .engines.llm.ollama import OllamaLLM

            llm = settings.llm
            return OllamaLLM(
                host=llm.host,
                model=llm.model,
                num_ctx=llm.num_ctx,
                keep_alive=llm.keep_alive,
                temperature=llm.temperature,
                comfortable_bytes=_comfortable_bytes(),
            )
        case "openai":
            from .engines.llm.openai import OpenaiLLM

            return OpenaiLLM(
                base_url=_url("llm", settings.llm.url),
                api_key=_revealed(settings.llm.api_key),
                model=settings.llm.model,
                temperature=settings.llm.temperature,
            )
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
        case "xtts":
            from .engines.tts.xtts import XttsTTS

            tts = settings.tts
            store = ModelStore(settings.models_dir)
            return XttsTTS(
                model_dir=settings.models_dir / XTTS,
                device="cuda" if tts.use_gpu else "cpu",
                voices_dir=tts.voices_dir,
                licence_accepted=lambda: tts.xtts_licence_accepted or store.licence_accepted(XTTS),
                language=tts.language,
            )
        case "kokoro":
            from .engines.tts.kokoro import KokoroTTS

            return KokoroTTS(model_dir=lambda: _kokoro_dir(settings), threads=settings.tts.threads)
        case "piper":
            from .engines.tts.piper import PiperTTS

            return PiperTTS(
                models_dir=settings.models_dir,
                voice=settings.tts.voice,
                threads=settings.tts.threads,
            )
        case "openai":
            from .engines.tts.openai import OpenaiTTS

            return OpenaiTTS(
                base_url=_url("tts", settings.tts.url),
                api_key=_revealed(settings.tts.api_key),
                model=settings.tts.model,
                voice=settings.tts.voice,
            )
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
    return Choice("vad", [make_vad(name, settings) for name in names])


def choose_asr(settings: Settings) -> Choice[ASR]:
    names = _candidates(settings.asr.engine, "whisper", "pocketsphinx")
    return Choice("asr", [make_asr(name, settings) for name in names])


def choose_llm(settings: Settings) -> Choice[LLM]:
    names = _candidates(settings.llm.engine, "ollama", "builtin")
    return Choice("llm", [make_llm(name, settings) for name in names])


def choose_tts(settings: Settings) -> Choice[TTS]:
    # On a CPU, XTTS takes ten seconds for one: nobody wants that unasked.
    gpu = ("xtts",) if settings.tts.use_gpu else ()
    names = _candidates(settings.tts.engine, *gpu, "kokoro", "piper", "espeak")
    return Choice("tts", [make_tts(name, settings) for name in names])


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


# --- what the settings leave open ----------------------------------------------

XTTS = "xtts-v2"
"""The model's name in `ivas models`."""


def whisper_model(settings: Settings) -> str:
    """The Whisper model to hear with, as `ivas models` calls it."""
    size = settings.asr.model or ("large-v3-turbo" if settings.env == "production" else "base")
    return size if size.startswith("whisper-") else f"whisper-{size}"


def whisper_dir(settings: Settings) -> Path:
    """Where it is. `asr.model` may also be the path of a converted model."""
    given = Path(settings.asr.model or "").expanduser()
    return given if given.is_absolute() else settings.models_dir / whisper_model(settings)


def _kokoro_dir(settings: Settings) -> Path:
    """The whole model, or the small one where there is no other. Either may come later."""
    whole, small = (settings.models_dir / name for name in ("kokoro", "kokoro-int8"))
    there = all(any(whole.glob(kind)) for kind in ("*.onnx", "*.bin"))
    return small if small.exists() and not there else whole


def on_cuda(device: str, settings: Settings) -> bool:
    return device == "cuda" or (device == "auto" and settings.env == "production")


def _comfortable_bytes() -> int:
    """The largest LLM, as a file, that answers at the pace of speech here.

    Of a card's memory three quarters: the rest is for the context and for the voice. On a
    CPU about what 2.5 GB of weights are: each token reads all of them once, and memory
    gives 20 to 40 GB a second.
    """
    gpus = nvidia().gpus
    return int(0.75 * max(gpu.total_bytes for gpu in gpus)) if gpus else 2_500_000_000


def _url(kind: str, url: str | None) -> str:
    if url is None:
        raise SettingsError(
            f"The {kind} engine openai needs the address of its server; set "
            f"IVAS_{kind.upper()}__URL, for example to http://127.0.0.1:9000/v1."
        )
    return url


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
