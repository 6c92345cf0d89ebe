"""Subtitles that players accept, and a verbose JSON with every field."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.audio import TranscriptionVerbose

from ivas.server.subtitles import Segment, plain, srt, usage, verbose, vtt

TWO = [
    Segment(0.512, 2.0, "Hello there."),
    Segment(3725.4996, 3726.25, "A <b>bold</b> & late\n\nword --> end", "de"),
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
SEGMENTS = st.lists(
    st.builds(
        lambda start, length, text: Segment(start, start + length, text),
        st.floats(0, 1e5),
        st.floats(0, 30),
        TEXTS,
    ),
    max_size=5,
)


def test_srt() -> None:
    assert srt(TWO) == (
        "1\n00:00:00,512 --> 00:00:02,000\nHello there.\n\n"
        "2\n01:02:05,500 --> 01:02:06,250\nA <b>bold</b> & late word -> end\n\n"
    )


def test_vtt() -> None:
    assert vtt(TWO) == (
        "WEBVTT\n\n00:00:00.512 --> 00:00:02.000\nHello there.\n\n"
        "01:02:05.500 --> 01:02:06.250\nA &lt;b>bold&lt;/b> &amp; late word -> end\n\n"
    )


def test_nothing_was_said() -> None:
    assert (plain([]), srt([]), vtt([])) == ("", "", "WEBVTT\n\n")
    body = verbose([], task="transcribe", duration_s=1, language=None, words=True)
    assert (body["text"], body["segments"], body["words"]) == ("", [], [])


@given(SEGMENTS)
def test_a_player_finds_every_subtitle(segments: list[Segment]) -> None:
    clock = r"(\d{2,}):[0-5]\d:[0-5]\d[,.]\d{3}"
    arrow = re.compile(f"^{clock} --> {clock}$", re.MULTILINE)
    for text in (srt(segments), vtt(segments).removeprefix("WEBVTT\n\n")):
        blocks = text.split("\n\n")
        assert blocks.pop() == ""
        assert len(blocks) == len(segments)
        assert all(len(arrow.findall(block)) == 1 for block in blocks)
        assert text.count("-->") == len(segments)


def test_verbose_json_has_every_field() -> None:
    body = verbose(TWO, task="transcribe", duration_s=9.87654, language=None, words=True)
    assert body["task"] == "transcribe"
    read = TranscriptionVerbose.model_validate(body, strict=True)
    assert read.model_dump(exclude_unset=True) == {
        key: value for key, value in body.items() if key != "task"
    } | {"task": "transcribe"}
    assert (read.duration, read.language) == (9.877, "de")
    assert read.text == plain(TWO)
    assert read.segments is not None
    assert [segment.seek for segment in read.segments] == [51, 372550]
    assert body["usage"] == usage(9.87654) == {"type": "duration", "seconds": 9.877}


@pytest.mark.parametrize(
    ("said", "found", "told"), [("fr", "de", "fr"), (None, "de", "de"), (None, None, "und")]
)
def test_the_language(said: str | None, found: str | None, told: str) -> None:
    one = [Segment(0, 1, "Hm."), Segment(1, 2, "Ja.", found)]
    body = verbose(one, task="translate", duration_s=2, language=said, words=False)
    assert (body["language"], body["task"]) == (told, "translate")
    assert "words" not in body


def test_a_text_that_repeats_itself_is_told_by_its_ratio() -> None:
    one = [Segment(0, 1, "blah " * 200), Segment(1, 2, "The quick brown fox jumps.")]
    first, second = verbose(one, task="transcribe", duration_s=2, language=None, words=False)[
        "segments"
    ]
    assert second["compression_ratio"] < 1.1 < 2.4 < first["compression_ratio"]


@given(SEGMENTS)
def test_words_share_out_their_segment(segments: list[Segment]) -> None:
    body = verbose(segments, task="transcribe", duration_s=1, language=None, words=True)
    words = iter(body["words"])
    for segment in segments:
        end = round(segment.start_s, 3)
        for expected in segment.text.split():
            word = next(words)
            assert word["word"] == expected
            assert word["start"] == end
            end = word["end"]
            assert word["start"] <= end
        assert end == round(segment.end_s, 3)
    assert next(words, None) is None
