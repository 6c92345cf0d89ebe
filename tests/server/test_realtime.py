"""The WebSocket route: what it does when a client, the loading or the session goes wrong.

Against the real route and the real session on fake engines, in virtual time; the
socket is a hand-made ASGI channel, so that its other end can stop reading.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from virtual_time import virtual_time

from ivas.announcements import AudioCleared, AudioSpoken, ReplyView, SessionSettings
from ivas.app import make_admission
from ivas.audio.g711 import encode_alaw, encode_ulaw
from ivas.choice import Change, Engines
from ivas.engines.fake import FakeASR, FakeLLM, FakeTTS, FakeVAD
from ivas.server import realtime
from ivas.server.client_secrets import ClientSecrets
from ivas.server.protocol_out import Encoder
from ivas.server.realtime import CONGESTED_BYTES, Connection, RealtimeOptions, realtime_router
from ivas.session import Session
from ivas.session_limits import SessionLimits
from ivas.settings import Settings

LONG_REPLY = " ".join(["and so on"] * 200) + "."
"""Two minutes of speech."""


class Socket:
    """The client's end of one connection: what it sent, and what it reads."""

    def __init__(self, *subprotocols: str, query: str = "", headers: dict[str, str] | None = None):
        self.scope = {
            "type": "websocket",
            "path": "/v1/realtime",
            "query_string": query.encode(),
            "headers": [
                (key.encode(), value.encode())
                for key, value in ({"host": "ivas"} | (headers or {})).items()
            ],
            "subprotocols": list(subprotocols),
            "extensions": {"websocket.http.response": {}},
        }
        self.reads = asyncio.Event()
        self.reads.set()
        self.got: list[dict[str, Any]] = []  # ASGI messages of the server
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._sent.put_nowait({"type": "websocket.connect"})

    async def receive(self) -> dict[str, Any]:
        return await self._sent.get()

    async def take(self, message: dict[str, Any]) -> None:
        if message["type"] == "websocket.send":
            await self.reads.wait()
        self.got.append(message)

    def send(self, **event: Any) -> None:
        self._sent.put_nowait({"type": "websocket.receive", "text": json.dumps(event)})

    def leave(self) -> None:
        self._sent.put_nowait({"type": "websocket.disconnect", "code": 1001})

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(m["text"]) for m in self.got if m["type"] == "websocket.send"]

    def closed(self) -> int:
        return next(m["code"] for m in self.got if m["type"] == "websocket.close")


def engines() -> Engines:
    return Engines(
        vad=FakeVAD(),
        asr=FakeASR(),
        llm=FakeLLM(reply=LONG_REPLY, tokens_per_s=1_000),
        tts=FakeTTS(rtf=0),
    )


async def serve(
    socket: Socket,
    *,
    serving: Engines | None = None,
    unready: Callable[[], str | None] = lambda: None,
    session_s: float = 7200,
    idle_s: float = 1800,
) -> None:
    """One connection, until it has ended."""
    app = FastAPI()
    options = RealtimeOptions(
        engines=serving or engines(),
        limits=SessionLimits(),
        defaults=SessionSettings(),
        model="ivas",
        admission=make_admission(Settings(), ClientSecrets()),
        max_message_bytes=2**20,
        session_s=session_s,
        idle_s=idle_s,
        unready=unready,
    )
    app.include_router(realtime_router(options))
    async with asyncio.timeout(600):
        await app(socket.scope, socket.receive, socket.take)


TONE = (b"\x00\x20" * 24 + b"\x00\xe0" * 24) * 300
"""600 ms of 500 Hz."""


def talk(socket: Socket) -> None:
    """A voice turn, and a reply that takes minutes."""
    audio = base64.b64encode(TONE + bytes(48 * 700)).decode()
    socket.send(type="input_audio_buffer.append", audio=audio)


@virtual_time
async def test_a_client_that_leaves_leaves_nothing_behind() -> None:
    socket, serving = Socket(), engines()
    talk(socket)
    connection = asyncio.create_task(serve(socket, serving=serving))
    await asyncio.sleep(5)
    assert any(event["type"] == "response.output_audio.delta" for event in socket.events)
    socket.leave()
    await connection
    assert isinstance(serving.asr, FakeASR)
    assert isinstance(serving.llm, FakeLLM)
    assert isinstance(serving.tts, FakeTTS)
    assert serving.asr.open_utterances == 0
    assert serving.llm.live_streams == serving.tts.live_streams == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual_time
