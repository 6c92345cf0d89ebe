"""A reply behind its gate, on the wire, and at its end."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from memory_client import LIMITS, MemoryClient, NotingLLM, fakes, talk
from virtual_time import virtual_time

from ivas import announcements as say
from ivas.conversation.events import Event, Failure, ReplyFailed, ReplyProgressed, ReplySent
from ivas.conversation.history import History
from ivas.generation import PROGRESS_EVERY_MS, Generation
from ivas.latency import Marks
from ivas.playout import BYTES_PER_MS
from ivas.reply import Production


class Making:
    """Stands for the producer: says two clauses and then ends as told."""

    def __init__(self, generation: Generation, end: Production | Exception) -> None:
        self._generation = generation
        self._end = end
        self.result = end if isinstance(end, Production) else Production()

    async def run(self) -> Production:
        playout, spoken = self._generation.playout, self._generation.spoken
        for clause in ("It is noon,", " and all is well."):
            spoken.begin(clause)
            playout.put_words(clause)
            spoken.add(1000)
            playout.put_sound(bytes(1000 * BYTES_PER_MS))
            spoken.end()
        if isinstance(self._end, Exception):
            raise self._end
        return self._end


class Scene:
    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.posted: list[Event] = []
        self.history = History()
        self.client = MemoryClient(lambda: loop.time() * 1000)
        view = say.ReplyView("resp_1", "item_1", 1, "audio", "", None)
        self.generation = Generation(
            view,
            instructions="",
            client=self.client,
            history=self.history,
            marks=Marks(lambda: loop.time() * 1000),
            post=self.posted.append,
            now_ms=lambda: loop.time() * 1000,
            lead_ms=300,
            starts_at_ms=0,
            reports_latency=False,
        )

    async def produce(self, end: Production | Exception | None = None) -> None:
        making = Making(self.generation, end or Production())
        await self.generation.produce(making)  # type: ignore[arg-type]

    @property
    def ends(self) -> list[Event]:
        return [event for event in self.posted if not isinstance(event, ReplyProgressed)]


@virtual_time
async def test_behind_the_gate_a_reply_leaves_no_trace() -> None:
    s = Scene()
    await s.produce()
    await asyncio.sleep(10)
    assert (s.client.told, s.ends, len(s.history)) == ([], [], 0)
    s.generation.end("turn_detected")
    assert s.client.told == []


@virtual_time
async def test_once_open_all_of_it_is_sent_and_the_end_is_posted_with_its_last_sound() -> None:
    s = Scene()
    s.generation.open()
    await s.produce()
    await asyncio.sleep(1)
    assert s.ends == []
    await asyncio.sleep(1)
    assert s.ends == [ReplySent(1, "completed", pytest.approx(2000))]
    s.generation.end("completed")
    [ended] = s.client.all(say.ReplyEnded)
    assert ended.text == "It is noon, and all is well."
    assert [item.status for item in s.history] == ["completed"]


@virtual_time
async def test_the_controller_hears_that_it_is_alive_but_not_of_every_chunk() -> None:
    s = Scene()
    s.generation.open()
    await s.produce()
    await asyncio.sleep(2)
    alive = [event for event in s.posted if isinstance(event, ReplyProgressed)]
    assert 1 < len(alive) <= 2000 / PROGRESS_EVERY_MS + 1


@virtual_time
async def test_a_fault_of_ours_is_a_failed_reply_after_its_sound() -> None:
    s = Scene()
    s.generation.open()
    await s.produce(RuntimeError("ours"))
    await asyncio.sleep(3)
    [failed] = s.ends
    assert isinstance(failed, ReplyFailed)
    assert failed.failure == Failure(
        "server_error", "The reply failed unexpectedly; please try again."
    )
    assert len(s.client.sound()) == 2000 * BYTES_PER_MS


@virtual_time
async def test_flushing_twice_cuts_once() -> None:
    s = Scene()
    s.generation.open()
    await s.produce()
    await asyncio.sleep(1.4)
    s.generation.flush()
    await asyncio.sleep(5)
    s.generation.flush()
    s.generation.end("turn_detected")
    [item] = s.history
    assert (item.text.strip(), item.cut, item.status) == ("It is noon, and", True, "incomplete")
    assert s.client.purged == [(1400, 1)]
    assert s.ends == []


@virtual_time
async def test_without_engines_that_answer_the_stall_is_noticed_by_the_controller() -> None:
    # The engines' own limits are far away: only the controller's deadline is left.
    reply = replace(LIMITS.reply, slow_after_s=1e6, first_token_s=1e6)
    limits = replace(LIMITS, reply=reply)
    llm = NotingLLM(first_ms=1e9)
    async with talk(fakes(llm=llm), limits=limits, reply_stall_ms=20_000) as t:
        await t.ask("Hello.")
        ended = await t.client.next(say.ReplyEnded)
        assert isinstance(ended.outcome, Failure)
        assert ended.outcome.code == "reply_timeout"
        assert t.client.at_ms(say.ReplyEnded) == pytest.approx(20_000, abs=2)
