"""Sessions end: at their longest length, and when nobody is there."""

from __future__ import annotations

import asyncio

from virtual_time import virtual_time

from ivas.server.expiry import Expiry


@virtual_time
async def test_the_longest_length() -> None:
    expiry = Expiry(session_s=3600, idle_s=60)
    over = asyncio.create_task(expiry.over())
    while asyncio.get_running_loop().time() < 3599:
        await asyncio.sleep(30)
        expiry.touch()
    assert not over.done() or asyncio.get_running_loop().time() >= 3600
    assert "longest length of 60 minutes" in await over
    assert asyncio.get_running_loop().time() == 3600


@virtual_time
async def test_nobody_is_there() -> None:
    expiry = Expiry(session_s=3600, idle_s=60)
    over = asyncio.create_task(expiry.over())
    await asyncio.sleep(50)
    expiry.touch()
    await asyncio.sleep(59)
    assert not over.done()
    assert "Nothing has happened in this session for 1 min" in await over
    assert asyncio.get_running_loop().time() == 110
