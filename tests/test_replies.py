"""Replies with functions, replies beside the conversation, and what bounds a prompt."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import pytest
from memory_client import LIMITS, NotingLLM, fakes, talk
from virtual_time import virtual_time

from ivas import announcements as say
from ivas.choice import Choice, Engines
from ivas.conversation.events import Failure
from ivas.conversation.history import NOTHING_SAID, FunctionOutput, Item, Part
from ivas.engines import LLM, Message, Token, Tool, ToolCall, Voice
from ivas.engines.fake import DEFAULT_REPLY, FakeASR, FakeLLM, FakeTTS, FakeVAD, Fault
from ivas.reply import PIECE_CHARACTERS
from ivas.text.notices import notices

# --- functions -----------------------------------------------------------------

LOOK = Tool("look", "Look at something.", {"type": "object"})


class CallingLLM(NotingLLM):
    """Calls `look` when it is asked by a user, and answers once it has the result."""

    def __init__(self, preamble: str = "") -> None:
        super().__init__(tokens_per_s=1_000)
        self._preamble = preamble
        self.offered: list[tuple[Sequence[Tool], str]] = []

    async def stream(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        tool_choice: str = "auto",
        max_tokens: int | None = None,
    ) -> AsyncGenerator[Token | ToolCall, None]:
        self.prompts.append(list(messages))
        self.offered.append((tools, tool_choice))
        if messages[-1].role == "tool":
            yield Token(f"The sky is {messages[-1].text}.")
            return
        if self._preamble:
            yield Token(self._preamble)
        yield ToolCall("call_1", "look", '{"at": "sky"}')


@pytest.mark.parametrize("preamble", ["", "Let me look."])
def test_a_function_call_there_and_back(preamble: str) -> None:
    virtual_time(there_and_back)(preamble)


async def there_and_back(preamble: str) -> None:
    llm = CallingLLM(preamble)
    async with talk(fakes(llm=llm), tools=(LOOK,), tool_choice="required") as t:
        await t.ask("How is the sky?")
        asked = await t.client.next(say.ReplyEnded)
        [called] = t.client.all(say.FunctionCalled)
        assert (called.call.name, called.call.arguments) == ("look", '{"at": "sky"}')
        assert called.index == len(asked.calls) - 1 + bool(preamble)
        assert (asked.outcome, asked.text, asked.calls) == (
            "completed",
            preamble or None,
            (called.call,),
        )
        assert llm.offered == [((LOOK,), "required")]
        kinds = t.client.kinds()
        assert kinds[-2:] == ["FunctionCalled", "ReplyEnded"]
        assert ("MessageEnded" in kinds) == bool(preamble)
        assert called.previous_item_id == (asked.reply.item_id if preamble else "typed_0")

        output = FunctionOutput("out_1", "call_1", "blue")
        await t.session.submit(say.AddItem(output))
        await t.create_reply(tool_choice="none")
        answered = await t.client.next(say.ReplyEnded, 2)
        assert answered.text == "The sky is blue."
        assert [m.role for m in llm.prompts[1]] == ["user", "assistant", "tool"]
        assert llm.prompts[1][1].text == preamble
        assert llm.offered[1][1] == "none"
        assert await t.item("out_1") == output


@virtual_time
async def test_what_the_user_talks_over_calls_nothing() -> None:
    async with talk(fakes(llm=CallingLLM("word " * 60)), tools=(LOOK,)) as t:
        await t.ask("How is the sky?")
        await t.client.next(say.AudioSpoken)
        await t.turn()
        ended = await t.client.next(say.ReplyEnded)
        assert ended.outcome == "turn_detected"
        assert ended.calls == ()
        assert t.client.all(say.FunctionCalled) == []


@virtual_time
async def test_a_result_cannot_be_truncated() -> None:
    async with talk() as t:
        await t.session.submit(say.AddItem(FunctionOutput("out_1", "call_1", "blue")))
        await t.session.submit(say.TruncateItem("out_1", 0, 100))
        refused = await t.client.next(say.Refused)
        assert refused.failure.code == "invalid_value"


# --- beside the conversation ------------------------------------------------------


@virtual_time
async def test_a_written_reply_beside_an_audible_one() -> None:
    llm = NotingLLM(tokens_per_s=100)
    async with talk(fakes(llm=llm)) as t:
        await t.ask("Hello.")
        await t.client.next(say.AudioSpoken)
        await t.create_reply(
            in_conversation=False,
            metadata={"topic": "title"},
            instructions="Give it a title.",
            context=("typed_0", Item("own", "user", [Part("input_text", "Now.")]), "no_such"),
        )
        beside = await t.client.next(say.ReplyEnded)
        assert beside.reply.metadata == {"topic": "title"}
        assert (beside.outcome, beside.text) == ("completed", DEFAULT_REPLY)
        assert beside.reply.modality == "text"
        assert not beside.reply.in_conversation
        assert llm.prompts[1] == [
            Message("system", "Give it a title."),
            Message("user", "Hello.\nNow."),
        ]
        spoken = await t.client.next(say.ReplyEnded, 2)
        assert (spoken.outcome, spoken.text) == ("completed", DEFAULT_REPLY)
        await t.session.submit(say.RetrieveItem(beside.reply.item_id))
        assert (await t.client.next(say.Refused)).failure.code.startswith("item_retrieve")
        await t.ask("And?")
        await t.client.next(say.ReplyEnded, 3)
        assert [m.role for m in llm.prompts[2]] == ["user", "assistant", "user"]


@virtual_time
async def test_replies_beside_are_few_and_can_be_cancelled() -> None:
    async with talk(fakes(llm=FakeLLM(first_ms=3_000))) as t:
        for _ in range(5):
            await t.create_reply(in_conversation=False)
        refused = await t.client.next(say.Refused)
        assert refused.failure.code == "conversation_already_has_active_response"
        started = [told.reply.id for told in t.client.all(say.ReplyStarted)]
        assert len(started) == 4
        await t.session.submit(say.CancelActiveReply(started[1]))
        ended = await t.client.next(say.ReplyEnded)
        assert (ended.reply.id, ended.outcome) == (started[1], "client_cancelled")
        await t.create_reply(in_conversation=False)
        await t.client.next(say.ReplyEnded, 5)
        assert len(t.client.all(say.Refused)) == 1


@virtual_time
async def test_a_reply_beside_that_fails_is_told_and_changes_nothing() -> None:
    async with talk(fakes(llm=FakeLLM(fault=Fault("hang")))) as t:
        await t.create_reply(in_conversation=False)
        ended = await t.client.next(say.ReplyEnded)
        assert isinstance(ended.outcome, Failure)
        assert ended.text is None
        t.swap(llm=FakeLLM())
        await t.ask("Hello.")
        assert (await t.client.next(say.ReplyEnded, 2)).outcome == "completed"


@virtual_time
async def test_an_audible_reply_outside_of_the_conversation_waits_its_turn() -> None:
    llm = NotingLLM()
    async with talk(fakes(llm=llm)) as t:
        await t.ask("Hello.")
        await t.client.next(say.AudioSpoken)
        await t.create_reply(in_conversation=False, modality="audio")
        refused = await t.client.next(say.Refused)
        assert refused.failure.code == "conversation_already_has_active_response"
        await t.client.next(say.ReplyEnded)
        await t.create_reply(in_conversation=False, modality="audio", context=())
        apart = await t.client.next(say.ReplyEnded, 2)
        assert (apart.reply.modality, apart.text) == ("audio", DEFAULT_REPLY)
        assert llm.prompts[1] == []
        await t.ask("And?")
        await t.client.next(say.ReplyEnded, 3)
        assert [m.role for m in llm.prompts[2]] == ["user", "assistant", "user"]


# --- the rest ----------------------------------------------------------------------


@virtual_time
async def test_nobody_answers_and_the_assistant_speaks_again() -> None:
    llm = NotingLLM(reply="Are you there?")
    async with talk(fakes(llm=llm), idle_timeout_ms=5_000) as t:
        await t.turn()
        await t.client.next(say.ReplyEnded)
        await t.rest(8_000)
        waited = await t.client.next(say.WaitedForUser)
        assert waited.audio_end_ms - waited.audio_start_ms == pytest.approx(5_800, abs=600)
        committed = t.client.all(say.AudioCommitted)[-1]
        assert committed.item_id == waited.item_id
        item = await t.item(waited.item_id)
        assert (item.role, item.text) == ("user", "")
        again = await t.client.next(say.ReplyEnded, 2)
        assert again.outcome == "completed"
        assert llm.prompts[1][-1] == Message("user", NOTHING_SAID)


@virtual_time
async def test_the_prompt_stays_within_the_context_of_the_model() -> None:
    llm = NotingLLM(tokens_per_s=1e5)
    limits = replace(LIMITS, context_tokens=600, max_tokens=100)
    async with talk(fakes(llm=llm), limits=limits, modality="text", instructions="Be kind.") as t:
        for number in range(1, 20):
            await t.ask(f"Question {number}. " + "And so on. " * 8)
            ended = await t.client.next(say.ReplyEnded, number)
            assert ended.usage.input_tokens <= 500
        assert llm.prompts[-1][0] == Message("system", "Be kind.")
        assert "Question 19." in llm.prompts[-1][-1].text
        assert len(llm.prompts[-1]) < 2 * 18
        await t.configure(trims=False)
        await t.ask("All?")
        await t.client.next(say.ReplyEnded, 20)
        assert len(llm.prompts[-1]) == 1 + 2 * 19 + 1


@virtual_time
async def test_the_assistant_apologises_in_the_language_of_its_voice() -> None:
    class German(FakeTTS):
        voices = (Voice("anna", "Anna", "de-DE"),)

    engines = fakes(llm=FakeLLM(fault=Fault("raise")), tts=German())
    async with talk(engines, voice="alloy") as t:
        await t.ask("Hallo.")
        await t.client.next(say.ReplyEnded)
        assert t.client.words() == notices("de").failed
    async with talk(fakes(llm=FakeLLM(fault=Fault("raise"))), spoken_language="fr") as t:
        await t.ask("Bonjour.")
        await t.client.next(say.ReplyEnded)
        assert t.client.words() == notices("fr").failed


class TwoLLMs(Engines):
    """`best` until it is doubted or says that it cannot, then `sure`."""

    def __init__(self, best: FakeLLM, sure: FakeLLM) -> None:
        best.name = "best"
        llms = Choice[LLM]("llm", [best, sure])
        super().__init__(vad=FakeVAD(), asr=FakeASR(), llm=llms, tts=FakeTTS())


@virtual_time
async def test_one_that_does_not_answer_is_replaced_within_the_turn() -> None:
    best, sure = FakeLLM(fault=Fault("hang")), NotingLLM(reply="I am here.")
    await best.start()
    await sure.start()
    async with talk(TwoLLMs(best, sure)) as t:
        await t.ask("Hello.")
        ended = await t.client.next(say.ReplyEnded)
        assert ended.outcome == "completed"
        assert ended.text == f"{notices('en').slow} I am here."
        assert len(sure.prompts) == 1
        await t.ask("And now?")  # it is passed over at once
        again = await t.client.next(say.ReplyEnded, 2)
        assert again.text == "I am here."


@virtual_time
async def test_what_has_begun_to_answer_is_not_replaced_by_another() -> None:
    best, sure = FakeLLM(fault=Fault("raise", after=3)), NotingLLM()
    await best.start()
    await sure.start()
    async with talk(TwoLLMs(best, sure)) as t:
        await t.ask("Hello.")
        ended = await t.client.next(say.ReplyEnded)
        assert isinstance(ended.outcome, Failure)
        assert ended.text is not None
        assert ended.text.endswith(f" {notices('en').broken}")
        assert "  " not in ended.text
        assert sure.prompts == []


@virtual_time
async def test_a_piece_of_megabytes_is_many_tokens() -> None:
    async with talk(fakes(llm=FakeLLM(reply="a" * 3_000_000)), modality="text") as t:
        await t.ask("Hello.")
        ended = await t.client.next(say.ReplyEnded)
        assert ended.outcome == "max_output_tokens"
        assert len(ended.text or "") <= LIMITS.max_tokens * PIECE_CHARACTERS
