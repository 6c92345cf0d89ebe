"""Factories that the worker processes of test_process.py load."""

from __future__ import annotations

import os
import signal


def echo():
    """Answers each question with all that was posted before it, and the question."""
    posted = bytearray()

    def serve(connection):
        while (message := connection.receive()) is not None:
            ticket, payload = message
            if ticket == 0:
                posted.extend(payload)
            elif payload == b"pid":
                connection.answer(ticket, str(os.getpid()).encode())
            elif payload == b"crash":
                os.kill(os.getpid(), signal.SIGKILL)
            elif payload == b"raise":
                raise ValueError("the test asked for it")
            elif payload == b"fork":
                pid = os.fork()
                if pid == 0:
                    signal.pause()
                connection.answer(ticket, str(pid).encode())
            elif payload != b"silence":
                connection.answer(ticket, bytes(posted) + payload)

    return serve


def cannot_load():
    raise OSError("the model file is damaged")


def dies_while_loading():
    os._exit(3)
