"""The ears of a session: audio into frames, utterances and transcripts, whatever the engines do."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from memory_client import SILENCE, VOICE
from virtual_time import virtual_time

from ivas.conversation.events import Event, Failure, Transcribed, TranscriptionFailed
from ivas.engines import Samples, Transcript
from ivas.engines.fake import FakeASR, FakeVAD
from ivas.listening import DEAF_EVERY_SAMPLES, Ears


class Hearing:
    """Ears and what came of them."""

    def __init__(self, vad: Any = None, *, timeout_s: float = 2.0) -> None:
        self.posted: list[Event] = []
        self.captions: list[str] = []
        self.deaf: list[Failure] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.ears = Ears(
            vad=vad or FakeVAD(),
            post=self.posted.append,
            spawn=self._spawn,
            on_caption=lambda number, delta: self.captions.append(delta),
            on_deaf=self.deaf.append,
            timeout_s=timeout_s,
            preroll_ms=2_000,
        )

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(coroutine))
        return self.tasks[-1]

    def hear(self, pcm: bytes, *, detect: bool = True) -> list[float]:
        return [frame.probability for frame in self.ears.hear(pcm, detect=detect)]

    async def said(self, asr: Any) -> Event:
        """What the ASR answers for half a second of voice."""
        self.ears.listen(1, asr, 0)
        self.hear(VOICE * 25)
        self.ears.transcribe(1, 7)
        await asyncio.sleep(3)
        self.ears.close(1)
        [answer] = self.posted
        return answer


@virtual_time
async def test_voice_is_voice_and_silence_is_silence() -> None:
    h = Hearing()
    assert h.hear(SILENCE * 16) == [0.0] * 10
    assert h.hear(VOICE * 16) == [1.0] * 10
    assert h.hear(VOICE * 16, detect=False) == [0.0] * 10
    assert h.ears.position == 3 * 320 * 16


@virtual_time
async def test_an_utterance_has_its_preroll_and_its_length() -> None:
    h = Hearing()
    asr = FakeASR()
    h.hear(SILENCE * 50)
    h.hear(VOICE * 10)
    h.ears.listen(1, asr, h.ears.position - 500 * 16)
    h.hear(VOICE * 10)
    assert h.ears.close(1) == pytest.approx(0.7)
    assert h.ears.close(1) == 0.0
    assert asr.open_utterances == 0


@virtual_time
async def test_captions_come_while_the_user_speaks_and_never_two_at_once() -> None:
    h = Hearing()
    h.ears.captions = True
    h.ears.listen(1, FakeASR(ms=100), 0)
    for _ in range(100):
        h.hear(VOICE)
        await asyncio.sleep(0.02)
    assert h.captions == ["what time is it"]
    assert len(h.tasks) == 5  # one for every 400 ms, the last just begun


@virtual_time
async def test_the_final_transcript_does_not_wait_for_a_partial() -> None:
    h = Hearing()
    h.ears.captions = True
    h.ears.listen(1, FakeASR(ms=1000), 0)
    h.hear(VOICE * 30)
    await asyncio.sleep(0.5)
    h.ears.transcribe(1, 7)
    await asyncio.sleep(0)
    assert h.tasks[0].cancelling()
    await asyncio.sleep(1)
    assert h.posted == [Transcribed(1, 7, "what time is it")]


@virtual_time
async def test_only_what_a_reply_waits_for_is_urgent() -> None:
    asked: list[bool] = []

    class Recogniser(Asr):
        async def transcript(self, *, urgent: bool = True) -> Any:
            asked.append(urgent)
            return Transcript("yes", 1, 1)

    h = Hearing()
    h.ears.captions = True
    h.ears.listen(1, Recogniser(""), 0)
    h.hear(VOICE * 25)
    await asyncio.sleep(0)
    h.ears.transcribe(1, 7)
    await asyncio.sleep(0)
    h.ears.close(1)
    assert asked == [False, True]


@virtual_time
async def test_unknown_utterances_are_left_alone() -> None:
    h = Hearing()
    h.ears.transcribe(4, 1)
    h.ears.close_all()
    assert (h.tasks, h.posted) == ([], [])


# --- engines that break their promises ---------------------------------------


class Detector:
    def __init__(self, answers: Any) -> None:
        self._answers = answers

    def probability(self, frame: Samples) -> float:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return float(answer)


class BrokenVAD(FakeVAD):
    """Answers what it is told to; `opens` False: not even that."""

    def __init__(self, *answers: object, opens: bool = True) -> None:
        super().__init__()
        self._detector = Detector(iter(answers))
        self.opens = opens

    def open(self) -> Any:
        if not self.opens:
            raise RuntimeError("no memory left")
        return self._detector


@virtual_time
async def test_what_is_no_probability_is_silence_and_is_said_once_in_a_while() -> None:
    answers = [1.0, math.nan, math.inf, -0.1, 1.1, RuntimeError("gone"), 1.0]
    h = Hearing(BrokenVAD(*answers))
    assert h.hear(VOICE * 12)[:7] == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    assert [failure.code for failure in h.deaf] == ["vad_failed"]


@virtual_time
async def test_a_detector_that_never_opens_is_tried_again_and_told_now_and_then() -> None:
    vad = BrokenVAD(*[1.0] * 9999, opens=False)
    h = Hearing(vad)
    for _ in range(25 * 50):
        h.hear(VOICE)
    assert len(h.deaf) == math.ceil(25 * 16_000 / DEAF_EVERY_SAMPLES)
    vad.opens = True
    assert h.hear(VOICE * 8) == [1.0] * 5


class Asr(FakeASR):
    """Breaks where it is told to."""

    def __init__(self, where: str, answer: object = None) -> None:
        super().__init__()
        self.where = where
        self.answer = answer
        self.closed = 0

    def open(self, **how: Any) -> Any:
        if self.where == "open":
            raise RuntimeError("cannot open")
        return self

    def push(self, samples: Samples) -> None:
        if self.where == "push":
            raise RuntimeError("cannot push")

    async def transcript(self, *, urgent: bool = True) -> Any:
        return self.answer

    def close(self) -> None:
        self.closed += 1
        if self.where == "close":
            raise RuntimeError("cannot close")


@pytest.mark.parametrize("where", ["open", "push"])
def test_a_recogniser_that_breaks_is_a_lost_transcript(where: str) -> None:
    @virtual_time
    async def check() -> None:
        asr = Asr(where)
        answer = await Hearing().said(asr)
        assert isinstance(answer, TranscriptionFailed)
        assert answer.failure.code == "asr_failed"
        assert asr.closed == (where == "push")

    check()


@virtual_time
async def test_a_recogniser_that_cannot_close_holds_nobody_up() -> None:
    asr = Asr("close", Transcript("yes", 1, 1))
    assert await Hearing().said(asr) == Transcribed(1, 7, "yes")
    assert asr.closed == 1


@pytest.mark.parametrize("answer", [None, "text", Transcript(None, 1, 1)])  # type: ignore[arg-type]
def test_an_answer_that_is_no_transcript_is_a_lost_transcript(answer: object) -> None:
    @virtual_time
    async def check() -> None:
        h = Hearing()
        h.ears.captions = True
        got = await h.said(Asr("", answer))
        assert isinstance(got, TranscriptionFailed)
        assert [task.exception() for task in h.tasks if not task.cancelled()] == [None]

    check()


@virtual_time
async def test_half_of_a_surrogate_pair_is_not_passed_on() -> None:
    answer = await Hearing().said(FakeASR(transcript="fine \ud83d"))
    assert answer == Transcribed(1, 7, "fine ?")


@virtual_time
async def test_a_recogniser_that_hangs_is_given_up() -> None:
    answer = await Hearing(timeout_s=1).said(FakeASR(ms=60_000))
    assert answer == TranscriptionFailed(
        1,
        7,
        Failure(
            "asr_timeout", "The speech recogniser did not answer in time; please say it again."
        ),
    )
