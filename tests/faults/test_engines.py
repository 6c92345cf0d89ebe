"""Every engine fails in every way at every point of a turn: what the user is told, and when.

Each case is one conversation on virtual time: a turn in which the fault strikes, then
one in which it does not. The client must get exactly the outcome the table names, no
later than the stage's own deadline, keep what was said, and talk on; a session beside
it must notice nothing. `talk()` itself fails on anything left behind.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from memory_client import LIMITS, Talk, fakes, talk
from virtual_time import virtual_time

from ivas import announcements as say
from ivas.choice import Engines
from ivas.conversation.events import Failure
from ivas.engines.fake import DEFAULT_REPLY, FakeASR, FakeLLM, FakeTTS, FakeVAD, Fault
from ivas.text.notices import notices

REPLY = LIMITS.reply


@dataclass(frozen=True, slots=True)
class Case:
    """A fault of one engine and what must come of it."""

    engine: str
    fault: Fault
    code: str | None
    """Of the failure; None: nobody may notice."""
    within_ms: float = 0
    """After what would have been the moment of the fault; the engine's own delays are short."""
    sounds: bool = False
    """Something was said before."""

    @property
    def name(self) -> str:
        return f"{self.engine}-{self.fault.kind}-{self.fault.after}"


FIRST_TOKEN_MS = REPLY.first_token_s * 1000
STALL_MS = REPLY.token_stall_s * 1000
FIRST_AUDIO_MS = REPLY.first_audio_s * 1000

NOTICE_MS = 3_000
SAID = notices("en")

CASES = [
    # The recogniser. Its first answers are partials, so the final is told apart by `times`.
    Case("asr", Fault("raise"), "engine_failed", 200),
    Case("asr", Fault("crash"), "asr_failed", 200),
    Case("asr", Fault("hang"), "asr_timeout", LIMITS.transcript_s * 1000),
    # The model, before its first token and within the third clause. It is said aloud, and
    # the reply ends once all of that but the last 2 s has been sent.
    Case("llm", Fault("raise"), "engine_failed", 400 + NOTICE_MS, sounds=True),
    Case("llm", Fault("crash"), "llm_failed", 400 + NOTICE_MS, sounds=True),
    Case("llm", Fault("hang"), "engine_timeout", FIRST_TOKEN_MS + 400 + NOTICE_MS, sounds=True),
    Case("llm", Fault("end"), "llm_empty", 400 + NOTICE_MS, sounds=True),
    Case("llm", Fault("raise", after=20), "engine_failed", 8_000 + NOTICE_MS, sounds=True),
    Case("llm", Fault("crash", after=20), "llm_failed", 8_000 + NOTICE_MS, sounds=True),
    Case("llm", Fault("hang", after=20), "engine_timeout", 8_000 + NOTICE_MS, sounds=True),
    # The voice, before its first chunk and within the first clause.
    Case("tts", Fault("raise"), "engine_failed", 1_000),
    Case("tts", Fault("crash"), "tts_failed", 1_000),
    Case("tts", Fault("hang"), "engine_timeout", FIRST_AUDIO_MS + 1_000),
    Case("tts", Fault("end"), "tts_silent", 2_000),
    Case("tts", Fault("garbage"), "engine_failed", 1_000),
    Case("tts", Fault("raise", after=10), "engine_failed", 1_500, sounds=True),
    Case("tts", Fault("crash", after=10), "tts_failed", 1_500, sounds=True),
    Case("tts", Fault("hang", after=10), "engine_timeout", STALL_MS + 1_500, sounds=True),
    Case("tts", Fault("garbage", after=10), "engine_failed", 1_500, sounds=True),
]


def broken(engine: str, fault: Fault) -> Engines:
    match engine:
        case "vad":
            return fakes(vad=FakeVAD(fault=fault))
        case "asr":
            return fakes(asr=FakeASR(fault=fault))
        case "llm":
            return fakes(llm=FakeLLM(fault=fault))
        case _:
            return fakes(tts=FakeTTS(fault=fault))


def a_sentence(failure: Failure) -> bool:
    """One plain sentence, perhaps with a half behind a semicolon; no trace of Python."""
    message = failure.message
    return (
        message[0].isupper()
        and message.endswith(".")
        and "\n" not in message
        and "Error" not in message
        and ". " not in message
    )


