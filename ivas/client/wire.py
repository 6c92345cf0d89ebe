"""The OpenAI Realtime protocol (GA shape) from the client's side, over WebSocket.

Works against any Realtime server. Events are plain mappings with the moment they
arrived; audio goes out in real time on an absolute schedule and never waits for
the server. Whatever fails is a `WireError`: one sentence for a person.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import orjson
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
)

from ivas.errors import IvasError

RATE_HZ = 24_000
"""Rate of all audio on the wire: PCM16 little-endian, mono."""
FRAME_MS = 20
FRAME_BYTES = RATE_HZ * FRAME_MS // 1000 * 2
"""One frame of the microphone: 480 samples."""
MODEL = "ivas"

_MAX_EVENT_BYTES = 16 * 2**20
_WRITE_AHEAD_BYTES = 16 * 2**20
"""Sent into a server that does not read before sending waits: four minutes of audio."""


class WireError(IvasError):
    """The conversation with a server could not begin or broke off."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the server."""

    type: str
    body: Mapping[str, Any]
    """The whole event, as it came."""
    at_s: float
    """When it arrived, by the clock of the running loop."""


def realtime_url(address: str, *, model: str = MODEL) -> str:
    """The WebSocket URL of a server given as ws://, http:// or host:port.

    A path other than / and /v1 is kept, and so is a `model` in the query.
    Raises WireError if it cannot be a server's address.
    """
    refusal = WireError(f"{address} is no address of a server; give one like ws://127.0.0.1:8000.")
    try:
        parts = urlsplit(address if "://" in address else f"ws://{address}")
    except ValueError:  # brackets that close nothing
        raise refusal from None
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname:
        raise refusal
    path = parts.path.rstrip("/")
    if path in ("", "/v1"):
        path = "/v1/realtime"
    query = dict(parse_qsl(parts.query))
    return urlunsplit((scheme, parts.netloc, path, urlencode({"model": model} | query), ""))


def on_this_machine(address: str) -> bool:
    """Whether a server's address, in any form `realtime_url` takes, is loopback.

    Only there may the key of this machine's own server go unasked.
    """
    host = urlsplit(realtime_url(address)).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Connection:
    """One conversation; got from `connect`."""

    def __init__(self, websocket: ClientConnection, url: str) -> None:
        self._websocket = websocket
        self._url = url

    async def send(self, event: Mapping[str, Any]) -> None:
        """Send one client event. Raises WireError once the connection is closed."""
        await self._send(orjson.dumps(event).decode())

    async def configure(self, session: Mapping[str, Any], *, event_id: str | None = None) -> None:
        """Change parts of the session; `session.updated` (or `error`) answers."""
        event: dict[str, Any] = {
            "type": "session.update",
            "session": {"type": "realtime", **session},
        }
        if event_id is not None:
            event["event_id"] = event_id
        await self.send(event)

    async def say_text(self, text: str) -> None:
        """Send a typed message and ask for a reply to it."""
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        await self.send({"type": "conversation.item.create", "item": item})
        await self.send({"type": "response.create"})

    async def append(self, pcm: bytes) -> None:
        """Send microphone audio: PCM16 at `RATE_HZ`."""
        audio = base64.b64encode(pcm).decode("ascii")
        await self._send(f'{{"type":"input_audio_buffer.append","audio":"{audio}"}}')

    async def stream(
        self,
        frames: Iterator[bytes],
        *,
        start_s: float,
        on_sent: Callable[[int, float], None] = lambda number, at_s: None,
    ) -> None:
        """Append frame k at `start_s` + k * `FRAME_MS`, until `frames` ends.

        Each frame is asked for when it is due. One that is late goes at once, and
        those after it are on time again. `on_sent` gets the number of each frame and
        the moment just before it was sent (loop clock, seconds).
        """
        clock = asyncio.get_running_loop().time
        for number in count():
            await asyncio.sleep(max(0.0, start_s + number * FRAME_MS / 1000 - clock()))
            frame = next(frames, None)
            if frame is None:
                return
            at_s = clock()
            await self.append(frame)
            on_sent(number, at_s)

    async def receive(self) -> Event:
        """The next event. Cancellable; raises WireError when the connection has closed."""
        try:
            raw = await self._websocket.recv()
        except ConnectionClosed as error:
            raise WireError(_closed(self._url, error)) from error
        at_s = asyncio.get_running_loop().time()
        try:
            body = orjson.loads(raw)
            return Event(body["type"], body, at_s)
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise WireError(
                f"{self._url} sent something that is no Realtime event; "
                "check that the address is that of a Realtime server."
            ) from error

    def __aiter__(self) -> AsyncIterator[Event]:
        """Every event until the connection closes, which raises WireError."""
        return self._events()

    async def _events(self) -> AsyncIterator[Event]:
        while True:
            yield await self.receive()

    async def _send(self, text: str) -> None:
        try:
            await self._websocket.send(text)
        except ConnectionClosed as error:
            raise WireError(_closed(self._url, error)) from error


