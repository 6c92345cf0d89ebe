"""What all REST requests that make an engine work have in common.

They are counted from their first byte to their last, no key and no address has more
than half of the places, their size and the time they take to arrive are limited, and
when their client leaves, their work ends with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack, suppress
from typing import Any, Protocol, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from ivas.engines import Engine, Status
from ivas.errors import EngineUnavailable
from ivas.keys import Scope as KeyScope

from .limits import Full, Places
from .rest_errors import RequestRefused
from .security import Caller, Refusal

T = TypeVar("T")

ARRIVAL_S = 120.0
"""How long a request may take to arrive: 25 MiB at 1.7 Mbit/s."""
RETRY_AFTER_S = 1


class Admit(Protocol):
    """Whether a request may be served: None, or the answer that refuses it.

    If it may, whose it is stands in its state as `caller`, a `Caller`: `Served` counts in
    that name.
    """

    def __call__(self, request: Request, scope: KeyScope) -> JSONResponse | None: ...


class Served(Response):
    """Does its work when it is sent, with a place held from its first byte to its last.

    Made of a function rather than of a body: a place is free again, and whatever the
    work had open is closed, when the last byte has left or the client has.
    """

    def __init__(
        self, places: Places, work: Callable[[Request, Send], Coroutine[Any, Any, None]]
    ) -> None:
        super().__init__()
        self._places = places
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with ExitStack() as held:

            async def sent(message: Message) -> None:
                if message["type"] == "http.response.body" and not message.get("more_body"):
                    # Now, or the client's next request might be here before it is free.
                    held.close()
                await send(message)

            request = Request(scope, receive)
            caller: Caller | None = getattr(request.state, "caller", None)
            place = self._places.place(caller.holder if caller else None, self._places.half)
            if (full := held.enter_context(place)) is not None:
                raise self._no_place(full)
            with suppress(ClientDisconnect):  # before its request had arrived
                await self._work(request, sent)

    def _no_place(self, full: Full) -> RequestRefused:
        why = "This server works on as many requests as it can; try again in a moment."
        if full == "holder":
            why = (
                f"This server works on {self._places.half} requests with this key or from this "
                "address, and on no more at once; try again when one has ended."
            )
        return RequestRefused(Refusal(429, "rate_limit_exceeded", why, retry_after_s=RETRY_AFTER_S))


def limited(request: Request, *, most_bytes: int, most: str) -> Request:
    """The same request, refused with 413 from the byte on that is too many.

    `most` says the limit in words. Raises RequestRefused, now or while it is read.
    """
    refused = RequestRefused(
        Refusal(413, "request_too_large", f"This is more than the {most} a request may have here.")
    )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most_bytes:
        raise refused
    read = 0

    async def receive() -> Message:
        nonlocal read
        message = await request.receive()
        read += len(message.get("body", b""))
        if read > most_bytes:
            raise refused
        return message

    return Request(request.scope, receive)


def need_ready(unready: str | None, *engines: Engine) -> None:
    """Raises EngineUnavailable if the server (`unready`: why) or an engine cannot serve yet."""
    for status in (Status(unready is None, unready or ""), *(e.status() for e in engines)):
        if not status.ready:
            raise EngineUnavailable(status.reason)


async def arriving(reading: Awaitable[T], *, within_s: float = ARRIVAL_S) -> T:
    """Wait for the body of a request. Raises RequestRefused if it takes too long."""
    try:
        async with asyncio.timeout(within_s):
            return await reading
    except TimeoutError:
        raise RequestRefused(
            Refusal(408, "request_timeout", f"The request did not arrive within {within_s:g} s.")
        ) from None


async def attended(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, but only as long as the client is there. The request was read before."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def off_loop(slots: asyncio.Semaphore, function: Callable[[Callable[[], bool]], T]) -> T:
    """Call `function(wanted)` on a thread; its slot stays taken until it really ends.

    When the caller is cancelled, that is at once, and `wanted()` is False from then on.
    """
    await slots.acquire()
    abandoned = False
    thread = asyncio.ensure_future(asyncio.to_thread(function, lambda: not abandoned))

    def ended(done: asyncio.Future[T]) -> None:
        slots.release()
        if abandoned and not done.cancelled():
            done.exception()  # nobody is left to be told, asyncio's log neither

    thread.add_done_callback(ended)
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        abandoned = True
        raise