async def whole_turn(t: Talk) -> None:
    """A turn in which nothing may be wrong."""
    ended = len(t.client.all(say.ReplyEnded))
    await t.turn()
    outcome = await t.client.next(say.ReplyEnded, ended + 1)
    assert (outcome.outcome, outcome.text) == ("completed", DEFAULT_REPLY)
    await asyncio.sleep(3)


def mend(t: Talk) -> None:
    """From the next utterance and the next reply on all is well."""
    t.swap(asr=FakeASR(), llm=FakeLLM(), tts=FakeTTS())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_user_is_told_and_the_next_turn_works(case: Case) -> None:
    @virtual_time
    async def check() -> None:
        struck = broken(case.engine, case.fault)
        beside = fakes()
        async with talk(beside) as other, talk(struck) as t:
            neighbour = asyncio.create_task(whole_turn(other))
            await t.turn()
            at_ms = t.client.at_ms(say.SpeechStopped)
            ended = await t.client.next(say.ReplyEnded)
            assert isinstance(ended.outcome, Failure)
            assert ended.outcome.code == case.code
            assert a_sentence(ended.outcome), ended.outcome.message
            told_ms = t.client.at_ms(say.ReplyEnded) - at_ms
            assert told_ms <= case.within_ms + 100 + 20, told_ms
            if case.engine == "asr":
                [failed] = t.client.all(say.TranscriptFailed)
                assert failed.failure == ended.outcome
            assert bool(t.client.sound()) == case.sounds
            words = t.client.words()
            if case.engine == "llm":
                assert words.endswith(SAID.broken if case.fault.after else SAID.failed)
                waited = case.fault.kind == "hang" and not case.fault.after
                assert words.startswith(SAID.slow) == waited
                words = words.removesuffix(SAID.broken).removesuffix(SAID.failed).strip()
                words = words.removeprefix(SAID.slow)
            assert DEFAULT_REPLY.startswith(words)
            if t.client.words():
                item = await t.item(ended.reply.item_id)
                assert item.status == "incomplete"
                assert t.client.words().startswith(item.text)
                assert bool(item.text) == case.sounds
            said = t.client.sound()
            await asyncio.sleep(3)
            assert t.client.sound() == said
            mend(t)
            await whole_turn(t)
            await neighbour
            assert len(t.client.all(say.ReplyEnded)) == 2

        assert [r.code for r in _failures(other)] == []
        for engines in (struck, beside):
            assert getattr(engines.llm, "live_streams", 0) == 0

    check()


def _failures(t: Talk) -> list[Failure]:
    failures = [refused.failure for refused in t.client.all(say.Refused)]
    failures += [failed.failure for failed in t.client.all(say.TranscriptFailed)]
    ends = [ended.outcome for ended in t.client.all(say.ReplyEnded)]
    return failures + [end for end in ends if isinstance(end, Failure)]


@pytest.mark.parametrize("kind", ["raise", "crash", "garbage"])
@pytest.mark.parametrize("after", [0, 10, 30])
def test_a_detector_that_fails_is_restarted_and_the_client_told(kind: str, after: int) -> None:
    @virtual_time
    async def check() -> None:
        fault = Fault(kind, after=after, times=6)  # type: ignore[arg-type]
        async with talk(broken("vad", fault)) as t:
            await t.turn()
            await asyncio.sleep(12)
            [refused] = t.client.all(say.Refused)
            assert refused.kind == "server_error"
            assert refused.failure.code == "vad_failed"
            assert a_sentence(Failure("", refused.failure.message.replace("; if", ", if")))
            ended = len(t.client.all(say.ReplyEnded))
            await t.turn()
            assert (await t.client.next(say.ReplyEnded, ended + 1)).outcome == "completed"

    check()


@virtual_time
async def test_a_detector_that_always_fails_does_not_flood_the_client() -> None:
    async with talk(broken("vad", Fault("crash"))) as t:
        await t.speak(15_000)
        assert len(t.client.told) == 2
        await t.ask("Can you read?")
        assert (await t.client.next(say.ReplyEnded)).outcome == "completed"


@virtual_time
async def test_a_deaf_detector_hears_nothing_and_typing_works() -> None:
    async with talk(broken("vad", Fault("end"))) as t:
        await t.turn()
        assert t.client.told == []
        await t.ask("Can you read?")
        assert (await t.client.next(say.ReplyEnded)).outcome == "completed"


