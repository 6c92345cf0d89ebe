#!/usr/bin/env python3
"""How long a final transcript takes alone, and while others speak: Whisper's queue.

Sessions speak in real time, 3 s at a time, and ask for a partial transcript every 400 ms,
as a session with captions does; at the end each asks for the final and waits for it.
Printed: how long the finals took (p50, p95) with one session and with 8, and how many
times longer that is; partials asked for and answered; the longest stall of the event loop.

    .venv/bin/python scripts/bench_whisper.py --model-dir ~/.cache/ivas/models/whisper-base
    .venv/bin/python scripts/bench_whisper.py --random base    # no download: random weights
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import random_whisper

from ivas.audio.wav import read_wav
from ivas.client.demo import QUESTION
from ivas.engines import SAMPLE_RATE_HZ, Samples
from ivas.engines.asr.whisper import WhisperASR, WhisperUtterance
from ivas.errors import EngineError, IvasError
from ivas.latency import percentile

UTTERANCE_S = 3
FRAME_SAMPLES = 512
PARTIAL_EVERY_SAMPLES = SAMPLE_RATE_HZ * 2 // 5
MOST_PAUSE_S = 1.0


@dataclass(slots=True)
class Tally:
    """What came of one run."""

    finals_ms: list[float] = field(default_factory=list)
    partials_ms: list[float] = field(default_factory=list)
    partials_dropped: int = 0
    stall_ms: float = 0.0


async def speak(asr: WhisperASR, audio: Samples, turns: int, tally: Tally, seed: int) -> None:
    """One session: so many utterances with pauses between, in real time."""
    clock = asyncio.get_running_loop().time
    pauses = random.Random(seed)
    for _ in range(turns):
        await asyncio.sleep(pauses.uniform(0, MOST_PAUSE_S))
        utterance = asr.open()
        partial: asyncio.Task[None] | None = None
        begin, next_partial = clock(), PARTIAL_EVERY_SAMPLES
        for at in range(0, len(audio), FRAME_SAMPLES):
            await asyncio.sleep(begin + at / SAMPLE_RATE_HZ - clock())
            utterance.push(audio[at : at + FRAME_SAMPLES])
            if at >= next_partial and (partial is None or partial.done()):
                next_partial = at + PARTIAL_EVERY_SAMPLES
                partial = asyncio.create_task(ask_partial(utterance, tally))
        if partial is not None:
            partial.cancel()
            await asyncio.wait([partial])
        asked = clock()
        await utterance.transcript()
        tally.finals_ms.append((clock() - asked) * 1000)
        utterance.close()


async def ask_partial(utterance: WhisperUtterance, tally: Tally) -> None:
    asked = asyncio.get_running_loop().time()
    try:
        await utterance.transcript(urgent=False)
    except (EngineError, asyncio.CancelledError):
        tally.partials_dropped += 1
        raise
    tally.partials_ms.append((asyncio.get_running_loop().time() - asked) * 1000)


async def beat(tally: Tally) -> None:
    """Note the longest time the event loop was kept from this task."""
    clock = asyncio.get_running_loop().time
    last = clock()
    while True:
        await asyncio.sleep(0.005)
        now = clock()
        tally.stall_ms = max(tally.stall_ms, (now - last - 0.005) * 1000)
        last = now


async def run(asr: WhisperASR, audio: Samples, sessions: int, turns: int) -> dict[str, Any]:
    tally = Tally()
    heart = asyncio.create_task(beat(tally))
    await asyncio.gather(*(speak(asr, audio, turns, tally, seed) for seed in range(sessions)))
    heart.cancel()
    return {
        "sessions": sessions,
        "finals": len(tally.finals_ms),
        "final_p50_ms": round(percentile(tally.finals_ms, 0.5), 1),
        "final_p95_ms": round(percentile(tally.finals_ms, 0.95), 1),
        "partials": len(tally.partials_ms),
        "partial_p50_ms": round(percentile(tally.partials_ms, 0.5), 1)
        if tally.partials_ms
        else None,
        "partials_dropped": tally.partials_dropped,
        "longest_stall_ms": round(tally.stall_ms, 1),
    }


async def bench(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    question = read_wav(QUESTION, SAMPLE_RATE_HZ)
    audio = np.resize(question, UTTERANCE_S * SAMPLE_RATE_HZ)
    asr = WhisperASR(
        model_dir=directory,
        device=options.device,
        threads=options.threads,
        language=options.language,
        whole_window=options.whole_window,
    )
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await asr.start()
    start_s = loop.time() - begin
    try:
        runs = []
        for sessions, turns in ((1, 2 * options.turns), (options.sessions, options.turns)):
            say(f"{sessions} speaking session(s) ...")
            runs.append(await run(asr, audio, sessions, turns))
    finally:
        await asr.aclose()
    alone, together = runs
    return {
        "model": directory.name,
        "device": options.device,
        "start_s": round(start_s, 2),
        "alone": alone,
        "together": together,
        "p95_ratio": round(together["final_p95_ms"] / alone["final_p95_ms"], 2),
    }


def report(result: dict[str, Any]) -> None:
    print(f"{result['model']} on {result['device']}, started in {result['start_s']} s")
    for name in ("alone", "together"):
        found = result[name]
        partial = found["partial_p50_ms"]
        print(
            f"{found['sessions']:>3} speaking: final p50 {found['final_p50_ms']:.0f} ms, p95 "
            f"{found['final_p95_ms']:.0f} ms, n={found['finals']}; {found['partials']} partials"
            + (f", p50 {partial:.0f} ms" if partial is not None else "")
            + f", {found['partials_dropped']} dropped; longest stall "
            f"{found['longest_stall_ms']:.0f} ms"
        )
    print(f"finals p95, together to alone: {result['p95_ratio']:.2f}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model-dir", type=Path, help="a Whisper converted for CTranslate2")
    which.add_argument("--random", choices=random_whisper.SIZES, help="this size, made up")
    parser.add_argument("--sessions", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--turns", type=int, default=6, help="of each; default: %(default)s")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0: all physical cores but one")
    parser.add_argument("--language", help="unset: detected each time")
    parser.add_argument("--whole-window", action="store_true", help="always decode 30 s")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    made = tempfile.TemporaryDirectory() if options.random else nullcontext()
    try:
        with made as place:
            directory = options.model_dir
            if place is not None:
                directory = Path(place) / f"whisper-{options.random}-random"
                random_whisper.build(directory, size=options.random)
            result = asyncio.run(bench(directory, options))
    except IvasError as error:
        say(str(error))
        return 1
    where = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    if options.json:
        print(json.dumps({"machine": where, "load_before": load} | result, indent=2))
    else:
        print(f"{where}, load before {load:.1f}")
        report(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
