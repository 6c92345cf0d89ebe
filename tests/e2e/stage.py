"""The whole application on a real socket in this process, made from settings as an operator's.

`stage(models_dir, llm={"host": ...})` goes the way of `ivas serve`: settings, the choice of
engines, the application. What runs is real but for the size of the models. `turn` speaks a
recorded question into a conversation and waits for the reply.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from conformance.driver import RATE_HZ, TRANSCRIPTION, Caller, Event, clip

from ivas.app import build
from ivas.choice import Engines
from ivas.composition import choose_engines
from ivas.serving import uvicorn_config
from ivas.settings import Settings

START_S = 120.0
PATIENT: dict[str, dict[str, Any]] = {
    "asr": {"timeout_s": 60},
    "llm": {"slow_after_s": 60, "first_token_timeout_s": 60, "stall_timeout_s": 60},
    "tts": {"first_audio_timeout_s": 60, "stall_timeout_s": 60},
}
"""No deadline of the server passes because this machine is busy."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A server that is ready. `engines`: what it chooses among."""

    url: str
    engines: Engines

    async def probe(self, kind: str) -> None:
        """What the server does every 5 s: look for something better."""
        for choice in self.engines.choices:
            if choice.kind == kind:
                await choice.probe()

    async def ready(self) -> dict[str, Any]:
        """What /ready says of the engines, by kind."""
        return await ready(self.url)


async def ready(url: str) -> dict[str, Any]:
    """What /ready of a server says of its engines, by kind."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{url}/ready")
    assert answer.status_code == 200, answer.text
    engines: dict[str, Any] = answer.json()["engines"]
    return engines


@asynccontextmanager
async def stage(
    models_dir: Path,
    *,
    choose: Callable[[Settings], Engines] = choose_engines,
    **groups: dict[str, Any],
) -> AsyncIterator[Stage]:
    """`groups`: settings by their group; `choose` makes engines of them."""
    patient = {kind: PATIENT.get(kind, {}) | groups.get(kind, {}) for kind in {*PATIENT, *groups}}
    settings = Settings.model_validate({"models_dir": models_dir, "offline": True, **patient})
    engines = choose(settings)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn_config(build(settings, engines=engines), settings))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(START_S):
            while not server.started or not all(  # noqa: ASYNC110 - uvicorn offers no event
                engine.status().ready for engine in engines.by_kind().values()
            ):
                await asyncio.sleep(0.01)
        yield Stage(f"http://127.0.0.1:{listener.getsockname()[1]}", engines)
    finally:
        server.should_exit = True
        await task
        listener.close()


# --- a person --------------------------------------------------------------------


async def opt_in(one: Caller) -> None:
    """Ask for transcripts, and to be told when an engine changes."""
    await one.configure(audio={"input": {"transcription": {"model": "whisper-1"}}})
    await one.configure(ivas={"events": ["engines"]})


def room(ms: int) -> bytes:
    """What a microphone hears when nobody speaks, -60 dBFS: PCM16 at 24 kHz."""
    noise = np.random.default_rng(7).normal(0, 32.768, RATE_HZ * ms // 1000)
    return np.round(noise).astype("<i2").tobytes()


def question(name: str) -> bytes:
    """A recorded question with the room before and behind it: a whole turn."""
    return room(400) + clip(name) + room(900)


async def turn(one: Caller, name: str) -> Event:
    """A spoken question; the response to it."""
    await one.hear(question(name))
    return await one.done()


async def listen(one: Caller, response: Event) -> None:
    """Hear a reply to its end before anything else is said: else it was cut off."""
    await asyncio.sleep(len(one.audio(response["id"])) / 2 / RATE_HZ)


def heard(one: Caller) -> list[str]:
    """What the server understood so far."""
    return [event["transcript"] for event in one.all(f"{TRANSCRIPTION}completed")]


def said(response: Event) -> str:
    """The words of a response."""
    parts = [part for item in response["output"] for part in item.get("content", ())]
    return "".join(part["transcript"] for part in parts)


def changes(one: Caller) -> list[tuple[str, str]]:
    """Kind and engine of each change this client was told of."""
    return [(event["kind"], event["engine"]) for event in one.all("ivas.engines")]


def is_sound(pcm: bytes) -> bool:
    """Whether it is more than silence: some tenth of a second is louder than -45 dBFS."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64) / 32768
    whole = samples[: len(samples) // (RATE_HZ // 10) * (RATE_HZ // 10)].reshape(-1, RATE_HZ // 10)
    return bool(len(whole) and np.sqrt((whole**2).mean(axis=1)).max() > 10 ** (-45 / 20))


def loudest_hz(pcm: bytes) -> float:
    """The pitch of a tone."""
    sound = np.frombuffer(pcm, "<i2").astype(np.float64)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(spectrum.argmax() * RATE_HZ / len(sound))
