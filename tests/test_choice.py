"""Who serves: the best that is ready, asked anew each time."""

from __future__ import annotations

import asyncio

import pytest
from virtual_time import virtual_time

from ivas.choice import DOUBT_S, PROBE_EVERY_S, Change, Choice, Engines, improve
from ivas.engines import LLM, Status
from ivas.engines.fake import FakeASR, FakeLLM, FakeTTS, FakeVAD
from ivas.errors import EngineUnavailable


class Fickle(FakeLLM):
    """Can serve while `there`; notices by itself when it cannot."""

    def __init__(self, name: str, *, there: bool) -> None:
        super().__init__()
        self.name = name
        self.there = there
        self.starts = 0

    def status(self) -> Status:
        if not self.there:
            return Status(False, f"{self.name} is not there.")
        return super().status()

    async def start(self) -> None:
        self.starts += 1
        if not self.there:
            raise EngineUnavailable(f"{self.name} is not there; start it.")
        await super().start()


def llms(*candidates: Fickle) -> Choice[LLM]:
    return Choice[LLM]("llm", candidates)


def engines(choice: Choice[LLM]) -> Engines:
    return Engines(vad=FakeVAD(), asr=FakeASR(), llm=choice, tts=FakeTTS())


async def test_the_surest_serves_at_once_and_the_better_once_it_is_ready() -> None:
    best, sure = Fickle("best", there=False), Fickle("sure", there=True)
    choice = llms(best, sure)
    serving = engines(choice)
    changes: list[Change] = []
    serving.listeners.add(changes.append)
    await choice.start()
    assert (serving.llm, best.starts) == (sure, 0)  # nobody waited for it
    assert choice.missing == {"best": "best is being tried; look again soon."}
    await choice.probe()
    assert serving.llm is sure
    assert choice.missing == {"best": "best is not there; start it."}
    best.there = True
    await choice.probe()
    assert serving.llm is best
    assert choice.missing == {}
    assert changes == [Change("llm", "best", "sure", "best is ready and takes over from sure.")]
    await choice.probe()
    assert best.starts == 2  # what is ready is left alone


async def test_only_what_would_be_better_is_started() -> None:
    best, spare, sure = (Fickle(name, there=True) for name in ("best", "spare", "sure"))
    choice = llms(best, spare, sure)
    await choice.start()
    await choice.probe()
    assert choice.serving is best
    assert spare.starts == 0
    best.there = False
    assert choice.serving is sure
    await choice.probe()
    assert choice.serving is spare


async def test_one_that_did_not_answer_in_time_is_passed_over_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    best, sure = Fickle("best", there=True), Fickle("sure", there=True)
    choice = llms(best, sure)
    serving = engines(choice)
    await choice.start()
    await choice.probe()
    assert serving.llm is best
    clock = [1000.0]
    monkeypatch.setattr("ivas.choice.time.monotonic", lambda: clock[0])
    changes: list[Change] = []
    serving.listeners.add(changes.append)
    serving.doubt(best)
    assert serving.llm is sure
    assert changes[-1].reason.endswith("best cannot serve: it did not answer in time.")
    serving.doubt(sure)  # nothing can stand in for the last
    assert serving.llm is sure
    clock[0] += DOUBT_S
    assert serving.llm is best


async def test_what_is_broken_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    class Damaged(Fickle):
        async def start(self) -> None:
            raise EngineUnavailable("The file is damaged; get it again.", code="model_broken")

    choice = llms(Damaged("damaged", there=False), Fickle("sure", there=True))
    await choice.start()
    for _ in range(3):
        await choice.probe()
    assert caplog.text.count("The file is damaged") == 1
    absent = llms(Fickle("absent", there=False), Fickle("sure", there=True))
    await absent.start()
    await absent.probe()
    assert "absent" not in caplog.text


async def test_one_that_fails_at_work_is_replaced_before_the_next_reply() -> None:
    best, sure = Fickle("best", there=True), Fickle("sure", there=True)
    choice = llms(best, sure)
    serving = engines(choice)
    changes: list[Change] = []
    serving.listeners.add(changes.append)
    await choice.start()
    await choice.probe()
    assert serving.llm is best
    best.there = False
    assert serving.llm is sure
    assert choice.missing == {"best": "best is not there."}
    assert changes[-1].reason == "sure takes over, because best cannot serve: best is not there."
    best.there = True
    assert serving.llm is best


async def test_without_the_surest_another_starts_and_without_any_the_reason_is_told() -> None:
    best, sure = Fickle("best", there=True), Fickle("sure", there=False)
    choice = llms(best, sure)
    await choice.start()
    assert choice.serving is best
    with pytest.raises(EngineUnavailable, match="sure is not there; start it"):
        await llms(Fickle("best", there=False), sure).start()


async def test_a_candidate_that_breaks_does_not_end_the_probing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Fickle):
        async def start(self) -> None:
            raise ZeroDivisionError("a bug")

    better = Fickle("better", there=True)
    choice = llms(Broken("broken", there=False), better, Fickle("sure", there=True))
    await choice.start()
    await choice.probe()
    assert choice.serving is better
    assert "broken failed to start" in caplog.text


@virtual_time
async def test_what_is_missing_is_looked_for_again_and_again() -> None:
    best, sure = Fickle("best", there=False), Fickle("sure", there=True)
    serving = engines(llms(best, sure))
    await asyncio.gather(*(choice.start() for choice in serving.choices))
    looking = asyncio.create_task(improve(serving))
    await asyncio.sleep(PROBE_EVERY_S * 1.5)
    assert best.starts == 2
    best.there = True
    await asyncio.sleep(PROBE_EVERY_S)
    assert serving.llm is best
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


def test_a_single_engine_needs_no_choice() -> None:
    serving = Engines(vad=FakeVAD(), asr=FakeASR(), llm=FakeLLM(), tts=FakeTTS())
    assert list(serving.by_kind()) == ["vad", "asr", "llm", "tts"]
    assert len(list(serving)) == 4
