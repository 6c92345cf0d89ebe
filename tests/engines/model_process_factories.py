"""Factories that the worker process of test_model_process.py loads."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from ivas.errors import EngineError, EngineUnavailable


def parrot(*, loads: str = "", die_at_load: int = 0):
    """Says each request's `words`, counts its loads in a file, and does what a request asks."""
    if loads:
        count = int(Path(loads).read_text() or 0) + 1 if Path(loads).exists() else 1
        Path(loads).write_text(str(count))
        if die_at_load and count >= die_at_load:
            os.kill(os.getpid(), signal.SIGKILL)
    state = {"closed": 0, "made": 0}

    def work(request):
        try:
            for word in request.get("words", ()):
                state["made"] += 1
                yield word.encode()
            match request.get("then"):
                case "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "exit":
                    os._exit(7)
                case "raise":
                    raise ValueError("the test asked for it")
                case "refuse":
                    raise EngineError("The parrot does not want to.", code="stubborn")
                case "crash":
                    raise EngineError("The parrot lost its feathers.", code="engine_crashed")
                case "hang":
                    time.sleep(600)
                case "for ever":
                    while True:
                        time.sleep(0.001)
                        yield b""
                case "flood":
                    for _ in range(request["chunks"]):
                        state["made"] += 1
                        yield bytes(1000)
                case "state":
                    yield json.dumps(state | {"pid": os.getpid()}).encode()
        finally:
            state["closed"] += 1

    return work, {"pid": os.getpid(), "language": "parrot"}


def refuses():
    raise EngineUnavailable("The parrot has flown; buy another.", code="flown")


def fails():
    raise OSError("the file is damaged")


def dies():
    os.kill(os.getpid(), signal.SIGKILL)


def hangs():
    time.sleep(600)


def slow(*, gate: str):
    """Loads when the file `gate` is there."""
    while not Path(gate).exists():
        time.sleep(0.002)
    return parrot()


def chatters():
    """A library that prints would break a protocol on stdout."""
    print("hello", flush=True)
    sys.stdout.write("x" * 100_000)
    return parrot()


def garbles():
    """Something in it writes where it must not."""
    os.write(int(sys.argv[1]), bytes(8))
    return parrot()
