"""What XTTS can be told to say: its languages, and text cut to what it takes at once."""

from __future__ import annotations

import re
from collections.abc import Callable

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

_SENTENCE_END = re.compile(r"[.!?…;:।。！？；：]+[\"'”’»)\]]*\s+|[।。！？；：]+")  # noqa: RUF001
_CLAUSE_END = re.compile(r"[,،、，–—]\s*")  # noqa: RUF001
_WORD_END = re.compile(r"\s+")
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


def pieces(text: str, most_characters: int) -> list[str]:
    """`text` in pieces of at most `most_characters`, cut where it sounds best.

    After a sentence if that leaves half of the room used, else after a clause, else
    between words; only a longer word is cut within. No letter is lost, and a piece
    without any letter or digit is left out: XTTS would make sounds up for it.
    """
    rest = _UNSPEAKABLE.sub(" ", text.encode(errors="replace").decode()).strip()
    found = []
    while len(rest) > most_characters:
        cut = _cut(rest, most_characters)
        found.append(rest[:cut].strip())
        rest = rest[cut:].strip()
    found.append(rest)
    return [piece for piece in found if any(map(str.isalnum, piece))]


def halves(text: str) -> list[str]:
    """`text` in two or more pieces, each shorter than it."""
    return pieces(text, max(1, (len(text) + 1) // 2))


def _cut(text: str, most: int) -> int:
    """Where to cut a text that is longer than `most`: 1..most."""
    for end, least in ((_SENTENCE_END, most // 2), (_CLAUSE_END, most // 2), (_WORD_END, 1)):
        # What is found may end in spaces beyond `most`: they are stripped.
        ends = [m.end() for m in end.finditer(text, 0, most + 1) if least <= m.start() + 1 <= most]
        if ends:
            return min(max(ends), most)
    return most


def digits_one_by_one(text: str, say: Callable[[int], str]) -> str:
    """Every number in `text` as its digits, each said by `say`: what is left when a
    language has no words for numbers."""

    def spoken(number: re.Match[str]) -> str:
        return " " + " ".join(say(int(c)) for c in number[0] if c.isdecimal()) + " "

    return re.sub(r"\s+", " ", _NUMBER.sub(spoken, text)).strip()


def hindi_digit(digit: int) -> str:
    """num2words 0.5.14, which coqui-tts asks, knows no Hindi."""
    return _HINDI_DIGITS[digit]
