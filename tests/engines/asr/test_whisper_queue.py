"""Who may use the one shared Whisper next."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ivas.engines.asr.whisper_queue import Dropped, WhisperQueue
from ivas.errors import EngineError

pytestmark = pytest.mark.usefixtures("no_leaks")


class Work:
    """Calls that note their names; one named `hold` waits until it is let go."""

    def __init__(self) -> None:
        self.queue = WhisperQueue()
        self.done: list[str] = []
        self.held = threading.Event()
        self.let_go = threading.Event()

    def start(self, name: str, *, urgent: bool = False, **options) -> asyncio.Task[str]:
        return asyncio.create_task(self.queue.run(lambda: self._do(name), urgent=urgent, **options))

    def _do(self, name: str) -> str:
        if name == "hold":
            self.held.set()
            assert self.let_go.wait(5)
        self.done.append(name)
        return name


@pytest.fixture
async def work(eventually):
    """With a call that is running."""
    work = Work()
    work.holding = work.start("hold")
    await eventually(work.held.is_set)
    yield work
    work.let_go.set()
    await asyncio.gather(work.holding, return_exceptions=True)
    work.queue.close()


async def test_one_at_a_time_and_the_urgent_first(work):
    waiting = [
        work.start("partial 1"),
        work.start("partial 2"),
        work.start("final 1", urgent=True),
        work.start("partial 3"),
        work.start("final 2", urgent=True),
    ]
    await asyncio.sleep(0)
    work.let_go.set()
    await asyncio.gather(*waiting)
    order = ["hold", "final 1", "final 2", "partial 1", "partial 2", "partial 3"]
    assert work.done == order


async def test_who_is_not_wanted_any_more_is_dropped_before_it_starts(work):
    stale = work.start("stale", wanted=lambda: False)
    fresh = work.start("fresh", wanted=lambda: True)
    await asyncio.sleep(0)
    work.let_go.set()
    with pytest.raises(Dropped) as dropped:
        await stale
    assert dropped.value.code == "superseded"
    assert await fresh == "fresh"
    assert work.done == ["hold", "fresh"]


async def test_cancelling_returns_at_once_and_its_slot_stays_taken(work):
    work.holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work.holding
    following = work.start("next", urgent=True)
    for _ in range(5):
        await asyncio.sleep(0)
    assert (work.done, following.done()) == ([], False)
    work.let_go.set()
    await following
    assert work.done == ["hold", "next"]


async def test_cancelled_while_waiting_it_never_starts(work):
    waiting, other = work.start("waiting"), work.start("other")
    await asyncio.sleep(0)
    waiting.cancel()
    work.let_go.set()
    await other
    assert waiting.cancelled()
    assert work.done == ["hold", "other"]


async def test_tells_how_long_it_is_busy(work, eventually):
    await eventually(lambda: work.queue.busy_s > 0)
    work.let_go.set()
    await work.holding
    assert work.queue.busy_s == 0


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (ValueError("odd.\nTrace"), r"failed at this utterance \(odd\)", "engine_failed"),
        (MemoryError(), "ran out of memory", "out_of_memory"),
        (RuntimeError("CUDA failed with error out of memory"), "out of memory", "out_of_memory"),
        (RuntimeError("CUDA failed with error unknown"), "lost the NVIDIA card", "device_lost"),
        (RuntimeError("cuBLAS failed with status 7"), "lost the NVIDIA card", "device_lost"),
        (EngineError("Mine.", code="mine"), "Mine", "mine"),
    ],
)
async def test_what_goes_wrong_is_said_and_the_next_call_works(error, said, code):
    def fail() -> str:
        raise error

    queue = WhisperQueue()
    with pytest.raises(EngineError, match=said) as failed:
        await queue.run(fail, urgent=True)
    assert failed.value.code == code
    assert "\n" not in str(failed.value)
    assert await queue.run(lambda: "fine", urgent=False) == "fine"
    queue.close()


async def test_all_calls_run_on_one_thread_until_it_is_closed():
    def where() -> tuple[str, int]:
        return threading.current_thread().name, threading.get_ident()

    queue = WhisperQueue()
    places = {await queue.run(where, urgent=bool(n % 2)) for n in range(6)}
    assert [name for name, _ in places] == ["ivas-whisper"]
    queue.close()
    queue.close()
    assert (await queue.run(where, urgent=True))[0] == "ivas-whisper"
    queue.close()


async def test_closed_while_a_call_runs_it_ends_in_order(work):
    work.queue.close()
    following = work.start("next")
    await asyncio.sleep(0)
    work.let_go.set()
    await asyncio.gather(work.holding, following)
    assert work.done == ["hold", "next"]


async def test_no_more_threads_is_said_and_the_next_call_works(monkeypatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    queue = WhisperQueue()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(EngineError, match="no more threads"):
        await queue.run(lambda: "lost", urgent=True)
    monkeypatch.undo()
    assert await queue.run(lambda: "fine", urgent=True) == "fine"
    queue.close()


async def test_an_answer_after_the_loop_has_ended_is_nobodys(eventually):
    """The call ends on its thread, whatever became of who asked."""
    begun, let_go, ended = threading.Event(), threading.Event(), threading.Event()
    queue = WhisperQueue()

    def hold() -> None:
        begun.set()
        assert let_go.wait(5)
        ended.set()

    async def give_up() -> None:
        asking = asyncio.create_task(queue.run(hold, urgent=True))
        await asyncio.to_thread(begun.wait, 5)
        asking.cancel()

    await asyncio.to_thread(asyncio.run, give_up())
    let_go.set()
    await eventually(ended.is_set)
    queue.close()
