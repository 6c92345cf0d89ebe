"""A real server in this process, on a real socket, with the engines of a test."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from websockets.asyncio.client import ClientConnection, connect

from ivas.app import Startup, build
from ivas.choice import Engines
from ivas.serving import uvicorn_config
from ivas.settings import Settings

PING_S = 20.0
"""Between two pings, and for the answer; uvicorn's own default."""


@asynccontextmanager
async def serving(engines: Engines) -> AsyncIterator[str]:
    """The URL of the WebSocket. The server runs on the loop of the test."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    many = {"max_sessions": 1_000, "max_sessions_per_address": 1_000}
    settings = Settings.model_validate({"server": many})
    ready = asyncio.Event()
    startup = Startup(on_ready=ready.set)
    config = uvicorn_config(build(settings, engines=engines, startup=startup), settings)
    config.ws_ping_interval = config.ws_ping_timeout = PING_S
    server = uvicorn.Server(config)
    startup.listening = lambda: server.started
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(10):
            await ready.wait()
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/v1/realtime"
    finally:
        server.should_exit = True
        await task
        listener.close()


@asynccontextmanager
async def client(url: str, **how: Any) -> AsyncIterator[ClientConnection]:
    """Connected, and `session.created` read.

    Reads on while nobody asks (`max_queue` None): otherwise leaving during a reply
    waits until all sound before the closing frame has been taken.
    """
    how = {"compression": None, "max_size": None, "max_queue": None} | how
    async with connect(url, **how) as websocket:
        assert json.loads(await websocket.recv())["type"] == "session.created"
        yield websocket


async def say(websocket: ClientConnection, kind: str, **members: Any) -> None:
    await websocket.send(json.dumps({"type": kind, **members}))


async def send_audio(websocket: ClientConnection, pcm: bytes) -> None:
    await say(websocket, "input_audio_buffer.append", audio=base64.b64encode(pcm).decode())


async def ask(websocket: ClientConnection, text: str) -> None:
    """A typed turn."""
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content}
    await say(websocket, "conversation.item.create", item=item)
    await say(websocket, "response.create")


async def until(websocket: ClientConnection, kind: str) -> dict[str, Any]:
    """Read to the next event of this type."""
    while True:
        event: dict[str, Any] = json.loads(await websocket.recv())
        if event["type"] == kind:
            return event
