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
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from uuid import uuid4

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from ivas import announcements as say
from ivas.audio.g711 import Upsampler8to24, decode_alaw, decode_ulaw
from ivas.choice import Change, Engines
from ivas.conversation.events import AudioFormat, Failure
from ivas.errors import ClientError
from ivas.playout import BYTES_PER_MS
from ivas.session import Session
from ivas.session_limits import SessionLimits

from .admission import TRY_AGAIN_LATER, Admission, turn_away
from .expiry import Expiry
from .protocol_in import decode
from .protocol_out import Encoder
from .protocol_session import Kind, SessionConfig
from .security import SUBPROTOCOL, Caller, Refusal

log = logging.getLogger(__name__)

CONGESTED_BYTES = 256 * 1024
"""Queued output from which no more sound is added: about 4 s of it."""
G711_AT_ONCE = 8_000
"""Bytes, a second of G.711: a millisecond of work."""
OVERFLOW_BYTES = 16 * 1024 * 1024
"""Queued output at which a client that does not read is given up."""

GOING_AWAY = 1001


@dataclass(frozen=True, slots=True)
class RealtimeOptions:
    """What the composition root decides for every connection."""

    engines: Engines
    limits: SessionLimits
    defaults: say.SessionSettings
    model: str
    admission: Admission
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
        if isinstance(announcement, say.SpeechStarted | say.WordsSpoken | say.ReplyEnded):
            self._on_speech()  # somebody is at it
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
        with options.admission.session(websocket) as caller:
            if isinstance(caller, Caller):
                caller = _refused(websocket, caller.bound_session or {}, options) or caller
            if isinstance(caller, Refusal):
                await turn_away(websocket, caller)
                return
            offered = SUBPROTOCOL in websocket.scope["subprotocols"]
            await websocket.accept(subprotocol=SUBPROTOCOL if offered else None)
            await _serve(websocket, caller.bound_session or {}, options)

    return router


def _refused(
    websocket: WebSocket, bound: dict[str, Any], options: RealtimeOptions
) -> Refusal | None:
    """Why one who may come in gets no session."""
    if websocket.query_params.get("intent", "conversation") not in _INTENTS:
        message = "The 'intent' can be conversation or transcription."
        return Refusal(400, "invalid_value", message, param="intent")
    if "call_id" in websocket.query_params:
        message = "This server has no calls to join; leave out 'call_id'."
        return Refusal(400, "invalid_value", message, param="call_id")
    if (reason := options.unready()) is not None:
        return Refusal(503, "not_ready", reason)
    try:
        _config(websocket, "sess_", bound, options)
    except ClientError as error:
        message = "This client secret begins a session of another kind than 'intent' says."
        return Refusal(400, error.code, message, param="intent")
    return None


_INTENTS: dict[str, Kind | None] = {"conversation": None, "transcription": "transcription"}


def _config(
    websocket: WebSocket, session_id: str, bound: dict[str, Any], options: RealtimeOptions
) -> SessionConfig:
    """The session as it begins. Raises ClientError if `bound` is one of another kind."""
    config = SessionConfig(
        session_id=session_id,
        model=websocket.query_params.get("model") or bound.get("model") or options.model,
        defaults=_with_a_voice(options),
        kind=_INTENTS[websocket.query_params.get("intent", "conversation")],
        expires_at=int(time.time() + options.session_s),
    )
    if bound:
        config.update(bound)
    return config


def _with_a_voice(options: RealtimeOptions) -> say.SessionSettings:
    """The operator's defaults; where they name no voice, the engine's own is named."""
    voices = options.engines.tts.voices
    if options.defaults.voice or not voices:
        return options.defaults
    return replace(options.defaults, voice=voices[0].id)


async def _serve(websocket: WebSocket, bound: dict[str, Any], options: RealtimeOptions) -> None:
    """`bound`: the session a client secret begins with."""
    loop = asyncio.get_running_loop()
    tag = uuid4().hex[:12]
    config = _config(websocket, f"sess_{tag}", bound, options)
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
            if not isinstance(command, say.AppendAudio):
                on_command()
                await session.submit(command)
                continue
            for piece in self._as_pcm(command.pcm):
                await session.submit(say.AppendAudio(piece))

    def _as_pcm(self, sound: bytes) -> Iterator[bytes]:
        """24 kHz PCM16, in pieces that hold up nobody."""
        used = self._config.input_format
        if used != self._format:
            self._format, self._upsampler = used, Upsampler8to24()
        if used == "audio/pcm":
            yield sound
            return
        decoded = decode_ulaw if used == "audio/pcmu" else decode_alaw
        for at in range(0, len(sound), G711_AT_ONCE):
            yield self._upsampler.push(decoded(sound[at : at + G711_AT_ONCE]))


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    try:
        async with asyncio.timeout(1):
            await websocket.close(code, reason)
    except (RuntimeError, TimeoutError, OSError):
        log.debug("the socket was closed already")
