"""A server that speaks Ollama's protocol, on a real socket, and says what a test tells it.

    async with OllamaServer(models=[LLAMA]) as ollama:
        ollama.replies.append(["Hel", "lo.", Wait(event), Die()])

Without a script it answers "You said", and then what was said. It can be stopped and
started again on the same port, so that it appears and vanishes under a client.
(https://github.com/ollama/ollama/blob/main/docs/api.md)
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scripted_http import (
    Call,
    Die,
    Exchange,
    Fail,
    Raw,
    Refuse,
    Request,
    ScriptedServer,
    Stop,
    Wait,
    refuse,
    wait,
)


@dataclass(frozen=True, slots=True)
class Model:
    """What is installed. `capabilities` None: a server that is too old to say."""

    name: str
    size: int = 2_019_393_189
    family: str = "llama"
    parameters: str = "3.2B"
    quantisation: str = "Q4_K_M"
    capabilities: tuple[str, ...] | None = ("completion", "tools")


LLAMA = Model("llama3.2:3b")
QWEN = Model(
    "qwen3:4b", 2_500_000_000, "qwen3", "4B", "Q4_K_M", ("completion", "tools", "thinking")
)
EMBEDDER = Model(
    "nomic-embed-text:latest", 274_302_450, "nomic-bert", "137M", "F16", ("embedding",)
)


@dataclass(frozen=True, slots=True)
class Thought:
    """What a model thinks, in its own member."""

    text: str


Step = str | dict[str, Any] | Wait | Call | Thought | Fail | Refuse | Raw | Die | Stop
"""A string is a piece of the reply, a dict a line of a pull."""


class OllamaServer(ScriptedServer):
    """`models`: what is installed; may be changed while it runs."""

    def __init__(self, *, models: Sequence[Model] = (LLAMA,), port: int = 0) -> None:
        super().__init__(self._handle, port=port)
        self.models = list(models)
        self.replies: deque[Sequence[Step]] = deque()
        """What to answer to coming chats, in order; then the default again."""
        self.loading: Sequence[Step] = ()
        """What to do when a model is to be loaded: an empty prompt."""
        self.pulls: deque[Sequence[Step]] = deque()
        self.tags: Step | None = None
        """A fault to answer with when asked what is installed."""
        self.refuses_think = False
        """As some releases did: an error for `think`, whatever its value."""
        self.open_chats = 0
        self.left = 0
        """How many chats their client left before the end."""
        self.chat_left = asyncio.Event()

    @property
    def chats(self) -> list[dict[str, Any]]:
        """What was asked so far, without the requests that only load a model."""
        return [body for body in self._bodies("/api/chat") if body["messages"]]

    @property
    def loads(self) -> list[dict[str, Any]]:
        """The requests that only loaded a model."""
        return [body for body in self._bodies("/api/chat") if not body["messages"]]

    def _bodies(self, path: str) -> list[dict[str, Any]]:
        return [request.json for request in self.requests if request.path == path]

    async def _handle(self, exchange: Exchange) -> None:
        request = exchange.request
        match request.path:
            case "/api/version":
                await exchange.send_json({"version": "0.13.0"})
            case "/api/tags" if self.tags is not None:
                await self._perform(exchange, [self.tags])
            case "/api/tags":
                await exchange.send_json({"models": [_listed(model) for model in self.models]})
            case "/api/ps":
                await exchange.send_json({"models": []})
            case "/api/show":
                await self._show(exchange)
            case "/api/chat":
                await self._chat(exchange)
            case "/api/pull":
                steps = self.pulls.popleft() if self.pulls else [{"status": "success"}]
                await self._perform(exchange, steps)
            case _:
                await exchange.send(404, b"404 page not found", "text/plain")

    def _find(self, name: str) -> Model | None:
        full = name if ":" in name else f"{name}:latest"
        return next((model for model in self.models if model.name == full), None)

    async def _show(self, exchange: Exchange) -> None:
        model = self._find(exchange.request.json["model"])
        if model is None:
            await exchange.send_json({"error": "model not found"}, 404)
            return
        shown: dict[str, Any] = {"details": _details(model), "model_info": {}}
        if model.capabilities is not None:
            shown["capabilities"] = list(model.capabilities)
        await exchange.send_json(shown)

    async def _chat(self, exchange: Exchange) -> None:
        body = exchange.request.json
        model = self._find(body["model"])
        if model is None:
            await exchange.send_json({"error": f"model '{body['model']}' not found"}, 404)
            return
        if self.refuses_think and body.get("think") is not None:
            text = f'"{body["model"]}" does not support thinking'
            await exchange.send_json({"error": text}, 400)
            return
        if not body["messages"]:
            steps: Sequence[Step] = self.loading
        elif self.replies:
            steps = self.replies.popleft()
        else:
            steps = _echo(exchange.request)
        self.open_chats += 1
        try:
            await self._perform(exchange, steps, model=body["model"])
        finally:
            self.open_chats -= 1
            if not exchange.ended:
                self.left += 1
                self.chat_left.set()

    async def _perform(
        self, exchange: Exchange, steps: Sequence[Step], *, model: str | None = None
    ) -> None:
        """Do all steps; `model`: as a chat, which says when it is done."""
        if steps and isinstance(steps[0], Refuse):
            await refuse(exchange, steps[0], {"error": steps[0].text})
            return
        exchange.begin("application/x-ndjson")
        most = exchange.request.json.get("options", {}).get("num_predict") if model else None
        said = 0
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
                    await _line(exchange, {"error": text})
                case dict():
                    await _line(exchange, step)
                case str() if most is not None and said >= most:
                    continue
                case str():
                    said += 1
                    await _part(exchange, model, {"content": step})
                case Thought(text):
                    await _part(exchange, model, {"content": "", "thinking": text})
                case Call(name, arguments):
                    function = {"name": name, "arguments": arguments}
                    await _part(
                        exchange, model, {"content": "", "tool_calls": [{"function": function}]}
                    )
        if model is not None:
            reason = "stop" if steps else "load"
            await _part(exchange, model, {"content": ""}, done=True, done_reason=reason)
        await exchange.end()


async def _line(exchange: Exchange, value: dict[str, Any]) -> None:
    await exchange.chunk(json.dumps(value).encode() + b"\n")


async def _part(
    exchange: Exchange, model: str | None, message: dict[str, Any], done: bool = False, **more: Any
) -> None:
    head = {"model": model, "created_at": "2026-01-01T00:00:00Z"}
    await _line(exchange, head | {"message": {"role": "assistant"} | message, "done": done} | more)


def _echo(request: Request) -> list[Step]:
    """ "You said", and what was said last, a word at a time."""
    last = request.json["messages"][-1].get("content") or "nothing at all"
    first, *others = f"You said: {last}.".split(" ")
    return [first, *(f" {word}" for word in others)]


def _details(model: Model) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": model.family,
        "families": [model.family],
        "parameter_size": model.parameters,
        "quantization_level": model.quantisation,
    }


def _listed(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": "2026-01-01T00:00:00Z",
        "size": model.size,
        "digest": hashlib.sha256(repr(model).encode()).hexdigest(),
        "details": _details(model),
    }
