"""A server that speaks OpenAI's chat completions, on a real socket, as a test tells it.

Without a script it answers "You said", and then what was said.
(https://platform.openai.com/docs/api-reference/chat-streaming)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from openai_api import OpenaiApi, error
from scripted_http import Call, Die, Exchange, Fail, Raw, Refuse, Stop, Wait, wait

Step = str | dict[str, Any] | Wait | Call | Fail | Refuse | Raw | Die | Stop
"""A string is a piece of the reply, a dict a delta."""


class ChatServer(OpenaiApi[Step]):
    """What it has for options is said at `OpenaiApi`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(("/v1/chat/completions", self._chat), **options)
        self.refuses: set[str] = set()
        """Members of a request that are an error."""

    @property
    def chats(self) -> list[dict[str, Any]]:
        """What was asked so far."""
        return [request.json for request in self.posts]

    async def _chat(self, exchange: Exchange) -> None:
        body = exchange.request.json
        if unknown := sorted(self.refuses & set(body)):
            text = f"Unsupported parameter: '{unknown[0]}' is not supported with this model."
            await error(exchange, 400, text)
        else:
            await self._reply(exchange, self.answers.popleft() if self.answers else _echo(body))

    async def _reply(self, exchange: Exchange, steps: Sequence[Step]) -> None:
        if steps and isinstance(steps[0], Refuse):
            await error(exchange, steps[0].status, steps[0].text)
            return
        exchange.begin("text/event-stream")
        body = exchange.request.json
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
