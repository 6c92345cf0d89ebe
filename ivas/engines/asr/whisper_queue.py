"""Who may use the one shared Whisper next: a question at a time, the urgent ones first.

A call that has begun cannot be stopped. So a cancelled question returns at once, and
the next in line waits until the call has really ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import aclosing
from typing import TypeVar

from ivas.engines.asr.whisper_model import failure
from ivas.engines.threads import Emit, Slots, stream_from_thread
from ivas.errors import EngineError, IvasError

T = TypeVar("T")


class Dropped(EngineError):
    """A question was given up before its turn came, or while it was worked on."""

    def __init__(self) -> None:
        super().__init__(
            "This transcript is not needed any more, a newer one was asked for; wait for that.",
            code="superseded",
        )


class WhisperQueue:
    """One call at a time, each on a thread."""

    def __init__(self) -> None:
        self._slots = Slots(1)
        self._began: float | None = None

    @property
    def busy_s(self) -> float:
        """How long the call that is running has been running; 0 if none is."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    async def run(
        self, work: Callable[[], T], *, urgent: bool, wanted: Callable[[], bool] = lambda: True
    ) -> T:
        """What `work()` returns, called on a thread when its turn comes.

        Raises EngineError: `Dropped` if by then `wanted()` is False.
        """

        def produce(emit: Emit[T]) -> None:
            if not wanted():
                raise Dropped
            self._began = time.monotonic()
            try:
                emit(work())
            except IvasError:
                raise
            except Exception as error:
                raise failure(error) from error
            finally:
                self._began = None

        answers = stream_from_thread(
            produce, name="whisper", slots=self._slots, priority="first" if urgent else "later"
        )
        async with aclosing(answers):
            return await anext(answers)
