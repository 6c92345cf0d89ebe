"""What has been said: the items of a conversation, cut to what was heard.

An item is a message, a function the LLM called, or what the function gave back.

Items are only ever appended, cut or deleted on the client's word, never
rewritten, so that the prompt of one turn begins with the bytes of the prompt
before and the LLM's cache stays warm. Consecutive user messages stay separate
items on the wire and become one message in the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from ivas.engines import INAUDIBLE, Message, ToolCall

ItemRole = Literal["system", "user", "assistant"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]
PartKind = Literal["input_text", "input_audio", "output_text", "output_audio"]

CUT = "…"
"""Ends an assistant message in the prompt that the user did not hear to its end."""
WIRE_MS = 1.0
"""The wire counts whole milliseconds, so who has played all may report this much less."""
NOTHING_SAID = "(says nothing)"
"""Stands in a prompt for a user who was waited for in vain."""
NO_OUTPUT = "(no result)"
"""Stands in a prompt for what a function has not given back: no LLM's server takes a
call without its result."""
MS_PER_CHARACTER = 65.0
"""Speaking time of a clause whose audio is not finished yet: about 15 characters a
second, a usual rate of speech. Only ever used to round what was heard down."""


@dataclass(slots=True)
class _Clause:
    text: str
    speed: float
    audio_ms: float = 0.0
    complete: bool = False

    @property
    def total_ms(self) -> float:
        if self.complete:
            return self.audio_ms
        return max(self.audio_ms, len(self.text) * MS_PER_CHARACTER / self.speed)


class SpokenText:
    """Which words of a reply sound when: its clauses and how long each takes.

    Inside a clause the words are spread evenly over the sound.
    """

    def __init__(self, *, speed: float = 1.0) -> None:
        """`speed`: the speaking rate, 1.0 = natural."""
        self._speed = speed
        self._clauses: list[_Clause] = []

    def begin(self, text: str) -> None:
        """The next clause; its audio follows."""
        self._clauses.append(_Clause(text, self._speed))

    def add(self, audio_ms: float) -> None:
        """So much more audio of the clause begun last."""
        self._clauses[-1].audio_ms += audio_ms

    def end(self) -> None:
        """The clause begun last has all its audio."""
        self._clauses[-1].complete = True

    def heard(self, played_ms: float) -> tuple[str, bool]:
        """The words within the first `played_ms` of audio, and whether that is all.

        Rounded down to whole words.
        """
        if played_ms <= 0:
            return "", not self._clauses  # not even the clauses that have no sound
        words = ""
        begin_ms = 0.0
        for clause in self._clauses:
            total_ms = clause.total_ms
            left_ms = played_ms - begin_ms
            if left_ms < total_ms - WIRE_MS or not clause.complete:
                share = left_ms / total_ms if total_ms > 0 else 0.0
                return words + _whole_words(clause.text, share), False
            words += clause.text
            begin_ms += total_ms
        return words, True


def _whole_words(text: str, share: float) -> str:
    """The words that end within the first `share` (0..1) of `text`."""
    end = min(len(text), int(len(text) * max(share, 0.0)))
    while 0 < end < len(text) and not _between_words(text[end - 1], text[end]):
        end -= 1
    return text[:end]


def _between_words(before: str, after: str) -> bool:
    return before.isspace() or after.isspace() or (_is_word(before) and _is_word(after))


def _is_word(char: str) -> bool:
    """Han and kana are written without spaces: there a character is as good as a word."""
    return "\u3041" <= char <= "\u30ff" or "\u3400" <= char <= "\u9fff" or char >= "\U00020000"


@dataclass(slots=True)
class Part:
    """One content part of an item. `text` None: the transcript is not known (yet)."""

    kind: PartKind
    text: str | None


@dataclass(slots=True)
class Item:
    """One message of the conversation, as the wire shows it."""

    id: str
    role: ItemRole
    parts: list[Part]
    status: ItemStatus = "completed"
    spoken: SpokenText | None = field(default=None, repr=False)
    """For an assistant's speech: which words sound when."""
    cut: bool = False
    """The user did not hear (or read) all of it."""
    blank: str = INAUDIBLE
    """What the LLM reads where a user's message has no words."""

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.parts if part.text)


