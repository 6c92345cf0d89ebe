"""A server that speaks OpenAI's speech endpoint, on a real socket, as a test tells it.

It hums as long as the text is, at the pitch of the voice.
(https://platform.openai.com/docs/api-reference/audio/createSpeech)
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import numpy as np
from scripted_http import Die, Exchange, Raw, Refuse, ScriptedServer, Wait, refuse, wait

RATE_HZ = 24_000
CHUNK_MS = 100
MS_A_CHARACTER = 60

Step = Raw | Wait | Die | Refuse
"""One thing to do; an answer is several."""


def hum(text: str, voice: str, speed: float = 1.0) -> bytes:
    """PCM16 at 24 kHz: louder for a letter that comes later in the alphabet."""
    samples_a_character = int(RATE_HZ * MS_A_CHARACTER / 1000 / speed)
    loudness = np.repeat([ord(c) % 32 / 40 for c in text], samples_a_character)
    phase = np.arange(len(loudness)) * 0.01 * (1 + sum(map(ord, voice)) % 7)
    return (loudness * np.sin(phase) * 32767).astype("<i2").tobytes()


class SpeechServer(ScriptedServer):
    """`voices`: the JSON of its list, None: it has none. `key`: what it wants to be shown."""

    def __init__(self, *, voices: Any = None, key: str | None = None, port: int = 0) -> None:
        super().__init__(self._handle, port=port)
        self.voices = voices
        self.key = key
        self.models = True
        self.formats = {"pcm", "wav"}
        self.kind = "audio/pcm"
        self.listing: Refuse | Wait | None = None
        """A fault to answer with when asked for the voices or the models."""
        self.answers: deque[list[Step]] = deque()
        """What to do for coming texts instead of humming, in order."""
        self.left = asyncio.Event()
        """Set when a client left before the end of its answer."""

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The texts asked for so far, with all that came with them."""
        return [r.json for r in self.requests if r.method == "POST"]

    async def _handle(self, exchange: Exchange) -> None:
        request = exchange.request
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            said = f"Incorrect API key: {request.headers.get('authorization')}"
            await self._error(exchange, 401, said)
        elif request.path == "/v1/audio/speech" and request.method == "POST":
            await self._speak(exchange, request.json)
        elif request.path == "/v1/audio/speech":
            await self._error(exchange, 405, "Method not allowed")
        elif isinstance(self.listing, Refuse):
            await refuse(exchange, self.listing, {"error": {"message": self.listing.text}})
        elif isinstance(self.listing, Wait):
            await wait(exchange, self.listing.event)
        elif request.path == "/v1/audio/voices" and self.voices is not None:
            await exchange.send_json(self.voices)
        elif request.path == "/v1/models" and self.models:
            await exchange.send_json({"object": "list", "data": [{"id": "tts-1"}]})
        else:
            await self._error(exchange, 404, "Not found")

    async def _speak(self, exchange: Exchange, asked: dict[str, Any]) -> None:
        if asked["response_format"] not in self.formats:
            await self._error(exchange, 400, "response_format must be wav")
            return
        try:
            if self.answers:
                await self._follow(exchange, self.answers.popleft())
                return
            exchange.begin(self.kind)
            sound = hum(asked["input"], asked["voice"], asked.get("speed", 1.0))
            size = 2 * RATE_HZ * CHUNK_MS // 1000
            for start in range(0, len(sound), size):
                await exchange.chunk(sound[start : start + size])
                await asyncio.sleep(0)
            await exchange.end()
        except ConnectionError:
            self.left.set()
            raise

    async def _follow(self, exchange: Exchange, steps: list[Step]) -> None:
        if steps and isinstance(steps[0], Refuse):
            await refuse(exchange, steps[0], {"error": {"message": steps[0].text}})
            return
        exchange.begin(self.kind)
        for step in steps:
            match step:
                case Raw(data):
                    await exchange.chunk(data)
                case Wait(event):
                    await wait(exchange, event)
                case Die():
                    await exchange.die()
                    return
        await exchange.end()

    async def _error(self, exchange: Exchange, status: int, message: str) -> None:
        await exchange.send_json({"error": {"message": message}}, status)
