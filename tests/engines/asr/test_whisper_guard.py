"""What Whisper makes up is dropped, what people say is kept."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.engines.asr.whisper_guard import (
    Decoding,
    compression_ratio,
    doubtful,
    loops,
    made_up,
)


def dropped(
    text: str,
    *,
    logprob: float = -0.2,
    no_speech: float = 0.05,
    audio_s: float = 5.0,
    voiced_s: float = 3.0,
) -> bool:
    return made_up(Decoding(text, logprob, no_speech), audio_s=audio_s, voiced_s=voiced_s)


@pytest.mark.parametrize(
    "text",
    [
        " What time is it?",
        " Stop! Stop! Stop! Stop!",
        " No, no, no, no.",
        " bye bye",
        " My number is 0800 1111 2222.",
        " Ha ha ha ha.",
        " very very very nice",
        " क्या आप मुझे सुन सकते हैं?",
        " 今日の天気を教えてください。",
        " " + "The quick brown fox jumps over the lazy dog and runs away.",
        "",
    ],
)
def test_what_people_say_is_kept(text):
    assert not dropped(text)


@pytest.mark.parametrize(
    "text",
    [
        " so so so so so so so so",
        " I'm going to go to the store. I'm going to go to the store."
        " I'm going to go to the store. I'm going to go to the store.",
        " you know, you know, you know, you know, you know,",
        "謝謝謝謝謝謝謝謝謝謝謝謝謝謝",
        "ありがとうありがとうありがとうありがとうありがとうありがとう",
        "!!!!!!!!!!!!!!!!!!!!!!!!",
        "ololololololol",
    ],
)
def test_loops_are_dropped(text):
    assert loops(text)
    assert dropped(text, audio_s=30)


def test_no_speech_needs_both_signs():
    assert dropped(" hello there", logprob=-1.1, no_speech=0.7)
    assert not dropped(" hello there", logprob=-0.9, no_speech=0.7)
    assert not dropped(" hello there", logprob=-1.1, no_speech=0.5)


def test_more_than_anybody_can_say_is_dropped():
    text = " The weather in the north will be fine and dry all day"
    assert dropped(text, audio_s=0.5)
    assert not dropped(text, audio_s=3)


@pytest.mark.parametrize(
    "text",
    [
        " Thanks for watching!",
        " Subtitles by the Amara.org community",
        " Untertitel im Auftrag des ZDF für funk, 2017",
        " ご視聴ありがとうございました。",
        " देखने के लिए धन्यवाद।",
    ],
)
def test_subtitles_are_dropped_where_little_was_said(text):
    assert dropped(text, voiced_s=0.6)
    assert not dropped(text, voiced_s=2.0)


def test_thanks_are_kept_unless_in_doubt():
    assert not dropped(" Thank you.", voiced_s=0.5)
    assert dropped(" Thank you.", voiced_s=0.5, no_speech=0.4)
    assert dropped(" Thank you.", voiced_s=0.5, logprob=-0.8)
    assert not dropped(" Thank you for your help.", voiced_s=0.5, no_speech=0.4)


def test_what_packs_well_repeats_itself():
    text = " one two three four five six seven eight nine, " * 3
    assert compression_ratio(text) > 2
    assert doubtful(Decoding(text, -0.1, 0))
    assert compression_ratio("") < 1


def test_doubtful_is_decoded_again():
    assert doubtful(Decoding(" hello", -1.2, 0))
    assert doubtful(Decoding(" hello", -math.inf, 0))
    assert doubtful(Decoding(" no" * 9, -0.1, 0))
    assert not doubtful(Decoding(" hello", -0.3, 0.9))


words = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)


@given(st.lists(words, min_size=2, max_size=6, unique=True), st.integers(7, 20))
def test_any_phrase_said_seven_times_is_a_loop(phrase, times):
    assert loops(" ".join(phrase * times))


@given(
    text=st.text(max_size=300),
    logprob=st.floats(max_value=0, allow_nan=False),
    no_speech=st.floats(0, 1),
    audio_s=st.floats(0, 30),
)
def test_judges_any_text(text, logprob, no_speech, audio_s):
    decoding = Decoding(text, logprob, no_speech)
    assert made_up(decoding, audio_s=audio_s, voiced_s=audio_s) in (True, False)
    assert doubtful(decoding) in (True, False)


@pytest.mark.parametrize("text", ["a" * 2000, "ab cd " * 300 + "x", "a b " * 500, " " * 2000])
def test_judges_the_worst_text_at_once(text):
    begin = time.process_time()
    loops(text)
    assert time.process_time() - begin < 0.5
