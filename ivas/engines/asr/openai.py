"""Speech to text on any server that speaks OpenAI's API: Speaches, vLLM, another IVAS, a cloud.

One POST {base_url}/audio/transcriptions with the whole utterance each time somebody waits
for its text. Such a server cannot be told more audio later, so partials would send all of
it again and again: they are asked for only if wanted, else answered with what is known.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from typing import Any

import httpx
import numpy as np

from ivas.audio.wav import wav_bytes
from ivas.engines import SAMPLE_RATE_HZ, Samples, Status, Transcript
from ivas.errors import EngineError, EngineTimeout, EngineUnavailable

PROBE_S = 5.0
"""Longest wait for a server to say what it has."""
CONNECT_S = 3.0
DEFAULT_MODEL = "whisper-1"
"""The name most such servers know or ignore."""
MOST_SAMPLES = 600 * SAMPLE_RATE_HZ
"""The longest utterance, 10 minutes (19 MB; OpenAI takes 25); what comes after is not heard."""
SILENT_PEAK = 10 ** (-60 / 20)
"""Below -60 dBFS there is no microphone or it is off: nothing to ask."""
MOST_BODY_BYTES = 2**20
"""As much of an answer as is read."""
MOST_QUOTED = 200
"""As much of a server's own words as fits a sentence, in characters."""

_NOT_STARTED = "The transcription server has not been asked yet; it is when IVAS starts."


class OpenaiASR:
    """Transcribes through POST {base_url}/audio/transcriptions."""

    name = "openai"

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None = None,
        model: str | None = None,
        language: str | None = None,
        timeout_s: float = 30.0,
        partials: bool = False,
    ) -> None:
        """`base_url`: with its /v1. `api_key`: shown to that server and to nobody else.
        `model`: None is whisper-1. `language`: what is spoken if an utterance does not say;
        None lets the server find out. `timeout_s`: longest wait for a whole answer.
        `partials`: whether partial transcripts are asked for too.
        """
        self._url = base_url.rstrip("/")
        self._shown_url = re.sub(r"//[^/@]*@", "//", self._url)
        self._key = api_key
        self._model = model or DEFAULT_MODEL
        self._language = language
        self._timeout_s = timeout_s
        self.partials = partials
        self._client: httpx.AsyncClient | None = None
        self._reason = _NOT_STARTED

    def status(self) -> Status:
        return Status(ready=not self._reason, reason=self._reason)

    async def start(self) -> None:
        """Ask the server for its models; one that lists none may be one all the same."""
        if not self._reason:
            return
        try:
            async with asyncio.timeout(PROBE_S):
                client = await self._open()
                async with client.stream("GET", f"{self._url}/models") as response:
                    text = await _body(response)
        except TimeoutError:
            raise self._noted(self._silent(PROBE_S)) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._noted(self._unreachable(error)) from None
        except EngineError as error:
            raise self._noted(error) from None
        missing = response.status_code in (404, 405) and not _is_html(text)
        if response.status_code != 200 and not missing:
            raise self._noted(self._refusal(response.status_code, text))
        if response.status_code == 200 and _json(text) is None:
            raise self._noted(self._foreign())
        self._reason = ""

    def open(self, *, language: str | None = None, prompt: str | None = None) -> OpenaiUtterance:
        return OpenaiUtterance(self, language=language or self._language, prompt=prompt)

    async def aclose(self) -> None:
        self._reason = _NOT_STARTED
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def transcribe(self, wav: bytes, *, language: str | None, prompt: str | None) -> str:
        """One request. Tries even when not ready: a server that has come back is used at once.

        Keeps the status true; raises EngineError.
        """
        if (client := self._client) is None:
            raise EngineUnavailable(self._reason)
        fields = {"model": self._model, "response_format": "json"}
        if language:
            fields["language"] = language.replace("_", "-").split("-")[0].lower()  # ISO 639-1
        if prompt:
            fields["prompt"] = prompt
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                client.stream(
                    "POST",
                    f"{self._url}/audio/transcriptions",
                    data=fields,
                    files={"file": ("speech.wav", wav, "audio/wav")},
                ) as response,
            ):
                text = await _body(response)
            said = self._said(response.status_code, text)
        except TimeoutError:
            raise self._noted(self._silent(self._timeout_s)) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._noted(self._unreachable(error)) from None
        except EngineError as error:
            raise self._noted(error) from None
        self._reason = ""
        return said

    # --- the server ----------------------------------------------------------

    async def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            if self._key and not (self._key.isascii() and self._key.isprintable()):
                raise EngineUnavailable(
                    "The key of the transcription server has characters that cannot be sent; set "
                    "IVAS_ASR__API_KEY anew.",
                    code="asr_refused",
                )
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
            timeout=httpx.Timeout(None, connect=CONNECT_S),  # the whole has a deadline of its own
            # A proxy is never the way to this machine, whatever the environment says.
            trust_env=not local,
            verify=self._url.startswith("https:"),
        )

    def _said(self, status: int, text: str) -> str:
        """The transcript in an answer. Raises EngineError."""
        if status != 200:
            raise self._refusal(status, text)
        if _is_html(text):
            raise self._foreign()
        answer = _json(text)
        said = answer.get("text") if isinstance(answer, dict) else None
        if not isinstance(said, str):
            raise EngineError(
                f"The transcription server at {self._shown_url} sent an answer that cannot be "
                "read; say it again, and see its own log if it stays so.",
                code="asr_garbage",
            )
        return said.strip()

    # --- what can go wrong ---------------------------------------------------

    def _noted(self, error: EngineError) -> EngineError:
        """`error`, and the status says so if the next request would fare no better."""
        if isinstance(error, EngineUnavailable | EngineTimeout):
            self._reason = str(error)
        return error

    def _refusal(self, status: int, text: str) -> EngineError:
        """What an answer other than a transcript means."""
        said = self._quoted(text)
        if status in (401, 403):
            problem = "does not take this key" if self._key else "wants a key"
            return EngineUnavailable(
                f"The transcription server at {self._shown_url} {problem}; set IVAS_ASR__API_KEY "
                "to one it knows.",
                code="asr_refused",
            )
        if status in (402, 429, 503):
            return EngineError(
                f"The transcription server at {self._shown_url} is busy or wants to be paid "
                f"({said or status}); say it again in a moment.",
                code="asr_busy",
            )
        if status == 413:
            return EngineError(
                f"The transcription server at {self._shown_url} takes no recordings this long; "
                "say less at once.",
                code="asr_too_long",
            )
        if status in (502, 504):
            return EngineUnavailable(
                f"The proxy at {self._shown_url} does not reach its transcription server "
                f"(HTTP {status}); see whether that server runs.",
                code="asr_unreachable",
            )
        if _is_html(text) or 300 <= status < 400:
            return self._foreign()
        if status in (400, 404, 422) and re.search(r"\bmodel\b", said, re.I):
            return EngineError(
                f"The transcription server at {self._shown_url} does not know the model "
                f"{self._model} ({said}); set IVAS_ASR__MODEL to one it has.",
                code="model_missing",
            )
        if status in (404, 405):
            return self._foreign()
        return EngineError(
            f"The transcription server at {self._shown_url} failed ({said or f'HTTP {status}'}); "
            "say it again, and see its own log if it stays so.",
            code="asr_failed",
        )

    def _unreachable(self, error: Exception) -> EngineUnavailable:
        if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
            what = f"The address of the transcription server, {self._shown_url!r}, is none"
            fix = "set IVAS_ASR__URL to one like http://127.0.0.1:8000/v1"
        elif "certificate" in str(error).lower():
            what = f"The certificate of {self._shown_url} is not one this machine trusts"
            fix = "let this machine trust it (SSL_CERT_FILE), or correct IVAS_ASR__URL"
        elif isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            what = f"No transcription server answers at {self._shown_url}"
            fix = "start it, or set IVAS_ASR__URL to where it runs"
        else:
            what = (
                f"The transcription server at {self._shown_url} broke off in the middle of its "
                f"answer ({type(error).__name__})"
            )
            fix = "see whether it still runs"
        return EngineUnavailable(f"{what}; {fix}.", code="asr_unreachable")

    def _silent(self, waited_s: float) -> EngineTimeout:
        return EngineTimeout(
            f"The transcription server at {self._shown_url} did not answer within {waited_s:g} s; "
            "see whether it hangs, and start it anew."
        )

    def _foreign(self) -> EngineUnavailable:
        return EngineUnavailable(
            f"What answers at {self._shown_url} is no OpenAI-compatible transcription server; set "
            "IVAS_ASR__URL to its address, which usually ends in /v1.",
            code="asr_foreign",
        )

    def _quoted(self, text: str) -> str:
        """A server's own words, without the key and in one line."""
        value = _json(text)
        if isinstance(value, dict):
            error = value.get("error", value.get("detail", value.get("message", text)))
            text = str(error.get("message", error) if isinstance(error, dict) else error)
        if self._key:
            text = text.replace(self._key, "***")
        line = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip(" .")
        return line if len(line) <= MOST_QUOTED else f"{line[:MOST_QUOTED]}…"


