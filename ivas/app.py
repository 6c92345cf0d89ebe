"""The composition root: settings -> engines -> FastAPI app. The only importer of
concrete engines, each inside the case that chooses it.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI

from .announcements import SessionSettings
from .conversation.events import TurnSettings
from .engines import ASR, LLM, TTS, VAD, Engine
from .errors import EngineError, SettingsError
from .reply import ReplyLimits
from .server.page import page_router
from .server.realtime import RealtimeOptions, realtime_router
from .server.status import status_router
from .server.websocket import CuttingProtocol
from .session import Engines, SessionLimits
from .settings import Settings

log = logging.getLogger(__name__)

MODEL = "ivas"
"""What this server calls its pipeline in /v1/models; any other name is accepted too."""

CPU_VOICES = frozenset({"auto", "espeak", "fake"})
"""Voices that would not notice a GPU."""

# --- engines -----------------------------------------------------------------


def choose_vad(settings: Settings) -> VAD:
    match settings.vad.engine:
        case "auto" | "silero":
            from .engines.vad.silero import SileroVAD

            return SileroVAD()
        case "fake":
            from .engines.fake import FakeVAD

            return FakeVAD()
        case name:
            return _third_party(name, "frame_samples", "open")  # type: ignore[no-any-return]


def choose_asr(settings: Settings) -> ASR:
    match settings.asr.engine:
        case "auto" | "pocketsphinx":
            from .engines.asr.pocketsphinx import PocketsphinxASR

            return PocketsphinxASR()
        case "fake":
            from .engines.fake import FakeASR

            return FakeASR(ms=settings.fake.asr_ms, transcript=settings.fake.transcript)
        case name:
            return _third_party(name, "open")  # type: ignore[no-any-return]


def choose_llm(settings: Settings) -> LLM:
    match settings.llm.engine:
        case "auto" | "builtin":
            from .engines.llm.builtin import BuiltinLLM

            return BuiltinLLM()
        case "fake":
            from .engines.fake import DEFAULT_REPLY, FakeLLM

            return FakeLLM(
                first_ms=settings.fake.llm_first_ms,
                tokens_per_s=settings.fake.llm_tokens_per_s,
                reply=DEFAULT_REPLY if settings.fake.reply is None else settings.fake.reply,
            )
        case name:
            return _third_party(name, "stream", "prefill")  # type: ignore[no-any-return]


def choose_tts(settings: Settings) -> TTS:
    match settings.tts.engine:
        case "auto" | "espeak":
            from .engines.tts.espeak import EspeakTTS

            return EspeakTTS()
        case "fake":
            from .engines.fake import FakeTTS

            return FakeTTS(first_ms=settings.fake.tts_first_ms, rtf=settings.fake.tts_rtf)
        case name:
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


def choose_engines(settings: Settings) -> Engines:
    """The engines the settings name; none is loaded yet."""
    return Engines(
        vad=choose_vad(settings),
        asr=choose_asr(settings),
        llm=choose_llm(settings),
        tts=choose_tts(settings),
    )


# --- the app -----------------------------------------------------------------


@dataclass(slots=True)
class Startup:
    """How far loading is. `failure`: why the server has to end."""

    loading: bool = True
    failure: str | None = None
    on_failure: Callable[[], None] = field(default=lambda: None)
    listening: Callable[[], bool] = field(default=lambda: True)
    on_ready: Callable[[], None] = field(default=lambda: None)


def by_kind(engines: Engines) -> dict[str, Engine]:
    """The engines under the names the settings and /ready have for their kinds."""
    return {"vad": engines.vad, "asr": engines.asr, "llm": engines.llm, "tts": engines.tts}


async def load(engines: Engines, settings: Settings, startup: Startup) -> None:
    """Start all engines at once. One that was named outright must start; one that
    `auto` chose may fail, and what it was for then fails with its sentence."""
    kinds = by_kind(engines)
    started = await asyncio.gather(
        *(engine.start() for engine in kinds.values()), return_exceptions=True
    )
    for (kind, engine), error in zip(kinds.items(), started, strict=True):
        if error is None:
            continue
        if not isinstance(error, EngineError):
            log.error("engine %s failed to start", engine.name, exc_info=error)
        why = f"The {kind} engine {engine.name} cannot start: {error}"
        if getattr(settings, kind).engine == "auto" and isinstance(error, EngineError):
            log.warning("%s", why)
        else:
            startup.failure = why
    known = [voice.id for voice in engines.tts.voices]
    speaks = startup.failure is None and engines.tts.status().ready
    if speaks and settings.tts.voice not in (None, *known):
        startup.failure = (
            f"The voice {settings.tts.voice} is not one of {engines.tts.name}; "
            f"IVAS_TTS__VOICE takes {', '.join(known[:12])}{' and more' if known[12:] else ''}."
        )
    startup.loading = False
    # What is alive now stays alive: keep the collector from walking it again and again.
    gc.collect()
    gc.freeze()
    if startup.failure is not None:
        startup.on_failure()
        return
    while not startup.listening():  # noqa: ASYNC110 - uvicorn offers no event for it
        await asyncio.sleep(0.01)
    startup.on_ready()


def build(
    settings: Settings, *, engines: Engines | None = None, startup: Startup | None = None
) -> FastAPI:
    """The whole application; engines load when it starts."""
    serving = engines or choose_engines(settings)
    state = startup or Startup()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(load(serving, settings, state))
        try:
            yield
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            for engine in by_kind(serving).values():
                try:
                    await engine.aclose()
                except Exception:  # the others are to be closed all the same
                    log.exception("engine %s could not be closed", engine.name)

    def unready() -> str | None:
        return "The engines are still loading; try again in a moment." if state.loading else None

    app = FastAPI(title="IVAS", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    secret = settings.server.api_key
    key = secret.get_secret_value() if secret is not None else None
    options = RealtimeOptions(
        engines=serving,
        limits=session_limits(settings),
        defaults=session_defaults(settings),
        model=MODEL,
        key=key,
        max_message_bytes=settings.server.max_message_mib * 2**20,
        unready=unready,
    )
    app.include_router(realtime_router(options))
    app.include_router(
        status_router(lambda: by_kind(serving), model=MODEL, started_at=int(time.time()), key=key)
    )
    app.include_router(page_router())
    return app


def session_limits(settings: Settings) -> SessionLimits:
    """What the operator sets for every session."""
    return SessionLimits(
        transcript_s=settings.asr.timeout_s,
        max_tokens=settings.llm.max_tokens,
        reply=ReplyLimits(
            first_token_s=settings.llm.first_token_timeout_s,
            token_stall_s=settings.llm.stall_timeout_s,
            first_audio_s=settings.tts.first_audio_timeout_s,
            audio_stall_s=settings.tts.stall_timeout_s,
        ),
    )


def session_defaults(settings: Settings) -> SessionSettings:
    """What a session is before its client changes anything."""
    limits = settings.llm.first_token_timeout_s + settings.tts.first_audio_timeout_s
    turn = TurnSettings(
        threshold=settings.vad.threshold,
        silence_ms=settings.turn.silence_ms,
        prefix_padding_ms=settings.turn.prefix_padding_ms,
        onset_ms=settings.turn.onset_ms,
        barge_in_ms=settings.turn.barge_in_ms,
        max_utterance_ms=settings.turn.max_utterance_s * 1000,
        # The engines' own deadlines come first; these only catch what they miss.
        transcript_ms=settings.asr.timeout_s * 1000 + 151_000,  # 300 s of audio sent at once
        reply_stall_ms=limits * 1000 + 10_000,
    )
    return SessionSettings(
        turn=turn,
        instructions=settings.llm.instructions,
        voice=settings.tts.voice or "",
        language=settings.asr.language,
        spoken_language=settings.tts.language,
        speed=settings.tts.speed,
    )


# --- the server --------------------------------------------------------------


def uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn is to serve the application."""
    return uvicorn.Config(
        app,
        host=settings.server.host,
        port=settings.server.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws=CuttingProtocol,
        # Twice what is accepted, so that too large an event is answered with an error.
        ws_max_size=settings.server.max_message_mib * 2**21,
        # Deflate would only undo the base64, for twenty times the cost of the JSON.
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=2,
    )


def serve(settings: Settings) -> None:
    """Run the server until it is stopped. Raises SettingsError if it cannot start."""
    if settings.tts.use_gpu and settings.tts.engine in CPU_VOICES:
        print(
            f"ivas: TTS_USE_GPU is on, but the voice {settings.tts.engine} runs on the CPU; "
            "unset it, or name an engine that uses a GPU.",
            file=sys.stderr,
        )
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    startup = Startup()
    app = build(settings, startup=startup)
    host, port = settings.server.host, settings.server.port
    server = uvicorn.Server(uvicorn_config(app, settings))

    def say_ready() -> None:
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # "everywhere" is no address
        shown = f"[{here}]" if ":" in here else here
        print(f"IVAS is ready: open http://{shown}:{port}/ and talk. Ctrl-C ends it.", flush=True)

    def stop() -> None:
        server.should_exit = True

    startup.on_ready, startup.on_failure = say_ready, stop
    startup.listening = lambda: server.started  # engines may be quicker than the socket
    try:
        server.run()
    except KeyboardInterrupt:
        print("\nIVAS has ended.", file=sys.stderr)
    if startup.failure is not None:
        raise SettingsError(startup.failure)
