"""`ivas` as an operator starts it: a process of its own, and what it says in the terminal.

`install` says what is different on that machine: packages that are not there, or a line of
Python to run before anything else.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 120.0
"""Only ever used up by a test that fails."""
END_S = 20.0

_OURS = ("IVAS_", "TTS_", "OLLAMA_", "COLAB_", "HF_", "ASR_", "LLM_", "COQUI_")
_MISSING = """\
import importlib.machinery
real = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {names!r} else real(name, path, target)
importlib.machinery.PathFinder.find_spec = find_spec
"""


def install(directory: Path, *, without: Sequence[str] = (), run: str = "") -> dict[str, str]:
    """An environment in which the packages `without` are not installed.

    `run` is executed first in every process of Python. `directory` must live as long as they.
    """
    directory.mkdir(parents=True, exist_ok=True)
    code = (_MISSING.format(names=set(without)) if without else "") + run
    (directory / "sitecustomize.py").write_text(code, encoding="utf-8")
    paths = (str(directory), str(ROOT / "tests"), str(ROOT))
    return {"PYTHONPATH": os.pathsep.join(paths)}


@dataclass(slots=True)
class Terminal:
    """A running process: `out` is what it has printed so far, `err` what it complained of."""

    process: asyncio.subprocess.Process
    url: str
    out: str = ""
    err: str = ""
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, text: str) -> str:
        """Wait until it has printed this; the line it stands in."""
        async with asyncio.timeout(WAIT_S):
            while text not in self.out:
                assert self.process.returncode is None or not self._more.is_set(), self.err
                self._more.clear()
                await self._more.wait()
        return next(line for line in self.out.splitlines() if text in line)

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        async with asyncio.timeout(WAIT_S):
            return await self.process.wait()

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    async def read(self, stream: asyncio.StreamReader, name: str) -> None:
        while data := await stream.read(65536):
            setattr(self, name, getattr(self, name) + data.decode())
            self._more.set()
        self._more.set()


@asynccontextmanager
async def ivas(*arguments: str, **environment: str) -> AsyncIterator[Terminal]:
    """`ivas` with these arguments, and no settings but those of `environment`."""
    home = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ivas", *arguments,
        cwd=ROOT, env=home | environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    terminal = Terminal(process, "")
    reading = [
        asyncio.create_task(terminal.read(process.stdout, "out")),
        asyncio.create_task(terminal.read(process.stderr, "err")),
    ]
    try:
        yield terminal
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), END_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        await asyncio.gather(*reading)


@asynccontextmanager
async def serve(**environment: str) -> AsyncIterator[Terminal]:
    """`ivas serve` on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = str(ROOT / "config.py")
    async with ivas("serve", f"--port={port}", "--config", config, **environment) as terminal:
        terminal.url = f"http://127.0.0.1:{port}"
        yield terminal
