"""The same question again and again in one conversation, for measurements."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from .exchange import Exchange, ask, prepare
from .microphone import Question, open_microphone
from .wire import connect

PAUSE_S = 0.3
"""Silence between the end of a reply and the next question."""


async def exchanges(
    address: str,
    question: Question,
    *,
    turns: int,
    key: str | None = None,
    delay_s: float = 0.0,
    timeout_s: float = 30.0,
) -> AsyncGenerator[Exchange, None]:
    """Connect after `delay_s` and ask `turns` times, each after the reply was heard.

    Raises IvasError at the first turn that fails.
    """
    await asyncio.sleep(delay_s)
    async with connect(address, key=key) as connection:
        await prepare(connection)
        async with open_microphone(connection) as microphone:
            for _ in range(turns):
                exchange = await ask(connection, microphone, question, timeout_s=timeout_s)
                yield exchange
                now_s = asyncio.get_running_loop().time()
                await asyncio.sleep(exchange.playing_until_s - now_s + PAUSE_S)
