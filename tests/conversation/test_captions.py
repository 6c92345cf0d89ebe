"""Captions: words two hypotheses in a row agree on, never taken back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ivas.conversation.captions import Captions


def test_a_word_is_confirmed_by_the_second_hypothesis_that_has_it() -> None:
    captions = Captions()
    assert captions.confirm("what") == ""
    assert captions.confirm("what time") == "what"
    assert captions.confirm("what time is") == " time"
    assert captions.confirm("what time was it") == ""
    assert captions.confirm("what time was it") == " was it"


def test_what_was_confirmed_stays_although_the_recogniser_thinks_again() -> None:
    captions = Captions()
    captions.confirm("I scream")
    assert captions.confirm("I scream") == "I scream"
    assert captions.confirm("ice cream is") == ""
    assert captions.confirm("ice cream is nice") == ""  # does not go on from what was said
    assert captions.confirm("I scream is") == ""
    assert captions.confirm("I scream is nice") == " is"
    assert captions.confirm("") == ""


hypotheses = st.lists(st.lists(st.sampled_from(["a", "b", "c"]), max_size=5).map(" ".join))


@given(hypotheses)
def test_captions_only_grow_and_were_twice_heard(heard: list[str]) -> None:
    captions = Captions()
    shown = ""
    last: list[str] = []
    for hypothesis in heard:
        delta = captions.confirm(hypothesis)
        shown += delta
        if delta:
            words = shown.split(" ")
            assert hypothesis.split()[: len(words)] == words == last[: len(words)]
        last = hypothesis.split()


@given(hypotheses)
def test_the_same_hypothesis_twice_confirms_all_of_it_unless_it_contradicts(
    heard: list[str],
) -> None:
    captions = Captions()
    shown = "".join(captions.confirm(hypothesis) for hypothesis in heard)
    final = f"{shown} z".strip()
    captions.confirm(final)
    assert shown + captions.confirm(final) == final