@dataclass(slots=True)
class FunctionCall:
    """The LLM asked for a function to be run; `arguments` is JSON text."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: ItemStatus = "completed"


@dataclass(slots=True)
class FunctionOutput:
    """What the function that was called gave back."""

    id: str
    call_id: str
    output: str
    status: ItemStatus = "completed"


AnyItem = Item | FunctionCall | FunctionOutput


class History:
    """The items in order."""

    def __init__(self) -> None:
        self._items: dict[str, AnyItem] = {}
        self._order: list[str] = []

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[AnyItem]:
        return (self._items[id] for id in self._order)

    def get(self, item_id: str) -> AnyItem | None:
        return self._items.get(item_id)

    def add(self, item: AnyItem, *, after: str | None = None) -> str | None:
        """Put `item` behind the item `after` ("root" = in front, None = at the end).

        Returns the id of the item before it, None if it is the first.
        Raises KeyError if `after` is unknown, ValueError if the id is taken.
        """
        if item.id in self._items:
            raise ValueError(item.id)
        if after is None:
            position = len(self._order)
        elif after == "root":
            position = 0
        elif after in self._items:
            position = self._order.index(after) + 1
        else:
            raise KeyError(after)
        self._order.insert(position, item.id)
        self._items[item.id] = item
        return self._order[position - 1] if position else None

    def delete(self, item_id: str) -> bool:
        """Forget an item; False if there is none of that id."""
        if self._items.pop(item_id, None) is None:
            return False
        self._order.remove(item_id)
        return True

    def truncate(self, item: Item, played_ms: float) -> None:
        """Cut an assistant's speech to what sounded in its first `played_ms`.

        Always counted from the whole reply, so a better figure may follow a worse.
        """
        if item.spoken is None:
            return
        text, everything = item.spoken.heard(played_ms)
        item.parts[0].text = text
        item.cut = not everything

    def prompt(self, instructions: str) -> list[Message]:
        """What the LLM is to see: the instructions, then what was said and heard."""
        messages = [Message("system", instructions)] if instructions else []
        outputs = {item.call_id: item for item in self if isinstance(item, FunctionOutput)}
        calls: list[ToolCall] = []  # calls that stand together belong to one message
        said: list[str] = []  # and so does what the user says in several items
        for item in self:
            if isinstance(item, FunctionCall):
                _close_user(messages, said)
                calls.append(ToolCall(item.call_id, item.name, item.arguments))
                continue
            if isinstance(item, FunctionOutput):
                continue  # stands with its call
            _close_calls(messages, calls, outputs)
            if item.role == "user":
                said.append(item.text if item.text.strip() else item.blank)
            elif item.role == "system":
                _close_user(messages, said)
                messages.append(Message("system", item.text if item.text.strip() else item.blank))
            elif item.text.strip():  # else nothing of it was heard: it was never said
                _close_user(messages, said)
                text = f"{item.text.rstrip()}{CUT}" if item.cut else item.text
                messages.append(Message("assistant", text))
        _close_user(messages, said)
        _close_calls(messages, calls, outputs)
        return messages


def _close_user(messages: list[Message], said: list[str]) -> None:
    if said:
        messages.append(Message("user", "\n".join(said)))
        said.clear()


def _close_calls(
    messages: list[Message], calls: list[ToolCall], outputs: dict[str, FunctionOutput]
) -> None:
    """Put calls, and right behind them their results, wherever those stand."""
    if not calls:
        return
    text = messages.pop().text if messages and messages[-1].role == "assistant" else ""
    messages.append(Message("assistant", text, tool_calls=tuple(calls)))
    for call in calls:
        output = outputs.get(call.call_id)
        text = NO_OUTPUT if output is None else output.output
        messages.append(Message("tool", text, tool_call_id=call.call_id))
    calls.clear()
