"""An event loop on which waiting costs nothing: minutes of conversation in milliseconds.

While anything is ready, time stands still; when nothing is, it jumps to the next
timer. When there is no timer either the code under test would wait for ever: that
raises `Stuck`, and so does running past `limit_s`.

Only what waits on this loop's own timers and futures is governed. Real sockets,
subprocesses and threads answer in real time, which stands still here: test those
on an ordinary loop.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


class Stuck(AssertionError):
    """Nothing can ever happen any more, or not before the limit."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`time()` begins at 0 and is in seconds, like that of every loop."""

    def __init__(self, limit_s: float = 3600.0) -> None:
        self._now_s = 0.0
        self._limit_s = limit_s
        super().__init__(_JumpingSelector(self._jump))

    def time(self) -> float:
        return self._now_s

    def _jump(self, seconds: float | None) -> None:
        if seconds is None:
            raise Stuck(
                f"all wait, and no timer is left, at {self._now_s:.3f} s: {self._waiting()}"
            )
        self._now_s += seconds
        if self._now_s > self._limit_s:
            raise Stuck(f"not done after {self._limit_s:.0f} virtual seconds: {self._waiting()}")

    def _waiting(self) -> str:
        names = (getattr(t.get_coro(), "__qualname__", "?") for t in asyncio.all_tasks(self))
        return ", ".join(sorted(names)) or "no task"


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits while only the loop's own wake-up socket is registered."""

    def __init__(self, jump: Callable[[float | None], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None and len(self.get_map()) > 1:
            return super().select(None)
        self._jump(timeout)
        return []


def run(main: Coroutine[Any, Any, T], *, limit_s: float = 3600.0) -> T:
    """`asyncio.run` on virtual time. Raises Stuck instead of waiting for ever."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(limit_s)) as runner:
        return runner.run(main)


def virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Decorate an async test: it becomes a plain one that runs on virtual time."""

    @functools.wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(test(*args, **kwargs))

    return wrapper