class OpenaiUtterance:
    """The audio of one stretch of speech, as the server gets it, and the last answer."""

    def __init__(self, engine: OpenaiASR, *, language: str | None, prompt: str | None) -> None:
        self._engine = engine
        self._language = language
        self._prompt = prompt
        self._pcm = bytearray()
        self._peak = 0.0
        self._last = Transcript("", 0, 0)
        self._closed = False

    def push(self, samples: Samples) -> None:
        if self._closed or not samples.size or len(self._pcm) // 2 >= MOST_SAMPLES:
            return
        self._peak = max(self._peak, float(np.abs(samples).max()))
        self._pcm += np.clip(samples * 32768, -32768, 32767).astype("<i2").tobytes()

    async def transcript(self, *, urgent: bool = True) -> Transcript:
        """See `Utterance`. A partial that is not asked for is the last answer once more."""
        if self._closed:
            raise _closed()
        last, end_sample = self._last, len(self._pcm) // 2
        if not urgent and not self._engine.partials:
            text, end_sample = last.text, last.end_sample
        elif self._peak < SILENT_PEAK:
            text = ""
        else:
            text = await self._engine.transcribe(
                wav_bytes(bytes(self._pcm), SAMPLE_RATE_HZ),
                language=self._language,
                prompt=self._prompt,
            )
            if self._closed:
                raise _closed()
        answer = Transcript(text, self._last.revision + 1, end_sample, self._language)
        self._last = answer
        return answer

    def close(self) -> None:
        self._closed = True
        self._pcm = bytearray()


def _closed() -> EngineError:
    return EngineError("This utterance is closed; open a new one to hear more.")


async def _body(response: httpx.Response) -> str:
    """The text of an answer, as far as it is of any use."""
    read = b""
    async for data in response.aiter_bytes():
        read += data
        if len(read) >= MOST_BODY_BYTES:
            break
    return read[:MOST_BODY_BYTES].decode(errors="replace")


def _json(text: str) -> Any:
    """None if it is none."""
    with suppress(ValueError):
        return json.loads(text)
    return None


def _is_html(text: str) -> bool:
    return text.lstrip().startswith("<")
