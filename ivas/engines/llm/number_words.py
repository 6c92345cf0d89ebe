"""English number words and digits to exact numbers, and back to a spoken form.

Knows "forty two", "a hundred and five", "two million three hundred thousand",
"three point one four", "2.5 million", "1,000". A string of words that is not one
number ends where the number ends: "one two" is read as 1, then 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
_ROUND = "twenty thirty forty fifty sixty seventy eighty ninety"
UNITS = {word: value for value, word in enumerate(_SMALL.split())}
TENS = {word: value * 10 for value, word in enumerate(_ROUND.split(), start=2)}
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}


def read_number(words: Sequence[str], at: int) -> tuple[Fraction, int] | None:
    """The number that begins at `words[at]`, and the index after it.

    `words` are lower-case, without hyphens. None if no number begins there.
    """
    if _word(words, at) == "point":
        return _decimals(words, at, Fraction(0))
    group = _literal(words, at) or _below_thousand(words, at)
    if group is None:
        return None
    value, at = group
    total = Fraction(0)
    limit = 10**12
    while (scale := SCALES.get(_word(words, at), limit)) < limit:
        total += value * scale
        limit, at, value = scale, at + 1, Fraction(0)
        after_and = at + 1 if _word(words, at) == "and" else at
        group = _below_thousand(words, after_and)
        if group is None or _is_scale_beyond(words, group[1], limit):
            break
        value, at = group
    return _decimals(words, at, total + value) or (total + value, at)


def say_number(value: Fraction, places: int = 4) -> str:
    """`value` as a voice reads it well: "42", "minus 3.5", "about 0.3333".

    `places`: decimals after which it is rounded, 1 or more.
    """
    rounded = round(abs(value), places)
    if rounded == 0 and value != 0:
        return "very close to 0"
    whole, rest = divmod(rounded, 1)
    digits = str(whole)
    if rest:
        digits += f".{int(rest * 10**places):0{places}d}".rstrip("0")
    about = "" if rounded == abs(value) else "about "
    return f"{about}{'minus ' if value < 0 else ''}{digits}"


def _word(words: Sequence[str], at: int) -> str:
    return words[at] if at < len(words) else ""


def _is_scale_beyond(words: Sequence[str], at: int, limit: int) -> bool:
    """ "two thousand three million" is two numbers: the second group is not ours."""
    return SCALES.get(_word(words, at), 0) >= limit


def _literal(words: Sequence[str], at: int) -> tuple[Fraction, int] | None:
    word = _word(words, at)
    if word[:1].isdecimal() or (word[:1] == "." and len(word) > 1):
        return Fraction(word.replace(",", "")), at + 1
    return None


def _below_thousand(words: Sequence[str], at: int) -> tuple[Fraction, int] | None:
    word = _word(words, at)
    if word in ("a", "an"):
        if _word(words, at + 1) in SCALES:
            return Fraction(1), at + 1
        if _word(words, at + 1) != "hundred":
            return None
        hundreds, at = 1, at + 1
    elif word == "hundred":
        hundreds = 1
    elif word in SCALES:
        return Fraction(1), at
    else:
        small = _below_hundred(words, at)
        if small is None or small[0] == 0 or _word(words, small[1]) != "hundred":
            return small and (Fraction(small[0]), small[1])
        hundreds, at = small
    at += 1  # past "hundred"
    rest = _below_hundred(words, at + 1 if _word(words, at) == "and" else at)
    if rest is None or rest[0] == 0:
        return Fraction(hundreds * 100), at
    return Fraction(hundreds * 100 + rest[0]), rest[1]


def _below_hundred(words: Sequence[str], at: int) -> tuple[int, int] | None:
    word = _word(words, at)
    if word in UNITS:
        return UNITS[word], at + 1
    if word not in TENS:
        return None
    unit = UNITS.get(_word(words, at + 1), 0)
    return (TENS[word] + unit, at + 2) if 0 < unit < 10 else (TENS[word], at + 1)


def _decimals(words: Sequence[str], at: int, whole: Fraction) -> tuple[Fraction, int] | None:
    """ "point one four" after `whole`; None if no digits follow a "point"."""
    if _word(words, at) != "point":
        return None
    at += 1
    digits = ""
    while (word := _word(words, at)) and (
        UNITS.get(word, 10) < 10 or word == "oh" or (word.isdecimal() and word.isascii())
    ):
        digits += "0" if word == "oh" else str(UNITS[word]) if word in UNITS else word
        at += 1
    if not digits:
        return None
    value = whole + Fraction(int(digits), 10 ** len(digits))
    scale = SCALES.get(_word(words, at))
    return (value * scale, at + 1) if scale else (value, at)
