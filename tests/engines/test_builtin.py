"""The built-in responder: honest, short, and never at a loss for words."""

from __future__ import annotations

import asyncio
import random
import re
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual_time import run

from ivas.engines import LLM, Message, Token, Tool
from ivas.engines.llm import phrases
from ivas.engines.llm.builtin import OLLAMA_HINT, BuiltinLLM

AFTERNOON = datetime(2026, 11, 20, 15, 5)


def responder(now: datetime = AFTERNOON, **options) -> BuiltinLLM:
    return BuiltinLLM(now=lambda: now, dice=random.Random(1), **options)


async def tokens_of(messages, llm: LLM | None = None, **options) -> list[str]:
    llm = llm or responder()
    items = [item async for item in llm.stream(messages, **options)]
    return [item.text for item in items if isinstance(item, Token)]


def answer(*texts: str, llm: LLM | None = None, instructions: str = "") -> str:
    """The answer to the last of `texts`, which are user and assistant by turns."""
    roles = ["user", "assistant"] * len(texts)
    messages = [Message(role, text) for role, text in zip(roles, texts, strict=False)]
    if instructions:
        messages.insert(0, Message("system", instructions))
    return "".join(run(tokens_of(messages, llm)))


def converse(*questions: str) -> list[str]:
    """The answers to `questions`, asked in one conversation."""
    said: list[str] = []
    for question in questions:
        said += [question, answer(*said, question)]
    return said[1::2]


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (AFTERNOON, "It is 3:05 PM."),
        (datetime(2026, 1, 1, 9, 0), "It is 9 AM."),
        (datetime(2026, 1, 1, 0, 30), "It is 12:30 AM."),
        (datetime(2026, 1, 1, 12, 0), "It is noon."),
        (datetime(2026, 1, 1, 0, 0), "It is midnight."),
    ],
)
def test_time(now: datetime, said: str) -> None:
    assert answer("what time is it", llm=responder(now)) == said


def test_date() -> None:
    assert answer("what days and today") == "Today is Friday, November 20, 2026."
    assert answer("what day is tomorrow") == "Tomorrow is Saturday, November 21, 2026."
    new_year = responder(datetime(2026, 12, 31, 23, 59))
    assert answer("what day is tomorrow", llm=new_year) == "Tomorrow is Friday, January 1, 2027."


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("what is seven times six", "7 times 6 is 42."),
        ("how much as twelve plus thirty", "12 plus 30 is 42."),
        ("10/3", "10 divided by 3 is about 3.3333."),
        ("what is (2+3)*4", "That is 20."),
        ("what is five divided by zero", "That has no answer. Nothing can be divided by zero."),
        ("99999999999 * 99999999999", "That is too big for me. I calculate with up to 15 digits."),
        ("what is seven minus", "A number is missing there. Please say the whole sum again."),
    ],
)
def test_sums(question: str, said: str) -> None:
    assert answer(question) == said


def test_an_unclear_operand_is_asked_for_by_name() -> None:
    said = answer("what is seven times sucks")
    assert "I heard sucks, where a number should be" in said
    assert "42" not in said


def test_remembers_the_name() -> None:
    assert answer("what is my name").startswith("You have not told me")
    said = converse(
        "my name is anna", "what time is it", "what is my name", "call me Bob", "who am i"
    )
    assert said[0].startswith("Nice to meet you, Anna.")
    assert said[2] == "Your name is Anna."
    assert said[4] == "Your name is Bob."


def test_the_demo_asks_for_the_name_and_takes_a_bare_word_for_it() -> None:
    said = converse("give me a demo", "anna", "what is my name")
    assert said[0].endswith(phrases.ASK_NAME)
    assert said[1].startswith("Nice to meet you, Anna.")
    assert said[2] == "Your name is Anna."
    assert converse("demo", "tell me a joke")[1] == phrases.JOKES[0]
    assert converse("demo", "I'm Zoë")[1].startswith("Nice to meet you, Zoë.")


def test_remembers_what_was_said() -> None:
    assert answer("what did i just say") == "You have said nothing before this."
    assert answer("say that again") == "I have said nothing yet."
    said = converse("the sky is green", "what did i just say", "what is 1 + 1", "say that again")
    assert said[1] == "You said: The sky is green."
    assert said[3] == "1 plus 1 is 2."


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("repeat after me the weather is nice", "The weather is nice."),
        ("Please say 'good job, team!'", "Good job, team!"),
        ("repeat after me what time is it", "What time is it."),
        ("repeat after me", phrases.ASK_WORDS),
    ],
)
def test_repeats(asked: str, said: str) -> None:
    assert answer(asked) == said


def test_counts_within_reason() -> None:
    assert answer("count to five") == "1, 2, 3, 4, 5."
    assert answer("count to a million").endswith("99, 100. I stop at 100.")
    assert answer("count to zero") in phrases.UNKNOWN


def test_jokes_go_round_even_when_one_was_interrupted() -> None:
    asked = ["tell me a joke"] * (len(phrases.JOKES) + 1)
    assert converse(*asked) == [*phrases.JOKES, phrases.JOKES[0]]
    heard = phrases.JOKES[0][:20] + "\N{HORIZONTAL ELLIPSIS}"
    assert answer("joke", heard, "another joke") == phrases.JOKES[1]


def test_chance_comes_from_the_dice_passed_in() -> None:
    llm = responder()
    flipped = [answer("flip a coin", llm=llm) for _ in range(20)]
    assert set(flipped) == {"I flipped it. It is heads.", "I flipped it. It is tails."}
    assert flipped[0] == answer("flip a coin", llm=responder())
    assert {answer("roll a die", llm=llm)[-2] for _ in range(60)} == set("123456")