async def test_a_client_that_stops_reading_is_sent_no_more_sound() -> None:
    socket = Socket()
    talk(socket)
    connection = asyncio.create_task(serve(socket))
    await asyncio.sleep(2)
    before = len(socket.events)
    socket.reads.clear()
    await asyncio.sleep(20)  # so much speech is 1.3 MB of events
    assert len(socket.events) == before
    socket.reads.set()
    await asyncio.sleep(0.001)
    waiting = socket.got[before + 1 :]
    assert CONGESTED_BYTES / 2 < sum(len(m["text"]) for m in waiting) < 2 * CONGESTED_BYTES
    assert not connection.done()
    socket.leave()
    await connection


@virtual_time
async def test_sound_that_waits_for_a_slow_client_is_dropped_when_the_user_speaks() -> None:
    socket = Socket()
    talk(socket)
    connection = asyncio.create_task(serve(socket))
    await asyncio.sleep(2)
    socket.reads.clear()
    await asyncio.sleep(5)
    before = len(socket.events)
    audio = base64.b64encode(TONE).decode()
    socket.send(type="input_audio_buffer.append", audio=audio)
    await asyncio.sleep(0.1)
    socket.reads.set()
    await asyncio.sleep(0.1)
    types = [event["type"] for event in socket.events[before:]]
    until = types.index("input_audio_buffer.speech_started")
    assert types[:until].count("response.output_audio.delta") <= 1  # in the socket already
    assert types[-1] == "response.done"
    socket.leave()
    await connection


@virtual_time
async def test_a_client_that_never_reads_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(realtime, "OVERFLOW_BYTES", 20_000)
    socket, serving = Socket(), engines()
    connection = asyncio.create_task(serve(socket, serving=serving))
    await asyncio.sleep(1)
    socket.reads.clear()
    for _ in range(200):
        socket.send(type="session.dance")
    with caplog.at_level(logging.WARNING):
        await connection
    assert socket.closed() == 1013
    assert "stopped reading" in caplog.text
    assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual_time
async def test_a_session_that_breaks_closes_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(session: Session) -> None:
        raise RuntimeError("no session today")

    monkeypatch.setattr(Session, "run", broken)
    socket = Socket()
    await serve(socket)
    assert socket.events[0]["type"] == "session.created"
    assert socket.closed() == 1011
    assert "no session today" in caplog.text
    assert "no session today" not in str(socket.got)


LOADING = "The engines are still loading; try again in a moment."


@virtual_time
async def test_while_loading_a_program_is_told_by_http() -> None:
    socket = Socket()
    await serve(socket, unready=lambda: LOADING)
    start, body = socket.got[0], socket.got[1]
    assert start["status"] == 503
    error = json.loads(body["body"])["error"]
    assert (error["code"], error["type"], error["message"]) == (
        "not_ready",
        "server_error",
        LOADING,
    )


@virtual_time
async def test_while_loading_a_browser_is_told_by_an_event() -> None:
    socket = Socket("realtime")
    await serve(socket, unready=lambda: LOADING)
    assert socket.got[0] | {"headers": ()} == {
        "type": "websocket.accept",
        "subprotocol": "realtime",
        "headers": (),
    }
    assert socket.events[0]["error"]["code"] == "not_ready"
    assert socket.closed() == 1013


@virtual_time
async def test_a_page_of_another_site_is_told_no_more_than_that() -> None:
    socket = Socket("realtime", headers={"origin": "https://evil.example"})
    await serve(socket)
    assert [event["type"] for event in socket.events] == ["error"]
    assert socket.closed() == 1008


VIEW = ReplyView("resp_1", "item_1", 1, "audio", "", None)


class Reader:
    """Stands for the socket; ends the writer once `stop_at` frames have come."""

    def __init__(self, stop_at: int) -> None:
        self.frames: list[str] = []
        self.done = asyncio.Event()
        self._stop_at = stop_at

    async def send_text(self, frame: str) -> None:
        self.frames.append(frame)
        if len(self.frames) == self._stop_at:
            self.done.set()


@virtual_time
async def test_a_purge_takes_the_sound_of_one_reply_and_nothing_else() -> None:
    connection = Connection(Encoder(tag="t", conversation_id="c"))
    other = ReplyView("resp_2", "item_2", 2, "audio", "", None)
    connection.send(AudioSpoken(VIEW, bytes(4800)))
    connection.send(AudioCleared())
    connection.send(AudioSpoken(other, bytes(4800)))
    connection.send(AudioSpoken(VIEW, bytes(4800)))
    assert connection.purge(1) == 200  # milliseconds
    reader: Any = Reader(stop_at=2)
    writing = asyncio.create_task(connection.write_to(reader))
    await reader.done.wait()
    connection.send(AudioCleared())  # and what comes later goes out too
    await asyncio.sleep(1)
    writing.cancel()
    events = [json.loads(frame) for frame in reader.frames]
    assert [event["type"] for event in events] == [
        "input_audio_buffer.cleared",
        "response.output_audio.delta",
        "input_audio_buffer.cleared",
    ]
    assert events[1]["response_id"] == "resp_2"


