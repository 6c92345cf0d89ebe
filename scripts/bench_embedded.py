#!/usr/bin/env python3
"""What the embedded engines need on this machine: time and memory, nothing downloaded.

Starts `ivas serve` as it is installed (Silero, pocketsphinx, built-in responder, espeak)
and measures

* start: from the start of the process to /ready answering 200, over several starts;
* answer: from the last speech sample of the spoken question to the first audio at the
  client, less the silence window of 500 ms that the server is told to wait;
* memory of the whole process tree: idle, and the highest while 1, 2 and 4 sessions speak,
  sampled every 50 ms. PSS counts a shared page in parts, USS counts only private ones,
  RSS counts a shared page in every process again. Linux only.

    .venv/bin/python scripts/bench_embedded.py
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Sequence
from typing import Any

import psutil

from ivas.client.demo import QUESTION
from ivas.client.exchange import Exchange, ask, prepare
from ivas.client.launch import own_server
from ivas.client.microphone import Question, open_microphone, read_question
from ivas.client.wire import connect
from ivas.errors import IvasError
from ivas.latency import percentile

SILENCE_MS = 500
SAMPLE_S = 0.05
MB = 1e6
TARGETS = {"answer_ms": 150, "ready_s": 5, "idle_mb": 350, "session_mb": 100}


async def session(url: str, question: Question, *, turns: int, delay_s: float) -> list[Exchange]:
    """One conversation of that many turns."""
    await asyncio.sleep(delay_s)
    clock = asyncio.get_running_loop().time
    found = []
    async with connect(url) as connection:
        await prepare(connection)
        turn_detection = {"type": "server_vad", "silence_duration_ms": SILENCE_MS}
        await connection.configure({"audio": {"input": {"turn_detection": turn_detection}}})
        async with open_microphone(connection) as microphone:
            for _ in range(turns):
                turn = await ask(connection, microphone, question)
                found.append(turn)
                await asyncio.sleep(turn.playing_until_s - clock() + 0.2)
    return found


async def starts(count: int) -> list[float]:
    found = []
    for number in range(count):
        async with own_server() as server:
            found.append(server.ready_s)
        say(f"start {number + 1} of {count}: ready after {found[-1]:.2f} s")
    return found


def memory_mb(pid: int) -> dict[str, float]:
    """Of the process and all below it."""
    total = {"rss": 0.0, "pss": 0.0, "uss": 0.0}
    server = psutil.Process(pid)
    for process in [server, *server.children(recursive=True)]:
        try:
            found = process.memory_full_info()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue  # a worker that has just ended
        for name in total:
            total[name] += getattr(found, name) / MB
    return {name: round(value, 1) for name, value in total.items()}


async def peak_mb(pid: int, url: str, question: Question, sessions: int) -> dict[str, float]:
    """The highest of each figure while that many sessions speak at the same time."""
    highest: dict[str, float] = {}
    speaking = asyncio.gather(
        *(session(url, question, turns=2, delay_s=0.1 * n) for n in range(sessions))
    )
    while not speaking.done():
        # On a thread: reading the maps of a tree takes milliseconds.
        for name, value in (await asyncio.to_thread(memory_mb, pid)).items():
            highest[name] = max(highest.get(name, 0.0), value)
        await asyncio.sleep(SAMPLE_S)
    await speaking
    return highest


async def bench(turns: int, start_count: int, most: Sequence[int]) -> dict[str, Any]:
    question = read_question(QUESTION)
    ready = await starts(start_count)
    async with own_server() as server:
        idle = memory_mb(server.pid)
        say(f"{turns} turns ...")
        found = await session(server.url, question, turns=turns + 1, delay_s=0)
        answers = [turn.times_ms()["first_audio"] - SILENCE_MS for turn in found]
        spans = {
            name: round(percentile([turn.spans_ms[name] for turn in found[1:]], 0.5), 1)
            for name in found[-1].spans_ms
        }
        after = memory_mb(server.pid)
        peaks = {}
        for sessions in most:
            say(f"memory with {sessions} speaking session(s) ...")
            peaks[sessions] = await peak_mb(server.pid, server.url, question, sessions)
        calm = memory_mb(server.pid)
    first, last = min(most), max(most)
    more = {name: (peaks[last][name] - peaks[first][name]) / (last - first) for name in idle}
    return {
        "ready_s": [round(value, 2) for value in ready],
        "first_answer_ms": round(answers[0], 1),
        "answer_ms": {
            "p50": round(percentile(answers[1:], 0.5), 1),
            "p95": round(percentile(answers[1:], 0.95), 1),
            "n": len(answers) - 1,
        },
        "server_spans_p50_ms": spans,
        "idle_mb": idle,
        "after_turns_mb": after,
        "speaking_mb": peaks,
        "idle_afterwards_mb": calm,
        "per_additional_session_mb": {name: round(value, 1) for name, value in more.items()},
    }


def report(result: dict[str, Any]) -> None:
    answer = result["answer_ms"]
    ready = result["ready_s"]
    print(f"ready after            {min(ready):.2f} to {max(ready):.2f} s (wanted: 5)")
    print(
        f"answer after silence   p50 {answer['p50']:.0f} ms, p95 {answer['p95']:.0f} ms, "
        f"n={answer['n']} (wanted: p50 {TARGETS['answer_ms']}); "
        f"the first of all {result['first_answer_ms']:.0f} ms"
    )
    print(f"server's spans, p50    {result['server_spans_p50_ms']}")
    rows = {
        f"idle (wanted: {TARGETS['idle_mb']})": result["idle_mb"],
        "idle after the turns": result["after_turns_mb"],
        **{f"{n} speaking, highest": mb for n, mb in result["speaking_mb"].items()},
        "idle afterwards": result["idle_afterwards_mb"],
        f"each more (wanted: {TARGETS['session_mb']})": result["per_additional_session_mb"],
    }
    print(f"{'memory, MB':<24}{'RSS':>8}{'PSS':>8}{'USS':>8}")
    for name, mb in rows.items():
        print(f"{name:<24}{mb['rss']:>8.0f}{mb['pss']:>8.0f}{mb['uss']:>8.0f}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--starts", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    try:
        result = asyncio.run(bench(options.turns, options.starts, (1, 2, 4)))
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
