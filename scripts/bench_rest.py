#!/usr/bin/env python3
"""What /v1/audio/speech adds to its engine: first audio at the client, less the engine's own.

    overhead = (first byte of the body at the client - request sent)
             - (first chunk of the engine - the engine was asked)

The second is measured around the engine while it serves, so both are of the same
request. What lies between: HTTP there and back, the JSON, the clauses, resampling to
24 kHz, the encoder, and for aac its look-ahead (35 ms of sound that espeak's first
chunk does not have). Beside it, on the same connection: a GET that does nothing.

Engines: `fake`, whose first chunk comes after 100 ms; `espeak`, after 2 to 4 ms.
Server and client are two threads of one process, so each can hold up the other.

    .venv/bin/python scripts/bench_rest.py
    .venv/bin/python scripts/bench_rest.py --engine fake --requests 100 --json
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from ivas.audio.encode import FORMATS
from ivas.engines import TTS, AudioChunk, Priority, Status, Voice
from ivas.engines.fake import FakeTTS
from ivas.engines.tts.espeak import EspeakTTS
from ivas.latency import percentile
from ivas.server.limits import Places
from ivas.server.rest_errors import install_rest_errors
from ivas.server.rest_speech import PATH, SpeechOptions, speech_router

TEXT = "It is half past three, and the sun is shining. Shall we go for a walk?"
GOAL_MS = 10.0
WARM_UP = 3


class Watched:
    """An engine, and how long each of its requests waited for the first chunk."""

    def __init__(self, engine: TTS) -> None:
        self._engine = engine
        self.name = engine.name
        self.waits_ms: list[float] = []

    @property
    def voices(self) -> Sequence[Voice]:
        return self._engine.voices

    def status(self) -> Status:
        return self._engine.status()

    async def start(self) -> None:
        await self._engine.start()

    async def aclose(self) -> None:
        await self._engine.aclose()

    async def stream(
        self,
        text: str,
        *,
        voice: str,
        language: str | None = None,
        speed: float = 1.0,
        priority: Priority = "later",
    ) -> AsyncGenerator[AudioChunk, None]:
        began_s = time.perf_counter()
        how = {"voice": voice, "language": language, "speed": speed, "priority": priority}
        waiting = TEXT.startswith(text.strip())  # of the first clause only
        async for chunk in self._engine.stream(text, **how):  # type: ignore[arg-type]
            if chunk.pcm and waiting:
                waiting = False
                self.waits_ms.append((time.perf_counter() - began_s) * 1000)
            yield chunk


@contextmanager
def serving(tts: Watched) -> Iterator[int]:
    """The port of a server with nothing but this endpoint, on a thread of its own."""
    options = SpeechOptions(tts=lambda: tts, admit=lambda request, scope: None, places=Places(1))
    app = FastAPI()
    app.include_router(speech_router(options))
    app.add_api_route("/nothing", lambda: None)
    install_rest_errors(app)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off"))

    async def run() -> None:
        await tts.start()
        await server.serve()
        await tts.aclose()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    while thread.is_alive() and not server.started:
        time.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join()


def first_byte_ms(connection: http.client.HTTPConnection, format_: str) -> float:
    """From the request to the first byte of the sound; the rest is read, too."""
    body = json.dumps({"input": TEXT, "voice": "", "model": "", "response_format": format_})
    began_s = time.perf_counter()
    connection.request("POST", PATH, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read(1)
    took_ms = (time.perf_counter() - began_s) * 1000
    answer.read()
    if answer.status != 200:
        raise SystemExit(f"The server answered {answer.status}; is the engine installed?")
    return took_ms


def nothing_ms(connection: http.client.HTTPConnection) -> float:
    began_s = time.perf_counter()
    connection.request("GET", "/nothing")
    connection.getresponse().read()
    return (time.perf_counter() - began_s) * 1000


def bench(engine: TTS, requests: int) -> list[dict[str, Any]]:
    """One row a format."""
    tts = Watched(engine)
    rows = []
    with serving(tts) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for format_ in FORMATS:
            for _ in range(WARM_UP):
                first_byte_ms(connection, format_)
            tts.waits_ms.clear()
            client = [first_byte_ms(connection, format_) for _ in range(requests)]
            own = list(tts.waits_ms)
            overhead = [whole - part for whole, part in zip(client, own, strict=True)]
            floor = [nothing_ms(connection) for _ in range(requests)]
            rows.append(
                {
                    "engine": tts.name,
                    "format": format_,
                    "requests": requests,
                    "client_p50_ms": _rounded(client, 0.5),
                    "engine_p50_ms": _rounded(own, 0.5),
                    "overhead_p50_ms": _rounded(overhead, 0.5),
                    "overhead_p95_ms": _rounded(overhead, 0.95),
                    "ratio_p50": round(percentile(client, 0.5) / percentile(own, 0.5), 2),
                    "bare_http_p50_ms": _rounded(floor, 0.5),
                }
            )
        connection.close()
    return rows


def _rounded(values: Sequence[float], share: float) -> float:
    return round(percentile(values, share), 2)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=("fake", "espeak"), help="only this one; default: both")
    parser.add_argument("--requests", type=int, default=30, help="of each format; default: 30")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    engines: dict[str, TTS] = {"fake": FakeTTS(first_ms=100, rtf=0.2), "espeak": EspeakTTS()}
    if arguments.engine:
        engines = {arguments.engine: engines[arguments.engine]}
    rows = [row for engine in engines.values() for row in bench(engine, arguments.requests)]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    if arguments.json:
        print(json.dumps({"machine": machine, "goal_ms": GOAL_MS, "rows": rows}, indent=2))
        return 0
    print(f"{machine}. Goal: an overhead of {GOAL_MS:g} ms (p50).\n")
    print("engine  format  client p50  engine p50  overhead p50    p95  ratio  bare HTTP")
    for row in rows:
        print(
            f"{row['engine']:7} {row['format']:6} {row['client_p50_ms']:9.1f} ms"
            f" {row['engine_p50_ms']:8.1f} ms {row['overhead_p50_ms']:10.1f} ms"
            f" {row['overhead_p95_ms']:6.1f} {row['ratio_p50']:6.2f}"
            f" {row['bare_http_p50_ms']:7.1f} ms"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
