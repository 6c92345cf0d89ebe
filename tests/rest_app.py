"""The REST routers on an app of their own, and a client that sees how an answer arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse

from ivas.server.rest_errors import install_rest_errors


def app_of(*routers: APIRouter) -> FastAPI:
    app = FastAPI()
    for router in routers:
        app.include_router(router)
    install_rest_errors(app)
    return app


def everybody(request: Request, scope: str) -> JSONResponse | None:
    """Admits all."""
    return None


def nobody(request: Request, scope: str) -> JSONResponse | None:
    """Admits none, and says what for."""
    return JSONResponse({"error": {"code": f"not_for_{scope}"}}, status_code=401)


@asynccontextmanager
async def client(*routers: APIRouter) -> AsyncIterator[httpx.AsyncClient]:
    """Answers come as a whole. An exception of the app is answered with 500, as uvicorn does."""
    transport = httpx.ASGITransport(app_of(*routers), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://ivas") as http:
        yield http


class Exchange:
    """One POST seen from the socket: what has been sent, and a client that may leave."""

    def __init__(
        self, app: FastAPI, path: str, body: bytes, content_type: str = "application/json"
    ) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self.complete = False
        self.stalls = False
        """Take no more from now on."""
        self.on_complete: Callable[[], None] = lambda: None
        self._arrived = asyncio.Event()
        self._gone = asyncio.Event()
        self._requests = [body]
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1", "method": "POST", "scheme": "http", "path": path,
            "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": [(b"host", b"ivas"), (b"content-type", content_type.encode())],
            "client": ("127.0.0.1", 1), "server": ("ivas", 80),
        }  # fmt: skip
        self.serving = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if self._requests:
            return {"type": "http.request", "body": self._requests.pop(), "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if self.stalls:
            await asyncio.get_running_loop().create_future()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            if message.get("body"):
                self.pieces.append(message["body"])
            self.complete = not message.get("more_body", False)
            if self.complete:
                self.on_complete()
        self._arrived.set()

    async def until(self, pieces: int) -> None:
        """Until so many pieces of the body have come."""
        async with asyncio.timeout(10):
            while len(self.pieces) < pieces:
                self._arrived.clear()
                await self._arrived.wait()

    async def ends(self) -> None:
        async with asyncio.timeout(10):
            await self.serving

    async def leave(self) -> None:
        """As a closed connection looks to the app; returns when it has ended its work."""
        self._gone.set()
        await self.ends()

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)
