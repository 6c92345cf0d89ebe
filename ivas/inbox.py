"""The one queue into a session.

What happens inside (a transcript, a reply's end, a deadline) is posted and never
waits: there are only ever as many of those as tasks. What a client sends waits once
too much is queued, which stops the reading of its socket: backpressure, no loss.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

CAPACITY = 64
"""Client commands queued before the socket is no longer read: about a second of
microphone audio in frames of 20 ms."""


class Inbox(Generic[T]):
    """Many writers, one reader."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        return len(self._items)

    def post(self, item: T) -> None:
        """Add from inside; never waits."""
        self._items.append(item)
        self._filled.set()
        if len(self._items) >= self._capacity:
            self._room.clear()

    async def submit(self, item: T) -> None:
        """Add from a client; waits while the inbox is full."""
        while len(self._items) >= self._capacity:
            await self._room.wait()
        self.post(item)

    async def get(self) -> T:
        """The oldest item, waiting for one if need be."""
        while not self._items:
            self._filled.clear()
            await self._filled.wait()
        item = self._items.popleft()
        if len(self._items) < self._capacity:
            self._room.set()
        return item
