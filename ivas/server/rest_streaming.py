"""Answers that are sent while they are made, as bytes or as server-sent events.

Before the first byte an error is an answer with a status; after it the connection is
cut, because a file that ends too early but in order would pass for a whole one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson
from starlette.types import Message, Send

from ivas.errors import IvasError

from .rest_errors import FAILED, refusal_of

log = logging.getLogger(__name__)

EVENTS = "text/event-stream"
"""The media type of server-sent events."""
CLIENT_STALL_S = 30.0
"""A client that takes nothing for so long is given up."""


def event(data: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


async def stream_to(
    send: Send, pieces: AsyncGenerator[bytes, None], *, media_type: str, what: str
) -> None:
    """Send `pieces`, none of them empty, as they come; closes them in any case.

    `what` is cut off when something goes wrong, the log says then. Raises what goes
    wrong before the first piece. If the answer is one of events, its client is told.
    """
    started = False
    async with aclosing(pieces):
        try:
            async for piece in pieces:
                if not started:
                    await _sent(send, _start(media_type))
                    started = True
                await _sent(send, _body(piece, more=True))
            if not started:
                await _sent(send, _start(media_type))
            await _sent(send, _body(b"", more=False))
            return
        except TimeoutError:
            log.info("%s was cut off: its client took nothing for %g s", what, CLIENT_STALL_S)
            return
        except Exception as error:
            if not started:
                raise
            failure = error
            # Without its end an answer is broken off: the server closes the connection.
    if isinstance(failure, IvasError):
        log.warning("%s was cut off: %s", what, failure)
    else:
        log.error("%s was cut off", what, exc_info=failure)
    if media_type == EVENTS:
        await _sent(send, _body(_failure(failure), more=True))


def _failure(error: Exception) -> bytes:
    """The event at which OpenAI's clients raise."""
    refusal = refusal_of(error) if isinstance(error, IvasError) else FAILED
    body = {"type": refusal.kind, "code": refusal.code, "message": refusal.message, "param": None}
    return event({"type": "error", "error": body})


def _start(media_type: str) -> Message:
    # Proxies in front that collect an answer first would undo the streaming.
    headers = [(b"content-type", media_type.encode()), (b"x-accel-buffering", b"no")]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def _body(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def _sent(send: Send, message: Message) -> None:
    async with asyncio.timeout(CLIENT_STALL_S):
        await send(message)