def test_what_it_cannot_answer_it_says_honestly_and_never_twice_the_same() -> None:
    said = converse("what is the capital of france", "who is the president", "why is the sky blue")
    assert sorted(said) == sorted(phrases.UNKNOWN)
    assert all("language model" in text for text in said)


def test_says_how_to_connect_a_language_model() -> None:
    assert answer("how do i get real answers").endswith(OLLAMA_HINT)
    assert answer("connect ollama", llm=responder(ollama_hint="Ask Bob.")).endswith(" Ask Bob.")


@pytest.mark.parametrize("nothing", ["", "   ", "...", "\N{THUMBS UP SIGN}"])
def test_nothing_heard_asks_to_say_it_again(nothing: str) -> None:
    assert answer(nothing) == phrases.NOTHING_HEARD[0]
    assert answer("", phrases.NOTHING_HEARD[0], nothing) == phrases.NOTHING_HEARD[1]


@pytest.mark.parametrize("text", ["नमस्ते आप कैसे हैं", "今何時ですか", "который час", "كم الساعة"])
def test_other_scripts_are_told_that_it_knows_english_only(text: str) -> None:
    assert answer(text) == phrases.ENGLISH_ONLY


@pytest.mark.parametrize("text", ["wie spät ist es", "2+2", "naïve café"])
def test_latin_letters_are_not(text: str) -> None:
    assert answer(text) != phrases.ENGLISH_ONLY


@pytest.mark.parametrize(
    ("instructions", "said"),
    [
        ('Say "pineapple".', "pineapple"),
        ('You are kind. Always reply with: "yes sir" and nothing else.', "yes sir"),
        ("Reply only with hello there", "hello there"),
        ('If asked about money, say "no".', "It is 3:05 PM."),
        ("You are a pirate. Reply only with rhymes. Be brief.", "It is 3:05 PM."),
        ('Say "".', "It is 3:05 PM."),
    ],
)
def test_only_simple_instructions_are_obeyed(instructions: str, said: str) -> None:
    assert answer("what time is it", instructions=instructions) == said


def test_without_a_question_it_opens_the_conversation() -> None:
    assert "".join(run(tokens_of([]))) == phrases.OPENING
    assert "".join(run(tokens_of([Message("assistant", "Hi.")]))) == phrases.OPENING


def test_an_answered_question_is_answered_again_on_request() -> None:
    messages = [Message("user", "what is 1 + 1"), Message("assistant", "1 plus 1 is 2.")]
    assert "".join(run(tokens_of(messages))) == "1 plus 1 is 2."


async def test_words_come_as_tokens_with_their_leading_space() -> None:
    messages = [Message("user", "what is seven times six")]
    assert await tokens_of(messages) == ["7", " times", " 6", " is", " 42."]
    assert await tokens_of(messages, max_tokens=2) == ["7", " times"]
    assert await tokens_of(messages, max_tokens=0) == ["7"]
    assert await tokens_of(messages, tools=[Tool("clock")]) == await tokens_of(messages)


async def test_a_long_reply_leaves_the_loop_to_others() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        for _ in range(20):
            turns += 1
            await asyncio.sleep(0)

    busy = asyncio.create_task(other())
    count = len(await tokens_of([Message("user", "count to one hundred")]))
    assert turns >= count // 16
    await busy


async def test_always_ready_and_closable() -> None:
    llm: LLM = responder()
    assert llm.name == "builtin"
    await llm.start()
    assert llm.status().ready
    await llm.prefill([])
    await llm.aclose()
    await llm.aclose()


def every_phrase() -> list[str]:
    texts = [phrases.OPENING, phrases.ENGLISH_ONLY, phrases.CONNECT, phrases.ASK_WORDS, OLLAMA_HINT]
    for variants in (phrases.NOTHING_HEARD, phrases.UNKNOWN, phrases.JOKES, phrases.STORIES):
        texts += variants
    return texts + [text for variants in phrases.PLAIN.values() for text in variants]


@pytest.mark.parametrize("text", every_phrase())
def test_phrases_are_for_the_ear_and_begin_with_a_short_clause(text: str) -> None:
    assert not re.search(r"[*_`#/\\<>()\[\]{}]|https?:", text)
    first = re.split(r"[,.!?:]", text)[0]
    assert 1 <= len(first.split()) <= 8
    assert text[-1] in ".?"


def test_phrases_are_told_apart_by_their_beginning() -> None:
    for variants in (phrases.UNKNOWN, phrases.JOKES, phrases.STORIES, phrases.NOTHING_HEARD):
        assert len({text[:12] for text in variants}) == len(variants)


@given(st.lists(st.text(max_size=5000), min_size=1, max_size=4), st.text(max_size=300))
def test_any_text_gets_an_answer(texts: list[str], instructions: str) -> None:
    said = answer(*texts, instructions=instructions)
    assert said.strip()


OWN_WORDS = (
    "what is my name say repeat after me seven times plus the time joke i am to by zero "
    "count hello 12 + ( ) how % . ' \N{RIGHT SINGLE QUOTATION MARK}"
)


@given(st.lists(st.sampled_from(OWN_WORDS.split()), min_size=1, max_size=30))
def test_any_mix_of_its_own_words_gets_an_answer(words: list[str]) -> None:
    assert answer(" ".join(words))


def test_a_huge_message_costs_no_more_than_a_long_one() -> None:
    huge = "what is seven times " * 5000
    assert answer(huge) == answer(huge[:2000])
