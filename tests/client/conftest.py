"""A Realtime server in this process: a coroutine decides what it says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import Request, Response, ServerConnection, serve

Handler = Callable[[ServerConnection], Awaitable[None]]
Serve = Callable[..., Any]


async def greet(websocket: ServerConnection) -> None:
    """`session.created`, and then it only listens, until the client goes."""
    await websocket.send('{"type":"session.created","session":{}}')
    async for _ in websocket:
        pass


@pytest.fixture
def serving() -> Serve:
    """`async with serving(handler) as url`; or with `status` and `body` it refuses."""

    @asynccontextmanager
    async def run(
        handler: Handler = greet, *, status: int | None = None, body: str = ""
    ) -> AsyncIterator[str]:
        def refuse(websocket: ServerConnection, request: Request) -> Response | None:
            return None if status is None else websocket.respond(status, body)

        async with serve(handler, "127.0.0.1", 0, process_request=refuse) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            yield f"ws://127.0.0.1:{port}"

    return run
