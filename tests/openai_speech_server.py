"""A server that speaks OpenAI's speech endpoint, on a real socket, as a test tells it.

It hums as long as the text is, at the pitch of the voice.
(https://platform.openai.com/docs/api-reference/audio/createSpeech)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from openai_api import Fault, OpenaiApi, error
from scripted_http import Die, Exchange, Raw, Refuse, Wait, wait

RATE_HZ = 24_000
CHUNK_MS = 100
MS_A_CHARACTER = 60


def hum(text: str, voice: str, speed: float = 1.0) -> bytes:
    """PCM16 at 24 kHz: louder for a letter that comes later in the alphabet."""
    samples_a_character = int(RATE_HZ * MS_A_CHARACTER / 1000 / speed)
    loudness = np.repeat([ord(c) % 32 / 40 for c in text], samples_a_character)
    phase = np.arange(len(loudness)) * 0.01 * (1 + sum(map(ord, voice)) % 7)
    return (loudness * np.sin(phase) * 32767).astype("<i2").tobytes()


class SpeechServer(OpenaiApi[Fault]):
    """What it has for options is said at `OpenaiApi`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(("/v1/audio/speech", self._speak), **options)
        self.formats = {"pcm", "wav"}
        self.kind = "audio/pcm"

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The texts asked for so far, with all that came with them."""
        return [request.json for request in self.posts]

    async def _speak(self, exchange: Exchange) -> None:
        asked = exchange.request.json
        if asked["response_format"] not in self.formats:
            await error(exchange, 400, "response_format must be wav")
        elif self.answers:
            await self._follow(exchange, self.answers.popleft())
        else:
            exchange.begin(self.kind)
            sound = hum(asked["input"], asked["voice"], asked.get("speed", 1.0))
            size = 2 * RATE_HZ * CHUNK_MS // 1000
            for start in range(0, len(sound), size):
                await exchange.chunk(sound[start : start + size])
                await asyncio.sleep(0)
            await exchange.end()

    async def _follow(self, exchange: Exchange, steps: Sequence[Fault]) -> None:
        if steps and isinstance(steps[0], Refuse):
            await error(exchange, steps[0].status, steps[0].text)
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
        await exchange.end()
