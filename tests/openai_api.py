"""What every server of OpenAI's API does, on a real socket, as a test tells it.

It wants its key, lists its models and voices, and plays the faults a test asks for. What it
does for a POST is the business of openai_asr_server.py, openai_llm_server.py and
openai_speech_server.py.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from scripted_http import (
    Die,
    Exchange,
    Handler,
    Raw,
    Refuse,
    Request,
    ScriptedServer,
    Wait,
    refuse,
    wait,
)

Fault = Raw | Wait | Die | Refuse
Step = TypeVar("Step")


class OpenaiApi(ScriptedServer, Generic[Step]):
    """`models`, `voices`: what it lists; None: it lists nothing. `key`: what it wants to see."""

    def __init__(
        self,
        post: tuple[str, Handler],
        *,
        models: Sequence[str] | None = ("tiny",),
        voices: Any = None,
        key: str | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(self._handle, port=port)
        self._path, self._post = post
        self.models = models
        self.voices = voices
        self.key = key
        self.listing: Fault | None = None
        """What to do when asked for a list."""
        self.answers: deque[Sequence[Step]] = deque()
        """What to do for coming posts, in order; then the default again."""
        self.left = asyncio.Event()
        """Set when a post ended before its answer did."""

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def posts(self) -> list[Request]:
        """What was asked so far, without the lists."""
        return [request for request in self.requests if request.method == "POST"]

    async def _handle(self, exchange: Exchange) -> None:
        request = exchange.request
        shown = request.headers.get("authorization")
        if self.key and shown != f"Bearer {self.key}":
            await error(exchange, 401, f"Incorrect API key provided: {shown}")
        elif request.path == self._path and request.method != "POST":
            await error(exchange, 405, "Method Not Allowed")
        elif request.path == self._path:
            try:
                await self._post(exchange)
            finally:
                if not exchange.ended:
                    self.left.set()
        elif self.listing is not None:
            await whole(exchange, self.listing)
        elif request.path == "/v1/models" and self.models is not None:
            data = [{"id": name, "object": "model"} for name in self.models]
            await exchange.send_json({"object": "list", "data": data})
        elif request.path == "/v1/audio/voices" and self.voices is not None:
            await exchange.send_json(self.voices)
        else:
            await error(exchange, 404, "Not Found")


async def error(exchange: Exchange, status: int, text: str) -> None:
    """In OpenAI's words; as it is if it is HTML."""
    await refuse(exchange, Refuse(status, text), {"error": {"message": text}})


async def whole(exchange: Exchange, fault: Fault) -> None:
    """The fault as an answer that comes in one piece."""
    match fault:
        case Refuse(status, text):
            await error(exchange, status, text)
        case Raw(data):
            await exchange.send(200, data)
        case Wait(event):
            await wait(exchange, event)
        case Die():
            exchange.begin("application/json")
            await exchange.chunk(b'{"text": "what ti')
            await exchange.die()
