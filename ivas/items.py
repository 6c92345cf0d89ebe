"""What a client may do with the items of its conversation, beside talking."""

from __future__ import annotations

from typing import assert_never

from .announcements import (
    AddItem,
    Client,
    DeleteItem,
    ItemAdded,
    ItemDeleted,
    ItemRetrieved,
    ItemTruncated,
    Refused,
    RetrieveItem,
    TruncateItem,
)
from .conversation.events import Failure
from .conversation.history import AnyItem, FunctionCall, FunctionOutput, History, Item

MAX_ITEMS = 2_000
"""Items of one conversation to which a client may add: an hour of talk has a few hundred."""


MAX_CHARACTERS = 1_000_000
"""Text of all items a client has added: more than the context of any model holds."""


class ItemDesk:
    """Answers the item commands; wrong ones are refused and change nothing."""

    def __init__(self, history: History, client: Client) -> None:
        self._history = history
        self._client = client
        self._characters = 0  # added so far: what is deleted again counts too

    def add(self, command: AddItem) -> None:
        self._characters += _length(command.item)
        if self._characters > MAX_CHARACTERS:
            message = (
                f"A conversation takes at most {MAX_CHARACTERS} characters from its client; "
                "begin a new session."
            )
            self._refuse("invalid_value", message, "item", command.event_id)
            return
        if len(self._history) >= MAX_ITEMS:
            message = f"A conversation holds at most {MAX_ITEMS} items; delete some first."
            self._refuse("invalid_value", message, "item", command.event_id)
            return
        try:
            previous_id = self._history.add(command.item, after=command.after)
        except ValueError:
            message = (
                f"Item '{command.item.id}' exists already; leave the id out or choose another."
            )
            self._refuse("invalid_value", message, "item.id", command.event_id)
        except KeyError:
            message = f"Previous item '{command.after}' not found; leave it out to append."
            self._refuse("invalid_value", message, "previous_item_id", command.event_id)
        else:
            self._client.send(ItemAdded(command.item, previous_id))

    def retrieve(self, command: RetrieveItem) -> None:
        item = self._history.get(command.item_id)
        if item is None:
            self._unknown("retrieve", command.item_id, command.event_id)
        else:
            self._client.send(ItemRetrieved(item))

    def delete(self, command: DeleteItem) -> None:
        if self._history.delete(command.item_id):
            self._client.send(ItemDeleted(command.item_id))
        else:
            self._unknown("delete", command.item_id, command.event_id)

    def truncate(self, command: TruncateItem) -> bool:
        """Cut an assistant's item to what was heard; False if it was refused."""
        item = self._history.get(command.item_id)
        if item is None:
            self._unknown("truncate", command.item_id, command.event_id)
            return False
        if not isinstance(item, Item) or item.role != "assistant":
            message = "Only an assistant's message can be truncated; this item is not one."
            self._refuse("invalid_value", message, "item_id", command.event_id)
            return False
        if command.content_index != 0:
            message = "Content index out of range: a message of this server has one part, 0."
            self._refuse("invalid_value", message, "content_index", command.event_id)
            return False
        self._history.truncate(item, command.played_ms)
        self._client.send(ItemTruncated(item.id, command.content_index, command.played_ms))
        return True

    def _unknown(self, verb: str, item_id: str, event_id: str | None) -> None:
        message = f"Error: no item with id '{item_id}' in this conversation to {verb}."
        self._refuse(f"item_{verb}_invalid_item_id", message, "item_id", event_id)

    def _refuse(self, code: str, message: str, param: str, event_id: str | None) -> None:
        self._client.send(Refused(Failure(code, message), param, event_id))


def _length(item: AnyItem) -> int:
    match item:
        case Item():
            return sum(len(part.text or "") for part in item.parts)
        case FunctionCall():
            return len(item.arguments)
        case FunctionOutput():
            return len(item.output)
        case _:
            assert_never(item)
