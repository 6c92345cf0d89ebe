"""What XTTS is told to say: languages, pieces, numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.engines.tts.xtts.text import (
    MOST_CHARACTERS,
    digits_one_by_one,
    hindi_digit,
    language_code,
    speakable,
)
from ivas.errors import EngineError

TEXT = st.text(st.sampled_from("ab é1९.,!?। 。\n\t\0…😀"), max_size=200)


@pytest.mark.parametrize(
    ("wanted", "code"),
    [("en", "en"), ("EN-us", "en"), ("pt_BR", "pt"), ("zh", "zh-cn"), ("zh-Hant-TW", "zh-cn")],
)
def test_knows_a_language_by_any_of_its_codes(wanted, code):
    assert language_code(wanted) == code


@pytest.mark.parametrize("wanted", ["", "bn", "cmn", "english"])
def test_names_the_languages_there_are(wanted):
    with pytest.raises(EngineError) as refusal:
        language_code(wanted)
    assert all(code in str(refusal.value) for code in MOST_CHARACTERS)
    assert len(MOST_CHARACTERS) == 17


@given(TEXT, st.integers(1, 60))
def test_pieces_are_short_lose_no_letter_and_have_something_to_say(text, most):
    found = speakable(text, most_characters=most)
    assert all(0 < len(piece) <= most for piece in found)
    assert all(any(map(str.isalnum, piece)) for piece in found)
    letters = [c for c in text if c.isalnum()]
    assert [c for piece in found for c in piece if c.isalnum()] == letters


@given(st.text(max_size=50))
def test_takes_any_text(text):
    for piece in speakable(text, most_characters=20):
        piece.encode()


@pytest.mark.parametrize("text", ["", " ", "...", "😀 !", "\0\x07", "—"])
def test_nothing_to_say_is_no_piece(text):
    assert speakable(text, most_characters=100) == []


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("अभी 12 बजे हैं", "अभी एक दो बजे हैं"),
        ("१२.५%", "एक दो पाँच %"),
        ("3. अप्रैल", "तीन अप्रैल"),
        ("x²", "x²"),
        ("कोई नहीं", "कोई नहीं"),
    ],
)
def test_says_numbers_digit_by_digit(text, spoken):
    assert digits_one_by_one(text, hindi_digit) == spoken


@given(TEXT)
def test_leaves_no_digit(text):
    assert not any(c.isdecimal() for c in digits_one_by_one(text, hindi_digit))
