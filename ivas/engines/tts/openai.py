"""Text to speech on any server that speaks OpenAI's API: Kokoro-FastAPI, another IVAS, a cloud.

One streamed POST {base_url}/audio/speech a clause, played as it comes. Cancelling closes
the stream, at which these servers stop.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any

import httpx

from ivas.engines import AudioChunk, Priority, Status, Voice
from ivas.engines.tts.openai_audio import AudioReader
from ivas.engines.tts.pieces import pieces
from ivas.engines.voices import ANY_LANGUAGE, OPENAI_VOICES, fitting
from ivas.errors import EngineError, EngineTimeout, EngineUnavailable

PROBE_S = 5.0
"""Longest wait for a server to say what it has."""
CONNECT_S = 3.0
DEFAULT_MODEL = "tts-1"
"""The name every such server knows or ignores."""
MOST_CHARACTERS = 4096
"""Longest `input` of the API."""
CHUNK_MS = 100
MOST_VOICES = 2000
MOST_BODY_BYTES = 2**20
"""As much of an answer that is no sound as is read."""
MOST_QUOTED = 200
"""As much of a server's own words as fits a sentence, in characters."""

_NOT_STARTED = "The speech server has not been asked yet; it is when IVAS starts."


class OpenaiTTS:
    """Speaks through POST {base_url}/audio/speech.

    `base_url`: with its /v1. `api_key`: shown to that server and to nobody else. `model`:
    None is tts-1. `voice`: the default one; None: the first the server lists.
    `timeout_s`: longest silence of the server while it should speak.
    """

    name = "openai"

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None = None,
        model: str | None = None,
        voice: str | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        self._url = base_url.rstrip("/")
        self._shown_url = re.sub(r"//[^/@]*@", "//", self._url)
        self._key = api_key
        self._model = model or DEFAULT_MODEL
        self._voice = voice
        self._timeout_s = timeout_s
        self._voices = self._default_first(_OPENAI)
        self._format = "pcm"
        self._client: httpx.AsyncClient | None = None
        self._reason = _NOT_STARTED

    @property
    def voices(self) -> Sequence[Voice]:
        """What the server lists; if it lists none, the names of OpenAI's voices."""
        return self._voices

    def status(self) -> Status:
        return Status(ready=not self._reason, reason=self._reason)

    async def start(self) -> None:
        """Ask the server for its voices, or at least whether it is a speech server."""
        if not self._reason:
            return
        try:
            async with asyncio.timeout(PROBE_S):
                client = await self._open()
                listed = await self._listed(client)
        except TimeoutError:
            raise self._noted(self._silent(PROBE_S)) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._noted(self._unreachable(error)) from None
        except EngineError as error:
            raise self._noted(error) from None
        self._voices = self._default_first(listed)
        self._reason = ""

    async def stream(
        self,
        text: str,
        *,
        voice: str,
        language: str | None = None,
        speed: float = 1.0,
        priority: Priority = "later",
    ) -> AsyncGenerator[AudioChunk, None]:
        """Speak `text` at the rate of the server, 24 kHz if it does not say.

        Once started it tries even when not ready: a server that has come back is used.
        """
        if self._client is None:
            raise EngineUnavailable(self._reason)
        chosen = fitting(voice, self._voices, language).id
        clean = text.replace("\0", " ").encode(errors="replace").decode()
        for piece in pieces(clean, first=MOST_CHARACTERS, most=MOST_CHARACTERS):
            if not any(map(str.isalnum, piece)):
                continue
            body: dict[str, Any] = {"model": self._model, "input": piece, "voice": chosen}
            if speed != 1.0:  # some models do not know it
                body["speed"] = min(4.0, max(0.25, speed))
            async with aclosing(self._speak(self._client, body)) as sound:
                async for chunk in sound:
                    yield chunk

    async def aclose(self) -> None:
        self._reason = _NOT_STARTED
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    # --- the server ----------------------------------------------------------

    async def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            if self._key and not (self._key.isascii() and self._key.isprintable()):
                raise EngineUnavailable(
                    "The key of the speech server has characters that cannot be sent; set "
                    "IVAS_TTS__API_KEY anew.",
                    code="tts_refused",
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
            timeout=httpx.Timeout(self._timeout_s, connect=CONNECT_S),
            # A proxy is never the way to this machine, whatever the environment says.
            trust_env=not local,
            verify=self._url.startswith("https:"),
        )

    async def _listed(self, client: httpx.AsyncClient) -> Sequence[Voice]:
        """The server's voices, or OpenAI's if it lists none. Raises EngineError."""
        status, text = await self._get(client, "audio/voices")
        if status == 200 and (found := _voices(text)):
            return found
        if status not in (200, 400, 404, 405, 501):
            raise self._refusal(status, text)
        # It has no list. It may be a speech server all the same: does it have models, or
        # at least something that wants another method where the speech is made?
        status, text = await self._get(client, "models")
        if status == 200 and _json(text) is not None:
            return _OPENAI
        if status not in (200, 404, 405):
            raise self._refusal(status, text)
        status, _ = await self._get(client, "audio/speech")
        if status == 405:
            return _OPENAI
        raise self._foreign()

    async def _get(self, client: httpx.AsyncClient, path: str) -> tuple[int, str]:
        async with client.stream("GET", f"{self._url}/{path}") as response:
            return response.status_code, await _body(response)

    async def _speak(
        self, client: httpx.AsyncClient, body: dict[str, Any]
    ) -> AsyncGenerator[AudioChunk, None]:
        """One answer. Keeps the status true; raises EngineError."""
        url = f"{self._url}/audio/speech"
        try:
            while True:
                asked = {**body, "response_format": self._format}
                async with client.stream("POST", url, json=asked) as response:
                    kind = response.headers.get("content-type", "").lower()
                    if response.status_code == 200 and not _NO_SOUND.search(kind):
                        async with aclosing(self._sound(response, kind, body)) as sound:
                            async for chunk in sound:
                                yield chunk
                        return
                    text = await _body(response)
                if self._format == "pcm" and _refuses_format(response.status_code, text):
                    self._format = "wav"
                    continue
                raise self._refusal(response.status_code, text)
        except httpx.ConnectTimeout as error:
            raise self._noted(self._unreachable(error)) from None
        except httpx.TimeoutException:
            raise self._noted(self._silent(self._timeout_s)) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._noted(self._unreachable(error)) from None
        except EngineError as error:
            raise self._noted(error) from None

    async def _sound(
        self, response: httpx.Response, kind: str, asked: dict[str, Any]
    ) -> AsyncGenerator[AudioChunk, None]:
        """What is heard of an answer. Raises EngineError if it is no sound, or has no end."""
        reader = AudioReader(kind)
        most_s = 30 + len(asked["input"]) / asked.get("speed", 1.0)
        made_s = 0.0
        try:
            async for data in response.aiter_bytes():
                sound = reader.push(data)
                made_s += len(sound) / 2 / reader.rate_hz
                if made_s > most_s:
                    raise ValueError(f"more than {most_s:.0f} s of sound for this text")
                size = 2 * (reader.rate_hz * CHUNK_MS // 1000)
                for start in range(0, len(sound), size):
                    if self._client is not None:
                        self._reason = ""
                    yield AudioChunk(sound[start : start + size], reader.rate_hz)
            reader.end()
            if not made_s:
                raise ValueError("no sound")
        except ValueError as error:
            raise EngineError(
                f"The speech server at {self._shown_url} sent {error}; try again, or choose "
                "another model with IVAS_TTS__MODEL.",
                code="tts_garbage",
            ) from None

    # --- what can go wrong ---------------------------------------------------

    def _noted(self, error: EngineError) -> EngineError:
        """`error`, and the status says so if the next request would fare no better."""
        if isinstance(error, EngineUnavailable | EngineTimeout):
            self._reason = str(error)
        return error

    def _refusal(self, status: int, text: str) -> EngineError:
        """What an answer other than sound means."""
        said = self._quoted(text)
        if status in (401, 403):
            problem = "does not take this key" if self._key else "wants a key"
            return EngineUnavailable(
                f"The speech server at {self._shown_url} {problem}; set IVAS_TTS__API_KEY to "
                "one it knows.",
                code="tts_refused",
            )
        if status == 402 or "insufficient_quota" in text:
            return EngineUnavailable(
                f"The speech server at {self._shown_url} wants to be paid ({said}); see to the "
                "account, or set IVAS_TTS__ENGINE=kokoro for a voice at home.",
                code="tts_refused",
            )
        if status in (429, 503):
            return EngineError(
                f"The speech server at {self._shown_url} is busy ({said or status}); try again "
                "in a moment.",
                code="tts_busy",
            )
        about = re.search(r"\b(model|voice)\b", said, re.I)
        if status in (400, 404, 422) and about:
            what = about[1].lower()
            kind = EngineUnavailable if what == "model" else EngineError
            return kind(
                f"The speech server at {self._shown_url} does not know this {what} ({said}); "
                f"set IVAS_TTS__{what.upper()} to one it has.",
                code="tts_refused",
            )
        if text.lstrip().startswith("<") or status in (404, 405) or 300 <= status < 400:
            return self._foreign()
        return EngineError(
            f"The speech server at {self._shown_url} failed ({said or f'HTTP {status}'}); try "
            "again, and see its own log if it stays so.",
            code="tts_failed",
        )

    def _unreachable(self, error: Exception) -> EngineUnavailable:
        if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
            return EngineUnavailable(
                f"The address of the speech server, {self._shown_url!r}, is none; set "
                "IVAS_TTS__URL to one like http://127.0.0.1:8880/v1.",
                code="tts_unreachable",
            )
        if "certificate" in str(error).lower():
            return EngineUnavailable(
                f"The certificate of {self._shown_url} is not one this machine trusts; let this "
                "machine trust it (SSL_CERT_FILE), or correct IVAS_TTS__URL.",
                code="tts_unreachable",
            )
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return EngineUnavailable(
                f"No speech server answers at {self._shown_url}; start it, or set IVAS_TTS__URL "
                "to where it runs.",
                code="tts_unreachable",
            )
        return EngineUnavailable(
            f"The speech server at {self._shown_url} broke off in the middle of its answer "
            f"({type(error).__name__}); see whether it still runs.",
            code="tts_unreachable",
        )

    def _silent(self, waited_s: float) -> EngineTimeout:
        return EngineTimeout(
            f"The speech server at {self._shown_url} said nothing for {waited_s:g} s; see "
            "whether it hangs, and start it anew."
        )

    def _foreign(self) -> EngineUnavailable:
        return EngineUnavailable(
            f"What answers at {self._shown_url} is no OpenAI-compatible speech server; set "
            "IVAS_TTS__URL to its address, which usually ends in /v1.",
            code="tts_foreign",
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

    def _default_first(self, voices: Sequence[Voice]) -> Sequence[Voice]:
        if self._voice is None:
            return voices
        rest = [voice for voice in voices if voice.id != self._voice]
        known = next((voice for voice in voices if voice.id == self._voice), None)
        return (known or Voice(self._voice, self._voice, ANY_LANGUAGE[0]), *rest)


_NO_SOUND = re.compile(r"html|json|xml|text/")
_OPENAI = tuple(Voice(name, name.title(), ANY_LANGUAGE[0]) for name in OPENAI_VOICES)


def _json(text: str) -> Any:
    with suppress(ValueError):
        return json.loads(text)
    return None


def _refuses_format(status: int, text: str) -> bool:
    return status in (400, 415, 422) and re.search(r"format|\bpcm\b", text, re.I) is not None


def _voices(text: str) -> tuple[Voice, ...]:
    """`{"voices": [...]}` of names or objects, as Kokoro-FastAPI, Speaches and IVAS list them."""
    value = _json(text)
    entries = value.get("voices", value.get("data")) if isinstance(value, dict) else value
    found: dict[str, Voice] = {}
    for entry in entries if isinstance(entries, list) else []:
        described = entry if isinstance(entry, dict) else {"id": entry}
        id_ = described.get("id") or described.get("voice_id") or described.get("name")
        if not isinstance(id_, str) or not id_.strip() or len(id_) > MOST_QUOTED:
            continue
        name = described.get("name")
        language = described.get("language") or described.get("lang")
        found[id_] = Voice(
            id_,
            name if isinstance(name, str) and name else id_,
            language if isinstance(language, str) else ANY_LANGUAGE[1],
        )
        if len(found) == MOST_VOICES:
            break
    return tuple(found.values())


async def _body(response: httpx.Response) -> str:
    """The text of an answer, as far as it is of any use."""
    read = b""
    async for data in response.aiter_bytes():
        read += data
        if len(read) >= MOST_BODY_BYTES:
            break
    return read[:MOST_BODY_BYTES].decode(errors="replace")
