"""What XTTS can be told to say: its languages, and text cut to what it takes at once."""

from __future__ import annotations

import re
from collections.abc import Callable

from ivas.engines.tts.pieces import pieces
from ivas.errors import EngineError

MOST_CHARACTERS = {
    "en": 250,
    "es": 239,
    "fr": 273,
    "de": 253,
    "it": 213,
    "pt": 203,
    "pl": 224,
    "tr": 226,
    "ru": 182,
    "nl": 251,
    "cs": 186,
    "ar": 166,
    "zh-cn": 82,
    "hu": 224,
    "ko": 95,
    "ja": 71,
    "hi": 150,
}
"""The 17 languages of XTTS v2 and the longest text in each that it says to the end: table
`char_limits` of VoiceBpeTokenizer (coqui-tts 0.28, TTS/tts/layers/xtts/tokenizer.py)."""

_NUMBER = re.compile(r"\d(?:[\d.,:/\s]*\d)?\.?")
_UNSPEAKABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_HINDI_DIGITS = ["शून्य", "एक", "दो", "तीन", "चार", "पाँच", "छह", "सात", "आठ", "नौ"]


def language_code(wanted: str) -> str:
    """The language of XTTS that a BCP 47 code asks for: `pt-BR` is `pt`, any `zh` is `zh-cn`.

    Raises EngineError that names the languages there are.
    """
    primary = wanted.lower().replace("_", "-").split("-")[0]
    code = "zh-cn" if primary == "zh" else primary
    if code not in MOST_CHARACTERS:
        raise EngineError(
            f"xtts cannot speak {wanted!r}; it speaks {', '.join(sorted(MOST_CHARACTERS))}: "
            "choose one of these, or another engine.",
            code="unsupported_language",
        )
    return code


def speakable(text: str, *, most_characters: int) -> list[str]:
    """`text` in pieces XTTS takes: none too long, and in each something to say.

    For a piece without any letter or digit it would make sounds up, so that is left out.
    """
    plain = _UNSPEAKABLE.sub(" ", text.encode(errors="replace").decode())
    found = pieces(plain, first=most_characters, most=most_characters)
    return [piece for piece in found if any(map(str.isalnum, piece))]


def digits_one_by_one(text: str, say: Callable[[int], str]) -> str:
    """Every number in `text` as its digits, each said by `say`: what is left when a
    language has no words for numbers."""

    def spoken(number: re.Match[str]) -> str:
        return " " + " ".join(say(int(c)) for c in number[0] if c.isdecimal()) + " "

    return re.sub(r"\s+", " ", _NUMBER.sub(spoken, text)).strip()


def hindi_digit(digit: int) -> str:
    """num2words 0.5.14, which coqui-tts asks, knows no Hindi."""
    return _HINDI_DIGITS[digit]
