"""The virtual-time loop: it jumps, it keeps order, and it refuses to hang."""

from __future__ import annotations

import asyncio
import time

import pytest
from virtual_time import Stuck, run, virtual_time


def test_an_hour_passes_at_once() -> None:
    async def main() -> float:
        await asyncio.sleep(3500)
        return asyncio.get_running_loop().time()

    began = time.perf_counter()
    assert run(main()) == pytest.approx(3500)
    assert time.perf_counter() - began < 5


@virtual_time
async def test_time_stands_still_while_anything_is_ready() -> None:
    loop = asyncio.get_running_loop()
    loop.call_later(0.001, lambda: None)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert loop.time() == 0


@virtual_time
async def test_timers_fire_in_order_at_their_time() -> None:
    loop = asyncio.get_running_loop()
    seen: list[tuple[str, float]] = []

    async def note(name: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        seen.append((name, loop.time()))

    async with asyncio.TaskGroup() as group:
        group.create_task(note("late", 0.3))
        group.create_task(note("early", 0.1))
    assert seen == [("early", pytest.approx(0.1)), ("late", pytest.approx(0.3))]


@virtual_time
async def test_timeouts_are_governed_too() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await asyncio.get_running_loop().create_future()
    assert asyncio.get_running_loop().time() == pytest.approx(60)


def test_waiting_for_what_never_comes_is_an_error_that_names_who_waits() -> None:
    cleaned_up = []

    async def waits_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.append(True)

    with pytest.raises(Stuck, match="waits_for_ever"):
        run(waits_for_ever())
    assert cleaned_up == [True]


def test_a_heartbeat_does_not_hide_a_hang() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def beat() -> None:
            loop.call_later(1, beat)

        beat()
        await asyncio.Event().wait()

    with pytest.raises(Stuck, match="not done after 100 virtual seconds"):
        run(main(), limit_s=100)


@virtual_time
async def test_the_decorator_passes_fixtures(tmp_path: object) -> None:
    assert tmp_path is not None


def test_errors_and_results_come_through() -> None:
    async def fails() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(fails())
