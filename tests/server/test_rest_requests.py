"""Places, arrivals and departures of requests, and work on threads that outlives its client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from virtual_time import virtual_time

from ivas.server.rest_errors import RequestRefused
from ivas.server.rest_requests import arriving, attended, off_loop


async def never() -> None:
    await asyncio.get_running_loop().create_future()


class Client:
    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def test_work_ends_with_its_client() -> None:
    client, ended = Client(), False

    async def work() -> None:
        nonlocal ended
        try:
            client.gone.set()
            await never()
        finally:
            ended = True

    await attended(client.receive, work())
    assert ended


async def test_what_goes_wrong_is_raised() -> None:
    async def work() -> None:
        raise ValueError("so")

    with pytest.raises(ValueError, match="so"):
        await attended(Client().receive, work())


async def test_when_the_server_ends_so_does_the_work() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await never()
        finally:
            ended.set()

    serving = asyncio.create_task(attended(Client().receive, work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert ended.is_set()
    assert len(asyncio.all_tasks()) == 1


@virtual_time
async def test_a_request_that_does_not_arrive() -> None:
    with pytest.raises(RequestRefused) as caught:
        await arriving(never(), within_s=120)
    assert caught.value.refusal.status == 408
    assert asyncio.get_running_loop().time() == 120


async def test_a_slot_stays_taken_until_the_thread_ends() -> None:
    slots, going_on, told = asyncio.Semaphore(1), threading.Event(), threading.Event()
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(wanted: Callable[[], bool]) -> bool:
        loop.call_soon_threadsafe(begun.set)
        assert going_on.wait(10)
        if not wanted():
            told.set()
        raise ValueError("nobody hears this")

    first = asyncio.create_task(off_loop(slots, work))
    await begun.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert first.cancelled()  # at once
    assert slots.locked()  # but it still works
    going_on.set()
    assert await off_loop(slots, lambda wanted: wanted()) is True
    assert told.is_set()
    assert not slots.locked()


async def test_an_error_of_the_thread_is_raised() -> None:
    slots = asyncio.Semaphore(1)

    def work(wanted: Callable[[], bool]) -> None:
        raise ValueError("so")

    with pytest.raises(ValueError, match="so"):
        await off_loop(slots, work)
    assert not slots.locked()
