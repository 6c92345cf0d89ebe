"""Any server that speaks OpenAI's chat completions: vLLM, llama.cpp, LM Studio, a gateway.

One pooled HTTP client, one streamed request a reply. Cancelling closes the stream, at
which these servers stop generating.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import httpx

from ivas.engines import LLM, Message, Status, Token, Tool, ToolCall
from ivas.engines.llm.openai_errors import Troubles
from ivas.engines.llm.openai_stream import (
    Deltas,
    EventReader,
    chat_messages,
    chat_tools,
    error_text,
)
from ivas.engines.llm.thinking import ThoughtFilter
from ivas.errors import EngineError, EngineUnavailable

log = logging.getLogger(__name__)

PROBE_S = 5.0
"""Longest wait for a server to say what it has."""
CONNECT_S = 3.0
MOST_BODY_BYTES = 2**20
"""As much of an answer that is no stream as is read."""
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
        self._url = base_url.rstrip("/")
        self._key = api_key
        self._troubles = Troubles(url=self._url, key=api_key, probe_s=PROBE_S)
        self._wanted = model
        self._model: str | None = None
        self._temperature = temperature
        self._client: httpx.AsyncClient | None = None
        self._reason = "The chat server has not been asked yet; it is when IVAS starts."
        self._refused: frozenset[str] = frozenset()
        """Which of `_OPTIONAL` this model does not take."""

    @property
    def model(self) -> str | None:
        """The name of the model that answers; None before one was found."""
        return self._model

    def status(self) -> Status:
        return Status(ready=not self._reason, reason=self._reason)

    async def start(self) -> None:
        """Ask the server for its models, and find the one to use among them."""
        if not self._reason:
            return
        try:
            async with asyncio.timeout(PROBE_S):
                client = await self._open()
                response = await client.get(f"{self._url}/models")
            self._model = self._choose(response)
        except TimeoutError:
            raise self._noted(self._troubles.silent()) from None
        except httpx.HTTPError as error:
            raise self._noted(self._troubles.unreachable(error)) from error
        except httpx.InvalidURL as error:
            raise self._noted(self._troubles.no_address()) from error
        except EngineError as error:
            raise self._noted(EngineUnavailable(str(error), code=error.code)) from None
        self._reason = ""

    async def aclose(self) -> None:
        self._reason = "The chat server has been closed; start it again first."
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

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
                    raise self._troubles.garbled() from error
                if text:
                    yield Token(text)
                count += 1
                if count % _TOKENS_A_TURN == 0:
                    await asyncio.sleep(0)
            if not deltas.finished:
                raise self._troubles.broke_off()
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

    async def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            # On a thread: reading the certificates takes 30 ms.
            made = await asyncio.to_thread(self._make_client)
            if self._client is None:
                self._client = made
        return self._client

    def _make_client(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        local = re.match(r"http://(localhost|127\.|\[::1\])", self._url) is not None
        return httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            # A proxy is never the way to this machine, whatever the environment says.
            trust_env=not local,
            verify=self._url.startswith("https:"),
        )

    def _choose(self, response: httpx.Response) -> str:
        """The model to use, by the answer to GET /models."""
        if response.status_code in (404, 405) and self._wanted and not _is_html(response):
            return self._wanted  # a gateway that lists nothing
        if response.status_code != 200:
            raise self._troubles.refusal(response.status_code, response.text)
        try:
            listed = [str(model["id"]) for model in response.json()["data"]]
        except (ValueError, KeyError, TypeError):
            raise self._troubles.foreign() from None
        if self._wanted is not None:
            if not listed or self._wanted in listed or f"{self._wanted}:latest" in listed:
                return self._wanted
            raise self._troubles.unlisted(self._wanted, listed)
        able = [model for model in listed if not _NO_CHAT.search(model)]
        if not able:
            raise self._troubles.nothing_loaded()
        return able[0]

    async def _chat(
        self, messages: Sequence[Message], tools: dict[str, Any], max_tokens: int | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The events of one answer. Keeps the status true; raises EngineError."""
        if self._model is None:
            await self.start()
        limit = {} if max_tokens is None else {"max_tokens": max(1, max_tokens)}
        body: dict[str, Any] = {
            "model": self._model,
            "messages": chat_messages(messages),
            "stream": True,
            "temperature": self._temperature,
            **tools,
            **limit,
        }
        try:
            client = await self._open()
            while True:
                url = f"{self._url}/chat/completions"
                async with client.stream("POST", url, json=self._fitted(body)) as response:
                    if response.status_code == 200:
                        async with aclosing(self._events(response)) as events:
                            async for event in events:
                                self._reason = ""
                                yield event
                        return
                    text = await _body(response)
                if not self._learned(response.status_code, text):
                    raise self._troubles.refusal(response.status_code, text, model=self._model)
        except httpx.HTTPError as error:
            raise self._noted(self._troubles.unreachable(error)) from error
        except httpx.InvalidURL as error:
            raise self._noted(self._troubles.no_address()) from error
        except EngineError as error:
            raise self._noted(error) from error.__cause__

    async def _events(self, response: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
        """The JSON of every event, or of the one answer of a server that does not stream."""
        kind = response.headers.get("content-type", "")
        if "html" in kind:
            raise self._troubles.foreign()
        if "json" in kind:
            yield self._checked(await _body(response))
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
            raise self._troubles.garbled() from error

    def _checked(self, text: str) -> dict[str, Any]:
        try:
            event = json.loads(text)
        except ValueError as error:
            raise self._troubles.garbled() from error
        if (said := error_text(event)) is not None:
            raise self._troubles.refusal(200, said, model=self._model)
        if not isinstance(event, dict):
            raise self._troubles.garbled()
        return event

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

    def _noted(self, error: EngineError) -> EngineError:
        """`error`, and the status says so if the next request would fare no better."""
        if isinstance(error, EngineUnavailable):
            self._reason = str(error)
        if error.code == "model_missing":
            self._model = None
        return error


async def _body(response: httpx.Response) -> str:
    """The text of an answer, as far as it is of any use."""
    read = b""
    async for data in response.aiter_bytes():
        read += data
        if len(read) >= MOST_BODY_BYTES:
            break
    return read[:MOST_BODY_BYTES].decode(errors="replace")


def _is_html(response: httpx.Response) -> bool:
    return "html" in response.headers.get("content-type", "")
