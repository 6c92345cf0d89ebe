"""What the tests of all engines measure with: a heartbeat, a leak check, the clips."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from ivas.engines import SAMPLE_RATE_HZ, Samples

MOST_STALL_MS = 10
CLIPS = Path(__file__).parents[1] / "clips"

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.fixture
def clip() -> Callable[[str], Samples]:
    """Reads a clip of tests/clips by its name without `.wav`."""

    def read(name: str) -> Samples:
        with wave.open(str(CLIPS / f"{name}.wav")) as file:
            assert (file.getframerate(), file.getnchannels()) == (SAMPLE_RATE_HZ, 1)
            pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        return pcm.astype(np.float32) / 32768

    return read


async def _eventually(condition: Callable[[], bool]) -> None:
    """Wait for what another process or thread does; fail after 5 s."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - nothing in this process could set an event
            await asyncio.sleep(0.002)


@pytest.fixture
def eventually() -> Eventually:
    return _eventually


async def _longest_stall_ms(work: Callable[[], Awaitable[object]]) -> float:
    """The longest time a second task was kept from running while `work()` ran."""
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest = max(longest, (now - last) * 1000 - 1)
            last = now

    heart = asyncio.create_task(beat())
    await asyncio.sleep(0)
    await work()
    await asyncio.sleep(0.002)
    heart.cancel()
    return longest


@pytest.fixture
def never_stalls() -> Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]:
    """Fails if every run of `work()` keeps the loop from running for more than 10 ms.

    A busy machine can stall anybody, an engine that stalls does it in every run.
    """

    async def check(work: Callable[[], Awaitable[object]]) -> None:
        stalls = []
        for _ in range(8):
            stalls.append(await _longest_stall_ms(work))
            if stalls[-1] <= MOST_STALL_MS:
                return
        raise AssertionError(f"the event loop stalled for {stalls} ms")

    return check


@pytest.fixture
async def no_leaks() -> AsyncIterator[None]:
    """Fails if the test leaves a thread, a child process or a file descriptor behind."""
    await asyncio.to_thread(int)  # the loop's own pool, which stays
    me = psutil.Process()

    def held() -> tuple[int, int, int]:
        # The loop's pool grows when it likes and ends with the loop: not a leak of an engine.
        threads = [t for t in threading.enumerate() if not t.name.startswith("asyncio")]
        return len(threads), len(me.children(recursive=True)), me.num_fds()

    gc.collect()
    before = held()
    yield
    gc.collect()
    try:
        await _eventually(lambda: all(a <= b for a, b in zip(held(), before, strict=True)))
    except TimeoutError:
        raise AssertionError(f"threads, children, files: {before} before, {held()} after") from None
