"""The way to one server that speaks OpenAI's API, and every trouble with it in one sentence.

What the engines for transcriptions, chat and speech have in common: one pooled client,
the question whether the server serves, and what its silence and its refusals mean.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Literal

import httpx

from ivas.engines import Status
from ivas.errors import EngineError, EngineTimeout, EngineUnavailable

PROBE_S = 5.0
"""Longest wait for a server to say what it has."""
CONNECT_S = 3.0
MOST_BODY_BYTES = 2**20
"""As much of an answer that comes whole as is read."""
MOST_QUOTED = 200
"""As much of a server's own words as fits a sentence, in characters."""


class OpenaiServer:
    """One server, the connections to it, and whether it serves.

    Every EngineUnavailable and EngineTimeout is about what the next request would meet
    again: within `told` and `start` it becomes the status, until an answer comes.
    """

    def __init__(
        self,
        kind: str,
        *,
        part: Literal["ASR", "LLM", "TTS"],
        url: str,
        key: str | None,
        example_url: str,
        again: str,
        at_home: str,
        silence_s: float | None = None,
    ) -> None:
        """`kind` of server: "speech". `part`: whose settings they are, IVAS_TTS__URL.

        `url`: with its /v1. `key`: shown to that server and to nobody else.
        For the sentences: `example_url`; `again`: "try again"; `at_home`: what to do
        instead of paying. `silence_s`: the longest the server may pause, None for ever.
        """
        self.name = f"{kind} server"
        self._setting = f"IVAS_{part}"
        self._code = part.lower()
        self._url = url.rstrip("/")
        # Up to the last @, for a password may hold any character.
        self._shown_url = re.sub(r"^(\w+://)?.*@", r"\1", self._url)
        self.at = f"The {self.name} at {self._shown_url}"
        """How a sentence about it begins."""
        self._key = key
        self._example_url = example_url
        self._again = again
        self._at_home = at_home
        self._timeout = httpx.Timeout(silence_s, connect=CONNECT_S)
        self._client: httpx.AsyncClient | None = None
        self._reason = f"The {self.name} has not been asked yet; it is when IVAS starts."

    def status(self) -> Status:
        return Status(ready=not self._reason, reason=self._reason)

    async def start(self, probe: Callable[[], Awaitable[None]]) -> None:
        """Connect, unless it serves already; `probe` asks it whether it does.

        Raises EngineUnavailable, whatever the probe or the way to the server raised.
        """
        if not self._reason:
            return
        try:
            with self.told(PROBE_S):
                async with asyncio.timeout(PROBE_S):
                    await self._open()
                    await probe()
        except EngineError as error:
            self._reason = str(error)
            raise EngineUnavailable(self._reason, code=error.code) from None
        self.answered()

    async def aclose(self) -> None:
        """Close the connections. Whatever runs over them ends; safe to call again."""
        self._reason = f"The {self.name} has been closed; start it again first."
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    @property
    def client(self) -> httpx.AsyncClient:
        """For paths below the URL. Raises EngineUnavailable if not started, or closed."""
        if self._client is None:
            raise EngineUnavailable(self._reason)
        return self._client

    def post(self, path: str, value: object) -> AbstractAsyncContextManager[httpx.Response]:
        """The streamed answer to `value` as JSON; within `told`.

        What UTF-8 cannot say, half a surrogate pair, is sent as a question mark.
        """
        return self.client.stream(
            "POST",
            path,
            content=json.dumps(value, ensure_ascii=False).encode(errors="replace"),
            headers={"Content-Type": "application/json"},
        )

    async def get(self, path: str) -> tuple[int, str]:
        """Status and text of the answer; within `told` or a probe."""
        async with self.client.stream("GET", path) as response:
            return response.status_code, await body_text(response)

    def answered(self) -> None:
        """It serves."""
        if self._client is not None:
            self._reason = ""

    @contextmanager
    def told(self, waited_s: float = math.inf) -> Iterator[None]:
        """What goes wrong within is raised as one EngineError, and keeps the status true.

        `waited_s`: how long the server is waited for there, for the sentence.
        """
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            explained = self._explained(error, waited_s)
            self._reason = str(explained)
            raise explained from None
        except (EngineUnavailable, EngineTimeout) as error:
            self._reason = str(error)
            raise

    # --- what can go wrong -----------------------------------------------------------

    def refusal(self, status: int, text: str) -> EngineError:
        """What an answer other than the wanted one means, if its kind does not matter."""
        said = self.quoted(text)
        if status in (401, 403):
            problem = "does not take this key" if self._key else "wants a key"
            return EngineUnavailable(
                f"{self.at} {problem}; set {self._setting}__API_KEY to one it knows.",
                code=f"{self._code}_refused",
            )
        if status == 402 or "insufficient_quota" in text:
            return EngineUnavailable(
                f"{self.at} wants to be paid ({said or status}); see to the account, or "
                f"{self._at_home}.",
                code=f"{self._code}_refused",
            )
        if status == 503 and "loading" in said.lower():
            return EngineUnavailable(
                f"{self.at} is still loading its model; wait a moment.",
                code=f"{self._code}_loading",
            )
        if status in (429, 503):
            return EngineError(
                f"{self.at} is busy ({said or status}); {self._again} in a moment.",
                code=f"{self._code}_busy",
            )
        if status in (502, 504):
            return EngineUnavailable(
                f"The proxy at {self._shown_url} does not reach its {self.name} "
                f"({said or f'HTTP {status}'}); see whether that server runs.",
                code=f"{self._code}_unreachable",
            )
        if is_html(text) or status in (404, 405) or 300 <= status < 400:
            return self.foreign()
        return EngineError(
            f"{self.at} failed ({said or f'HTTP {status}'}); {self._again}, and see its own log "
            "if it stays so.",
            code=f"{self._code}_failed",
        )

    def lacks(self, what: Literal["model", "voice"], name: str, said: str) -> EngineError:
        """It does not know the one that is set; `said` are its own words, as `quoted`."""
        kind = EngineUnavailable if what == "model" else EngineError  # other voices it may have
        return kind(
            f"{self.at} has no {what} {name} ({said}); set {self._setting}__{what.upper()} to one "
            "it has.",
            code=f"{what}_missing",
        )

    def foreign(self) -> EngineUnavailable:
        return EngineUnavailable(
            f"What answers at {self._shown_url} is no OpenAI-compatible {self.name}; set "
            f"{self._setting}__URL to its address, which usually ends in /v1.",
            code=f"{self._code}_foreign",
        )

    def garbled(self) -> EngineError:
        return EngineError(
            f"{self.at} sent an answer that cannot be read; {self._again}, and see its own log if "
            "it stays so.",
            code=f"{self._code}_garbled",
        )

    def quoted(self, text: str) -> str:
        """The server's own words in one line, without the key; none if they are HTML."""
        if is_html(text):
            return ""
        value = parsed(text)
        said = value.get("message") if isinstance(value, dict) else None
        text = error_text(value) or str(said or text)
        if self._key:
            text = text.replace(self._key, "***")
        line = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip(" .")
        return line if len(line) <= MOST_QUOTED else f"{line[:MOST_QUOTED]}…"

    def _explained(self, error: Exception, waited_s: float) -> EngineError:
        said = str(error).lower()
        if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
            what = f"The address of the {self.name}, {self._shown_url!r}, is none"
            fix = f"set {self._setting}__URL to one like {self._example_url}"
        elif "certificate" in said:
            what = f"The certificate of {self._shown_url} is not one this machine trusts"
            fix = f"let this machine trust it (SSL_CERT_FILE), or correct {self._setting}__URL"
        elif isinstance(error, httpx.ConnectError) and "[ssl" in said:
            what = f"What answers at {self._shown_url} does not speak TLS as this machine does"
            fix = f"set {self._setting}__URL to its address with http: if it speaks none"
        elif isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            what = f"No {self.name} answers at {self._shown_url}"
            fix = f"start it, or set {self._setting}__URL to where it runs"
        elif isinstance(error, TimeoutError | httpx.TimeoutException):
            return EngineTimeout(
                f"{self.at} said nothing for {waited_s:g} s; see whether it hangs, and start it "
                "anew."
            )
        else:
            what = f"{self.at} broke off in the middle of its answer ({type(error).__name__})"
            fix = "see whether it still runs"
        return EngineUnavailable(f"{what}; {fix}.", code=f"{self._code}_unreachable")

    # --- the connections -------------------------------------------------------------

    async def _open(self) -> None:
        if self._client is not None:
            return
        if self._key and not (self._key.isascii() and self._key.isprintable()):
            raise EngineUnavailable(
                f"The key of the {self.name} has characters that cannot be sent; set "
                f"{self._setting}__API_KEY anew.",
                code=f"{self._code}_refused",
            )
        # On a thread: reading the certificates takes 30 ms.
        made = await asyncio.to_thread(self._make_client)
        if self._client is None:
            self._client = made

    def _make_client(self) -> httpx.AsyncClient:
        url = httpx.URL(self._url)
        try:
            return httpx.AsyncClient(
                # A password goes beside the URL, for httpx writes the URL into its log.
                base_url=url.copy_with(userinfo=b""),
                auth=(url.username, url.password) if url.userinfo else None,
                headers={"Authorization": f"Bearer {self._key}"} if self._key else None,
                timeout=self._timeout,
                # A proxy is never the way to this machine, whatever the environment says.
                trust_env=not (url.scheme == "http" and _is_this_machine(url.host)),
                verify=url.scheme == "https",
            )
        except (httpx.InvalidURL, ImportError, OSError, ValueError):
            raise EngineUnavailable(
                f"The {self.name} cannot be asked because the environment names a proxy or a file "
                "of certificates that cannot be used; correct or unset ALL_PROXY, HTTP_PROXY, "
                "HTTPS_PROXY, SSL_CERT_FILE and SSL_CERT_DIR, then start IVAS again.",
                code=f"{self._code}_unreachable",
            ) from None


async def body_text(response: httpx.Response) -> str:
    """The text of a streamed answer, as far as it is of any use."""
    read = b""
    async for data in response.aiter_bytes():
        read += data
        if len(read) >= MOST_BODY_BYTES:
            break
    return read[:MOST_BODY_BYTES].decode(errors="replace")


def parsed(text: str) -> Any:
    """The value of JSON; None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def is_html(text: str) -> bool:
    return text.lstrip().startswith("<")


def error_text(body: object) -> str | None:
    """What the server says went wrong; None if `body` is no error.

    OpenAI, vLLM and llama.cpp: {"error": {"message"}}; others {"error": "..."};
    old vLLM {"object": "error", "message"}; FastAPI {"detail"}.
    """
    if not isinstance(body, Mapping):
        return None
    error = body.get("error")
    if isinstance(error, Mapping):
        return str(error.get("message") or error)
    if error:
        return str(error)
    if body.get("object") == "error":
        return str(body.get("message"))
    return str(body["detail"]) if body.get("detail") else None


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
