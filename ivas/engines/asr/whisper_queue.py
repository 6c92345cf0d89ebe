"""Who may use the one shared Whisper next: a question at a time, the urgent ones first.

A call that has begun cannot be stopped. So a cancelled question returns at once, and
the next in line waits until the call has really ended. All calls run on one thread
that stays: starting one blocks the event loop until the system gives it a core, which
on a busy machine takes more than 10 ms.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

from ivas.engines.asr.whisper_model import failure
from ivas.engines.threads import Slots
from ivas.errors import EngineError, IvasError

T = TypeVar("T")

Call = Callable[[], None]


class Dropped(EngineError):
    """A question was given up before its turn came, or while it was worked on."""

    def __init__(self) -> None:
        super().__init__(
            "This transcript is not needed any more, a newer one was asked for; wait for that.",
            code="superseded",
        )


class WhisperQueue:
    """One call at a time. Used from one event loop."""

    def __init__(self) -> None:
        self._slots = Slots(1)
        self._calls: SimpleQueue[Call | None] | None = None  # to the thread; None: none runs
        self._began: float | None = None

    @property
    def busy_s(self) -> float:
        """How long the call that is running has been running; 0 if none is."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    async def run(
        self, work: Callable[[], T], *, urgent: bool, wanted: Callable[[], bool] = lambda: True
    ) -> T:
        """What `work()` returns, called on the thread when its turn comes.

        Raises EngineError: `Dropped` if by then `wanted()` is False.
        """
        await self._slots.acquire("first" if urgent else "later")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(outcome: T | IvasError) -> None:
            self._slots.release()
            if answer.done():  # cancelled: nobody waits
                return
            if isinstance(outcome, IvasError):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)

        def call() -> None:
            self._began = time.monotonic()
            outcome: T | IvasError
            try:
                outcome = work() if wanted() else Dropped()
            except IvasError as error:
                outcome = error
            except Exception as error:
                outcome = failure(error)
                outcome.__cause__ = error
            self._began = None
            with suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                loop.call_soon_threadsafe(settle, outcome)

        try:
            self._thread_calls().put(call)
        except BaseException:
            self._slots.release()
            raise
        return await answer

    def close(self) -> None:
        """Let the thread end, as soon as the call that is running has. `run` starts another."""
        if self._calls is not None:
            self._calls.put(None)
            self._calls = None

    def _thread_calls(self) -> SimpleQueue[Call | None]:
        """The way to the thread, which is started if there is none."""
        if self._calls is None:
            calls: SimpleQueue[Call | None] = SimpleQueue()
            thread = threading.Thread(target=_work, args=(calls,), name="ivas-whisper", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise EngineError(
                    "Whisper cannot work because the system gives out no more threads; try again "
                    "when the server is less busy."
                ) from error
            self._calls = calls
        return self._calls


def _work(calls: SimpleQueue[Call | None]) -> None:
    while (call := calls.get()) is not None:
        call()
        del call  # it holds on to the model
