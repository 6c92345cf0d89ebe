"""A transcript with times, as text, SRT, WebVTT and OpenAI's verbose JSON.

The engines give text and the VAD gives times, so a few fields of the verbose JSON have
nothing behind them here: `tokens` is empty, `temperature`, `avg_logprob` and
`no_speech_prob` are 0, which reads as "sure". `compression_ratio` is true. The times of
words are estimates: a segment's time shared out by the letters of its words.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Task = Literal["transcribe", "translate"]

UNKNOWN_LANGUAGE = "und"
"""BCP 47: undetermined."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of speech; times in seconds from the beginning of the recording."""

    start_s: float
    end_s: float
    text: str
    language: str | None = None
    """BCP 47, if the engine found out."""


def plain(segments: Sequence[Segment]) -> str:
    """All of the text in one line."""
    return " ".join(segment.text for segment in segments)


def srt(segments: Sequence[Segment]) -> str:
    """SubRip."""
    return "".join(
        f"{number}\n{_clock(segment.start_s, ',')} --> {_clock(segment.end_s, ',')}\n"
        f"{_one_line(segment.text)}\n\n"
        for number, segment in enumerate(segments, 1)
    )


def vtt(segments: Sequence[Segment]) -> str:
    """WebVTT (W3C), where `<` and `&` begin markup."""
    return "WEBVTT\n\n" + "".join(
        f"{_clock(segment.start_s, '.')} --> {_clock(segment.end_s, '.')}\n"
        f"{_one_line(segment.text).replace('&', '&amp;').replace('<', '&lt;')}\n\n"
        for segment in segments
    )


def verbose(
    segments: Sequence[Segment],
    *,
    task: Task,
    duration_s: float,
    language: str | None,
    words: bool,
) -> dict[str, Any]:
    """The verbose JSON. `language`: what the client said it is, else what an engine found."""
    found = language or next((s.language for s in segments if s.language), None)
    body: dict[str, Any] = {
        "task": task,
        "language": found or UNKNOWN_LANGUAGE,
        "duration": round(duration_s, 3),
        "text": plain(segments),
        "segments": [_segment(number, segment) for number, segment in enumerate(segments)],
        "usage": usage(duration_s),
    }
    if words:
        body["words"] = [word for segment in segments for word in _words(segment)]
    return body


def usage(duration_s: float) -> dict[str, Any]:
    """What transcription is counted by."""
    return {"type": "duration", "seconds": round(duration_s, 3)}


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    data = segment.text.encode(errors="replace")
    return {
        "id": number,
        "seek": round(segment.start_s * 100),  # as Whisper counts: frames of 10 ms
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": 0.0,
        # Whisper's own measure of a text that repeats itself: openai/whisper, utils.py.
        "compression_ratio": round(len(data) / len(zlib.compress(data)), 3),
        "no_speech_prob": 0.0,
    }


def _words(segment: Segment) -> list[dict[str, Any]]:
    words = segment.text.split()
    letters = sum(map(len, words))
    passed = 0
    found = []
    for word in words:
        start_s = _between(segment, passed / letters)
        passed += len(word)
        found.append({"word": word, "start": start_s, "end": _between(segment, passed / letters)})
    return found


def _between(segment: Segment, share: float) -> float:
    return round(segment.start_s + share * (segment.end_s - segment.start_s), 3)


def _clock(seconds: float, mark: str) -> str:
    """01:02:03,456"""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    whole, rest = divmod(milliseconds, 1000)
    return f"{hours:02}:{minutes:02}:{whole:02}{mark}{rest:03}"


def _one_line(text: str) -> str:
    """A blank line would end a subtitle, and an arrow would begin one."""
    return " ".join(text.split()).replace("-->", "->")
