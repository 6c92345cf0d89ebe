"""Clients that mean no good, on a real server: whoever talks beside them notices nothing."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from faults import servers
from faults.servers import ask, client, say, send_audio, serving, until
from memory_client import SILENCE, VOICE, fakes
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from ivas.choice import Engines
from ivas.engines.fake import FakeASR, FakeLLM, FakeTTS
from ivas.server import realtime
from ivas.server import websocket as server_websocket

SPOKEN = VOICE * 30 + SILENCE * 40
MOST_STALL_MS = 250
"""How long a busy machine may keep the loop; the audio sent ahead bridges 300."""


def quick() -> Engines:
    return fakes(
        asr=FakeASR(ms=5),
        llm=FakeLLM(first_ms=5, tokens_per_s=1000, reply="Here I am, and all is well."),
        tts=FakeTTS(first_ms=5, rtf=0),
    )


@asynccontextmanager
async def watched(url: str) -> AsyncIterator[None]:
    """Beside all this somebody talks: every turn is answered, and nothing stalls for long."""
    longest_ms = 0.0
    turns = 0

    async def beat() -> None:
        nonlocal longest_ms
        while True:
            begin = time.perf_counter()
            await asyncio.sleep(0.005)
            longest_ms = max(longest_ms, (time.perf_counter() - begin) * 1000)

    async def talk() -> None:
        nonlocal turns
        async with client(url) as websocket:
            while True:
                await send_audio(websocket, SPOKEN)
                await until(websocket, "response.output_audio.delta")
                done = await until(websocket, "response.done")
                assert done["response"]["status"] == "completed"
                turns += 1
                await asyncio.sleep(0.02)

    tasks = [asyncio.create_task(beat()), asyncio.create_task(talk())]
    try:
        yield
        async with asyncio.timeout(10):
            before = turns
            while turns <= before and not tasks[1].done():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results), results
    assert longest_ms < MOST_STALL_MS


async def test_rubbish_a_thousand_times_a_second() -> None:
    async with serving(quick()) as url, watched(url), client(url) as websocket:
        rubbish = [os.urandom(n) for n in (0, 1, 100, 3000)]
        for number in range(2000):
            await websocket.send(rubbish[number % 4])
        for _ in range(2000):
            await until(websocket, "error")


async def test_a_storm_of_replies_and_cancels() -> None:
    async with serving(quick()) as url, watched(url), client(url) as websocket:
        for _ in range(500):
            await say(websocket, "response.create")
            await say(websocket, "response.cancel")
        for _ in range(500):
            done = await until(websocket, "response.done")
            assert done["response"]["status"] == "cancelled"


async def test_a_storm_of_settings() -> None:
    async with serving(quick()) as url, watched(url), client(url) as websocket:
        for number in range(500):
            detection = None if number % 2 else {"type": "server_vad"}
            audio = {"input": {"turn_detection": detection}}
            session = {"type": "realtime", "audio": audio, "instructions": "x" * 1000}
            await say(websocket, "session.update", session=session)
            await send_audio(websocket, VOICE)
        for _ in range(500):
            await until(websocket, "session.updated")


@pytest.mark.slow
async def test_two_hundred_idle_sessions() -> None:
    async with serving(quick()) as url, AsyncExitStack() as stack:
        for _ in range(200):
            await stack.enter_async_context(client(url))
        async with watched(url):
            await asyncio.sleep(0.5)


def nested(depth: int) -> object:
    inner: object = 1
    for _ in range(depth):
        inner = {"a": inner}
    return inner


@pytest.mark.parametrize("depth", [200, 400, 900])
async def test_deep_json_is_answered_and_not_kept(depth: int) -> None:
    async with serving(quick()) as url, client(url) as websocket:
        for session in (
            {"type": "realtime", "tracing": nested(depth)},
            {"type": "realtime", "tool_choice": nested(depth)},
            {"type": "realtime", "audio": nested(depth)},
        ):
            await say(websocket, "session.update", session=session)
        await say(websocket, "session.update", session={"type": "realtime"})
        for _ in range(4):
            event = json.loads(await websocket.recv())
            assert event["type"] in ("error", "session.updated")
            assert event.get("error", {}).get("type") != "server_error"
        assert event["type"] == "session.updated"
        await ask(websocket, "Still there?")
        await until(websocket, "response.output_audio.delta")


async def test_minutes_of_audio_in_one_event() -> None:
    pcm = SILENCE * (4 * 60 * 50)  # as base64 just under the largest message
    async with serving(quick()) as url, client(url) as websocket:
        for _ in range(2):
            await send_audio(websocket, pcm)
        await say(websocket, "input_audio_buffer.clear")
        await until(websocket, "input_audio_buffer.cleared")


# --- a client that does not read ---------------------------------------------


@asynccontextmanager
async def deaf_client(url: str) -> AsyncIterator[ClientConnection]:
    """Sends and does not read; the buffers of its socket are small."""
    host, port = url.removeprefix("ws://").partition("/")[0].split(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    websocket = await connect(url, sock=sock, compression=None, max_queue=1, ping_interval=None)
    try:
        yield websocket
    finally:
        websocket.transport.abort()
        await websocket.wait_closed()


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[realtime.Connection]:
    """Every connection the server makes, to see how much it keeps."""
    made: list[realtime.Connection] = []
    init: Callable[..., None] = realtime.Connection.__init__

    def noting(self: realtime.Connection, *how: object, **more: object) -> None:
        init(self, *how, **more)
        made.append(self)

    monkeypatch.setattr(realtime.Connection, "__init__", noting)
    return made


async def test_a_client_that_does_not_read_is_cut_before_memory_fills(
    connections: list[realtime.Connection],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    limit = 2**20
    monkeypatch.setattr(realtime, "OVERFLOW_BYTES", limit)
    monkeypatch.setattr(server_websocket, "GOODBYE_S", 0.2)
    session = {"type": "realtime", "instructions": "x" * 30_000}
    most = 0

    async def ask_and_never_listen(websocket: ClientConnection) -> None:
        nonlocal most
        while True:  # each is answered with the whole session
            await say(websocket, "session.update", session=session)
            await asyncio.sleep(0)
            most = max(most, connections[0]._bytes)

    async with serving(quick()) as url, deaf_client(url) as websocket, watched(url):
        async with asyncio.timeout(20):
            with pytest.raises(ConnectionClosed):
                await ask_and_never_listen(websocket)
        assert connections[0].overflowed.is_set()
        assert most < 2 * limit
        assert "stopped reading" in caplog.text


async def test_sound_waits_for_a_client_that_does_not_read(
    connections: list[realtime.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(realtime, "CONGESTED_BYTES", 64 * 1024)
    engines = fakes(
        llm=FakeLLM(first_ms=1, tokens_per_s=10_000, reply="A long word. " * 300),
        tts=FakeTTS(first_ms=0, rtf=0),
    )
    async with serving(engines) as url, deaf_client(url) as websocket, client(url) as other:
        await ask(websocket, "Tell me everything.")
        for _ in range(3):
            await ask(other, "Hello.")
            await until(other, "response.output_audio.delta")
            await say(other, "response.cancel")
            await until(other, "response.done")
        assert connections[0]._bytes < 256 * 1024
        assert not connections[0].overflowed.is_set()


async def test_a_client_that_answers_no_ping_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "PING_S", 0.3)
    engines = quick()
    session = {"type": "realtime", "instructions": "x" * 30_000}
    async with serving(engines) as url, deaf_client(url) as websocket:
        websocket.transport.pause_reading()
        for _ in range(250):  # more than the socket takes, less than what overflows
            await say(websocket, "session.update", session=session)
        await send_audio(websocket, VOICE * 20)
        async with asyncio.timeout(10):
            with pytest.raises(ConnectionClosed):
                await keep_talking(websocket)
            while engines.asr.open_utterances:  # type: ignore[attr-defined]  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def keep_talking(websocket: ClientConnection) -> None:
    while True:
        await send_audio(websocket, VOICE)
        await asyncio.sleep(0.01)
