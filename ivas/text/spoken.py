"""What a TTS engine gets to read: prose without the marks that are only for the eye.

Strips Markdown, emoji and control characters and says "link" for a bare URL.
Numbers, units and currency stay as they are, and plain prose of any script is not
touched. Works on one piece of a reply at a time, so that a mark whose partner went
into another piece is stripped as well.
"""
# ruff: noqa: RUF001 - the marks of all scripts are meant

from __future__ import annotations

import re

_FENCE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})[^`\n]*$", re.MULTILINE)
_RULE = re.compile(r"^[ \t]*(?:[-=*_][ \t]*){3,}$", re.MULTILINE)
_TABLE_RULE = re.compile(r"^(?=[^\n]*---)[ \t|:-]+$", re.MULTILINE)
_LINE_MARKS = re.compile(r"^[ \t]*(?:(?:#{1,6}|[-*+•]|>+)[ \t]+)+", re.MULTILINE)
_LINK = re.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*(?:[ \t]+\"[^\"\n]*\")?\)")
_LINK_TAIL = re.compile(r"\]\([^()\s]+\)")  # its "[" went into the piece before
_URL = re.compile(
    r"(?<![A-Za-z0-9])<?(?:https?://|www\.)"
    r"[^\s<>()\[\]|\"`，。、；：！？）」』]*[^\s<>()\[\]|\"`，。、；：！？）」』.,;:!?…*_'’”»।]>?"
)
_STRONG = re.compile(r"\*{2,}|~~+|`+|(?<![^\W_])__+|__+(?![^\W_])|\|")
# Between two letters or digits * and _ mean something: 2*3, snake_case.
_EMPHASIS = re.compile(r"(?<![^\W_])[*_](?=\S)|(?<=\S)[*_](?![^\W_])")
_EMOJI_CHARACTER = (
    "\U0001f000-\U0001faff\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\u3030\u303d\u3297\u3299"
    "\ufe0e\ufe0f\u20e3\U000e0020-\U000e007f"
)
_EMOJI = re.compile(f"\u200d?[{_EMOJI_CHARACTER}][\u200d{_EMOJI_CHARACTER}]*")
_EMOJI_BEFORE_MARK = re.compile(f" ?(?:{_EMOJI.pattern})(?= ?[.,!?;:…])")
# Not the joiners U+200C and U+200D, which spell Persian and the Indic scripts.
_CONTROL = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def speakable(text: str) -> str:
    """`text` as it is to be read aloud, white space collapsed; "" if nothing is.

    Idempotent. Nothing is to be read where there is no letter and no digit: many
    voices make a noise of a lone quotation mark.
    """
    # Again until nothing changes: one mark can hide behind another, as in "> - *a*".
    while (cleaner := _clean(text)) != text:
        text = cleaner
    return text if any(char.isalnum() for char in text) else ""


def _clean(text: str) -> str:
    """One pass; the result is never longer."""
    text = _CONTROL.sub("", text)
    text = _FENCE.sub("", text)
    text = _RULE.sub("", text)
    text = _TABLE_RULE.sub("", text)
    text = _LINE_MARKS.sub("", text)
    text = _LINK.sub(r"\1", text)
    text = _LINK_TAIL.sub("", text)
    text = _URL.sub("link", text)
    text = _STRONG.sub(_as_space_if_pipe, text)
    text = _EMPHASIS.sub("", text)
    text = " ".join(text.split())
    text = _EMOJI_BEFORE_MARK.sub("", text)
    return _EMOJI.sub(" ", text).strip()


def _as_space_if_pipe(mark: re.Match[str]) -> str:
    return " " if mark[0] == "|" else ""
