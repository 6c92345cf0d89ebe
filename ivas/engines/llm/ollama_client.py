"""The way to one Ollama server: its models, and every trouble with it in one sentence.

Speaks through the official client. What can go wrong on the way is the same whether a
model is listed, pulled or asked, and so are the sentences.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ivas.engines.llm.ollama_models import InstalledModel, normalised_host
from ivas.errors import EngineError, EngineUnavailable

if TYPE_CHECKING:
    from ollama import AsyncClient

log = logging.getLogger(__name__)

CONNECT_S = 3.0
"""Longest wait for a connection."""
PULL_STALL_S = 120.0
"""Longest silence during a pull. Ollama reports every fraction of a second while it loads;
it is silent only while it verifies the digest of what it has, some seconds a gigabyte."""
MOST_QUOTED = 200
"""As much of a server's own words as fits a sentence, in characters."""

MEMORY = "llm_memory"
"""Code of the trouble that the model does not fit into the memory of the server."""


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is. Bytes count the file being loaded; 0 of 0 where nothing is."""

    status: str
    """Ollama's own word for what it does: `pulling manifest`, `verifying sha256 digest`."""
    completed: int = 0
    total: int = 0
    digest: str = ""
    """Which file; a model has one large and several small ones."""


class OllamaServer:
    """One server and the connections to it.

    `host`: as in OLLAMA_HOST. Every method but aclose raises EngineError, and
    EngineUnavailable for what the next request would meet again.
    """

    def __init__(self, *, host: str) -> None:
        self._host = host
        self._client: AsyncClient | None = None
        self._making = asyncio.Lock()
        self._capabilities: dict[str, tuple[str, ...]] = {}
        """By digest: a model does not learn."""

    @property
    def host(self) -> str:
        """Its base URL, or what was given if that is none."""
        try:
            return normalised_host(self._host)
        except ValueError:
            return self._host

    async def client(self) -> AsyncClient:
        """The official client; one pool of connections for all."""
        try:
            host = normalised_host(self._host)
        except ValueError as error:
            raise EngineUnavailable(
                f"The address of Ollama, {self._host!r}, cannot be used because {error}; set "
                "IVAS_LLM__HOST to one like http://127.0.0.1:11434."
            ) from None
        async with self._making:
            if self._client is None:
                # On a thread: the import and the certificates take a tenth of a second.
                self._client = await asyncio.to_thread(_make_client, host)
            return self._client

    async def aclose(self) -> None:
        """Close the connections. Whatever runs over them ends; safe to call again."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()  # type: ignore[no-untyped-call]

    async def installed(self) -> tuple[InstalledModel, ...]:
        """Every model, its capabilities not yet known."""
        client = await self.client()
        try:
            listed = (await client.list()).models
        except Exception as error:
            raise self.explained(error) from error
        return tuple(
            InstalledModel(
                name=model.model,
                size_bytes=int(model.size or 0),
                parameters=(model.details and model.details.parameter_size) or "",
                quantisation=(model.details and model.details.quantization_level) or "",
                family=(model.details and model.details.family) or "",
                digest=model.digest or "",
            )
            for model in listed
            if model.model
        )

    async def with_capabilities(self, model: InstalledModel) -> InstalledModel:
        """`model`, and what it can do as far as the server says."""
        client = await self.client()
        key = model.digest or model.name
        if key not in self._capabilities:
            from ollama import ResponseError

            try:
                shown = await client.show(model.name)
            except ResponseError as error:  # this one is broken; that is no word on the others
                log.info("Ollama does not show %s: %s", model.name, error)
                return model
            except Exception as error:
                raise self.explained(error) from error
            if shown.capabilities is None:
                return model
            self._capabilities[key] = tuple(shown.capabilities)
        return replace(model, capabilities=self._capabilities[key])

    async def models(self) -> tuple[InstalledModel, ...]:
        """Every installed model, with its capabilities, by name."""
        listed = await self.installed()
        full = await asyncio.gather(*(self.with_capabilities(model) for model in listed))
        return tuple(sorted(full, key=lambda model: model.name))

    async def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        """Let the server load `model` from Ollama's library.

        Closing the generator stops it; pulling again goes on where it stopped.
        """
        client = await self.client()
        finished = False
        try:
            stream: AsyncGenerator[object, None] = await client.pull(model, stream=True)  # type: ignore[assignment]
            async with aclosing(stream):
                while True:
                    async with asyncio.timeout(PULL_STALL_S):
                        part = await anext(stream, None)
                    if part is None:
                        break
                    progress = _progress(part)
                    finished = finished or progress.status == "success"
                    yield progress
        except TimeoutError:
            raise EngineError(
                f"Ollama at {self.host} has reported nothing for {PULL_STALL_S:g} s; pull "
                f"again, it goes on where it stopped: ollama pull {model}",
                code="pull_failed",
            ) from None
        except Exception as error:
            raise self._pull_explained(error, model) from error
        if not finished:
            raise EngineError(
                f"The connection to Ollama at {self.host} was lost while it pulled {model}; "
                "pull again, it goes on where it stopped.",
                code="pull_failed",
            )

    def _pull_explained(self, error: Exception, model: str) -> EngineError:
        from ollama import ResponseError

        if isinstance(error, ResponseError):
            said = _quoted(error.error)
            if _says(said, "file does not exist", "manifest unknown", "not found", "invalid model"):
                return EngineError(
                    f"Ollama knows no model {model}; look for its name at "
                    "https://ollama.com/library and type: ollama pull NAME",
                    code="model_missing",
                )
            if _says(said, "no space left", "disk full", "not enough space"):
                return EngineError(
                    f"The disk of the machine Ollama runs on is full, so {model} was not pulled; "
                    "make room there (ollama rm NAME) and pull again, it goes on where it stopped.",
                    code="disk_full",
                )
            if error.status_code in (-1, 500):
                return EngineError(
                    f"Ollama could not pull {model} ({said}); see to its way to the internet "
                    "and pull again, it goes on where it stopped.",
                    code="pull_failed",
                )
        return self.explained(error, model=model)

    def explained(self, error: Exception, *, model: str = "") -> EngineError:
        """What `error` of the client means, in one sentence with what to do."""
        import httpx
        from ollama import ResponseError

        if isinstance(error, EngineError):
            return error
        if "certificate" in str(error).lower():
            return EngineUnavailable(
                f"The certificate of {self.host} is not one this machine trusts; let this machine "
                "trust it (SSL_CERT_FILE), or set IVAS_LLM__HOST to an address with http.",
                code="llm_unreachable",
            )
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | ConnectionError):
            return self._down()
        if isinstance(error, httpx.HTTPError | httpx.StreamError | OSError):
            return EngineUnavailable(
                f"Ollama at {self.host} broke off in the middle of its answer "
                f"({type(error).__name__}); see whether it still runs: ollama ps",
                code="llm_unreachable",
            )
        if not isinstance(error, ResponseError):  # no JSON, or not of the shape of Ollama's
            return self._garbled() if model else self._foreign()
        return self._refused(error.status_code, error.error, model)

    def _down(self) -> EngineUnavailable:
        return EngineUnavailable(
            f"Ollama does not answer at {self.host}; start it with: ollama serve (or set "
            "IVAS_LLM__HOST to where it runs).",
            code="llm_unreachable",
        )

    def _garbled(self) -> EngineError:
        return EngineError(
            f"Ollama at {self.host} sent an answer that cannot be read; ask again, and update "
            "Ollama if it stays so.",
            code="llm_garbled",
        )

    def _foreign(self) -> EngineUnavailable:
        return EngineUnavailable(
            f"What answers at {self.host} is not Ollama; set IVAS_LLM__HOST to where Ollama runs, "
            "usually http://127.0.0.1:11434.",
            code="llm_foreign",
        )

    def _refused(self, status: int, text: str, model: str) -> EngineError:
        said = _quoted(text)
        if status in (502, 504):  # a proxy before it speaks
            return self._down()
        if text.lstrip().startswith("<"):
            return self._foreign()
        if _says(said, "requires more system memory", "out of memory", "cudamalloc", "alloc"):
            return EngineUnavailable(
                f"The model {model} does not fit into the memory of the machine Ollama runs on "
                f"({said}); type: ollama pull llama3.2:1b, and set IVAS_LLM__MODEL=llama3.2:1b, "
                "or lower IVAS_LLM__NUM_CTX.",
                code=MEMORY,
            )
        if status in (401, 403) or _says(said, "unauthorized", "must be signed in"):
            return EngineUnavailable(
                f"Ollama at {self.host} does not let {model or 'anybody'} be used without an "
                "account; type: ollama signin, or choose a model that runs at home.",
                code="llm_refused",
            )
        if _says(said, "model") and _says(said, "not found"):
            return missing(self.host, model)
        if status == 404:
            return self._foreign()
        if status in (429, 503):
            return EngineError(
                f"Ollama at {self.host} is busy ({said or status}); ask again in a moment, or let "
                "it do more at once with OLLAMA_NUM_PARALLEL.",
                code="llm_busy",
            )
        if _says(said, "unable to load model", "runner", "invalid file", "unexpected eof", "gguf"):
            return EngineError(
                f"Ollama cannot run the model {model} ({said}); type: ollama rm {model} && "
                f"ollama pull {model}, or update Ollama.",
                code="llm_failed",
            )
        return EngineError(
            f"Ollama at {self.host} failed ({said or f'HTTP {status}'}); ask again, and see its "
            "own log if it stays so.",
            code="llm_failed",
        )


def missing(host: str, model: str) -> EngineUnavailable:
    """The server has no such model."""
    return EngineUnavailable(
        f"Ollama at {host} has no model {model}; type: ollama pull {model}", code="model_missing"
    )


def _make_client(host: str) -> AsyncClient:
    try:
        import httpx
        from ollama import AsyncClient
    except ImportError as error:
        raise EngineUnavailable(
            "The package ollama is not installed; install it with: pip install ollama, then "
            "start IVAS again.",
            code="package_missing",
        ) from error
    return AsyncClient(
        host,
        timeout=httpx.Timeout(None, connect=CONNECT_S),
        # A proxy is never the way to this machine, whatever the environment says.
        trust_env=not _is_this_machine(host),
        # Making the list of certificates takes 30 ms and plain HTTP has no use for it.
        verify=host.startswith("https:"),
    )


def _is_this_machine(host: str) -> bool:
    name = urlsplit(host).hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _progress(part: object) -> PullProgress:
    return PullProgress(
        status=getattr(part, "status", None) or "",
        completed=getattr(part, "completed", None) or 0,
        total=getattr(part, "total", None) or 0,
        digest=getattr(part, "digest", None) or "",
    )


def _quoted(text: str) -> str:
    """The server's words, fit for the middle of a sentence."""
    line = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip(" .")
    return line if len(line) <= MOST_QUOTED else f"{line[:MOST_QUOTED]}…"


def _says(text: str, *words: str) -> bool:
    lowered = text.lower()
    return any(word in lowered for word in words)
