"""A server of our own: starts `ivas serve` as a process, waits until it is ready, ends it.

The process has our environment, so every IVAS_* setting reaches it.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO

import httpx

from ivas.errors import IvasError

POLL_S = 0.02
END_S = 5.0
"""How long a server may take to end before it is killed."""


@dataclass(frozen=True, slots=True)
class OwnServer:
    """A running server, ready."""

    url: str
    """ws://127.0.0.1:PORT"""
    pid: int
    ready_s: float
    """From the start of the process to /ready answering 200."""


@asynccontextmanager
async def own_server(
    *,
    prefix: Sequence[str] = (),
    timeout_s: float = 120.0,
    on_wait: Callable[[str], None] = lambda state: None,
) -> AsyncIterator[OwnServer]:
    """A server that lives as long as the context.

    `prefix`: a command to run it under, like `taskset -c 0`. `on_wait` is told what is
    being waited for. Raises IvasError with the server's own last words if it ends.
    """
    port = _free_port()
    command = [*prefix, sys.executable, "-m", "ivas", "serve", "--host", "127.0.0.1"]
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryDirectory() as empty:
        start_s = loop.time()
        process = await asyncio.create_subprocess_exec(
            *command,
            f"--port={port}",
            f"--keys-file={empty}/keys.json",  # ours alone: nobody else's keys close it
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            await _ready(process, f"http://127.0.0.1:{port}/ready", timeout_s, output, on_wait)
            yield OwnServer(f"ws://127.0.0.1:{port}", process.pid, loop.time() - start_s)
        finally:
            await _end(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _ready(
    process: asyncio.subprocess.Process,
    url: str,
    timeout_s: float,
    output: IO[bytes],
    on_wait: Callable[[str], None],
) -> None:
    state = reasons = "waiting for it to answer"
    try:
        async with asyncio.timeout(timeout_s), httpx.AsyncClient(trust_env=False) as client:
            while True:
                on_wait(state)
                if process.returncode is not None:
                    raise IvasError(f"The server ended while starting: {_last_words(output)}")
                try:
                    answer = await client.get(url)
                    if answer.status_code == 200:
                        return
                    state, reasons = _loading(answer)
                except httpx.TransportError:
                    pass  # not listening yet
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise IvasError(
            f"The server was not ready within {timeout_s:g} s ({reasons}); "
            "start it by hand to see more: ivas serve"
        ) from None


def _loading(answer: httpx.Response) -> tuple[str, str]:
    """Which engines are not ready yet, and why."""
    try:
        engines = answer.json()["engines"].items()
        waiting = [(kind, state) for kind, state in engines if not state["ready"]]
        names = ", ".join(f"{state['engine']} ({kind})" for kind, state in waiting)
        reasons = " ".join(state["reason"] for _, state in waiting)
    except (ValueError, KeyError, TypeError, AttributeError):
        return "loading", f"its /ready answers {answer.status_code}"
    return f"loading {names}", reasons


def _last_words(output: IO[bytes]) -> str:
    """The last line the server wrote: its sentence when it cannot start."""
    output.seek(0)
    lines = [line.strip() for line in output.read().decode(errors="replace").splitlines()]
    last = next((line for line in reversed(lines) if line), "it said nothing.")
    return last.removeprefix("ivas: ")


async def _end(process: asyncio.subprocess.Process) -> None:
    """End it by its pid, gently first."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(END_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
