"""Any server that speaks OpenAI's chat completions: vLLM, llama.cpp, LM Studio, a gateway.

One pooled HTTP client, one streamed request a reply. Cancelling closes the stream, at
which these servers stop generating.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import httpx

from ivas.engines import LLM, Message, Status, Token, Tool, ToolCall
from ivas.engines.llm.openai_stream import Deltas, EventReader, chat_messages, chat_tools
from ivas.engines.llm.thinking import ThoughtFilter
from ivas.engines.openai_server import OpenaiServer, body_text, error_text, is_html, parsed
from ivas.errors import EngineError, EngineUnavailable

log = logging.getLogger(__name__)

_TOKENS_A_TURN = 16
"""Tokens between two chances for other tasks to run, when they arrive all at once."""
_NO_CHAT = re.compile(r"embed|rerank|whisper|tts|bge-|moderation|dall-e", re.I)
_OPTIONAL = ("max_tokens", "temperature", "tool_choice")
"""Members of a request that some models refuse, and are then asked without."""


class OpenaiLLM(LLM):
    """Answers through POST {base_url}/chat/completions.

    `base_url`: with its /v1. `api_key`: shown to that server and to nobody else. `model`:
    None takes the first the server lists that is no model for something else.
    `temperature`: 0 (always the same) to 2.
    """

    name = "openai"

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None = None,
        model: str | None = None,
        temperature: float = 0.7,
    ) -> None:
        self._server = OpenaiServer(
            "chat",
            part="LLM",
            url=base_url,
            key=api_key,
            example_url="http://127.0.0.1:8080/v1",
            again="ask again",
            at_home="set IVAS_LLM__ENGINE=ollama for a model at home",
        )
        self._wanted = model
        self._model: str | None = None
        self._temperature = temperature
        self._refused: frozenset[str] = frozenset()
        """Which of `_OPTIONAL` this model does not take."""

    @property
    def model(self) -> str | None:
        """The name of the model that answers; None before one was found."""
        return self._model

    def status(self) -> Status:
        return self._server.status()

    async def start(self) -> None:
        """Ask the server for its models, and find the one to use among them."""
        await self._server.start(self._probe)

    async def aclose(self) -> None:
        await self._server.aclose()

    async def stream(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        tool_choice: str = "auto",
        max_tokens: int | None = None,
    ) -> AsyncGenerator[Token | ToolCall, None]:
        """The reply, token by token, without what the model only thinks.

        Tries even when not ready: a server that has come back is used at once.
        """
        thoughts, deltas = ThoughtFilter(), Deltas()
        count = 0
        events = self._chat(messages, chat_tools(tools, tool_choice), max_tokens)
        async with aclosing(events):
            async for event in events:
                try:
                    text = thoughts.push(deltas.text(event))
                except ValueError as error:
                    raise self._server.garbled() from error
                if text:
                    yield Token(text)
                count += 1
                if count % _TOKENS_A_TURN == 0:
                    await asyncio.sleep(0)
            if not deltas.finished:
                raise EngineError(
                    f"{self._server.at} ended its answer in the middle; ask again.",
                    code="llm_broke_off",
                )
        if text := thoughts.end():
            yield Token(text)
        for call in deltas.calls():
            yield call

    async def prefill(self, messages: Sequence[Message]) -> None:
        """Let the server read `messages` now: a reply to a prompt that begins so comes sooner.

        Never raises EngineError: what is wrong is said by the reply.
        """
        if not messages:
            return
        try:
            async with aclosing(self._chat(messages, {}, 1)) as events:
                async for _ in events:
                    pass
        except EngineError as error:
            log.debug("%s", error)

    # --- the server ----------------------------------------------------------

    async def _probe(self) -> None:
        status, text = await self._server.get("models")
        self._model = None  # what answered before may be gone
        self._model = self._choose(status, text)

    def _choose(self, status: int, text: str) -> str:
        """The model to use, by the answer to GET /models."""
        if status in (404, 405) and self._wanted and not is_html(text):
            return self._wanted  # a gateway that lists nothing
        if status != 200:
            raise self._refusal(status, text)
        try:
            listed = [str(model["id"]) for model in parsed(text)["data"]]
        except (KeyError, TypeError):
            raise self._server.foreign() from None
        if self._wanted is not None:
            if not listed or self._wanted in listed or f"{self._wanted}:latest" in listed:
                return self._wanted
            some = ", ".join(listed[:6]) + (" and more" if len(listed) > 6 else "")
            raise EngineUnavailable(
                f"{self._server.at} has no model {self._wanted}; set IVAS_LLM__MODEL to one it "
                f"has ({some}), or unset it.",
                code="model_missing",
            )
        able = [model for model in listed if not _NO_CHAT.search(model)]
        if not able:
            raise EngineUnavailable(
                f"{self._server.at} lists no model to converse with; load one there, or name one "
                "with IVAS_LLM__MODEL.",
                code="model_missing",
            )
        return able[0]

    async def _chat(
        self, messages: Sequence[Message], tools: dict[str, Any], max_tokens: int | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The events of one answer. Keeps the status true; raises EngineError."""
        if self._model is None:
            await self.start()
        model = self._model
        limit = {} if max_tokens is None else {"max_tokens": max(1, max_tokens)}
        body: dict[str, Any] = {
            "model": model,
            "messages": chat_messages(messages),
            "stream": True,
            "temperature": self._temperature,
            **tools,
            **limit,
        }
        with self._server.told():
            while True:
                async with self._server.post("chat/completions", self._fitted(body)) as response:
                    if response.status_code == 200:
                        async with aclosing(self._events(response)) as events:
                            async for event in events:
                                if model == self._model:  # else another request found it gone
                                    self._server.answered()
                                yield event
                        return
                    text = await body_text(response)
                if not self._learned(response.status_code, text):
                    raise self._refusal(response.status_code, text, model=model)

    async def _events(self, response: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
        """The JSON of every event, or of the one answer of a server that does not stream."""
        kind = response.headers.get("content-type", "")
        if "html" in kind:
            raise self._server.foreign()
        if "json" in kind:
            yield self._checked(await body_text(response))
            return
        reader = EventReader()
        try:
            async for data in response.aiter_bytes():
                for event in reader.push(data):
                    if event.strip() == "[DONE]":
                        return
                    yield self._checked(event)
            for event in reader.end():
                if event.strip() != "[DONE]":
                    yield self._checked(event)
        except ValueError as error:
            raise self._server.garbled() from error

    def _checked(self, text: str) -> dict[str, Any]:
        event = parsed(text)
        if (said := error_text(event)) is not None:
            raise self._refusal(200, said)
        if not isinstance(event, dict):
            raise self._server.garbled()
        return event

    def _refusal(self, status: int, text: str, *, model: str | None = None) -> EngineError:
        """What an answer other than a reply means."""
        said = self._server.quoted(text)
        if status == 404 and model and "model" in said.lower():
            self._model = None  # the next start chooses anew
            return self._server.lacks("model", model, said)
        if re.search(r"out of memory|cuda.*alloc", said, re.I):
            return EngineError(
                f"{self._server.at} ran out of memory ({said}); load a smaller model there, or let "
                "it hold less context.",
                code="llm_memory",
            )
        return self._server.refusal(status, text)

    def _fitted(self, body: dict[str, Any]) -> dict[str, Any]:
        """`body` in the words this model takes."""
        fitted = {key: value for key, value in body.items() if key not in self._refused}
        if "max_tokens" in self._refused and "max_tokens" in body:
            fitted["max_completion_tokens"] = body["max_tokens"]  # OpenAI's newer word
        return fitted

    def _learned(self, status: int, text: str) -> bool:
        """Whether the server refused one of `_OPTIONAL`, and was not yet asked without."""
        if status not in (400, 422):
            return False
        for member in _OPTIONAL:
            named = re.search(rf"\b{member}\b", text)
            unknown = re.search(r"unsupported|not support|unrecognized|unknown|extra", text, re.I)
            if named and unknown and member not in self._refused:
                self._refused |= {member}
                return True
        return False
