"""Blocking work on a thread, as a stream; and who goes next."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ivas.engines.threads import Slots, stream_from_thread
from ivas.errors import EngineError, EngineTimeout

pytestmark = pytest.mark.usefixtures("no_leaks")


def count_to(most):
    def produce(emit):
        for number in range(most):
            if not emit(number):
                return

    return produce


def stream(produce, slots=None, **options):
    return stream_from_thread(produce, name="counter", slots=slots or Slots(1), **options)


async def everything(produce, slots=None, **options):
    return [item async for item in stream(produce, slots, **options)]


async def turn_over():
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("most_chunks", [1, 3, 1000])
async def test_yields_what_the_thread_emits(most_chunks):
    assert await everything(count_to(100), most_chunks=most_chunks) == list(range(100))
    assert await everything(count_to(0), most_chunks=most_chunks) == []


async def test_the_work_is_done_on_a_thread_with_the_engines_name():
    seen = []
    await everything(lambda emit: seen.append(threading.current_thread().name))
    assert seen == ["ivas-counter"]


async def test_a_slow_listener_holds_the_producer_back(eventually):
    emitted = []

    def produce(emit):
        for number in range(100):
            emitted.append(number)
            if not emit(number):
                return

    numbers = stream(produce, most_chunks=3)
    await anext(numbers)
    # 1 taken, 3 waiting, and the one whose emit blocks
    await eventually(lambda: len(emitted) == 5)
    await anext(numbers)
    await eventually(lambda: len(emitted) == 6)
    await numbers.aclose()
    assert len(emitted) <= 7


async def test_closing_stops_the_producer_at_its_next_chunk(eventually):
    ended = threading.Event()

    def produce(emit):
        number = 0
        while emit(number):
            number += 1
        ended.set()

    numbers = stream(produce)
    assert await anext(numbers) == 0
    await numbers.aclose()
    await numbers.aclose()
    await eventually(ended.is_set)


async def test_the_slot_of_a_call_that_cannot_be_stopped_stays_counted():
    slots, release = Slots(1), threading.Event()

    def deaf(emit):
        emit("first")
        release.wait(5)

    try:
        chunks = stream(deaf, slots)
        await anext(chunks)
        async with asyncio.timeout(0.5):
            await chunks.aclose()
        waiting = asyncio.create_task(everything(count_to(3), slots))
        await turn_over()
        assert not waiting.done()
    finally:
        release.set()
    assert await waiting == [0, 1, 2]


async def test_a_cancelled_reader_gives_the_thread_back(eventually):
    slots, release = Slots(1), threading.Event()

    async def read():
        async for _ in stream(lambda emit: release.wait(5), slots):
            pass

    before = threading.active_count()
    reading = asyncio.create_task(read())
    await eventually(lambda: threading.active_count() > before)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    release.set()
    assert await everything(count_to(2), slots) == [0, 1]


async def test_an_error_of_the_thread_reaches_the_listener():
    def break_down(emit):
        emit(1)
        raise ZeroDivisionError("a secret of mathematics")

    numbers = stream(break_down)
    assert await anext(numbers) == 1
    with pytest.raises(
        EngineError, match=r"counter failed .*\(a secret of mathematics\)"
    ) as failed:
        await anext(numbers)
    assert isinstance(failed.value.__cause__, ZeroDivisionError)


async def test_an_engine_error_of_the_thread_stays_itself():
    def break_down(emit):
        raise EngineTimeout("too late")

    with pytest.raises(EngineTimeout, match="too late"):
        await everything(break_down)


async def test_no_thread_to_be_had_is_a_plain_error(monkeypatch):
    slots = Slots(1)

    def refuse(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(EngineError, match="no more threads"):
            await everything(count_to(3), slots)
    assert await everything(count_to(3), slots) == [0, 1, 2]


async def test_first_goes_before_later_and_each_in_its_order():
    slots, order = Slots(1), []
    await slots.acquire()

    async def take(name, priority):
        await slots.acquire(priority)
        order.append(name)
        slots.release()

    waiting = []
    for name, priority in [("a", "later"), ("b", "first"), ("c", "later"), ("d", "first")]:
        waiting.append(asyncio.create_task(take(name, priority)))
        await turn_over()
    slots.release()
    await asyncio.gather(*waiting)
    assert order == ["b", "d", "a", "c"]


async def test_a_cancelled_wait_loses_no_slot():
    slots = Slots(1)
    await slots.acquire()
    early = asyncio.create_task(slots.acquire())
    late = asyncio.create_task(slots.acquire())
    await turn_over()
    early.cancel()
    await turn_over()
    slots.release()
    await late
    unlucky = asyncio.create_task(slots.acquire())
    await turn_over()
    slots.release()  # hands the slot over ...
    unlucky.cancel()  # ... in the moment in which nobody wants it any more
    with pytest.raises(asyncio.CancelledError):
        await unlucky
    async with asyncio.timeout(0.5):
        await slots.acquire()


async def test_as_many_at_once_as_there_are_slots():
    slots = Slots(2)
    await slots.acquire()
    await slots.acquire()
    third = asyncio.create_task(slots.acquire())
    await turn_over()
    assert not third.done()
    slots.release()
    await third


def test_a_loop_that_ended_does_not_hold_the_thread():
    ended = threading.Event()

    def endless(emit):
        while emit(b""):
            pass
        ended.set()

    async def leave_it():
        loose.append(stream(endless, most_chunks=1_000_000))
        await anext(loose[0])

    loose = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave_it())
    loop.close()
    assert ended.wait(5)
