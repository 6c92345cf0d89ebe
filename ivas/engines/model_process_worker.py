"""One loaded model in a process of its own: the program it runs, and its messages.

Started by `model_process.py` as `python -m ivas.engines.model_process_worker <fd> <factory>`.
The framing is that of `process_worker.py`: a ticket, a size, so many bytes.

The main thread works. A second one reads the socket, so that a cancel is known at once
and the process ends with its server even while the model computes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from ivas.engines.process_worker import Connection
from ivas.errors import EngineError, IvasError

READY, FAILED, DATA, ALIVE, END = b"R", b"F", b"D", b"A", b"E"
"""First byte of every message to the server. READY: the model is loaded, with what it says
of itself as JSON. FAILED: a sentence and a code, as JSON. DATA: a chunk. ALIVE: no chunk
yet, but no hang either. END: no more chunks."""
ALIVE_EVERY_S = 1.0
NO_TICKET = 0
"""Of the first message to the worker (the arguments of its factory) and of its answer, and
of every cancel, which holds the ticket it is for."""
CRASHED = "engine_crashed"
"""Code of an EngineError after which the model is not to be trusted: the worker ends."""

Work = Callable[[dict[str, Any]], Iterator[bytes]]
"""Does one request: yields chunks, and b"" wherever it may be cancelled meanwhile."""
Factory = Callable[..., tuple[Work, dict[str, Any]]]
"""Loads the model; gives what works with it and what it says of itself."""


class _Inbox:
    """What the server has sent: requests in order, and the newest that is unwanted."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._unwanted = 0
        self.requests: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()

    def unwanted(self, ticket: int) -> bool:
        return ticket <= self._unwanted  # tickets only ever grow

    def read(self) -> None:
        """Read until the server is gone, then end this process."""
        with contextlib.suppress(OSError):
            while (message := self._connection.receive()) is not None:
                ticket, payload = message
                if ticket == NO_TICKET:
                    self._unwanted = max(self._unwanted, int(payload))
                else:
                    self.requests.put((ticket, payload))
        os._exit(0)


def run(fd: int, factory: str) -> None:
    """Load the model, then do one request after the other until the server is gone."""
    # Shutting down is the server's business, whoever else the signal was sent to.
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    os.set_inheritable(fd, False)  # nothing it starts may keep the socket open
    connection = Connection(socket.socket(fileno=fd))
    first = connection.receive()
    if first is None:
        return
    inbox = _Inbox(connection)
    threading.Thread(target=inbox.read, name="ivas-inbox", daemon=True).start()
    try:
        module, _, function = factory.partition(":")
        load: Factory = getattr(importlib.import_module(module), function)
        work, said = load(**json.loads(first[1]))
    except Exception as error:
        connection.answer(NO_TICKET, FAILED + _failure(error))
        sys.exit(1)
    connection.answer(NO_TICKET, READY + json.dumps(said).encode())
    while True:
        _do(work, *inbox.requests.get(), connection, inbox)


def _do(work: Work, ticket: int, request: bytes, connection: Connection, inbox: _Inbox) -> None:
    """One request, from its first chunk to its END or FAILED."""
    last_sign_s = time.monotonic()
    try:
        chunks = work(json.loads(request))
        for chunk in chunks:
            if inbox.unwanted(ticket):
                break
            if chunk or time.monotonic() - last_sign_s > ALIVE_EVERY_S:
                connection.answer(ticket, DATA + chunk if chunk else ALIVE)
                last_sign_s = time.monotonic()
        del chunks  # closes it: its clean-up belongs to this request
    except Exception as error:
        connection.answer(ticket, FAILED + _failure(error))
        if isinstance(error, EngineError) and error.code == CRASHED:
            sys.exit(1)
    else:
        connection.answer(ticket, END)


def _failure(error: Exception) -> bytes:
    """Its message and code as JSON. Only an error of ours has a code, and no trace."""
    if isinstance(error, IvasError):
        message, code = str(error), getattr(error, "code", "engine_failed")
    else:
        traceback.print_exc()
        message, code = f"{type(error).__name__}: {error}"[:500], ""
    return json.dumps({"message": message, "code": code}).encode()


if __name__ == "__main__":
    run(int(sys.argv[1]), sys.argv[2])