@asynccontextmanager
async def connect(
    address: str, *, key: str | None = None, model: str = MODEL, timeout_s: float = 10.0
) -> AsyncIterator[Connection]:
    """A conversation with the server at `address`, from its `session.created` on.

    Raises WireError with the reason and what to do about it.
    """
    url = realtime_url(address, model=model)
    try:
        async with asyncio.timeout(timeout_s):
            websocket = await open_websocket(
                url,
                additional_headers={"Authorization": f"Bearer {key}"} if key else {},
                compression=None,  # undoes the base64 only, at twenty times its cost
                max_size=_MAX_EVENT_BYTES,
                write_limit=_WRITE_AHEAD_BYTES,
                open_timeout=None,
                close_timeout=1,
                proxy=None if on_this_machine(address) else True,
            )
    except Exception as error:
        raise WireError(_refused(url, error, timeout_s)) from error
    async with websocket:
        connection = Connection(websocket, url)
        await _greeting(connection, url, timeout_s)
        yield connection


async def _greeting(connection: Connection, url: str, timeout_s: float) -> None:
    """Wait for `session.created`. A server that could not say no before says it now."""
    try:
        async with asyncio.timeout(timeout_s):
            event = await connection.receive()
    except TimeoutError:
        raise WireError(
            f"{url} let us in but did not greet within {timeout_s:g} s; "
            "check that the address is that of a Realtime server."
        ) from None
    if event.type == "error":
        raise WireError(f"{url} refused: {error_message(event)}")


def error_message(event: Event) -> str:
    """The sentence in an `error` event."""
    error = event.body.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return str(message or "it sent an error without saying which.")


def _refused(url: str, error: Exception, timeout_s: float) -> str:
    """Why no connection came about, and what to do."""
    match error:
        case InvalidStatus():
            return _refused_with_status(url, error)
        case InvalidURI():
            return f"{url} is no address of a server; give one like ws://127.0.0.1:8000."
        case InvalidMessage() | InvalidHandshake():
            return f"What answers at {url} is no Realtime server; correct the address."
        case TimeoutError():
            return f"{url} did not answer within {timeout_s:g} s; is the server running there?"
        case ConnectionRefusedError():
            return f"Nothing listens at {url}; start a server there (ivas serve) or correct it."
        case OSError():
            why = error.strerror or type(error).__name__
            return f"{url} cannot be reached ({why}); check the address and the network."
        case _:
            return f"The connection to {url} failed ({type(error).__name__}: {error}); try again."


def _refused_with_status(url: str, error: InvalidStatus) -> str:
    status = error.response.status_code
    said = _said(bytes(error.response.body or b""))
    because = f": {said}" if said else ""
    match status:
        case 401 | 403:
            return f"{url} lets us in only with the right key (HTTP {status}{because}); use --key."
        case 404:
            return f"{url} has no Realtime protocol at this path (HTTP 404); correct the address."
        case 503:
            return f"{url} is not ready yet{because or '; try again in a moment'}."
        case _:
            return f"{url} refused the connection (HTTP {status}{because})."


def _said(body: bytes) -> str:
    """The message in an OpenAI error envelope, or nothing."""
    try:
        return str(orjson.loads(body)["error"]["message"]).rstrip(".")
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""


def _closed(url: str, error: ConnectionClosed) -> str:
    close = error.rcvd
    if close is None:
        return f"The connection to {url} broke off; see the server's log and connect again."
    reason = f": {close.reason}" if close.reason else ""
    return f"{url} closed the connection ({close.code}{reason}); connect again."
