"""Servers to be called: `ivas serve` as an operator starts it, on a free port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conformance.driver import Caller, caller

ROOT = Path(__file__).resolve().parents[2]
START_S = 120.0
END_S = 20.0

FAKES = {
    "IVAS_VAD__ENGINE": "fake",
    "IVAS_ASR__ENGINE": "fake",
    "IVAS_LLM__ENGINE": "fake",
    "IVAS_TTS__ENGINE": "fake",
    "IVAS_FAKE__ASR_MS": "5",
    "IVAS_FAKE__LLM_FIRST_MS": "5",
    "IVAS_FAKE__LLM_TOKENS_PER_S": "1000",
    "IVAS_FAKE__TTS_FIRST_MS": "5",
    "IVAS_FAKE__TTS_RTF": "0",
    # 1.7 s of sound: sent at once at the usual speed, paced for seconds at the lowest.
    "IVAS_FAKE__REPLY": "One two three. Four five six.",
}
EMBEDDED = {
    "IVAS_VAD__ENGINE": "silero",
    "IVAS_ASR__ENGINE": "pocketsphinx",
    "IVAS_LLM__ENGINE": "builtin",
    "IVAS_TTS__ENGINE": "espeak",
    # Audio comes faster than real time, several callers' at once, on a machine that may be busy.
    "IVAS_ASR__TIMEOUT_S": "60",
}


@contextmanager
def server(**settings: str) -> Iterator[str]:
    """The URL of a server that is ready. Whatever it logs as a failure of its own fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ours = ("IVAS_", "TTS_", "OLLAMA_", "COLAB_")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ivas", "serve", "--host", "127.0.0.1", f"--port={port}",
             "--config", str(ROOT / "config.py")],
            cwd=ROOT, env=environ | settings | {"IVAS_OFFLINE": "1"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        watchdog = threading.Timer(START_S, process.kill)
        watchdog.start()
        assert process.stdout is not None
        try:
            ready = any("IVAS is ready" in line for line in process.stdout)
            watchdog.cancel()
            if ready:
                yield f"http://127.0.0.1:{port}"
        finally:
            watchdog.cancel()
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        log.seek(0)
        said = log.read()
        assert ready, said
        assert "Traceback" not in said, said


@pytest.fixture(scope="session")
def fakes() -> Iterator[str]:
    """A server on deterministic stand-ins with small delays."""
    with server(**FAKES) as url:
        yield url


@pytest.fixture(scope="session")
def locked() -> Iterator[str]:
    """The same behind the key `sk-right`."""
    with server(**FAKES, IVAS_SERVER__API_KEY="sk-right") as url:
        yield url


@pytest.fixture(scope="session")
def embedded() -> Iterator[str]:
    """A server on the engines every installation has."""
    with server(**EMBEDDED) as url:
        yield url


@pytest.fixture
async def ivas(fakes: str) -> AsyncIterator[Caller]:
    """A stock client, connected to a server on fakes."""
    async with caller(fakes) as one:
        yield one
