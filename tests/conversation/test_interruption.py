"""What becomes of a sound over the reply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.conversation.events import TurnSettings
from ivas.conversation.interruption import Decision, decide

SETTINGS = TurnSettings(barge_in_ms=192, overlap_silence_ms=160)
MS = st.floats(0, 10_000)


@pytest.mark.parametrize(
    ("voiced_ms", "silent_ms", "decision"),
    [
        (96, 0, "wait"),
        (191, 159, "wait"),
        (192, 0, "yield"),
        (500, 0, "yield"),
        (96, 160, "dismiss"),
        (191, 500, "dismiss"),
        (192, 160, "yield"),  # enough was said: the pause after it takes nothing back
    ],
)
def test_decisions(voiced_ms: float, silent_ms: float, decision: Decision) -> None:
    assert decide(voiced_ms, silent_ms, SETTINGS) == decision


@given(voiced=MS, silent=MS, more=MS)
def test_more_speech_never_turns_a_yield_into_something_else(
    voiced: float, silent: float, more: float
) -> None:
    if decide(voiced, silent, SETTINGS) == "yield":
        assert decide(voiced + more, silent, SETTINGS) == "yield"


@given(voiced=MS, silent=MS)
def test_no_sound_waits_for_ever(voiced: float, silent: float) -> None:
    """Whichever way it goes on, by voice or by silence, it comes to a decision."""
    assert decide(voiced + SETTINGS.barge_in_ms, silent, SETTINGS) != "wait"
    assert decide(voiced, silent + SETTINGS.overlap_silence_ms, SETTINGS) != "wait"
