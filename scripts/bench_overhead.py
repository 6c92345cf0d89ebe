#!/usr/bin/env python3
"""What IVAS itself adds to a turn, on engines whose delays are known exactly.

A server on fake engines: ASR 100 ms; LLM 150 ms, then 50 tokens a second; TTS 100 ms.
Its fixed reply has its first clause complete at the 13th token, so from the decision
that the user has finished to the first audio, 100 + 150 + 12/50 s + 100 = 590 ms are
the engines'. Everything above that is IVAS, the WebSocket and the machine:

    overhead = t1 - t0 - 590 ms
    t1  arrival of the first response.output_audio.delta at the client
    t0  moment just before the client sent the append that holds the last sample of
        the decision frame

The decision frame follows from counting. The client sends 20 ms frames (480 samples at
24 kHz) on an absolute schedule, a tone for speech and zeros for silence. A VAD frame is
512 samples at 16 kHz, which is 768 at 24 kHz, counted from the first sample sent. The
tone ends in the middle of frame v; with a silence window of 500 ms the 16th silent frame
decides, so the decision frame is v + 16. That the server agrees is checked every turn
(audio_end_ms of speech_stopped is the end of v).

Beside it, in the same run and on the same cores: the round trip of the same message
through a bare echo on uvicorn with the same settings, as many connections, as often.

    .venv/bin/python scripts/bench_overhead.py                  # 1 session, then 32
    .venv/bin/python scripts/bench_overhead.py --sessions 8 --turns 10 --json
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import random
import shutil
import socket
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from websockets.asyncio.client import connect as open_websocket

from ivas.audio.pcm import to_pcm16
from ivas.client.launch import own_server
from ivas.client.microphone import FRAME_SAMPLES, Microphone, open_microphone
from ivas.client.wire import FRAME_MS, RATE_HZ, Connection, connect
from ivas.errors import IvasError
from ivas.latency import percentile

ENGINES_MS = 590.0
VAD_FRAME = 768
"""Samples of a VAD frame at 24 kHz."""
SILENT_FRAMES = 16
"""The first number of them that makes 500 ms or more."""
TONE_S = 0.4
PAUSE_S = (0.1, 0.5)
"""Between turns, drawn anew each time, so that sessions do not fall into step."""
TARGETS_MS = {1: (5.0, 15.0), 32: (10.0, 40.0)}
"""Sessions -> p50 and p95 wanted."""
FAKES = (
    *(f"IVAS_{kind}__ENGINE=fake" for kind in ("VAD", "ASR", "LLM", "TTS")),
    "IVAS_FAKE__ASR_MS=100",
    "IVAS_FAKE__LLM_FIRST_MS=150",
    "IVAS_FAKE__LLM_TOKENS_PER_S=50",
    "IVAS_FAKE__TTS_FIRST_MS=100",
    "IVAS_FAKE__TTS_RTF=0.2",
    "IVAS_LOG_LEVEL=warning",
)


def tone(position: int) -> tuple[bytes, int]:
    """A tone to be said at `position` that ends amid a VAD frame; that frame's number."""
    last = (position + round(TONE_S * RATE_HZ)) // VAD_FRAME
    samples = last * VAD_FRAME + VAD_FRAME // 2 - position
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(samples) / RATE_HZ)
    return to_pcm16(wave.astype(np.float32)), last


class Session:
    """One client that speaks, waits for the first audio, cancels, and speaks again."""

    def __init__(self, connection: Connection, seed: int) -> None:
        self._connection = connection
        self._random = random.Random(seed)
        self._decision_frame = -1
        self._decided_s = 0.0
        self.overheads_ms: list[float] = []

    def on_sent(self, number: int, at_s: float) -> None:
        if number == self._decision_frame:
            self._decided_s = at_s

    async def configure(self) -> None:
        turn_detection = {"type": "server_vad", "silence_duration_ms": 500}
        audio = {"input": {"turn_detection": turn_detection, "transcription": {"model": "any"}}}
        await self._connection.configure({"output_modalities": ["audio"], "audio": audio})

    async def turn(self, microphone: Microphone) -> None:
        pcm, last_voiced = tone(microphone.position)
        decided_at = (last_voiced + SILENT_FRAMES + 1) * VAD_FRAME - 1
        self._decision_frame = decided_at // FRAME_SAMPLES
        microphone.say(pcm)
        spoken = False
        async with asyncio.timeout(30):
            async for event in self._connection:
                match event.type:
                    case "input_audio_buffer.speech_stopped":
                        ours_ms = (last_voiced + 1) * VAD_FRAME * 1000 // RATE_HZ
                        if event.body["audio_end_ms"] != ours_ms:
                            raise IvasError("The server decided at another frame than we count.")
                    case "response.output_audio.delta" if not spoken:
                        spoken = True
                        took_ms = (event.at_s - self._decided_s) * 1000
                        self.overheads_ms.append(took_ms - ENGINES_MS)
                        await self._connection.send({"type": "response.cancel"})
                    case "response.done":
                        break
                    case "error":
                        raise IvasError(f"The server reported an error: {event.body['error']}")
        await asyncio.sleep(self._random.uniform(*PAUSE_S))


