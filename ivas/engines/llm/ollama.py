"""Ollama: open models on this machine or another, through the official client.

A model is loaded by its first request and kept (`keep_alive`); a request whose options
differ in what the runner was started with reloads it, so all but the length of the answer
are the same in every request. Cancelling closes the HTTP stream, and Ollama stops at the
next token.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from ivas.engines import LLM, Message, Status, Token, Tool, ToolCall
from ivas.engines.llm.ollama_client import MEMORY, OllamaServer, PullProgress, missing
from ivas.engines.llm.ollama_models import (
    COMFORTABLE_BYTES,
    SUGGESTION,
    InstalledModel,
    best_model,
    same_name,
)
from ivas.engines.llm.ollama_shapes import chat_messages, chat_tools, tool_call
from ivas.engines.llm.thinking import ThoughtFilter
from ivas.errors import EngineError, EngineUnavailable

log = logging.getLogger(__name__)

PROBE_S = 5.0
"""Longest wait for a server to say what it has; milliseconds are usual."""
RETRY_S = 60.0
"""How long a model that did not fit into memory is left alone."""
_TOKENS_A_TURN = 16
"""Tokens between two chances for other tasks to run, when they arrive all at once."""


class OllamaLLM(LLM):
    """Answers with a model of an Ollama server.

    `host`: as in OLLAMA_HOST. `model`: its name; None takes `best_model`, for which
    `comfortable_bytes` is the largest file that fits. `num_ctx`: tokens of prompt and answer
    together, 512 or more. `keep_alive`: how long an unused model stays loaded, `30m` or
    seconds, `-1` for ever. `temperature`: 0 (always the same) to 2.
    """

    name = "ollama"

    def __init__(
        self,
        *,
        host: str = "http://127.0.0.1:11434",
        model: str | None = None,
        num_ctx: int = 8192,
        keep_alive: str = "-1",
        temperature: float = 0.7,
        comfortable_bytes: int = COMFORTABLE_BYTES,
    ) -> None:
        self._server = OllamaServer(host=host)
        self._wanted = model
        self._comfortable_bytes = comfortable_bytes
        # Ollama takes a bare number for seconds only where it is one.
        number = re.fullmatch(r"-?\d+", keep_alive)
        self._keep_alive: str | int = int(keep_alive) if number else keep_alive
        self._options = {"num_ctx": num_ctx, "temperature": temperature}
        self._model: InstalledModel | None = None
        self._think: bool | str | None = None
        self._reason = "Ollama has not been asked yet; it is when IVAS starts."
        self._too_large_until_s = 0.0
        self._preloading: asyncio.Task[None] | None = None
        self._said_no_tools = False

    @property
    def model(self) -> str | None:
        """The name of the model that answers; None before one was found."""
        return self._model.name if self._model else None

    def status(self) -> Status:
        ready = self._model is not None and not self._reason
        return Status(ready=ready, reason=self._reason)

    async def start(self) -> None:
        """Find the server and the model, then load it in the background."""
        if self.status().ready:
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._too_large_until_s:
            raise EngineUnavailable(self._reason, code=MEMORY)
        try:
            async with asyncio.timeout(PROBE_S):
                self._model = await self._choose()
        except TimeoutError:
            raise self._noted(
                EngineUnavailable(
                    f"Ollama at {self._server.host} did not answer within {PROBE_S:g} s; see "
                    "whether it hangs, and start it anew with: ollama serve",
                    code="llm_unreachable",
                )
            ) from None
        except EngineError as error:
            raise self._noted(EngineUnavailable(str(error), code=error.code)) from error
        self._think = _least_thought(self._model)
        self._reason = ""
        if self._preloading is None or self._preloading.done():
            self._preloading = loop.create_task(self._preload(), name="ollama preload")

    async def aclose(self) -> None:
        if self._preloading is not None:
            self._preloading.cancel()
            await asyncio.gather(self._preloading, return_exceptions=True)
        self._reason = "Ollama has been closed; start it again first."
        await self._server.aclose()

    async def models(self) -> tuple[InstalledModel, ...]:
        """Every model of the server. Raises EngineError."""
        return await self._server.models()

    async def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        """Let the server load `model`. Raises EngineError; pulling again goes on."""
        async with aclosing(self._server.pull(model)) as progress:
            async for step in progress:
                yield step

    async def stream(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        tool_choice: str = "auto",
        max_tokens: int | None = None,
    ) -> AsyncGenerator[Token | ToolCall, None]:
        """The reply, token by token, without what the model only thinks.

        Tries even when not ready: a server that has come back is used at once. Of
        `tool_choice`, `none` and names are kept; `required` is `auto`: Ollama cannot do more.
        """
        options = {} if max_tokens is None else {"num_predict": max(1, max_tokens)}
        offered = self._usable(tools, tool_choice)
        thoughts = ThoughtFilter()
        count = 0
        parts = self._chat(messages, tools=offered, options=options)
        async with aclosing(parts):
            async for part in parts:
                if text := thoughts.push(part.message.content or ""):
                    yield Token(text)
                for call in part.message.tool_calls or ():
                    yield tool_call(call.function.name, call.function.arguments)
                count += 1
                if count % _TOKENS_A_TURN == 0:
                    await asyncio.sleep(0)
        if text := thoughts.end():
            yield Token(text)

    async def prefill(self, messages: Sequence[Message]) -> None:
        """Let Ollama read `messages` now: a reply to a prompt that begins so comes sooner.

        Never raises EngineError: what is wrong is said by the reply.
        """
        try:
            await self._read(messages)
        except EngineError as error:
            log.debug("%s", error)

    # --- the server ----------------------------------------------------------

    async def _choose(self) -> InstalledModel:
        host = self._server.host
        if self._wanted is None:
            models = await self._server.models()
            best = best_model(models, comfortable_bytes=self._comfortable_bytes)
            if best is None:
                raise EngineUnavailable(
                    f"Ollama runs at {host} but has no model to converse with; type: "
                    f"ollama pull {SUGGESTION} (2 GB; IVAS begins to use it by itself).",
                    code="model_missing",
                )
            return best
        found = same_name(await self._server.installed(), self._wanted)
        if not found:
            raise missing(host, self._wanted)
        if len(found) > 1:
            names = sorted(model.name for model in found)
            raise EngineUnavailable(
                f"Ollama at {host} has {' and '.join(names[:6])}, but no {self._wanted}:latest; "
                f"set IVAS_LLM__MODEL to one of them, or type: ollama pull {self._wanted}",
                code="model_missing",
            )
        model = await self._server.with_capabilities(found[0])
        if not model.chats:
            raise EngineUnavailable(
                f"The model {model.name} of Ollama at {host} cannot converse; set "
                f"IVAS_LLM__MODEL to another one, or type: ollama pull {SUGGESTION}",
                code="model_missing",
            )
        return model

    async def _preload(self) -> None:
        """Load the model, so that the first reply need not wait for that."""
        try:
            await self._read(())
        except EngineError as error:
            log.warning("The model could not be loaded ahead: %s", error)

    async def _read(self, messages: Sequence[Message]) -> None:
        """Let Ollama read, and write next to nothing. An empty prompt only loads the model."""
        async with aclosing(self._chat(messages, options={"num_predict": 1})) as parts:
            async for _ in parts:
                pass

    async def _chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[dict[str, Any]] = (),
        options: dict[str, int],
    ) -> AsyncGenerator[Any, None]:
        """The parts of one answer. Keeps the status true; raises EngineError."""
        if self._model is None:
            await self.start()
        model = self._model
        assert model is not None
        try:
            client = await self._server.client()
            think = self._think
            while True:
                asked: AsyncGenerator[Any, None] = await client.chat(  # type: ignore[assignment]
                    model.name,
                    chat_messages(messages),
                    tools=tools,
                    stream=True,
                    think=think,
                    options=self._options | options,
                    keep_alive=self._keep_alive,
                )
                try:
                    async with aclosing(asked):
                        finished = False
                        async for part in asked:
                            if model == self._model:  # else another request found it gone
                                self._reason = ""
                            finished = finished or bool(part.done)
                            yield part
                    break
                except Exception as error:
                    # Ollama 0.12 and before refuse the word for models that do not know it.
                    if think is None or "support thinking" not in str(error):
                        raise
                    self._think = think = None
        except Exception as error:
            raise self._noted(self._server.explained(error, model=model.name)) from error
        if not finished:
            raise self._noted(
                EngineError(
                    f"Ollama at {self._server.host} ended its answer in the middle; ask again.",
                    code="llm_broke_off",
                )
            )

    def _usable(self, tools: Sequence[Tool], tool_choice: str) -> list[dict[str, Any]]:
        offered = chat_tools(tools, tool_choice)
        if offered and self._model is not None and self._model.can("tools") is False:
            if not self._said_no_tools:
                self._said_no_tools = True
                log.warning(
                    "The model %s cannot call functions and answers without; choose one that "
                    "can with IVAS_LLM__MODEL, for example %s.",
                    self._model.name,
                    SUGGESTION,
                )
            return []
        return offered

    def _noted(self, error: EngineError) -> EngineError:
        """`error`, and the status says so if the next request would fare no better."""
        if error.code == MEMORY:
            self._too_large_until_s = asyncio.get_running_loop().time() + RETRY_S
        if isinstance(error, EngineUnavailable):
            self._reason = str(error)
        if error.code == "model_missing":
            self._model = None  # another one may have taken its place
        return error


def _least_thought(model: InstalledModel) -> bool | str | None:
    """What to ask for, as `think`; None: the model does not know the word.

    gpt-oss cannot but think; `low` is the least it knows.
    """
    if not model.can("thinking"):
        return None
    return "low" if "gpt-oss" in model.name.lower() else False
