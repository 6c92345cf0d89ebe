"""What a recogniser made of a request is still understood, and other questions are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.engines.llm.intents import _EXAMPLES, find_intent


@pytest.mark.parametrize(
    ("intent", "example"),
    [(i, e.strip()) for i, examples in _EXAMPLES.items() for e in examples.split(";")],
)
def test_every_example_is_its_own_intent(intent: str, example: str) -> None:
    assert find_intent(example) == intent
    assert find_intent(f"Um, {example.upper()}, please!") == intent


@pytest.mark.parametrize(
    ("heard", "intent"),
    [  # what pocketsphinx made of flite's voices rms and slt
        ("can you tell me that time please", "time"),
        ("what is the day to day", "date"),
        ("what day is it the day", "date"),
        ("what days and today", "date"),
        ("hello are you", "greeting"),
        ("tell me his story", "story"),
        ("how do i get real answer is", "connect"),
        # and what people write
        ("What's the time?", "time"),
        ("what\N{RIGHT SINGLE QUOTATION MARK}s your name", "your_name"),
        ("do you know what time it is", "time"),
        ("jokes", "joke"),
        # a courtesy first, in one breath or (the prompt's line break) after a pause
        ("hello what time is it", "time"),
        ("hi\nwhat time is it", "time"),
        ("Good morning! Hey there, tell me a joke.", "joke"),
        ("thank you what is the date", "date"),
        ("hello how are you", "how_are_you"),
    ],
)
def test_slips_are_forgiven(heard: str, intent: str) -> None:
    assert find_intent(heard) == intent


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12",
        "what time is it in tokyo",
        "hello what time is it in tokyo",
        "what is the weather today",
        "what is the capital of france",
        "who is the president",
        "tell me about the moon",
        "what is your favorite color",
        "to argue",
        "brownback",
        "shop",
        "what time is it " * 3 + " ".join(f"word{chr(97 + i)}" for i in range(26)),
    ],
)
def test_other_questions_are_not_taken_for_it(text: str) -> None:
    assert find_intent(text) is None


@given(st.text(max_size=2000))
def test_any_text_is_survived(text: str) -> None:
    find_intent(text)
