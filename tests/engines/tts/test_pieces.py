"""Long texts in pieces that can be spoken one after the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.engines.tts.pieces import pause_after_s, pieces

texts = st.text(st.sampled_from(list("ab1 .,!?;:\"'。、\n")), max_size=400)


@given(texts, st.integers(4, 40), st.integers(40, 80))
def test_nothing_is_lost_and_no_piece_is_too_long(text, first, most):
    cut = pieces(text, first=first, most=most)
    assert "".join("".join(cut).split()) == "".join(text.split())
    assert all(piece and piece == piece.strip() and len(piece) <= most for piece in cut)


@given(texts)
def test_a_short_text_stays_whole(text):
    whole = " ".join(text.split())
    assert pieces(text, first=400, most=400) == ([whole] if whole else [])


def test_cuts_after_sentences_then_clauses_then_words():
    assert pieces("One two. Three four, five.", first=10, most=40) == [
        "One two.",
        "Three four, five.",
    ]
    assert pieces("One two, three four five six.", first=10, most=40) == [
        "One two,",
        "three four five six.",
    ]
    assert pieces("aaaa bbbb cccc dddd", first=5, most=10) == ["aaaa bbbb", "cccc dddd"]
    assert pieces("a" * 25, first=5, most=10) == ["a" * 10, "a" * 10, "a" * 5]


def test_a_clause_is_not_cut_to_be_early():
    assert pieces("Some words without any mark. And more.", first=10, most=60) == [
        "Some words without any mark.",
        "And more.",
    ]
    assert pieces("Some words without any mark", first=10, most=60) == [
        "Some words without any mark"
    ]


def test_numbers_and_quotes_stay_together():
    assert pieces('It is 3.14, "or so." Yes.', first=22, most=40) == [
        'It is 3.14, "or so."',
        "Yes.",
    ]
    assert pieces("12,345,678.90", first=4, most=20) == ["12,345,678.90"]


def test_scripts_without_spaces():
    assert pieces("你好。我很高兴。再见。", first=4, most=8) == ["你好。", "我很高兴。再见。"]


@pytest.mark.parametrize(
    ("piece", "seconds"),
    [
        ("Yes.", 0.25),
        ('"Yes!"', 0.25),
        ("नमस्ते।", 0.25),
        ("well,", 0.1),
        ("well", 0),
        ("", 0),
        ('"', 0),
    ],
)
def test_the_pause_its_mark_asks_for(piece, seconds):
    assert pause_after_s(piece) == seconds
