"""The items of a conversation in the hands of the stock client."""

from __future__ import annotations

from typing import Any

from conformance.driver import Caller


async def test_items_keep_the_ids_and_places_their_client_gave_them(ivas: Caller) -> None:
    assert await ivas.say("two", id="item-2:mine") == "item-2:mine"
    assert await ivas.say("three") != "item-2:mine"

    async def put(name: str, after: str) -> Any:
        await ivas.send(
            {
                "type": "conversation.item.create",
                "previous_item_id": after,
                "item": {
                    "type": "message",
                    "role": "system",
                    "id": name,
                    "content": [{"type": "input_text", "text": name}],
                },
            }
        )
        return (await ivas.until("conversation.item.done"))["previous_item_id"]

    assert await put("one", "root") is None
    assert await put("two-and-a-half", "item-2:mine") == "item-2:mine"
    added = [(e["item"]["id"], e["previous_item_id"]) for e in ivas.all("conversation.item.added")]
    assert added[0] == ("item-2:mine", None)
    assert added[1][1] == "item-2:mine"
    assert (await ivas.retrieve("one"))["content"] == [{"type": "input_text", "text": "one"}]


async def test_history_is_replayed_by_its_client(ivas: Caller) -> None:
    for role, kind in (("user", "input_text"), ("assistant", "output_text")):
        item: Any = {
            "type": "message",
            "role": role,
            "content": [{"type": kind, "text": "Before."}],
        }
        await ivas.connection.conversation.item.create(item=item)
        done = await ivas.until("conversation.item.done")
        assert done["item"]["status"] == "completed"
        assert done["item"]["content"] == [{"type": kind, "text": "Before."}]
    assert (await ivas.reply())["status"] == "completed"


async def test_deleted_is_deleted(ivas: Caller) -> None:
    item_id = await ivas.say("Forget this.")
    await ivas.connection.conversation.item.delete(item_id=item_id)
    assert (await ivas.until("conversation.item.deleted"))["item_id"] == item_id
    await ivas.connection.conversation.item.retrieve(item_id=item_id, event_id="e1")
    error = await ivas.error()
    assert error["code"] == "item_retrieve_invalid_item_id"
    assert error["event_id"] == "e1"
