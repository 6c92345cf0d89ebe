"""What was said and heard: items, cuts to whole words, and the prompt made of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.conversation.history import (
    CUT,
    INAUDIBLE,
    MS_PER_CHARACTER,
    NO_OUTPUT,
    NOTHING_SAID,
    WIRE_MS,
    FunctionCall,
    FunctionOutput,
    History,
    Item,
    Part,
    SpokenText,
)
from ivas.engines import Message, ToolCall

# --- words and sound ---------------------------------------------------------


def spoken(*clauses: tuple[str, float], complete: bool = True) -> SpokenText:
    text = SpokenText()
    for words, audio_ms in clauses:
        text.begin(words)
        text.add(audio_ms)
        text.end()
    if not complete:
        text._clauses[-1].complete = False
    return text


@pytest.mark.parametrize(
    ("played_ms", "heard"),
    [
        (-5, ""),
        (0, ""),
        (399, ""),
        (400, "Good"),
        (599, "Good "),
        (1198, "Good "),
        (1199, "Good morning"),
        (1998, "Good morning to"),
        (1999, "Good morning to you."),
        (2500, "Good morning to you."),
        (1e9, "Good morning to you."),
    ],
)
def test_heard_is_rounded_down_to_words(played_ms: float, heard: str) -> None:
    text = spoken(("Good morning", 1200), (" to you.", 800))
    assert text.heard(played_ms)[0].rstrip() == heard.rstrip()
    assert text.heard(played_ms)[1] == (played_ms >= 2000 - WIRE_MS)


@pytest.mark.parametrize(
    ("text", "share", "heard"),
    [
        ("café", 0.9, ""),
        ("naïve", 0.6, ""),
        ("नमस्ते दुनिया", 0.5, "नमस्ते"),
        ("नमस्ते", 0.7, ""),
        ("안녕하세요", 0.5, ""),
        ("今日はいい天気です", 0.5, "今日はい"),
        ("你好abc", 0.5, "你"),
        ("你好abc", 0.7, "你"),
    ],
)
def test_a_word_is_never_cut_in_any_script(text: str, share: float, heard: str) -> None:
    words, everything = spoken((text, 1000)).heard(share * 1000)
    assert not everything
    assert words == heard


def test_nothing_begun_is_nothing_heard_and_all_of_it() -> None:
    assert SpokenText().heard(100) == ("", True)


def test_a_clause_without_sound_is_heard_with_the_one_before() -> None:
    text = spoken(("One.", 400), (" ***", 0), (" Two.", 500))
    assert text.heard(400) == ("One. ***", False)
    mute = spoken(("***", 0), (" Hm.", 0))
    assert mute.heard(0) == ("", False)
    assert mute.heard(0.1) == ("*** Hm.", True)
    unfinished = SpokenText()
    unfinished.begin("")
    assert unfinished.heard(100) == ("", False)


def test_unfinished_sound_counts_as_long_as_speech_usually_is() -> None:
    text = SpokenText()
    text.begin("Hello there my friend")
    text.add(200)
    assert text.heard(5.5 * MS_PER_CHARACTER) == ("Hello", False)
    text.add(2000)  # slower speech than usual
    assert text.heard(1200)[0].strip() == "Hello there"
    assert text.heard(5000) == ("Hello there my friend", False)


words = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12)
clauses = st.lists(
    st.tuples(
        st.lists(words, max_size=5).map(" ".join),
        st.floats(0, 5_000, allow_nan=False),
    ),
    max_size=6,
)


@given(
    clauses=clauses, times=st.lists(st.floats(-100, 40_000), max_size=12), complete=st.booleans()
)
def test_heard_is_a_growing_prefix_of_whole_words(
    clauses: list[tuple[str, float]], times: list[float], complete: bool
) -> None:
    text = spoken(*clauses, complete=complete or not clauses)
    whole = "".join(words for words, _ in clauses)
    before = ""
    for played_ms in sorted(times):
        heard, everything = text.heard(played_ms)
        assert whole.startswith(heard)
        assert heard.startswith(before)
        assert not everything or heard == whole
        rest = whole[len(heard) :]
        at_clause_end = heard in {"".join(w for w, _ in clauses[:n]) for n in range(len(clauses))}
        if heard and rest and not at_clause_end:
            letters = heard[-1] + rest[0]
            assert any(map(str.isspace, letters)) or min(letters) >= "\u3041"
        before = heard


@given(clauses=clauses, times=st.lists(st.floats(0, 40_000), min_size=1, max_size=6))
def test_truncation_is_idempotent_and_counted_from_the_whole(
    clauses: list[tuple[str, float]], times: list[float]
) -> None:
    history = History()
    item = Item("a", "assistant", [Part("output_audio", "")], spoken=spoken(*clauses))
    history.add(item)
    fresh = Item("b", "assistant", [Part("output_audio", "")], spoken=spoken(*clauses))
    for played_ms in times:  # better and worse figures in any order
        history.truncate(item, played_ms)
    history.truncate(item, times[-1])
    history.truncate(fresh, times[-1])
    assert (item.text, item.cut) == (fresh.text, fresh.cut)


def test_written_text_is_not_cut() -> None:
    history = History()
    item = Item("a", "assistant", [Part("output_text", "Hello there.")])
    history.truncate(item, 0)
    assert (item.text, item.cut) == ("Hello there.", False)


# --- items -------------------------------------------------------------------


def user(item_id: str, text: str | None = "hello") -> Item:
    return Item(item_id, "user", [Part("input_text", text)])


def test_items_are_put_where_the_client_says() -> None:
    history = History()
    assert history.add(user("b")) is None
    assert history.add(user("d")) == "b"
    assert history.add(user("a"), after="root") is None
    assert history.add(user("c"), after="b") == "b"
    assert [item.id for item in history] == ["a", "b", "c", "d"]
    assert len(history) == 4
    with pytest.raises(ValueError, match="a"):
        history.add(user("a"))
    with pytest.raises(KeyError):
        history.add(user("e"), after="nowhere")
    assert history.get("e") is None


def test_items_are_forgotten() -> None:
    history = History()
    history.add(user("a"))
    assert history.delete("a")
    assert not history.delete("a")
    assert history.get("a") is None
    assert list(history) == []
    history.add(user("a"))  # the id is free again


# --- the prompt --------------------------------------------------------------


def assistant(item_id: str, text: str, *, cut: bool = False) -> Item:
    return Item(item_id, "assistant", [Part("output_audio", text)], cut=cut)


def test_the_prompt_says_who_said_what() -> None:
    history = History()
    history.add(user("1", "hello"))
    history.add(assistant("2", "Good morning to ", cut=True))
    history.add(user("3", None))
    history.add(user("4", "I said: stop."))
    history.add(assistant("5", " ", cut=True))  # nothing of it was heard
    history.add(Item("6", "system", [Part("input_text", "Be quick.")]))
    history.add(Item("7", "user", [Part("input_text", "one"), Part("input_audio", "two")]))
    assert history.prompt("Be kind.") == [
        Message("system", "Be kind."),
        Message("user", "hello"),
        Message("assistant", f"Good morning to{CUT}"),
        Message("user", f"{INAUDIBLE}\nI said: stop."),
        Message("system", "Be quick."),
        Message("user", "one\ntwo"),
    ]
    assert history.prompt("")[0] == Message("user", "hello")
    assert History().prompt("") == []


turns = st.lists(
    st.tuples(
        st.one_of(st.none(), st.sampled_from(["", "hello", "what time is it"])),
        st.one_of(st.none(), st.floats(0, 4_000)),  # heard of the reply; None = no reply
    ),
    max_size=8,
)


@given(turns)
def test_the_prompt_of_a_turn_goes_on_where_the_one_before_ended(
    turns: list[tuple[str | None, float | None]],
) -> None:
    history = History()
    before: list[Message] = []
    for number, (said, heard_ms) in enumerate(turns):
        history.add(user(f"u{number}", said))
        prompt = history.prompt("Be kind.")
        # A reply of which nothing was heard leaves two user messages, which become one.
        if before:
            assert prompt[: len(before) - 1] == before[:-1]
            now = prompt[len(before) - 1]
            assert now.role == before[-1].role
            assert now == before[-1] or now.text.startswith(f"{before[-1].text}\n")
        before = prompt
        if heard_ms is not None:
            reply = spoken(("It is noon,", 700), (" and all is well.", 1000))
            item = Item(f"a{number}", "assistant", [Part("output_audio", "")], spoken=reply)
            history.add(item)
            history.truncate(item, heard_ms)


def test_calls_stand_with_their_results_wherever_those_came() -> None:
    history = History()
    history.add(user("u1", "How is the sky?"))
    history.add(Item("a1", "assistant", [Part("output_text", "Let me look.")]))
    history.add(FunctionCall("f1", "c1", "look", '{"at": "sky"}'))
    history.add(FunctionCall("f2", "c2", "listen", "{}"))
    history.add(FunctionOutput("o2", "c2", "wind"))
    history.add(user("u2", "Well?"))
    history.add(FunctionOutput("o1", "c1", "blue"))
    history.add(FunctionCall("f3", "c3", "wait", "{}"))
    calls = (ToolCall("c1", "look", '{"at": "sky"}'), ToolCall("c2", "listen", "{}"))
    assert history.prompt("") == [
        Message("user", "How is the sky?"),
        Message("assistant", "Let me look.", tool_calls=calls),
        Message("tool", "blue", tool_call_id="c1"),
        Message("tool", "wind", tool_call_id="c2"),
        Message("user", "Well?"),
        Message("assistant", "", tool_calls=(ToolCall("c3", "wait", "{}"),)),
        Message("tool", NO_OUTPUT, tool_call_id="c3"),
    ]


def test_a_result_of_no_call_is_left_out() -> None:
    history = History()
    history.add(FunctionOutput("o1", "c1", "blue"))
    assert history.prompt("Be kind.") == [Message("system", "Be kind.")]


def test_a_user_who_was_waited_for_in_vain_said_nothing() -> None:
    history = History()
    history.add(Item("u1", "user", [Part("input_audio", "")], blank=NOTHING_SAID))
    assert history.prompt("") == [Message("user", NOTHING_SAID)]


def test_many_messages_of_a_user_are_one_and_cost_no_more_than_their_length() -> None:
    history = History()
    for number in range(2_000):
        history.add(user(f"u{number}", "x" * 400))
    [message] = history.prompt("")
    assert message.text.count("\n") == 1_999
    copied = 0

    class Counting(str):
        def __format__(self, spec: str) -> str:
            nonlocal copied
            copied += len(self)
            return super().__format__(spec)

    many = History()
    for number in range(200):
        many.add(user(f"u{number}", Counting("x" * 400)))
    many.prompt("")
    assert copied <= 200 * 400
