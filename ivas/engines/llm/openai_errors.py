"""What can go wrong with an OpenAI-compatible chat server, in one sentence each."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress

import httpx

from ivas.engines.llm.openai_stream import error_text
from ivas.errors import EngineError, EngineUnavailable

MOST_QUOTED = 200
"""As much of a server's own words as fits a sentence, in characters."""


class Troubles:
    """The sentences about one server. EngineUnavailable: the next request would fail alike.

    `key` is known only so that a server that repeats it is not quoted; `probe_s`: how long it
    is waited for at the start.
    """

    def __init__(self, *, url: str, key: str | None, probe_s: float) -> None:
        self._url = re.sub(r"//[^/@]*@", "//", url)
        self._key = key
        self._probe_s = probe_s

    def _quoted(self, text: str) -> str:
        if self._key:
            text = text.replace(self._key, "***")
        with suppress(ValueError):
            text = error_text(json.loads(text)) or text
        line = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip(" .")
        return line if len(line) <= MOST_QUOTED else f"{line[:MOST_QUOTED]}…"

    def refusal(self, status: int, text: str, *, model: str | None = None) -> EngineError:
        """What an answer other than a reply means."""
        if text.lstrip().startswith("<"):
            return self.silent() if status in (502, 504) else self.foreign()
        said = self._quoted(text)
        if status in (401, 403):
            problem = "does not take this key" if self._key else "wants a key"
            return EngineUnavailable(
                f"The chat server at {self._url} {problem}; set IVAS_LLM__API_KEY to one it knows.",
                code="llm_refused",
            )
        if status == 402 or "insufficient_quota" in text:
            return EngineUnavailable(
                f"The chat server at {self._url} wants to be paid ({said}); see to the account, "
                "or set IVAS_LLM__ENGINE=ollama for a model at home.",
                code="llm_refused",
            )
        if "loading" in said.lower() and status == 503:
            return EngineUnavailable(
                f"The chat server at {self._url} is still loading its model; wait a moment.",
                code="llm_loading",
            )
        if status in (429, 503):
            return EngineError(
                f"The chat server at {self._url} is busy ({said or status}); ask again in a "
                "moment.",
                code="llm_busy",
            )
        if status == 404 and model and "model" in said.lower():
            return EngineUnavailable(
                f"The chat server at {self._url} has no model {model} ({said}); set "
                "IVAS_LLM__MODEL to one it has.",
                code="model_missing",
            )
        if status in (404, 405) or 300 <= status < 400:
            return self.foreign()
        if re.search(r"out of memory|cuda.*alloc", said, re.I):
            return EngineError(
                f"The chat server at {self._url} ran out of memory ({said}); load a smaller model "
                "there, or let it hold less context.",
                code="llm_memory",
            )
        return EngineError(
            f"The chat server at {self._url} failed ({said or f'HTTP {status}'}); ask again, and "
            "see its own log if it stays so.",
            code="llm_failed",
        )

    def unreachable(self, error: httpx.HTTPError) -> EngineUnavailable:
        if "certificate" in str(error).lower():
            return EngineUnavailable(
                f"The certificate of {self._url} is not one this machine trusts; let this machine "
                "trust it (SSL_CERT_FILE), or correct IVAS_LLM__URL.",
                code="llm_unreachable",
            )
        if isinstance(error, httpx.UnsupportedProtocol):
            return self.no_address()
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return EngineUnavailable(
                f"No chat server answers at {self._url}; start it, or set IVAS_LLM__URL to where "
                "it runs.",
                code="llm_unreachable",
            )
        return EngineUnavailable(
            f"The chat server at {self._url} broke off in the middle of its answer "
            f"({type(error).__name__}); see whether it still runs.",
            code="llm_unreachable",
        )

    def no_address(self) -> EngineUnavailable:
        return EngineUnavailable(
            f"The address of the chat server, {self._url!r}, is none; set IVAS_LLM__URL to one "
            "like http://127.0.0.1:8080/v1.",
            code="llm_foreign",
        )

    def silent(self) -> EngineUnavailable:
        return EngineUnavailable(
            f"The chat server at {self._url} did not answer within {self._probe_s:g} s; see "
            "whether it hangs, and start it anew.",
            code="llm_unreachable",
        )

    def foreign(self) -> EngineUnavailable:
        return EngineUnavailable(
            f"What answers at {self._url} is no OpenAI-compatible chat server; set IVAS_LLM__URL "
            "to its address, which usually ends in /v1.",
            code="llm_foreign",
        )

    def garbled(self) -> EngineError:
        return EngineError(
            f"The chat server at {self._url} sent an answer that cannot be read; ask again.",
            code="llm_garbled",
        )

    def broke_off(self) -> EngineError:
        return EngineError(
            f"The chat server at {self._url} ended its answer in the middle; ask again.",
            code="llm_broke_off",
        )

    def unlisted(self, model: str, listed: Sequence[str]) -> EngineUnavailable:
        """It lists models, and this is none of them."""
        some = ", ".join(listed[:6]) + (" and more" if len(listed) > 6 else "")
        return EngineUnavailable(
            f"The chat server at {self._url} has no model {model}; set IVAS_LLM__MODEL to one it "
            f"has ({some}), or unset it.",
            code="model_missing",
        )

    def nothing_loaded(self) -> EngineUnavailable:
        """It lists no model that could converse."""
        return EngineUnavailable(
            f"The chat server at {self._url} lists no model to converse with; load one there, or "
            "name one with IVAS_LLM__MODEL.",
            code="model_missing",
        )
