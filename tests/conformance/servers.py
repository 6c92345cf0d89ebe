"""Servers on the loop of a test, for what the test looks at or scripts from inside.

`serving` runs the real application with the engines of the test on a real socket;
`ollama_serving` lets the real Ollama engine answer, from a scripted server. `Listener` is an
ASR that keeps what it is given.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import uvicorn
from ollama_server import OllamaServer

from ivas.app import Startup, build
from ivas.choice import Engines
from ivas.engines import ASR, LLM, TTS, VAD, Samples
from ivas.engines.fake import FakeASR, FakeLLM, FakeTTS, FakeUtterance, FakeVAD
from ivas.engines.llm.ollama import OllamaLLM
from ivas.serving import uvicorn_config
from ivas.settings import Settings

START_S = 20.0

Sound = npt.NDArray[np.float64]


@asynccontextmanager
async def serving(
    *,
    vad: VAD | None = None,
    asr: ASR | None = None,
    llm: LLM | None = None,
    tts: TTS | None = None,
    tls: tuple[Path, Path] | None = None,
    **server: Any,
) -> AsyncIterator[str]:
    """The URL of a server on these engines, else fakes without delays.

    `tls`: a certificate and its key. `server`: settings of the group of this name,
    unchecked: a test has no minute to wait.
    """
    engines = Engines(
        vad=vad or FakeVAD(),
        asr=asr or FakeASR(ms=0),
        llm=llm or FakeLLM(first_ms=0, tokens_per_s=10_000, reply="One two three."),
        tts=tts or FakeTTS(first_ms=0, rtf=0),
    )
    settings = Settings()
    settings = settings.model_copy(update={"server": settings.server.model_copy(update=server)})
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    ready = asyncio.Event()
    startup = Startup(on_ready=ready.set)
    app = build(settings, engines=engines, startup=startup)
    config = uvicorn_config(app, settings)
    if tls is not None:
        config.ssl_certfile, config.ssl_keyfile = tls
    running = uvicorn.Server(config)
    startup.listening = lambda: running.started
    task = asyncio.create_task(running.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(START_S):
            await ready.wait()
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        running.should_exit = True
        await task
        listener.close()


class Listener(FakeASR):
    """Hears the same words in everything, and keeps the sound: 16 kHz, an array an utterance."""

    def __init__(self, transcript: str) -> None:
        super().__init__(ms=0, transcript=transcript)
        self.sounds: list[list[Samples]] = []

    def open(self, *, language: str | None = None, prompt: str | None = None) -> FakeUtterance:
        self.sounds.append([])
        return _Kept(self, language)

    def likeness(self, source: Samples) -> float:
        """0 to 1: how much what was heard is this sound, wherever it stands in it."""
        heard = np.concatenate([piece for pieces in self.sounds for piece in pieces])
        size = len(heard) + len(source)
        product = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(source, size))
        highest = np.abs(np.fft.irfft(product, size)).max()
        return float(highest / (np.linalg.norm(heard) * np.linalg.norm(source)))


class _Kept(FakeUtterance):
    def __init__(self, engine: Listener, language: str | None) -> None:
        super().__init__(engine, language)
        self._pieces = engine.sounds[-1]

    def push(self, samples: Samples) -> None:
        super().push(samples)
        self._pieces.append(samples.copy())


@asynccontextmanager
async def ollama_serving(**engines: Any) -> AsyncIterator[tuple[str, OllamaServer]]:
    """The URL of a server whose LLM is the Ollama engine, and the Ollama that answers it."""
    ollama = OllamaServer()
    await ollama.start()
    try:
        async with serving(llm=OllamaLLM(host=ollama.url), **engines) as url:
            yield url, ollama
    finally:
        await ollama.stop()
