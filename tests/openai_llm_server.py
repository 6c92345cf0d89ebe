"""A server that speaks OpenAI's chat completions, on a real socket, as a test tells it.

Without a script it answers "You said", and then what was said.
(https://platform.openai.com/docs/api-reference/chat-streaming)
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from typing import Any

from scripted_http import (
    Call,
    Die,
    Exchange,
    Fail,
    Raw,
    Refuse,
    ScriptedServer,
    Stop,
    Wait,
    refuse,
    wait,
)

Step = str | dict[str, Any] | Wait | Call | Fail | Refuse | Raw | Die | Stop
"""A string is a piece of the reply, a dict a delta."""


class OpenaiServer(ScriptedServer):
    """`models`: what it lists; None: it lists nothing. `key`: what it wants to be shown."""

    def __init__(
        self, *, models: Sequence[str] | None = ("tiny",), key: str | None = None, port: int = 0
    ) -> None:
        super().__init__(self._handle, port=port)
        self.models = models
        self.key = key
        self.replies: deque[Sequence[Step]] = deque()
        """What to answer to coming chats, in order; then the default again."""
        self.listing: Step | None = None
        """A fault to answer with when asked for the models."""
        self.refuses: set[str] = set()
        """Members of a request that are an error."""
        self.chat_left = asyncio.Event()
        """Set when a client left before the end of its answer."""

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def chats(self) -> list[dict[str, Any]]:
        """What was asked so far."""
        return [r.json for r in self.requests if r.path == "/v1/chat/completions"]

    async def _handle(self, exchange: Exchange) -> None:
        request = exchange.request
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            shown = request.headers.get("authorization", "")
            await self._perform(exchange, [Refuse(401, f"Incorrect API key provided: {shown}")])
        elif request.path == "/v1/models" and self.listing is not None:
            await self._perform(exchange, [self.listing])
        elif request.path == "/v1/models" and self.models is not None:
            data = [{"id": name, "object": "model"} for name in self.models]
            await exchange.send_json({"object": "list", "data": data})
        elif request.path == "/v1/chat/completions":
            await self._chat(exchange)
        else:
            await exchange.send_json({"detail": "Not Found"}, 404)

    async def _chat(self, exchange: Exchange) -> None:
        body = exchange.request.json
        if unknown := sorted(self.refuses & set(body)):
            text = f"Unsupported parameter: '{unknown[0]}' is not supported with this model."
            await self._perform(exchange, [Refuse(400, text)])
            return
        try:
            await self._perform(exchange, self.replies.popleft() if self.replies else _echo(body))
        finally:
            if not exchange.ended:
                self.chat_left.set()

    async def _perform(self, exchange: Exchange, steps: Sequence[Step]) -> None:
        if steps and isinstance(steps[0], Refuse):
            await refuse(exchange, steps[0], {"error": {"message": steps[0].text}})
            return
        exchange.begin("text/event-stream")
        body = exchange.request.json or {}
        most = body.get("max_tokens") or body.get("max_completion_tokens")
        said = calls = 0
        await exchange.chunk(b": keep-alive\n\n")
        await _delta(exchange, {"role": "assistant", "content": ""})
        for step in steps:
            match step:
                case Wait(event):
                    await wait(exchange, event)
                case Die():
                    await exchange.die()
                    return
                case Stop():
                    await exchange.end()
                    return
                case Raw(data):
                    await exchange.chunk(data)
                case Fail(text):
                    await _event(exchange, {"error": {"message": text, "code": 500}})
                case dict():
                    await _delta(exchange, step)
                case str() if most is not None and said >= most:
                    continue
                case str():
                    said += 1
                    await _delta(exchange, {"content": step})
                case Call(name, arguments):
                    await _call(exchange, calls, name, json.dumps(arguments))
                    calls += 1
        await _delta(exchange, {}, finish="tool_calls" if calls else "stop")
        await _event(exchange, {"choices": [], "usage": {"total_tokens": said}})
        await exchange.chunk(b"data: [DONE]\n\n")
        await exchange.end()


async def _call(exchange: Exchange, index: int, name: str, arguments: str) -> None:
    """A tool call as OpenAI streams it: first its name, then its arguments in pieces."""
    head = {"index": index, "id": f"call_{index}", "type": "function"}
    await _delta(exchange, {"tool_calls": [head | {"function": {"name": name, "arguments": ""}}]})
    for piece in (arguments[:3], arguments[3:]):
        await _delta(exchange, {"tool_calls": [{"index": index, "function": {"arguments": piece}}]})


async def _delta(exchange: Exchange, delta: dict[str, Any], finish: str | None = None) -> None:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    await _event(exchange, {"object": "chat.completion.chunk", "choices": [choice]})


async def _event(exchange: Exchange, value: dict[str, Any]) -> None:
    await exchange.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")


def _echo(body: dict[str, Any]) -> list[Step]:
    """ "You said", and what was said last, a word at a time."""
    messages = body["messages"]
    last = (messages[-1]["content"] if messages else "") or "nothing at all"
    first, *others = f"You said: {last}.".split(" ")
    return [first, *(f" {word}" for word in others)]
