"""The prompt stays within its budget, and keeps its beginning for many turns."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.conversation.budget import CUT, LEAST_SHARE, STEP, estimate, text_tokens, trimmed
from ivas.engines import Message, ToolCall

SYSTEM = Message("system", "Be brief.")


def letters(message: Message) -> int:
    """One token a character: what is expected can be counted."""
    return len(message.text)


def turn(number: int, size: int = 10) -> list[Message]:
    """A question and its answer, `size` characters each."""
    return [
        Message("user", f"{number:0>{size}}"),
        Message("assistant", f"{number:a>{size}}"),
    ]


def numbers(messages: list[Message]) -> list[str]:
    return [message.text for message in messages if message.role == "user"]


def test_what_fits_is_left_alone() -> None:
    prompt = [SYSTEM, *turn(1), *turn(2)]
    assert trimmed(prompt, budget_tokens=49, count=letters) == prompt
    assert trimmed([], budget_tokens=10) == []
    assert trimmed([SYSTEM], budget_tokens=1) == [SYSTEM]


def test_the_oldest_turns_go_in_a_big_step() -> None:
    turns = [message for number in range(6) for message in turn(number)]
    kept = trimmed([SYSTEM, *turns], budget_tokens=109, count=letters)  # room for 5 turns
    assert kept == [SYSTEM, *turns[4:]]  # 20 too much: two whole turns, 40 % of 100


def test_all_leading_system_messages_stay() -> None:
    more = Message("system", "And kind.")
    prompt = [SYSTEM, more, *turn(1), *turn(2)]
    assert trimmed(prompt, budget_tokens=40, count=letters) == [SYSTEM, more, *turn(2)]


def test_a_result_goes_with_its_call() -> None:
    call = Message("assistant", "", tool_calls=(ToolCall("1", "time", "{}"),))
    result = Message("tool", "noon", tool_call_id="1")
    late = [Message("user", "x" * 30), call, Message("user", "y" * 30), result, *turn(2)]
    kept = trimmed(late, budget_tokens=60, count=letters)
    assert kept == [late[2], *turn(2)]
    assert trimmed(late, budget_tokens=84, count=letters) == late


def test_a_result_whose_call_was_never_seen_stays() -> None:
    prompt = [*turn(1), Message("user", "?" * 10), Message("tool", "noon", tool_call_id="9")]
    assert trimmed(prompt, budget_tokens=20, count=letters) == prompt[2:]


def test_the_newest_turn_is_cut_to_its_end() -> None:
    said = "".join(chr(ord("a") + i % 26) for i in range(100))
    kept = trimmed([SYSTEM, *turn(1), Message("user", said)], budget_tokens=59, count=letters)
    assert kept == [SYSTEM, Message("user", CUT + said[-49:])]


def test_a_long_result_is_cut_to_its_beginning_and_the_question_stays() -> None:
    call = Message("assistant", "", tool_calls=(ToolCall("1", "read", "{}"),))
    asked = Message("user", "read it to me")
    result = Message("tool", "0123456789" * 10, tool_call_id="1")
    kept = trimmed([asked, call, result], budget_tokens=50, count=letters)
    assert kept == [asked, call, Message("tool", "0123456789" * 3 + "012345" + CUT, "1")]


def test_instructions_that_fill_the_budget_leave_a_quarter_to_the_conversation() -> None:
    long = Message("system", "x" * 1000)
    kept = trimmed([long, *turn(1), *turn(2)], budget_tokens=100, count=letters)
    assert kept == [long, *turn(2)]


def test_too_small_a_budget_still_asks_something() -> None:
    assert trimmed([Message("user", "why not")], budget_tokens=1) == [Message("user", CUT)]
    assert trimmed([Message("user", "I")], budget_tokens=1) == [Message("user", "I")]


def test_an_opening_by_the_assistant_is_a_turn_too() -> None:
    hello = Message("assistant", "h" * 10)
    assert trimmed([hello, *turn(1)], budget_tokens=20, count=letters) == turn(1)
    assert trimmed([hello], budget_tokens=5, count=letters) == [Message("assistant", "hhhh" + CUT)]


SIZES = st.lists(st.integers(1, 25), min_size=1, max_size=120)
"""Sizes of turns, at most a quarter of the room below."""
ROOM = 100


@given(SIZES)
def test_the_beginning_changes_once_a_step(sizes: list[int]) -> None:
    conversation: list[Message] = []
    before: list[Message] = []
    changes = 0
    for number, size in enumerate(sizes):
        conversation.append(Message("user", f"{number:0>{size}}"[:size]))
        kept = trimmed([SYSTEM, *conversation], budget_tokens=ROOM + 9, count=letters)
        assert sum(map(letters, kept)) <= ROOM + 9
        assert kept[-1] == conversation[-1]
        same = kept[: len(before)] == before
        if not same:
            changes += 1
            # A cut frees a step, less the turn it may split.
            assert sum(map(letters, kept[1:])) > ROOM * (1 - STEP) - 25
            assert sum(map(letters, kept[1:])) <= ROOM
        before = kept
    excess = max(0, sum(map(letters, conversation)) - ROOM)
    assert changes <= math.ceil(excess / (ROOM * STEP))


IDS = st.sampled_from(["1", "2", "3"])
CALLS = st.lists(st.builds(ToolCall, IDS, st.just("f"), st.just('{"a": 1}')), max_size=2)
TEXT = st.text(max_size=60)
MESSAGES = st.lists(
    st.one_of(
        st.builds(Message, st.sampled_from(["system", "user"]), TEXT),
        st.builds(Message, st.just("assistant"), TEXT, st.none(), CALLS.map(tuple)),
        st.builds(Message, st.just("tool"), TEXT, IDS),
    ),
    max_size=12,
)


@given(MESSAGES, st.integers(1, 400))
def test_any_prompt_comes_out_in_order_and_within_its_budget(
    messages: list[Message], budget: int
) -> None:
    kept = trimmed(messages, budget_tokens=budget)
    assert kept == trimmed(messages, budget_tokens=budget)
    leading = [
        m for i, m in enumerate(messages) if all(n.role == "system" for n in messages[: i + 1])
    ]
    assert kept[: len(leading)] == leading
    rest = kept[len(leading) :]
    users = [message for message in messages if message.role == "user"]
    if users:
        last = [message for message in rest if message.role == "user"][-1]
        assert users[-1].text.endswith(last.text.removeprefix(CUT))
    # Nothing new, nothing twice, nothing out of order.
    positions = iter(messages)
    for message in kept:
        assert any(
            message == each
            or (
                each.role == message.role
                and each.tool_calls == message.tool_calls
                and CUT in message.text
            )
            for each in positions
        )
    room = max(budget - sum(map(estimate, leading)), math.ceil(budget * LEAST_SHARE))
    bare = sum(min(estimate(m), estimate(replace(m, text=CUT))) for m in rest)
    assert sum(map(estimate, rest)) <= max(room, bare)


@given(MESSAGES, st.integers(1, 200))
def test_a_call_and_its_result_stay_together(messages: list[Message], budget: int) -> None:
    kept = trimmed(messages, budget_tokens=budget)
    called: set[str] = set()
    for message in kept:
        called |= {call.call_id for call in message.tool_calls}
    dropped = {c.call_id for m in messages for c in m.tool_calls} - called
    assert not any(message.tool_call_id in dropped for message in kept)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("What time is it in Paris", 8),
        ("3.14", 4),
        ("über", 2),
        ("नमस्ते", 9),
        ("你好", 3),
        ("🙂", 2),
    ],
)
def test_tokens_of_a_text(text: str, tokens: int) -> None:
    assert text_tokens(text) == tokens


def test_tokens_of_a_message_count_its_calls() -> None:
    call = ToolCall("1", "time", '{"a": 1}')
    assert estimate(Message("assistant", "")) == 4
    assert estimate(Message("assistant", "", tool_calls=(call,))) == 4 + 4 + 2 + 7


@given(st.text(), st.text())
def test_a_longer_text_never_has_fewer_tokens(text: str, more: str) -> None:
    assert text_tokens(text) <= text_tokens(text + more) >= text_tokens(more)