async def overheads(url: str, *, sessions: int, turns: int) -> list[float]:
    """Every session's overheads, in milliseconds; the first turn of each warms up."""
    found: list[float] = []

    async def one(number: int) -> None:
        await asyncio.sleep(2.0 * number / sessions)
        async with connect(url) as connection:
            session = Session(connection, seed=number)
            await session.configure()
            async with open_microphone(connection, session.on_sent) as microphone:
                for count in range(turns + 1):
                    await session.turn(microphone)
                    if count:
                        found.append(session.overheads_ms[-1])
                        if len(found) % max(1, sessions * turns // 10) == 0:
                            say(f"{len(found)} of {sessions * turns} turns")

    async with asyncio.TaskGroup() as tasks:
        for number in range(sessions):
            tasks.create_task(one(number))
    return found


# --- the bare echo -------------------------------------------------------------


def serve_echo(port: int) -> None:
    """uvicorn as `ivas serve` runs it, with nothing behind it."""
    import uvicorn

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            return
        while (message := await receive())["type"] != "websocket.disconnect":
            if message["type"] == "websocket.connect":
                await send({"type": "websocket.accept"})
            else:
                await send({"type": "websocket.send", "text": message["text"]})

    uvicorn.run(
        echo,
        host="127.0.0.1",
        port=port,
        lifespan="off",
        log_level="error",
        ws_per_message_deflate=False,
    )


async def echo_round_trips(prefix: Sequence[str], *, sessions: int, seconds: float) -> list[float]:
    """Round trips of a microphone frame, in milliseconds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*prefix, sys.executable, __file__, "--echo-server", str(port)]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        await _listening(port)
        trips: list[float] = []
        async with asyncio.TaskGroup() as tasks:
            for number in range(sessions):
                delay_s = number / sessions * FRAME_MS / 1000
                tasks.create_task(_echo_session(port, delay_s, seconds, trips))
        return trips
    finally:
        process.terminate()
        await process.wait()


async def _listening(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                await writer.wait_closed()
                return


async def _echo_session(port: int, delay_s: float, seconds: float, trips: list[float]) -> None:
    clock = asyncio.get_running_loop().time
    message = '{"type":"input_audio_buffer.append","audio":"' + "A" * 1280 + '"}'
    sent: deque[float] = deque()
    async with open_websocket(f"ws://127.0.0.1:{port}", compression=None, proxy=None) as websocket:

        async def listen() -> None:
            async for _ in websocket:
                trips.append((clock() - sent.popleft()) * 1000)

        listening = asyncio.create_task(listen())
        start_s = clock() + delay_s
        for number in range(round(seconds * 1000 / FRAME_MS)):
            await asyncio.sleep(max(0.0, start_s + number * FRAME_MS / 1000 - clock()))
            sent.append(clock())
            await websocket.send(message)
        await asyncio.sleep(0.2)
        listening.cancel()


# --- the run -------------------------------------------------------------------


async def bench(sessions: int, turns: int, prefix: Sequence[str]) -> dict[str, Any]:
    say(f"{sessions} session(s): bare echo ...")
    echo = spread(await echo_round_trips(prefix, sessions=sessions, seconds=5))
    say(f"{sessions} session(s): IVAS ...")
    async with own_server(prefix=[*prefix, "env", *FAKES]) as server:
        gc.collect()
        gc.freeze()
        overhead = spread(await overheads(server.url, sessions=sessions, turns=turns))
    return {
        "sessions": sessions,
        "overhead_ms": overhead,
        "echo_ms": echo,
        "ratio_p50": round(overhead["p50"] / echo["p50"], 1),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    found = {name: round(percentile(values, share), 2) for name, share in shares.items()}
    return found | {"max": round(max(values), 2), "n": len(values)}


def pin() -> list[str]:
    """Ourselves to core 1; the prefix that puts the server on core 0. [] where impossible."""
    if shutil.which("taskset") is None or len(os.sched_getaffinity(0)) < 2:
        say("Not pinned to cores: that takes taskset and two cores.")
        return []
    os.sched_setaffinity(0, {1})
    return ["taskset", "-c", "0"]


def machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, help="only this many; default: 1, then 32")
    parser.add_argument("--turns", type=int, help="of each session; default: 30, and 6 for 32")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--echo-server", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.echo_server:
        serve_echo(options.echo_server)
        return 0
    prefix = pin()
    load = os.getloadavg()[0]
    runs = [options.sessions] if options.sessions else [1, 32]
    results, failures = [], []
    try:
        for sessions in runs:
            turns = options.turns or (30 if sessions < 8 else 6)
            results.append(asyncio.run(bench(sessions, turns, prefix)))
    except* IvasError as errors:
        failures = list(errors.exceptions)
    if failures:
        say(str(failures[0]))
        return 1
    if options.json:
        where = {"machine": machine(), "load_before": load, "pinned": bool(prefix)}
        print(json.dumps(where | {"results": results}, indent=2))
        return 0
    print(f"{machine()}, load before {load:.1f}")
    print(f"{'':<26}{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8}{'n':>8}   ms")
    for result in results:
        for name in ("overhead_ms", "echo_ms"):
            row = result[name]
            label = f"{result['sessions']} session(s), {name.removesuffix('_ms')}"
            figures = "".join(f"{row[key]:>8.2f}" for key in ("p50", "p95", "p99", "max"))
            print(f"{label:<26}{figures}{row['n']:>8}")
        wanted = TARGETS_MS.get(result["sessions"])
        aim = f"; wanted: p50 {wanted[0]:g}, p95 {wanted[1]:g}" if wanted else ""
        print(f"{'':<26}{result['ratio_p50']:.1f} echo round trips at p50{aim}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
