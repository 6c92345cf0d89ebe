"""Cuts a text into the pieces an engine speaks one after the other.

For engines that make a whole piece of speech in one call: a short first piece is
heard early, bounded ones keep the memory bounded and the loop free of long calls.
"""

from __future__ import annotations

import re

# ruff: noqa: RUF001 - the marks of many scripts look like the Latin ones
SENTENCE_MARKS = ".!?…。！？｡।॥۔؟"
CLAUSE_MARKS = ",;:—–、，；："
_NEED_NO_SPACE = "。！？｡।॥۔؟、，；："
"""Marks that are never within a word or a number."""
_CLOSERS = "\"')]»”’"

SENTENCE_PAUSE_S = 0.25
CLAUSE_PAUSE_S = 0.1
"""What kokoro-onnx puts between the pieces it joins."""


def _ends(marks: str) -> re.Pattern[str]:
    """Matches marks with the quotes and brackets they close, where they end something."""
    loose = re.escape("".join(set(marks) - set(_NEED_NO_SPACE)))
    firm = re.escape("".join(set(marks) & set(_NEED_NO_SPACE)))
    closers = f"[{re.escape(_CLOSERS)}]*"
    return re.compile(rf"[{loose}]+{closers}(?=\s)|[{firm}]{closers}")


_MARKS = (_ends(SENTENCE_MARKS), _ends(CLAUSE_MARKS))
"""Where to cut, the better place first."""
_SPACE = (re.compile(r"\s"),)


def pieces(text: str, *, first: int, most: int) -> list[str]:
    """`text` in pieces of about `first` characters, then twice as many, up to `most`.

    They double because while one is heard the next is made. Cut after a sentence, else
    after a clause; where neither ends in time the piece is longer, and only one beyond
    `most` is cut between words, or anywhere. Spaces at the cuts are dropped.
    """
    rest = " ".join(text.split())
    cut: list[str] = []
    limit = first
    while len(rest) > limit:
        end = (
            (_ends_within(rest, limit, _MARKS) or [0])[-1]
            or (_ends_within(rest, most, _MARKS) or [0])[0]
            or (len(rest) if len(rest) <= most else 0)
            or (_ends_within(rest, most, _SPACE) or [most])[-1]
        )
        cut.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
        limit = min(2 * limit, most)
    return [*cut, rest] if rest else cut


def pause_after_s(piece: str) -> float:
    """Seconds of silence that belong behind a piece for the mark it ends with."""
    mark = piece.rstrip(_CLOSERS + " ")[-1:]
    if not mark:
        return 0.0
    if mark in SENTENCE_MARKS:
        return SENTENCE_PAUSE_S
    return CLAUSE_PAUSE_S if mark in CLAUSE_MARKS else 0.0


def _ends_within(text: str, limit: int, boundaries: tuple[re.Pattern[str], ...]) -> list[int]:
    """Where the first kind of boundary that is there ends, from a quarter of `limit` to `limit`."""
    for boundary in boundaries:
        ends = [match.end() for match in boundary.finditer(text, 0, limit + 1)]
        if fitting := [end for end in ends if limit // 4 < end <= limit]:
            return fitting
    return []