@pytest.mark.parametrize("kind", ["raise", "crash", "hang", "end", "garbage"])
def test_a_partial_that_fails_costs_nothing_but_the_captions(kind: str) -> None:
    @virtual_time
    async def check() -> None:
        asr = FakeASR(fault=Fault(kind, times=1))  # type: ignore[arg-type]
        async with talk(fakes(asr=asr)) as t:
            await t.turn(ms=1500)
            assert (await t.client.next(say.ReplyEnded)).outcome == "completed"
            assert t.client.all(say.TranscriptCompleted)[0].transcript == "what time is it"

    check()


@virtual_time
async def test_a_recogniser_that_hears_nothing_discards_the_turn() -> None:
    async with talk(broken("asr", Fault("end"))) as t:
        await t.turn()
        await asyncio.sleep(10)
        assert t.client.kinds() == ["SpeechStarted", "SpeechStopped"]
        mend(t)
        await whole_turn(t)


@virtual_time
async def test_a_recogniser_that_rambles_is_taken_at_its_word() -> None:
    async with talk(broken("asr", Fault("garbage"))) as t:
        await t.turn()
        assert len((await t.client.next(say.TranscriptCompleted)).transcript) > 9_000
        assert (await t.client.next(say.ReplyEnded)).outcome == "completed"


@pytest.mark.parametrize("after", [0, 5, 20])
def test_a_model_that_writes_rubbish_is_read_without_it(after: int) -> None:
    @virtual_time
    async def check() -> None:
        async with talk(broken("llm", Fault("garbage", after=after))) as t:
            await t.turn()
            ended = await t.client.next(say.ReplyEnded)
            assert ended.outcome == "completed" or isinstance(ended.outcome, Failure)
            mend(t)
            await asyncio.sleep(3)
            await whole_turn(t)

    check()


@pytest.mark.parametrize("after", [1, 20])
def test_a_model_that_ends_early_has_said_what_it_said(after: int) -> None:
    @virtual_time
    async def check() -> None:
        async with talk(broken("llm", Fault("end", after=after))) as t:
            await t.turn()
            ended = await t.client.next(say.ReplyEnded)
            assert ended.outcome == "completed"
            assert ended.text == " ".join(DEFAULT_REPLY.split()[:after])

    check()


@virtual_time
async def test_a_voice_that_ends_early_goes_on_with_the_next_sentence() -> None:
    async with talk(broken("tts", Fault("end", after=10))) as t:
        await t.turn()
        ended = await t.client.next(say.ReplyEnded)
        assert (ended.outcome, ended.text) == ("completed", DEFAULT_REPLY)


@virtual_time
async def test_words_that_were_not_spoken_were_not_said() -> None:
    async with talk(broken("tts", Fault("raise", after=10))) as t:
        await t.turn()
        ended = await t.client.next(say.ReplyEnded)
        item = await t.item(ended.reply.item_id)
        # A second of sound at the speed that is assumed of an unfinished clause.
        assert item.text.strip() == "This is the"
        assert item.cut


@virtual_time
async def test_a_failed_reply_can_be_talked_over_while_it_sounds() -> None:
    async with talk(broken("llm", Fault("crash", after=20))) as t:
        await t.turn()
        ended = await t.client.next(say.ReplyEnded)
        before = (await t.item(ended.reply.item_id)).text
        await t.speak(400)
        assert [g for _, g in t.client.purged] == [1]
        after = (await t.item(ended.reply.item_id)).text
        assert before.startswith(after)
        assert len(after) < len(before)


@virtual_time
async def test_a_hanging_model_can_be_talked_over() -> None:
    async with talk(broken("llm", Fault("hang"))) as t:
        await t.turn()
        await t.rest(2_000)
        mend(t)
        await t.turn()
        ended = await t.client.next(say.ReplyEnded, 2)
        assert [e.outcome for e in t.client.all(say.ReplyEnded)] == ["turn_detected", "completed"]
        assert ended.text == DEFAULT_REPLY


@virtual_time
async def test_a_hanging_model_can_be_cancelled() -> None:
    async with talk(broken("llm", Fault("hang"))) as t:
        await t.ask("Hello.")
        await t.client.next(say.ReplyStarted)
        await t.session.submit(say.CancelActiveReply())
        assert (await t.client.next(say.ReplyEnded)).outcome == "client_cancelled"
