#!/usr/bin/env python3
"""Where the time of a turn goes: asks a spoken question again and again and prints p50
and p95 of every stage. Works against any Realtime server.

    .venv/bin/python scripts/profile_latency.py --url ws://127.0.0.1:8000 --turns 20

`client` rows are measured here, each from the last speech sample of the question;
`server` rows are what an IVAS server says of its own stages, one after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import defaultdict
from contextlib import aclosing
from pathlib import Path

from ivas.client.demo import QUESTION
from ivas.client.exchange import Exchange
from ivas.client.microphone import Question, read_question
from ivas.client.repeat import exchanges
from ivas.client.wire import on_this_machine
from ivas.errors import IvasError
from ivas.latency import percentile
from ivas.settings_sources import load


def stages_ms(turns: list[Exchange]) -> dict[str, dict[str, float]]:
    """p50, p95 and count of every stage that was seen, in milliseconds."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for turn in turns:
        for moment, at_ms in turn.times_ms().items():
            values[f"client.{moment}"].append(at_ms)
        for span, took_ms in turn.spans_ms.items():
            values[f"server.{span}"].append(took_ms)
    return {
        name: {
            "p50": round(percentile(each, 0.5), 1),
            "p95": round(percentile(each, 0.95), 1),
            "n": len(each),
        }
        for name, each in values.items()
    }


async def measure(
    options: argparse.Namespace, key: str | None, question: Question
) -> tuple[list[Exchange], list[str]]:
    """The turns that went well, and the sentence of each session that failed."""
    turns: list[Exchange] = []
    failures: list[str] = []
    wanted = options.turns * options.sessions

    async def session(number: int) -> None:
        delay_s = number / options.sessions  # spread, so that they do not speak in chorus
        asked = exchanges(
            options.url,
            question,
            turns=options.turns,
            key=key,
            delay_s=delay_s,
            timeout_s=options.timeout,
        )
        try:
            async with aclosing(asked):
                async for turn in asked:
                    turns.append(turn)
                    first_ms = turn.times_ms()["first_audio"]
                    say(f"turn {len(turns)} of {wanted}: first audio after {first_ms:.0f} ms")
        except IvasError as error:
            failures.append(str(error))
            say(str(error))

    async with asyncio.TaskGroup() as sessions:
        for number in range(options.sessions):
            sessions.create_task(session(number))
    return turns, failures


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def at_least_1(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="ws://127.0.0.1:8000", help="default: %(default)s")
    parser.add_argument("--key", help="its API key; on this machine, else the one in the settings")
    parser.add_argument(
        "--turns", type=at_least_1, default=20, help="of each session; default: %(default)s"
    )
    parser.add_argument(
        "--sessions", type=at_least_1, default=1, help="at the same time; default: %(default)s"
    )
    parser.add_argument("--wav", type=Path, default=QUESTION, help="the question, PCM16 WAV")
    parser.add_argument(
        "--timeout", type=float, default=30.0, help="longest wait for a stage, in seconds"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    try:
        key = options.key
        if key is None and on_this_machine(options.url):
            secret = load().server.api_key
            key = None if secret is None else secret.get_secret_value()
        turns, failures = asyncio.run(measure(options, key, read_question(options.wav)))
    except IvasError as error:
        say(str(error))
        return 1
    stages = stages_ms(turns)
    if options.json:
        result = {"url": options.url, "sessions": options.sessions, "turns": len(turns)}
        print(json.dumps(result | {"failures": failures, "stages_ms": stages}, indent=2))
    else:
        print(f"{'stage':<28}{'p50 ms':>10}{'p95 ms':>10}{'n':>6}")
        for name, row in stages.items():
            print(f"{name:<28}{row['p50']:>10.1f}{row['p95']:>10.1f}{row['n']:>6.0f}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
