"""When a session has lasted long enough, and when nobody is there any more."""

from __future__ import annotations

import asyncio


class Expiry:
    """Watches one session; `touch` it whenever the client or its user does something.

    The microphone alone is no sign of life: an open page sends silence for days.
    """

    def __init__(self, *, session_s: float, idle_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._session_s = session_s
        self._idle_s = idle_s
        self._ends_at = self._loop.time() + session_s
        self.touch()

    def touch(self) -> None:
        self._idle_at = self._loop.time() + self._idle_s

    async def over(self) -> str:
        """Waits for the end; returns the sentence for the client."""
        while True:
            now = self._loop.time()
            if now >= self._ends_at:
                return (
                    f"This session has reached its longest length of {self._session_s / 60:g} "
                    "minutes; connect again to go on."
                )
            if now >= self._idle_at:
                return (
                    f"Nothing has happened in this session for {self._idle_s / 60:g} min, "
                    "so it was ended; connect again to go on."
                )
            await asyncio.sleep(min(self._ends_at, self._idle_at) - now)
