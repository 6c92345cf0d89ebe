"""Sums spoken in words come out right; what is not a number is never guessed."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.engines.llm.arithmetic import DividedByZero, Sum, TooLarge, Unclear, find_sum
from ivas.engines.llm.number_words import SCALES, TENS, UNITS, read_number, say_number


def in_words(number: int) -> str:
    """The English words of 0..999,999,999,999, written apart from the code under test."""
    for scale, name in ((10**9, "billion"), (10**6, "million"), (1000, "thousand")):
        if number >= scale:
            rest = f" {in_words(number % scale)}" if number % scale else ""
            return f"{in_words(number // scale)} {name}{rest}"
    if number >= 100:
        rest = f" and {in_words(number % 100)}" if number % 100 else ""
        return f"{in_words(number // 100)} hundred{rest}"
    small = {value: word for word, value in (UNITS | TENS).items()}
    return small[number] if number in small else f"{small[number // 10 * 10]}-{small[number % 10]}"


SPOKEN = {"+": ["plus"], "-": ["minus"], "*": ["times", "multiplied by"], "/": ["divided by"]}
NUMBERS = st.one_of(st.integers(0, 30), st.integers(0, 2_000_000))
BEFORE = st.sampled_from(["", "what is ", "what's ", "how much is ", "how much as ", "one is "])
AFTER = st.sampled_from(["", " please", "?", " then"])


@given(st.integers(0, 999_999_999_999))
def test_every_number_in_words_is_read_back(number: int) -> None:
    words = in_words(number).replace("-", " ").split()
    assert read_number(words, 0) == (number, len(words))


@given(st.decimals(0, 10**6, places=4))
def test_every_decimal_is_read_back_as_it_is_said(number) -> None:
    said = say_number(Fraction(number))
    assert Fraction(said) == Fraction(number)
    whole, _, digits = said.partition(".")
    names = {value: word for word, value in UNITS.items()}
    spoken = [*in_words(int(whole)).replace("-", " ").split()]
    spoken += ["point", *(names[int(digit)] for digit in digits)] if digits else []
    assert read_number(spoken, 0) == (Fraction(number), len(spoken))


@given(
    first=NUMBERS,
    more=st.lists(st.tuples(st.sampled_from("+-*/"), NUMBERS), min_size=1, max_size=3),
    before=BEFORE,
    after=AFTER,
    data=st.data(),
)
def test_random_sums_in_words_evaluate_right(first, more, before, after, data) -> None:
    spoken, code = in_words(first), f"Fraction({first})"
    for sign, number in more:
        spoken += f" {data.draw(st.sampled_from(SPOKEN[sign]))} {in_words(number)}"
        code += f" {sign} Fraction({number})"
    result = find_sum(f"{before}{spoken}{after}")
    try:
        expected = eval(code, {"Fraction": Fraction})  # the oracle: Python's own grammar
    except ZeroDivisionError:
        assert isinstance(result, DividedByZero | TooLarge)
    else:
        assert isinstance(result, TooLarge) or (
            isinstance(result, Sum) and result.value == expected
        )
        if len(more) == 1:
            assert isinstance(result, Sum)


@given(st.lists(st.sampled_from([*UNITS, *TENS, *SCALES, *"+-*/%²³()x", "and", "point", "a"])))
def test_any_mix_of_number_words_and_operators_is_survived(words: list[str]) -> None:
    find_sum(" ".join(words))


@given(st.text(max_size=5000))
def test_any_text_is_survived(text: str) -> None:
    find_sum(text)


@pytest.mark.parametrize(
    ("text", "asked", "value"),
    [
        ("what's seven times six?", "7 times 6", 42),
        ("how much is twelve plus thirty", "12 plus 30", 42),
        ("what is nine squared", "9 squared", 81),
        ("two cubed", "2 cubed", 8),
        ("one is nine square inch", "9 squared", 81),
        ("what is ten percent of two hundred", "10 percent of 200", 20),
        ("20% of 50", "20 percent of 50", 10),
        ("one over four", "1 divided by 4", "1/4"),
        ("three point one four times two", "3.14 times 2", "6.28"),
        ("2.5 million minus a hundred", "2500000 minus 100", 2_499_900),
        ("minus five plus three", "minus 5 plus 3", -2),
        ("6 x 7", "6 times 7", 42),
        ("2+3*4", "2 plus 3 times 4", 14),
        ("(2+3)*4", "", 20),
        ("twenty-one times two", "21 times 2", 42),
        ("1,000 + .5", "1000 plus 0.5", "1000.5"),
        ("what is to plus for", "2 plus 4", 6),
        ("20 invited by 4", "20 divided by 4", 5),
        ("two plus two no two plus three", "2 plus 3", 5),
    ],
)
def test_understood(text: str, asked: str, value: int | str) -> None:
    assert find_sum(text) == Sum(asked, Fraction(value))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("what is seven times sucks", "sucks"),
        ("how much is well plus thirty", "well"),
        ("what is well minus thirty", "well"),
        ("what is seven minus", ""),
        ("what is 2 3 + 4", "2 3 plus 4"),
        ("(2 + 3", ""),
    ],
)
def test_an_operand_that_is_no_number_is_named(text: str, word: str) -> None:
    assert find_sum(text) == Unclear(word)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "how many times",
        "take it three times a day",
        "game over 2",
        "two of the pills",
        "call 555-1234",
        "minus five",
        "what is minus five",
        "the time is ten",
        "plus",
        "seven",
    ],
)
def test_no_sum(text: str) -> None:
    assert find_sum(text) is None


def test_what_has_no_answer() -> None:
    assert find_sum("five divided by zero") == DividedByZero()
    assert find_sum("what is 1 / (2 - 2)") == DividedByZero()
    assert find_sum("two" + " squared" * 30) == TooLarge()
    assert find_sum("9" * 1500 + " + 1") == TooLarge()
    assert find_sum("1 + " * 100 + "1") is None  # nobody says that


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("42", "42"),
        ("-3.5", "minus 3.5"),
        ("1/3", "about 0.3333"),
        ("-2/3", "about minus 0.6667"),
        ("0", "0"),
        ("1/100000", "very close to 0"),
        ("0.05", "0.05"),
        ("99999/100000", "about 1"),
    ],
)
def test_numbers_are_said_well(value: str, said: str) -> None:
    assert say_number(Fraction(value)) == said
