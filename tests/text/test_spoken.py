"""Marks for the eye go, prose stays: in every script, and for good."""
# ruff: noqa: RUF001 - the marks of all scripts are meant

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ivas.text.spoken import speakable

PROSE = st.text(st.characters(categories=["L", "Nd"], include_characters=" .,!?\n")).filter(
    lambda text: any(map(str.isalnum, text)) and "www." not in text
)
MARKED = st.lists(
    st.sampled_from(
        [
            *("**", "*", "_", "__", "~~", "`", "```", "\n", " ", "#", "# ", "- ", "* ", "> ", "|"),
            *("[", "]", "(", ")", "](", "![", "https://", "www.", "x.y", "<", ">", "---", "=", "“"),
            *("word", "2", "é", "हिन्दी", "你好", "👩‍🚀", "❤️", "1️⃣"),
            *("\u200d", "\u200b", "\x00", "\ud800"),
        ]
    )
    | st.text(max_size=4)
).map("".join)  # fmt: skip


@given(MARKED)
@example("- " * 300 + "a")
@example("[" * 60 + "a" + "](b)" * 60)
def test_twice_is_once(text: str) -> None:
    once = speakable(text)
    assert speakable(once) == once
    assert once == " ".join(once.split())
    assert len(once) <= len(text)


@given(PROSE)
def test_plain_prose_is_not_touched(text: str) -> None:
    assert speakable(text) == " ".join(text.split())


@pytest.mark.parametrize(
    "text",
    [
        "It's 5 °C, 20 % off, $3.50 or 3,50 € & that's all (really): so—what?",
        "2 * 3 = 6 and 2*3 = 6, a < b > c, snake_case, C# and #1, 5 - 3, w/o, me@example.org",
        "«Oui, c'est ça !» „Ja.“ ¿Qué? ¡Sí!",
        "नमस्ते, क्‍या हाल है? यह ठीक है।",
        "আমি ভালো আছি। র‍্যাব",
        "می‌خواهم بروم، خوبی؟",
        "你好，我是小明。「好的！」",
        "สวัสดีครับ น้ำใจ",
        "Copyright © 2024, Brand™, 3 → 4, № 5, ½ and x²",
    ],
)
def test_what_belongs_to_a_language_stays(text: str) -> None:
    assert speakable(text) == text


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("It **is** *very* __much__ _so_ ~~no~~, ***true***.", "It is very much so no, true."),
        ("**Note:", "Note:"),
        ("this** is it", "this is it"),
        ("Call `print()` or ``x``.", "Call print() or x."),
        ("# Title", "Title"),
        ("\n### A title\nand text", "A title and text"),
        ("- eggs\n* milk\n+ tea\n• rice\n1. first", "eggs milk tea rice 1. first"),
        ("> - *quoted*", "quoted"),
        ("```python\nprint(1)\n```", "print(1)"),
        ("~~~\ncode\n~~~", "code"),
        ("One\n---\nTwo\n***\nThree", "One Two Three"),
        ("| a | b |\n|:---|---:|\n| 1 | 2 |", "a b 1 2"),
        ("See [the manual](https://x.org/a_b \"Title\") now", "See the manual now"),
        ("An ![old cat](cat.png) here", "An old cat here"),
        (" friend](https://x.org/a) of mine", "friend of mine"),
        ("See https://example.com/a_b?c=d*e. Then", "See link. Then"),
        ("Or <https://example.com>, or www.example.com!", "Or link, or link!"),
        ("请看https://example.com/a，谢谢", "请看link，谢谢"),
        ("Great 🎉! Hi 👩‍🚀there 👍🏽", "Great! Hi there"),
        ("I ❤️ you ✨ and 🇩🇪, key 1️⃣", "I you and, key 1"),
        ("zero\u200bwidth \ufeffsoft\u00adhyphen \x07bell", "zerowidth softhyphen bell"),
        ("a\u00a0b \t c\r\n d", "a b c d"),
    ],
)  # fmt: skip
def test_what_is_for_the_eye_goes(text: str, spoken: str) -> None:
    assert speakable(text) == spoken


@pytest.mark.parametrize(
    "text", ["", " \n", '"', "...", "**", "👍", "```", "---", "|---|---|", "!"]
)
def test_where_there_is_no_word_nothing_is_said(text: str) -> None:
    assert speakable(text) == ""