def test_a_full_queue_says_so_until_it_is_purged() -> None:
    connection = Connection(Encoder(tag="t", conversation_id="c"))
    assert not connection.congested
    while not connection.congested:
        connection.send(AudioSpoken(VIEW, bytes(4800)))
    connection.purge(1)
    assert not connection.congested
    assert not connection.overflowed.is_set()


# --- what this file adds between the socket and the session -----------------------


def configure(socket: Socket, **session: Any) -> None:
    socket.send(type="session.update", session={"type": "realtime", **session})


async def until(socket: Socket, kind: str) -> dict[str, Any]:
    while True:
        for event in socket.events:
            if event["type"] == kind:
                return event
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("audio_format", "encoded"), [("audio/pcmu", encode_ulaw), ("audio/pcma", encode_alaw)]
)
def test_g711_is_heard(audio_format: str, encoded: Callable[[bytes], bytes]) -> None:
    async def check() -> None:
        socket = Socket()
        configure(socket, audio={"input": {"format": {"type": audio_format}}})
        narrow = np.tile(np.int16([0, 9_000, 0, -9_000]), 1_200).tobytes()  # 2 kHz, 600 ms
        audio = base64.b64encode(encoded(narrow + bytes(2 * 8 * 700))).decode()
        socket.send(type="input_audio_buffer.append", audio=audio)
        connection = asyncio.create_task(serve(socket))
        started = await until(socket, "input_audio_buffer.speech_started")
        stopped = await until(socket, "input_audio_buffer.speech_stopped")
        assert started["audio_start_ms"] == 0
        assert stopped["audio_end_ms"] == pytest.approx(600, abs=40)
        socket.leave()
        await connection

    virtual_time(check)()


@virtual_time
async def test_a_session_ends_at_its_longest_length_with_a_sentence() -> None:
    socket = Socket()
    before_s = time.time()
    await serve(socket, session_s=60)
    assert socket.events[0]["session"]["expires_at"] == pytest.approx(before_s + 60, abs=5)
    error = socket.events[-1]["error"]
    assert (error["code"], error["type"]) == ("session_expired", "invalid_request_error")
    assert "connect again" in error["message"]
    assert socket.closed() == 1001


@virtual_time
async def test_a_session_in_which_nothing_happens_ends() -> None:
    socket = Socket()

    async def microphone() -> None:
        while True:
            await asyncio.sleep(1)
            silence = base64.b64encode(bytes(48)).decode()
            socket.send(type="input_audio_buffer.append", audio=silence)

    open_page = asyncio.create_task(microphone())
    connection = asyncio.create_task(serve(socket, idle_s=60))
    await asyncio.sleep(50)
    socket.send(type="input_audio_buffer.clear")
    await asyncio.sleep(59)
    assert not connection.done()
    await connection
    assert asyncio.get_running_loop().time() == pytest.approx(110, abs=1)
    assert socket.events[-1]["error"]["code"] == "session_expired"
    open_page.cancel()


@virtual_time
async def test_a_session_does_not_end_while_the_assistant_speaks() -> None:
    socket = Socket()
    talk(socket)  # the reply takes minutes
    connection = asyncio.create_task(serve(socket, idle_s=60))
    await until(socket, "response.created")
    await asyncio.sleep(100)
    assert not connection.done()
    socket.leave()
    await connection


@virtual_time
async def test_a_change_of_engines_is_told_to_who_wants_to_know() -> None:
    serving, curious, plain = engines(), Socket(), Socket()
    connections = [asyncio.create_task(serve(s, serving=serving)) for s in (curious, plain)]
    configure(curious, ivas={"events": ["engines"]})
    await until(curious, "session.updated")
    change = Change("llm", "ollama", "builtin", "ollama is ready.")
    for listener in list(serving.listeners):
        listener(change)
    event = await until(curious, "ivas.engines")
    assert (event["engine"], event["reason"]) == ("ollama", "ollama is ready.")
    assert [e["type"] for e in plain.events] == ["session.created"]
    for socket in (curious, plain):
        socket.leave()
    await asyncio.gather(*connections)
    assert serving.listeners == set()


@virtual_time
async def test_the_intent_decides_what_the_session_is() -> None:
    socket = Socket()
    socket.scope["query_string"] = b"intent=transcription"
    connection = asyncio.create_task(serve(socket))
    session = (await until(socket, "session.created"))["session"]
    assert (session["type"], session["object"]) == (
        "transcription",
        "realtime.transcription_session",
    )
    talk(socket)
    await until(socket, "conversation.item.input_audio_transcription.completed")
    await asyncio.sleep(60)
    assert not [e for e in socket.events if e["type"].startswith(("response.", "error"))]
    socket.leave()
    await connection
