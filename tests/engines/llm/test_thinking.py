"""What a model thinks to itself is not spoken."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.engines.llm.thinking import ThoughtFilter


def spoken(*tokens: str) -> str:
    thoughts = ThoughtFilter()
    return "".join([*(thoughts.push(token) for token in tokens), thoughts.end()])


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["Hello", " there."], "Hello there."),
        (["<think>", "hm", "</think>", "\n\n", "Hello."], "Hello."),
        (["<th", "ink>hm</", "think", ">Hello."], "Hello."),
        (["<think>a</think> <think>b</think> Hello."], "Hello."),
        (["<thinking>a < b</thinking>Yes."], "Yes."),
        (["So <think>hm</think> yes."], "So yes."),
        (["So<think>hm</think> yes."], "So yes."),
        (["hm</think>\nHello."], "hm\nHello."),
        (["</think>\nHello."], "Hello."),
        (["<think>never ends"], ""),
        (["two < three and <b>"], "two < three and <b>"),
        (["it is <"], "it is <"),
        (["it is <thin"], "it is <thin"),
        (["<<think>x</think>>"], "<>"),
        ([], ""),
    ],
)
def test_thoughts_are_left_out(tokens: list[str], said: str) -> None:
    assert spoken(*tokens) == said


def test_nothing_is_held_back_that_cannot_be_a_tag() -> None:
    thoughts = ThoughtFilter()
    assert thoughts.push("Hello <") == "Hello "
    assert thoughts.push("b> you") == "<b> you"


PIECES = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<thinking>", "</thinking>", "a", " ", "<", "<t", "/", ">"]
    )
)


@given(PIECES, st.randoms())
def test_how_the_tokens_are_cut_does_not_matter(pieces: list[str], chance) -> None:
    text = "".join(pieces)
    cuts = sorted(chance.randint(0, len(text)) for _ in range(4))
    edges = [0, *cuts, len(text)]
    tokens = [text[a:b] for a, b in pairwise(edges)]
    assert spoken(*tokens) == spoken(text) == spoken(*text)


@given(st.text(alphabet=st.characters(exclude_characters="<")))
def test_a_text_without_tags_is_not_touched(text: str) -> None:
    assert spoken(*text) == text
