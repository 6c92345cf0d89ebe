"""A client that goes away at any point of a turn leaves nothing behind."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from memory_client import LIMITS, fakes, talk
from virtual_time import run

from ivas import announcements as say
from ivas.engines.fake import FakeASR, FakeLLM, FakeTTS, Fault

SCRIPTS = ["spoken", "typed", "push-to-talk", "storm"]


@settings(deadline=None, max_examples=120)
@given(
    gone_ms=st.integers(0, 9_000),
    script=st.sampled_from(SCRIPTS),
    hanging=st.sampled_from([None, "asr", "llm", "tts"]),
)
@example(gone_ms=0, script="spoken", hanging=None)
@example(gone_ms=1_220, script="spoken", hanging=None)
@example(gone_ms=1_710, script="spoken", hanging=None)
def test_whenever_the_client_goes(gone_ms: int, script: str, hanging: str | None) -> None:
    hang = Fault("hang", after=1)
    engines = fakes(
        asr=FakeASR(fault=hang if hanging == "asr" else None),
        llm=FakeLLM(fault=hang if hanging == "llm" else None),
        tts=FakeTTS(fault=hang if hanging == "tts" else None),
    )

    async def main() -> None:
        async with talk(
            engines, detection="none" if script == "push-to-talk" else "server_vad"
        ) as t:

            async def use() -> None:
                match script:
                    case "spoken":
                        await t.turn()
                        await t.rest(1_000)
                        await t.speak(120)  # a cough
                        await t.rest(600)
                        await t.turn()  # a barge-in
                        await t.rest(60_000)
                    case "typed":
                        await t.ask("Hello.")
                        await t.client.next(say.ReplyEnded)
                        await t.ask("And again.")
                    case "push-to-talk":
                        for _ in range(20):
                            await t.speak(400)
                            await t.session.submit(say.CommitAudio())
                            await t.create_reply()
                            await t.session.submit(say.CancelActiveReply())
                    case _:
                        while True:
                            await t.create_reply()
                            await asyncio.sleep(0.03)
                            await t.session.submit(say.CancelActiveReply())

            user = asyncio.create_task(use())
            await asyncio.sleep(gone_ms / 1000)
            user.cancel()
            await asyncio.gather(user, return_exceptions=True)
        # talk() asserts that no task, utterance or stream is left.

    run(main())


@pytest.mark.parametrize("ticks", range(0, 60, 3))
def test_gone_in_the_middle_of_starting(ticks: int) -> None:
    async def main() -> None:
        async with talk() as t:
            await t.ask("Hello.")
            for _ in range(ticks):
                await asyncio.sleep(0)

    run(main())


def test_a_session_that_never_ran_owes_nothing() -> None:
    async def main() -> None:
        async with talk(leave=False) as t:
            t.running.cancel()
            await asyncio.gather(t.running, return_exceptions=True)

    run(main())


def test_the_longest_silence_ends_by_itself() -> None:
    """Whatever hangs, the conversation is idle again within its deadlines (I11)."""

    async def main() -> None:
        hang = Fault("hang")
        async with talk(
            fakes(asr=FakeASR(fault=hang), llm=FakeLLM(fault=hang), tts=FakeTTS(fault=hang))
        ) as t:
            await t.turn()
            await asyncio.sleep(LIMITS.transcript_s + 1)
            assert len(t.client.all(say.ReplyEnded)) == 1
            await t.ask("Hello.")
            await asyncio.sleep(LIMITS.reply.first_token_s + 1)
            assert len(t.client.all(say.ReplyEnded)) == 2
            t.swap(llm=FakeLLM())
            await t.ask("Hello.")
            await asyncio.sleep(LIMITS.reply.first_audio_s + 2)
            assert len(t.client.all(say.ReplyEnded)) == 3

    run(main())
