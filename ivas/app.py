"""The composition root: settings -> engines (`composition.py`) -> FastAPI application."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from fastapi import FastAPI

from .announcements import SessionSettings
from .choice import Engines, improve
from .composition import choose_engines
from .conversation.events import TurnSettings
from .errors import EngineError, SettingsError
from .keys import KeyRing
from .reply import ReplyLimits
from .server.admission import Admission
from .server.client_secrets import ClientSecrets, ClientSecretsOptions, client_secrets_router
from .server.limits import Limits
from .server.page import page_router
from .server.realtime import RealtimeOptions, realtime_router
from .server.rest_errors import install_rest_errors
from .server.rest_speech import SpeechOptions, speech_router
from .server.rest_transcriptions import TranscriptionOptions, transcriptions_router
from .server.rest_voices import voices_router
from .server.security import cors
from .server.status import status_router
from .session_limits import SessionLimits
from .settings import Settings

log = logging.getLogger(__name__)

MODEL = "ivas"
"""What this server calls its pipeline in /v1/models; any other name is accepted too."""

# --- the app -----------------------------------------------------------------


@dataclass(slots=True)
class Startup:
    """How far loading is. `failure`: why the server has to end."""

    loading: bool = True
    failure: str | None = None
    on_failure: Callable[[], None] = field(default=lambda: None)
    listening: Callable[[], bool] = field(default=lambda: True)
    on_ready: Callable[[], None] = field(default=lambda: None)
    beside: Callable[[], Coroutine[Any, Any, None]] | None = None
    """What else to do once all is ready, for as long as the server runs."""


async def load(engines: Engines, settings: Settings, startup: Startup) -> None:
    """Start all engines at once. One that was named outright must start; one that
    `auto` chose may fail, and what it was for then fails with its sentence."""
    choices = engines.choices
    started = await asyncio.gather(*(choice.start() for choice in choices), return_exceptions=True)
    for choice, error in zip(choices, started, strict=True):
        if error is None:
            continue
        name = choice.serving.name
        if not isinstance(error, EngineError):
            log.error("engine %s failed to start", name, exc_info=error)
        why = f"The {choice.kind} engine {name} cannot start: {error}"
        if getattr(settings, choice.kind).engine == "auto" and isinstance(error, EngineError):
            log.warning("%s", why)
        else:
            startup.failure = why
    known = [voice.id for voice in engines.tts.voices]
    speaks = startup.failure is None and engines.tts.status().ready
    if speaks and settings.tts.voice not in (None, *known):
        unknown = (
            f"The voice {settings.tts.voice} is not one of {engines.tts.name}; "
            f"IVAS_TTS__VOICE takes {', '.join(known[:12])}{' and more' if known[12:] else ''}."
        )
        if settings.tts.engine == "auto":  # a better engine may have it, later
            log.warning("%s", unknown)
        else:
            startup.failure = unknown
    with suppress(ImportError, OSError):  # who asks for audio then is told
        # Else the first request for speech or a transcript stalls everybody for 50 ms.
        await asyncio.to_thread(importlib.import_module, "av")
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
        working = asyncio.create_task(load_and_improve())
        try:
            yield
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            for engine in serving:
                try:
                    await engine.aclose()
                except Exception:  # the others are to be closed all the same
                    log.exception("engine %s could not be closed", engine.name)

    async def load_and_improve() -> None:
        try:
            await load(serving, settings, state)
            if state.failure is None:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(improve(serving))
                    if state.beside is not None:
                        tasks.create_task(state.beside())
        except Exception:
            log.exception("what goes on beside the conversations has failed")
            if state.loading:
                state.loading = False
                state.failure = (
                    "The server could not start because of a fault of its own; see the log above."
                )
                state.on_failure()

    def unready() -> str | None:
        return "The engines are still loading; try again in a moment." if state.loading else None

    secrets = ClientSecrets()
    admission = make_admission(settings, secrets)
    origins = settings.server.cors_origins
    app = FastAPI(
        title="IVAS",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        middleware=[cors(origins)] if origins else [],
    )
    defaults, limits = session_defaults(settings), session_limits(settings)
    options = RealtimeOptions(
        engines=serving,
        limits=limits,
        defaults=defaults,
        model=MODEL,
        admission=admission,
        max_message_bytes=settings.server.max_message_mib * 2**20,
        session_s=settings.server.session_minutes * 60,
        idle_s=settings.server.idle_minutes * 60,
        unready=unready,
    )
    app.include_router(realtime_router(options))
    app.include_router(
        client_secrets_router(
            ClientSecretsOptions(
                admit=admission.admit, secrets=secrets, defaults=defaults, model=MODEL
            )
        )
    )
    app.include_router(
        speech_router(
            SpeechOptions(
                tts=lambda: serving.tts,
                admit=admission.admit_request,
                places=admission.requests,
                voice=defaults.voice,
                language=defaults.spoken_language,
                speed=defaults.speed,
                longest_input=settings.server.max_speech_chars,
                limits=limits.reply,
                unready=unready,
            )
        )
    )
    app.include_router(
        transcriptions_router(
            TranscriptionOptions(
                vad=lambda: serving.vad,
                asr=lambda: serving.asr,
                admit=admission.admit_request,
                places=admission.requests,
                language=defaults.language,
                threshold=settings.vad.threshold,
                timeout_s=limits.transcript_s,
                most_upload_mib=settings.server.max_upload_mib,
                most_audio_s=settings.server.max_audio_minutes * 60,
                unready=unready,
            )
        )
    )
    app.include_router(
        voices_router(lambda: serving.tts, model=MODEL, admit=admission.admit_request)
    )
    install_rest_errors(app)
    app.include_router(
        status_router(
            serving,
            model=MODEL,
            started_at=int(time.time()),
            admission=admission,
            unready=unready,
        )
    )
    app.include_router(page_router())
    return app


def make_admission(settings: Settings, secrets: ClientSecrets) -> Admission:
    """The door. Raises SettingsError if it cannot be kept."""
    server = settings.server
    ring = KeyRing(server.keys_file)
    keys = ring.keys()
    if not keys and server.api_key is None and not is_loopback(server.host):
        raise SettingsError(
            f"Other machines can reach the server on {server.host}, but it has no key; make one "
            "with: ivas keys add NAME --scope admin, or set IVAS_SERVER__API_KEY, or listen on "
            "127.0.0.1."
        )
    return Admission(
        api_key=None if server.api_key is None else server.api_key.get_secret_value(),
        keys=ring,
        secrets=secrets,
        limits=Limits(
            sessions=server.max_sessions,
            sessions_per_key=server.max_sessions_per_key,
            sessions_per_address=server.max_sessions_per_address,
            requests=server.max_requests,
        ),
        allowed_origins=server.cors_origins,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def session_limits(settings: Settings) -> SessionLimits:
    """What the operator sets for every session."""
    return SessionLimits(
        transcript_s=settings.asr.timeout_s,
        max_tokens=settings.llm.max_tokens,
        context_tokens=settings.llm.num_ctx,
        reply=ReplyLimits(
            slow_after_s=settings.llm.slow_after_s,
            first_token_s=settings.llm.first_token_timeout_s,
            token_stall_s=settings.llm.stall_timeout_s,
            first_audio_s=settings.tts.first_audio_timeout_s,
            audio_stall_s=settings.tts.stall_timeout_s,
        ),
    )


def session_defaults(settings: Settings) -> SessionSettings:
    """What a session is before its client changes anything."""
    # A first model that does not answer, another that does, the wait for the voice, the voice.
    limits = 2 * settings.llm.first_token_timeout_s + settings.tts.first_audio_timeout_s
    limits += ReplyLimits().queue_s
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
