"""Items of the conversation as a client sees and changes them, also while they are spoken."""

from __future__ import annotations

import asyncio

import pytest
from memory_client import NotingLLM, fakes, talk
from virtual_time import virtual_time

from ivas import announcements as say
from ivas.conversation.history import FunctionCall, FunctionOutput, Item, Part
from ivas.engines.fake import FakeASR
from ivas.items import MAX_CHARACTERS, MAX_ITEMS


def typed(item_id: str, text: str = "hello") -> Item:
    return Item(item_id, "user", [Part("input_text", text)])


@virtual_time
async def test_items_are_added_where_the_client_says() -> None:
    async with talk() as t:
        for item_id, after in (("b", None), ("a", "root"), ("c", "b")):
            await t.session.submit(say.AddItem(typed(item_id), after))
        await t.client.next(say.ItemAdded, 3)
        added = [(a.item.id, a.previous_item_id) for a in t.client.all(say.ItemAdded)]
        assert added == [("b", None), ("a", None), ("c", "b")]


@pytest.mark.parametrize(
    ("command", "code", "param"),
    [
        (say.AddItem(typed("a"), None, "e"), "invalid_value", "item.id"),
        (say.AddItem(typed("b"), "nowhere", "e"), "invalid_value", "previous_item_id"),
        (say.RetrieveItem("x", "e"), "item_retrieve_invalid_item_id", "item_id"),
        (say.DeleteItem("x", "e"), "item_delete_invalid_item_id", "item_id"),
        (say.TruncateItem("x", 0, 0, "e"), "item_truncate_invalid_item_id", "item_id"),
        (say.TruncateItem("a", 0, 0, "e"), "invalid_value", "item_id"),
        (say.TruncateItem("said", 1, 0, "e"), "invalid_value", "content_index"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    command: say.Command, code: str, param: str
) -> None:
    @virtual_time
    async def check() -> None:
        async with talk() as t:
            said = Item("said", "assistant", [Part("output_text", "Good morning.")])
            await t.session.submit(say.AddItem(typed("a")))
            await t.session.submit(say.AddItem(said))
            await t.session.submit(command)
            refused = await t.client.next(say.Refused)
            assert (refused.failure.code, refused.param, refused.event_id) == (code, param, "e")
            assert refused.failure.message.endswith(".")
            assert (await t.item("said")).text == "Good morning."
            await t.session.submit(say.DeleteItem("a"))
            assert (await t.client.next(say.ItemDeleted)).item_id == "a"

    check()


@virtual_time
async def test_a_reply_deleted_while_it_is_spoken_is_spoken_and_forgotten() -> None:
    llm = NotingLLM()
    async with talk(fakes(llm=llm)) as t:
        await t.ask("Hello.")
        sound = await t.client.next(say.AudioSpoken)
        await t.session.submit(say.DeleteItem(sound.reply.item_id))
        assert (await t.client.next(say.ReplyEnded)).outcome == "completed"
        await t.session.submit(say.RetrieveItem(sound.reply.item_id))
        assert (await t.client.next(say.Refused)).failure.code == "item_retrieve_invalid_item_id"
        await t.ask("And again.")
        await t.client.next(say.ReplyEnded, 2)
    assert [m.text for m in llm.prompts[1]] == ["Hello.\nAnd again."]


@virtual_time
async def test_a_deleted_reply_can_still_be_interrupted() -> None:
    async with talk() as t:
        await t.ask("Hello.")
        sound = await t.client.next(say.AudioSpoken)
        await t.session.submit(say.DeleteItem(sound.reply.item_id))
        await t.turn()
        assert (await t.client.next(say.ReplyEnded)).outcome == "turn_detected"
        assert (await t.client.next(say.ReplyEnded, 2)).outcome == "completed"


@virtual_time
async def test_a_turn_deleted_before_its_transcript_is_known() -> None:
    llm = NotingLLM()
    async with talk(fakes(llm=llm, asr=FakeASR(ms=1000)), detection="none") as t:
        await t.speak(400)
        await t.session.submit(say.CommitAudio())
        committed = await t.client.next(say.AudioCommitted)
        await t.session.submit(say.DeleteItem(committed.item_id))
        await t.ask("Something else.")
        completed = await t.client.next(say.TranscriptCompleted)
        assert completed.item_id == committed.item_id
        await t.client.next(say.ReplyEnded)
    assert [m.text for m in llm.prompts[0]] == ["Something else."]


@virtual_time
async def test_an_item_being_spoken_can_be_retrieved() -> None:
    async with talk() as t:
        await t.ask("Hello.")
        sound = await t.client.next(say.AudioSpoken)
        item = await t.item(sound.reply.item_id)
        assert (item.status, item.text) == ("in_progress", t.client.words())
        ended = await t.client.next(say.ReplyEnded)
        item = await t.item(sound.reply.item_id)
        assert (item.status, item.text) == ("completed", ended.text)


@virtual_time
async def test_a_reconnecting_client_replays_its_items() -> None:
    llm = NotingLLM()
    async with talk(fakes(llm=llm)) as t:
        await t.session.submit(say.AddItem(typed("1", "My name is Ada.")))
        said = Item("2", "assistant", [Part("output_audio", "Good to know, Ada.")])
        await t.session.submit(say.AddItem(said))
        await t.ask("What is my name?")
        await t.client.next(say.ReplyEnded)
        await t.session.submit(say.TruncateItem("2", 0, 100))  # no sound of ours: not cut
        assert (await t.item("2")).text == "Good to know, Ada."
    assert [m.text for m in llm.prompts[0]] == [
        "My name is Ada.",
        "Good to know, Ada.",
        "What is my name?",
    ]


@virtual_time
async def test_many_items_are_no_burden_and_too_many_are_refused() -> None:
    llm = NotingLLM()
    async with talk(fakes(llm=llm)) as t:
        for number in range(2 * MAX_ITEMS):
            await t.session.submit(say.AddItem(typed(str(number))))
            if number % 2:
                await t.session.submit(say.DeleteItem(str(number)))
        await t.session.submit(say.AddItem(typed("one more"), event_id="e"))
        refused = await t.client.next(say.Refused)
        assert (refused.failure.code, refused.param) == ("invalid_value", "item")
        assert str(MAX_ITEMS) in refused.failure.message
        await t.create_reply()
        await t.client.next(say.ReplyStarted)
        await asyncio.sleep(0)
    assert llm.prompts[0][0].text.count("hello") == MAX_ITEMS


@virtual_time
async def test_what_a_client_puts_into_a_conversation_has_a_bound() -> None:
    async with talk() as t:
        big = 100_000
        for number in range(MAX_CHARACTERS // big):
            call = FunctionOutput(f"o{number}", "c", "x" * big)
            await t.session.submit(say.AddItem(call))
        await t.client.next(say.ItemAdded, MAX_CHARACTERS // big)
        await t.session.submit(say.AddItem(FunctionCall("f", "c", "look", "{}")))
        refused = await t.client.next(say.Refused)
        assert refused.failure.code == "invalid_value"
        assert "begin a new session" in refused.failure.message
        assert len(t.client.all(say.ItemAdded)) == MAX_CHARACTERS // big
