"""The WebSocket at /v1/realtime: one connection, one session.

Reads frames and hands them to the session as commands, writes what the session
announces. Announcements are encoded as they are made and queued in order; a writer
task empties the queue into the socket. A client that stops reading makes the queue
grow: first no more sound is put into it, and at `OVERFLOW_BYTES` the connection is
given up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple
from uuid import uuid4

from fastapi import APIRouter, WebSocket
from fastapi.responses import JSONResponse
from starlette.websockets import WebSocketDisconnect

from ivas import announcements as say
from ivas.audio.g711 import Upsampler8to24, decode_alaw, decode_ulaw
from ivas.choice import Change, Engines
from ivas.conversation.events import AudioFormat, Failure
from ivas.limits import SessionLimits
from ivas.playout import BYTES_PER_MS
from ivas.session import Session

from .expiry import Expiry
from .protocol_in import decode
from .protocol_out import Encoder
from .protocol_session import Kind, SessionConfig
from .security import SUBPROTOCOL, allowed, given_key, names_this_machine, openai_error, same_origin

log = logging.getLogger(__name__)

CONGESTED_BYTES = 256 * 1024
"""Queued output from which no more sound is added: about 4 s of it."""
OVERFLOW_BYTES = 16 * 1024 * 1024
"""Queued output at which a client that does not read is given up."""

GOING_AWAY = 1001
POLICY_VIOLATION = 1008
TRY_AGAIN_LATER = 1013
UNAUTHORIZED = 3000


@dataclass(frozen=True, slots=True)
class RealtimeOptions:
    """What the composition root decides for every connection."""

    engines: Engines
    limits: SessionLimits
    defaults: say.SessionSettings
    model: str
    key: str | None
    max_message_bytes: int
    session_s: float
    idle_s: float
    unready: Callable[[], str | None]
    """One sentence while an engine cannot serve yet, else None."""


class _Frame(NamedTuple):
    """One frame to be written; if it holds sound, of which generation and how much."""

    text: str
    generation: int
    sound_ms: float


class Connection:
    """The client side of a session: an ordered queue into one socket."""

    def __init__(self, encoder: Encoder, *, on_speech: Callable[[], None] = lambda: None) -> None:
        self._encoder = encoder
        self._on_speech = on_speech
        self._queue: deque[_Frame] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self.overflowed = asyncio.Event()

    def send(self, announcement: say.Announcement) -> None:
        generation, sound_ms = 0, 0.0
        if isinstance(announcement, say.SpeechStarted):
            self._on_speech()
        if isinstance(announcement, say.AudioSpoken):
            generation = announcement.reply.generation
            sound_ms = len(announcement.pcm) / BYTES_PER_MS
        for text in self._encoder.encode(announcement):
            self.queue(text, generation, sound_ms)

    def queue(self, text: str, generation: int = 0, sound_ms: float = 0.0) -> None:
        self._queue.append(_Frame(text, generation, sound_ms))
        self._bytes += len(text)
        if self._bytes > OVERFLOW_BYTES:
            self.overflowed.set()
        self._filled.set()

    def purge(self, generation: int) -> float:
        unsent_ms = sum(frame.sound_ms for frame in self._queue if frame.generation == generation)
        self._queue = deque(frame for frame in self._queue if frame.generation != generation)
        self._bytes = sum(len(frame.text) for frame in self._queue)
        return unsent_ms

    @property
    def congested(self) -> bool:
        return self._bytes > CONGESTED_BYTES

    async def write_rest(self, websocket: WebSocket) -> None:
        """Write what is queued before the end, if the client takes it."""
        with suppress(RuntimeError, TimeoutError, OSError, WebSocketDisconnect):
            async with asyncio.timeout(1):
                while self._queue:
                    await websocket.send_text(self._queue.popleft().text)

    async def write_to(self, websocket: WebSocket) -> None:
        """Empty the queue into the socket until cancelled or the client is gone."""
        while True:
            while self._queue:
                text = self._queue.popleft().text
                self._bytes -= len(text)
                await websocket.send_text(text)
            self._filled.clear()
            await self._filled.wait()


def realtime_router(options: RealtimeOptions) -> APIRouter:
    """The routes /v1/realtime and /realtime (LiveKit appends the latter to a bare host)."""
    router = APIRouter()

    @router.websocket("/v1/realtime")
    @router.websocket("/realtime")
    async def realtime(websocket: WebSocket) -> None:
        if await _admit(websocket, options):
            await _serve(websocket, options)

    return router


async def _admit(websocket: WebSocket, options: RealtimeOptions) -> bool:
    offered = websocket.scope["subprotocols"]
    subprotocol = SUBPROTOCOL if SUBPROTOCOL in offered else None
    refusal = _refusal(websocket, options)
    if refusal is None:
        await websocket.accept(subprotocol=subprotocol)
        return True
    status, code, message = refusal
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if subprotocol is None:
        envelope = openai_error(message, code=code, kind=kind)
        await websocket.send_denial_response(JSONResponse(envelope, status_code=status))
        return False
    # A browser is not told why a handshake failed, so it is told afterwards.
    await websocket.accept(subprotocol=subprotocol)
    error = {"type": kind, "code": code, "message": message}
    await websocket.send_json({"type": "error", "event_id": "event_0", "error": error})
    closes = {401: UNAUTHORIZED, 503: TRY_AGAIN_LATER}
    await websocket.close(closes.get(status, POLICY_VIOLATION), message[:120])
    return False


def _refusal(websocket: WebSocket, options: RealtimeOptions) -> tuple[int, str, str] | None:
    """HTTP status, error code and sentence, or None if the client may come in."""
    headers = websocket.headers
    rebound = options.key is None and "origin" in headers and not names_this_machine(headers)
    if rebound or not same_origin(headers):
        return 403, "origin_not_allowed", "Web pages of other sites may not use this server."
    if not allowed(options.key, given_key(websocket.headers, websocket.scope["subprotocols"])):
        message = "Incorrect API key provided; use the key this server was started with."
        return 401, "invalid_api_key", message
    if websocket.query_params.get("intent", "conversation") not in _INTENTS:
        return 400, "invalid_value", "The 'intent' can be conversation or transcription."
    if "call_id" in websocket.query_params:
        return 400, "invalid_value", "This server has no calls to join; leave out 'call_id'."
    if (reason := options.unready()) is not None:
        return 503, "not_ready", reason
    return None


_INTENTS: dict[str, Kind | None] = {"conversation": None, "transcription": "transcription"}


async def _serve(websocket: WebSocket, options: RealtimeOptions) -> None:
    loop = asyncio.get_running_loop()
    tag = uuid4().hex[:12]
    config = SessionConfig(
        session_id=f"sess_{tag}",
        model=websocket.query_params.get("model") or options.model,
        defaults=options.defaults,
        kind=_INTENTS[websocket.query_params.get("intent", "conversation")],
        expires_at=int(time.time() + options.session_s),
    )
    encoder = Encoder(tag=tag, conversation_id=f"conv_{tag}")
    expiry = Expiry(session_s=options.session_s, idle_s=options.idle_s)
    connection = Connection(encoder, on_speech=expiry.touch)
    session = Session(
        engines=options.engines,
        client=connection,
        settings=config.settings,
        limits=options.limits,
        now_ms=lambda: loop.time() * 1000,
    )
    connection.queue(encoder.created(config.echo))

    def tell_change(change: Change) -> None:
        if config.wants("engines"):
            connection.queue(encoder.engines_changed(change))

    options.engines.listeners.add(tell_change)
    reader = Reader(websocket, config, options.max_message_bytes)
    expired = loop.create_task(expiry.over())
    tasks: list[asyncio.Task[object]] = [
        loop.create_task(reader.feed(session, on_command=expiry.touch)),
        loop.create_task(connection.write_to(websocket)),
        loop.create_task(session.run()),
        loop.create_task(connection.overflowed.wait()),
        expired,
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        options.engines.listeners.discard(tell_change)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if connection.overflowed.is_set():
        log.warning("%s: closed, the client stopped reading", tag)
        await _close(websocket, TRY_AGAIN_LATER, "The client does not read; connection closed.")
    for task in done:
        error = task.exception()
        if error is not None and not isinstance(error, WebSocketDisconnect):
            log.error("%s: a connection failed", tag, exc_info=error)
            await _close(websocket, 1011, "The server failed; please connect again.")
    if done == {expired}:
        refused = say.Refused(Failure("session_expired", expired.result()))
        connection.send(refused)
        await connection.write_rest(websocket)
        await _close(websocket, GOING_AWAY, expired.result())


class Reader:
    """The way in: frames from the socket become commands to the session."""

    def __init__(self, websocket: WebSocket, config: SessionConfig, max_bytes: int) -> None:
        self._websocket = websocket
        self._config = config
        self._max_bytes = max_bytes
        self._format: AudioFormat = "audio/pcm"
        self._upsampler = Upsampler8to24()

    async def feed(self, session: Session, *, on_command: Callable[[], None]) -> None:
        """Until the client is gone. `on_command` at whatever is more than sound."""
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            raw = message.get("text")
            if raw is None:
                raw = message.get("bytes") or b""
            command = decode(raw, self._config, max_bytes=self._max_bytes)
            if isinstance(command, say.AppendAudio):
                command = self._as_pcm(command)
            else:
                on_command()
            await session.submit(command)

    def _as_pcm(self, command: say.AppendAudio) -> say.AppendAudio:
        used = self._config.input_format
        if used != self._format:
            self._format, self._upsampler = used, Upsampler8to24()
        if used == "audio/pcm":
            return command
        narrow = (decode_ulaw if used == "audio/pcmu" else decode_alaw)(command.pcm)
        return say.AppendAudio(self._upsampler.push(narrow))


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    try:
        async with asyncio.timeout(1):
            await websocket.close(code, reason)
    except (RuntimeError, TimeoutError, OSError):
        log.debug("the socket was closed already")
