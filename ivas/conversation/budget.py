"""Keeps the prompt within the LLM's context, by forgetting the oldest in big steps.

An LLM that has just read a prompt need not read it again: the next prompt costs only
what follows the part both begin with. Forgetting a little every turn would give each
prompt another beginning, and make each turn wait for the whole of it to be read. So
what is forgotten is rounded up to whole steps of `STEP` of the room: after a cut, many
turns pass before the next one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from ivas.engines import Message

STEP = 0.4
"""Share of the room that is freed at once: a prompt grows from 60 % to 100 %, and again."""
LEAST_SHARE = 0.25
"""Share of the budget the conversation gets however long the instructions are."""
MESSAGE_TOKENS = 4
"""What marks the beginning, role and end of a message: 3 or 4 in the usual templates."""
CUT = "…"
"""Stands where a message was cut."""

Count = Callable[[Message], int]
"""Tokens of a message; one with a longer text never has fewer."""

_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ "
_ASCII = bytes(range(128))


def estimate(message: Message) -> int:
    """How many tokens an LLM makes of `message` with all that belongs to it, rather high."""
    calls = sum(
        MESSAGE_TOKENS + text_tokens(call.name) + text_tokens(call.arguments)
        for call in message.tool_calls
    )
    return MESSAGE_TOKENS + text_tokens(message.text) + calls


def text_tokens(text: str) -> int:
    """How many tokens an LLM makes of `text`, rather high.

    ASCII letters and spaces / 3 + other ASCII characters + UTF-8 bytes of all others / 2.
    English has about 4 characters a token, so a third too many are counted; digits and
    punctuation may be a token each. Accented, Cyrillic and Arabic letters have 2 bytes and
    count 1; Indic scripts, Han and kana have 3 and count 1.5, which is what a vocabulary not
    made for them needs, and twice what newer ones do. Too high costs the conversation some of
    its memory, too low is refused by the server or cut by it, cache and all.
    """
    raw = text.encode(errors="replace")
    wide = len(raw.translate(None, _ASCII))
    other = len(raw.translate(None, _LETTERS)) - wide
    letters = len(raw) - wide - other
    return math.ceil(letters / 3 + wide / 2) + other


def trimmed(
    messages: Sequence[Message], *, budget_tokens: int, count: Count = estimate
) -> list[Message]:
    """As much of the end of `messages` as the budget holds.

    `budget_tokens`: what the prompt may have, 1 or more: the context less the longest answer.

    The system messages at the beginning stay. Of the rest whole turns go, the oldest first
    (a turn is a user's message and what follows it); the result of a call that has gone goes
    with it. The newest turn always stays: if it alone is too long, its longest messages are
    cut, what the user said to its end and everything else to its beginning.

    Pure, and steady all the same: while a conversation only grows, the number of tokens
    before a turn never changes. Those turns go that begin before a multiple of `STEP` of the
    room: the least multiple that frees enough.
    """
    first = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
    fixed, rest = list(messages[:first]), messages[first:]
    left = budget_tokens - sum(map(count, fixed))
    room = max(left, math.ceil(budget_tokens * LEAST_SHARE))
    sizes = [count(message) for message in rest]
    excess = sum(sizes) - room
    if excess <= 0:
        return list(messages)
    step = room * STEP
    start = _first_turn_after(rest, sizes, step * math.ceil(excess / step))
    gone = {call.call_id for message in rest[:start] for call in message.tool_calls}
    kept = [message for message in rest[start:] if message.tool_call_id not in gone]
    return fixed + _shortened(kept, room, count)


def _first_turn_after(messages: Sequence[Message], sizes: Sequence[int], tokens: float) -> int:
    """Where the first turn begins that has `tokens` or more before it; else the newest."""
    newest = before = 0
    for position, message in enumerate(messages):
        if message.role == "user":
            newest = position
            if before >= tokens:
                return position
        before += sizes[position]
    return newest


def _shortened(messages: Sequence[Message], room: int, count: Count) -> list[Message]:
    """`messages` within `room`: none longer than the length at which all fit."""
    sizes = [count(message) for message in messages]
    if sum(sizes) <= room:
        return list(messages)
    least = [count(replace(message, text=CUT)) for message in messages]
    most = _greatest(
        lambda each: sum(map(min, sizes, (max(each, bare) for bare in least))) <= room, max(sizes)
    )
    return [
        message if size <= most else _cut(message, most, count)
        for message, size in zip(messages, sizes, strict=True)
    ]


def _cut(message: Message, most: int, count: Count) -> Message:
    """`message` with as much of its text as fits into `most` tokens; at least the mark of it."""

    def with_characters(number: int) -> Message:
        text = message.text
        if message.role == "user":
            return replace(message, text=CUT + text[len(text) - number :])
        return replace(message, text=text[:number] + CUT)

    number = _greatest(lambda number: count(with_characters(number)) <= most, len(message.text))
    cut = with_characters(number)
    return cut if count(cut) < count(message) else message


def _greatest(holds: Callable[[int], bool], most: int) -> int:
    """The greatest number from 1 to `most` for which `holds`, else 0.

    What holds for a number holds for every smaller one.
    """
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low
