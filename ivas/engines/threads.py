"""Blocking work on a thread, handed to the event loop chunk by chunk.

For engines whose native calls block but release the GIL (espeak, CTranslate2).
What holds the GIL belongs in a worker process: `engines/process.py`.

A call that has begun cannot be stopped from outside. So a cancelled stream
returns at once, its producer is told at its next chunk, and its slot stays
counted until the call has really ended: cancelling never overloads a model.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import TypeVar

from ivas.engines import Priority
from ivas.errors import EngineError, IvasError

T = TypeVar("T")

Emit = Callable[[T], bool]
"""Hands over one chunk; waits while the queue is full. False: nobody listens, stop."""


class Slots:
    """How many calls a shared model may run at once, and who goes next.

    Fair: first come, first served, but every `first` goes before any `later`.
    Used from one event loop.
    """

    def __init__(self, capacity: int = 1) -> None:
        self._free = capacity
        self._waiting: dict[Priority, deque[asyncio.Future[None]]] = {
            "first": deque(),
            "later": deque(),
        }

    async def acquire(self, priority: Priority = "later") -> None:
        """Wait for a slot; it is kept until `release`. Cancellable."""
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        queue = self._waiting[priority]
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                queue.remove(turn)
            else:  # the slot was handed over in the same moment: pass it on
                self.release()
            raise

    def release(self) -> None:
        """Give one slot to the next in line."""
        for queue in self._waiting.values():  # "first" stands before "later"
            for turn in queue:
                if not turn.done():
                    queue.remove(turn)
                    turn.set_result(None)
                    return
        self._free += 1


@dataclass(frozen=True, slots=True)
class _End:
    """The producer has returned, or raised `error`."""

    error: Exception | None


async def stream_from_thread(
    produce: Callable[[Emit[T]], None],
    *,
    name: str,
    slots: Slots,
    priority: Priority = "later",
    most_chunks: int = 8,
) -> AsyncGenerator[T, None]:
    """Run `produce(emit)` on a thread of its own and yield what it emits.

    At most `most_chunks` wait for the consumer; then `emit` blocks the producer.
    `name` is the engine's, for the thread and for error sentences.
    Raises EngineError when the producer raised (its own, if it was one).
    """
    await slots.acquire(priority)
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[T | _End] = asyncio.Queue()  # bounded by `room`
    room = threading.Semaphore(most_chunks)
    unwanted = threading.Event()

    def tell_loop(action: Callable[..., None], *arguments: object) -> None:
        try:
            loop.call_soon_threadsafe(action, *arguments)
        except RuntimeError:  # the loop is closed: nobody is left to tell
            unwanted.set()

    def emit(chunk: T) -> bool:
        room.acquire()
        if not unwanted.is_set():
            tell_loop(chunks.put_nowait, chunk)
        return not unwanted.is_set()

    def run() -> None:
        error = None
        try:
            produce(emit)
        except Exception as failure:
            error = failure
        tell_loop(chunks.put_nowait, _End(error))
        tell_loop(slots.release)

    try:
        threading.Thread(target=run, name=f"ivas-{name}", daemon=True).start()
    except RuntimeError as error:
        slots.release()
        raise EngineError(
            f"{name} cannot work because the system gives out no more threads; "
            "try again when the server is less busy."
        ) from error
    try:
        while not isinstance(chunk := await chunks.get(), _End):
            room.release()
            yield chunk
    finally:
        unwanted.set()
        room.release()  # wakes a producer that waits for room
    if isinstance(chunk.error, IvasError):
        raise chunk.error
    if chunk.error is not None:
        raise EngineError(
            f"{name} failed while working ({chunk.error}); try again, and if it stays so "
            "restart the server."
        ) from chunk.error
