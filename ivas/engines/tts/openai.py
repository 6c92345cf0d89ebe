"""Text to speech on any server that speaks OpenAI's API: Kokoro-FastAPI, another IVAS, a cloud.

One streamed POST {base_url}/audio/speech a clause, played as it comes. Cancelling closes
the stream, at which these servers stop.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import httpx

from ivas.engines import AudioChunk, Priority, Status, Voice
from ivas.engines.openai_server import OpenaiServer, body_text, parsed
from ivas.engines.tts.openai_audio import PCM_RATE_HZ, AudioReader
from ivas.engines.tts.pieces import pieces
from ivas.engines.voices import ANY_LANGUAGE, OPENAI_VOICES, fitting
from ivas.errors import EngineError

DEFAULT_MODEL = "tts-1"
"""The name every such server knows or ignores."""
MOST_CHARACTERS = 4096
"""Longest `input` of the API."""
CHUNK_MS = 100
MOST_VOICES = 2000
MOST_VOICE_CHARACTERS = 200
"""No voice has a longer name."""


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
        self._server = OpenaiServer(
            "speech",
            part="TTS",
            url=base_url,
            key=api_key,
            example_url="http://127.0.0.1:8880/v1",
            again="try again",
            at_home="set IVAS_TTS__ENGINE=kokoro for a voice at home",
            silence_s=timeout_s,
        )
        self._model = model or DEFAULT_MODEL
        self._voice = voice
        self._timeout_s = timeout_s
        self._voices = self._default_first(_OPENAI)
        self._format = "pcm"

    @property
    def voices(self) -> Sequence[Voice]:
        """What the server lists; if it lists none, the names of OpenAI's voices."""
        return self._voices

    def status(self) -> Status:
        return self._server.status()

    async def start(self) -> None:
        """Ask the server for its voices, or at least whether it is a speech server."""
        await self._server.start(self._probe)

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
        _ = self._server.client  # one that is not started raises even if there is nothing to say
        chosen = fitting(voice, self._voices, language).id
        for piece in pieces(text.replace("\0", " "), first=MOST_CHARACTERS, most=MOST_CHARACTERS):
            if not any(map(str.isalnum, piece)):
                continue
            yield AudioChunk(b"", PCM_RATE_HZ)  # there is no queue: from now on it is the server
            body: dict[str, Any] = {"model": self._model, "input": piece, "voice": chosen}
            if speed != 1.0:  # some models do not know it
                body["speed"] = min(4.0, max(0.25, speed))
            async with aclosing(self._speak(body)) as sound:
                async for chunk in sound:
                    yield chunk

    async def aclose(self) -> None:
        await self._server.aclose()

    # --- the server ----------------------------------------------------------

    async def _probe(self) -> None:
        self._voices = self._default_first(await self._listed())

    async def _listed(self) -> Sequence[Voice]:
        """The server's voices, or OpenAI's if it lists none. Raises EngineError."""
        status, text = await self._server.get("audio/voices")
        if status == 200 and (found := _voices(text)):
            return found
        if status not in (200, 400, 404, 405, 501):
            raise self._server.refusal(status, text)
        # It has no list. It may be a speech server all the same: does it have models, or
        # at least something that wants another method where the speech is made?
        status, text = await self._server.get("models")
        if status == 200 and parsed(text) is not None:
            return _OPENAI
        if status not in (200, 404, 405):
            raise self._server.refusal(status, text)
        status, _ = await self._server.get("audio/speech")
        if status == 405:
            return _OPENAI
        raise self._server.foreign()

    async def _speak(self, body: dict[str, Any]) -> AsyncGenerator[AudioChunk, None]:
        """One answer. Keeps the status true; raises EngineError."""
        with self._server.told(self._timeout_s):
            while True:
                asked = {**body, "response_format": self._format}
                async with self._server.post("audio/speech", asked) as response:
                    kind = response.headers.get("content-type", "").lower()
                    if response.status_code == 200 and not _NO_SOUND.search(kind):
                        async with aclosing(self._sound(response, kind, body)) as sound:
                            async for chunk in sound:
                                yield chunk
                        return
                    text = await body_text(response)
                if self._format == "pcm" and _refuses_format(response.status_code, text):
                    self._format = "wav"
                    continue
                raise self._refusal(response.status_code, text, voice=body["voice"])

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
                    self._server.answered()
                    yield AudioChunk(sound[start : start + size], reader.rate_hz)
            reader.end()
            if not made_s:
                raise ValueError("no sound")
        except ValueError as error:
            raise EngineError(
                f"{self._server.at} sent {error}; try again, or choose another model with "
                "IVAS_TTS__MODEL.",
                code="tts_garbled",
            ) from None

    def _refusal(self, status: int, text: str, *, voice: str) -> EngineError:
        """What an answer other than sound means."""
        said = self._server.quoted(text)
        about = re.search(r"\b(model|voice)\b", said, re.I)
        if status in (400, 404, 422) and about:
            if about[1].lower() == "model":
                return self._server.lacks("model", self._model, said)
            return self._server.lacks("voice", voice, said)
        return self._server.refusal(status, text)

    def _default_first(self, voices: Sequence[Voice]) -> Sequence[Voice]:
        if self._voice is None:
            return voices
        rest = [voice for voice in voices if voice.id != self._voice]
        known = next((voice for voice in voices if voice.id == self._voice), None)
        return (known or Voice(self._voice, self._voice, ANY_LANGUAGE[0]), *rest)


_NO_SOUND = re.compile(r"html|json|xml|text/")
_OPENAI = tuple(Voice(name, name.title(), ANY_LANGUAGE[0]) for name in OPENAI_VOICES)


def _refuses_format(status: int, text: str) -> bool:
    return status in (400, 415, 422) and re.search(r"format|\bpcm\b", text, re.I) is not None


def _voices(text: str) -> tuple[Voice, ...]:
    """`{"voices": [...]}` of names or objects, as Kokoro-FastAPI, Speaches and IVAS list them."""
    value = parsed(text)
    entries = value.get("voices", value.get("data")) if isinstance(value, dict) else value
    found: dict[str, Voice] = {}
    for entry in entries if isinstance(entries, list) else []:
        described = entry if isinstance(entry, dict) else {"id": entry}
        id_ = described.get("id") or described.get("voice_id") or described.get("name")
        if not isinstance(id_, str) or not id_.strip() or len(id_) > MOST_VOICE_CHARACTERS:
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
