"""A small real HTTP/1.1 server whose answers a test writes: chunk by chunk, or cut off.

It keeps connections alive, notices a client that leaves, and can be stopped and started
again on the same port.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"null")


@dataclass(slots=True)
class Exchange:
    """One request and the way to answer it."""

    request: Request
    gone: asyncio.Event
    """Set when the client leaves before the answer has ended."""
    _writer: asyncio.StreamWriter
    ended: bool = field(default=False)
    """The whole answer was sent."""

    async def send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        """The whole answer at once."""
        self._head(status, kind, f"Content-Length: {len(body)}")
        self._writer.write(body)
        await self._writer.drain()
        self.ended = True

    async def send_json(self, value: Any, status: int = 200) -> None:
        await self.send(status, json.dumps(value).encode())

    def begin(self, kind: str) -> None:
        """An answer that comes in chunks."""
        self._head(200, kind, "Transfer-Encoding: chunked")

    async def chunk(self, data: bytes) -> None:
        self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self._writer.drain()

    async def end(self) -> None:
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()
        self.ended = True

    async def die(self) -> None:
        """Cut the connection in the middle, as a process that is killed does.

        Raises ConnectionError: there is nothing more to say.
        """
        await self._writer.drain()
        self._writer.transport.abort()
        raise ConnectionAbortedError

    def _head(self, status: int, kind: str, length: str) -> None:
        head = f"HTTP/1.1 {status} Scripted\r\nContent-Type: {kind}\r\n{length}\r\n\r\n"
        self._writer.write(head.encode())


# --- what a script may tell a server to do, beside what it says ------------------


@dataclass(frozen=True, slots=True)
class Wait:
    """Say nothing until `event` is set."""

    event: asyncio.Event


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fail:
    """An error in the middle of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """An HTTP error instead of an answer; the first step only."""

    status: int
    text: str
    """JSON is made of it unless it begins like HTML."""


@dataclass(frozen=True, slots=True)
class Raw:
    """These bytes, whatever they are."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Die:
    """Cut the connection."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End the answer in order, but before it is done."""


async def refuse(exchange: Exchange, step: Refuse, body: Any) -> None:
    """Answer with the error, as `body` unless the text is HTML."""
    if step.text.startswith("<"):
        await exchange.send(step.status, step.text.encode(), "text/html")
    else:
        await exchange.send_json(body, step.status)


async def wait(exchange: Exchange, event: asyncio.Event) -> None:
    """Until the event is set. Raises ConnectionError if the client leaves before."""
    tasks = [asyncio.create_task(each.wait()) for each in (event, exchange.gone)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if exchange.gone.is_set():
        raise ConnectionError


# --- the server ------------------------------------------------------------------

Handler = Callable[[Exchange], Awaitable[None]]


class ScriptedServer:
    """Answers every request with `handler`. `port` 0: any free one, kept over restarts."""

    def __init__(self, handler: Handler, *, port: int = 0) -> None:
        self.port = port
        self.requests: list[Request] = []
        self.connections = 0
        """How many were made so far."""
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Vanish: refuse new connections, cut those there are. Safe to call again."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> ScriptedServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            early = b""
            while (request := await _read(reader, early)) is not None:
                self.requests.append(request)
                early = await self._answer(request, reader, writer)
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass  # cancelled by `stop`: asyncio would report it as an error of the callback
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _answer(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        """Answer; whatever of the next request came meanwhile. Stops when the client leaves."""
        exchange = Exchange(request, asyncio.Event(), writer)
        watching = asyncio.create_task(reader.read(1))
        answering = asyncio.ensure_future(self._handler(exchange))
        try:
            await asyncio.wait((watching, answering), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                exchange.gone.set()
            await answering
            if not exchange.ended:
                raise ConnectionError
            return watching.result() if watching.done() else b""
        finally:
            answering.cancel()
            watching.cancel()
            await asyncio.gather(answering, watching, return_exceptions=True)


async def _read(reader: asyncio.StreamReader, early: bytes) -> Request | None:
    """The next request; None when the client has gone."""
    try:
        head = early + await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body)
