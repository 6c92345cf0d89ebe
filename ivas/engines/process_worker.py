"""Leased worker processes: the program they run, and the messages on their sockets.

Started by `process.py` as `python -m ivas.engines.process_worker <fd> <factory>`.
It is single-threaded on purpose, so that it may fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import selectors
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

CONTROL = struct.Struct("!cI")
"""Server to template: LEASE (one end of a socketpair comes with it) or END, and its number."""
LEASE, END = b"L", b"E"
READY = b"R"
"""Template to server, once; a template that cannot load sends why instead, and exits."""

HEADER = struct.Struct("!II")
"""Of every message on a lease: ticket (0: no answer wanted), bytes that follow."""


def take_message(received: bytearray) -> tuple[int, bytes] | None:
    """Cut the first message off `received`: its ticket and payload; None: not all there."""
    if len(received) < HEADER.size:
        return None
    ticket, size = HEADER.unpack_from(received)
    end = HEADER.size + size
    if len(received) < end:
        return None
    payload = bytes(received[HEADER.size : end])
    del received[:end]
    return ticket, payload


class Connection:
    """A child's end of its lease. Blocking."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._received = bytearray()

    def receive(self) -> tuple[int, bytes] | None:
        """The next message: (ticket, payload), ticket 0 if no answer is wanted. None: the end."""
        while (message := take_message(self._received)) is None:
            data = self._socket.recv(65536)
            if not data:
                return None
            self._received += data
        return message

    def answer(self, ticket: int, payload: bytes) -> None:
        """Answer the message that came with `ticket`."""
        self._socket.sendall(HEADER.pack(ticket, len(payload)) + payload)


Serve = Callable[[Connection], None]


def run_template(control_fd: int, factory: str) -> None:
    """Load the model, then fork a child per lease until the server is gone."""
    # Shutting down is the server's business, whoever else the signal was sent to.
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what a killed child had forked comes here to be reaped
    control = socket.socket(fileno=control_fd)
    try:
        module, _, function = factory.partition(":")
        serve: Serve = getattr(importlib.import_module(module), function)()
    except Exception as error:
        traceback.print_exc()
        control.sendall(str(error).encode()[:4000])
        sys.exit(1)
    gc.collect()
    gc.freeze()  # the collector would touch, and so unshare, every page
    control.sendall(READY)

    # Reaping is done between the leases and not in a signal handler, so that no pid
    # can become free (and another's) between its look-up and its kill.
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    pids: dict[int, int] = {}  # of the child of each lease, until it is reaped
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        if woken in ready:
            woken.recv(4096)
            _reap(pids)
        if control not in ready:
            continue
        message, fds, *_ = socket.recv_fds(control, CONTROL.size, 1)
        if not message:
            break
        kind, number = CONTROL.unpack(message)
        if kind == LEASE:
            with socket.socket(fileno=fds[0]) as lease:
                try:
                    pid = os.fork()
                except OSError:  # no more processes: the server sees the lease end
                    traceback.print_exc()
                    continue
                if pid == 0:
                    _serve_and_exit(serve, lease, unwanted=[control, woken, wake, selector])
                _own_group(pid)
                pids[number] = pid
        elif number in pids:
            os.killpg(pids[number], signal.SIGKILL)
    for pid in pids.values():
        os.killpg(pid, signal.SIGKILL)


def _reap(pids: dict[int, int]) -> None:
    """Reap every process that has ended and forget its lease."""
    with contextlib.suppress(ChildProcessError):
        while ended := os.waitpid(-1, os.WNOHANG)[0]:
            for number in [number for number, pid in pids.items() if pid == ended]:
                del pids[number]


def _serve_and_exit(
    serve: Serve, lease: socket.socket, unwanted: list[socket.socket | selectors.BaseSelector]
) -> NoReturn:
    """Serve one lease, then end without any clean-up that belongs to the template."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what it forks is reaped by the system
        for inherited in unwanted:
            inherited.close()
        _own_group(0)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        serve(Connection(lease))
        code = 0
    except (BrokenPipeError, ConnectionResetError):  # the server closed the lease
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _own_group(pid: int) -> None:
    """Put a child (0: this one) in a group of its own, so that one kill takes all it forked.

    Called on both sides of the fork, because either may run first.
    """
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)


_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    """Linux prctl(2). Elsewhere nothing: there the end of the sockets does the same, later."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    run_template(int(sys.argv[1]), sys.argv[2])
