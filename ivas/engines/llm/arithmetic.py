"""Sums as people say them: finds one in a recognised sentence and works it out.

Reads digits and English number words ("seven times six", "12 + 30", "ten percent
of two hundred") and calculates exactly, in fractions; nothing is ever evaluated
as code. The text comes from a speech recogniser, so words around the sum are
ignored, but an operand that is not a number is never guessed: it comes back as
`Unclear`, with the word that was heard in its place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from fractions import Fraction

from ivas.engines.llm.number_words import read_number, say_number

MAX_CHARS = 2000
MAX_WORDS = 80
"""A longer text is not a spoken sum; this also bounds the parser's recursion."""
_LIMIT = 10**15
"""Numerators and denominators stay below this: nothing grows without bound."""


@dataclass(frozen=True, slots=True)
class Sum:
    """A sum that was understood."""

    asked: str
    """The sum again in figures and words; "" where brackets make it unspeakable."""
    value: Fraction


@dataclass(frozen=True, slots=True)
class Unclear:
    """A sum with something else where a number should be.

    `word` is what was heard there, "" if nothing was.
    """

    word: str


@dataclass(frozen=True, slots=True)
class DividedByZero:
    """A sum that has no answer."""


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A sum that leads beyond 10**15."""


Result = Sum | Unclear | DividedByZero | TooLarge

_OPERATORS = {
    "plus": "+",
    "minus": "-",
    "negative": "-",
    "\N{MINUS SIGN}": "-",
    "times": "*",
    "\N{MULTIPLICATION SIGN}": "*",
    "·": "*",
    "÷": "/",
    "percent": "%",
    "squared": "²",
    "square": "²",
    "cubed": "³",
    "of": "of",
} | {sign: sign for sign in "+-*/%²³()"}
_SPOKEN = {"+": "plus", "-": "minus", "*": "times", "/": "divided by", "%": "percent"}
_SPOKEN |= {"²": "squared", "³": "cubed"}
_BEFORE_BY = {"divided": "/", "multiplied": "*"}
_BETWEEN = frozenset("+*/%²³") | {"of"}
"""What can stand neither first (`(` and `-` can) ..."""
_OPEN = frozenset("+-*/(") | {"of"}
"""... and what can not stand last."""
_PLAIN_WORDS = frozenset("*/-()") | {"of"}
"""Signs whose words also live in sentences that are no sums: "three times a day"."""
_BETWEEN_NUMBERS = {"x": "*", "time": "*", "over": "/"}
"""Words that are operators only with a number on either side."""
_SOUND_ALIKE = {"to": 2, "too": 2, "for": 4, "fore": 4, "won": 1, "ate": 8, "oh": 0}
"""Exact homophones: numbers where an operator beside them leaves no other reading."""
_ASKING = frozenset(("what", "what's", "whats", "how", "much", "calculate", "compute", "solve"))
_IS = frozenset(("is", "as", "what's", "whats", "calculate", "compute", "solve"))
"""Words right before a sum; a recogniser hears "one is" and "much as" too."""

_WORD = re.compile(
    r"\d+(?:,\d{3})*(?:\.\d+)?|\.\d+|[^\W\d_]+(?:'[^\W\d_]+)*|[-+*/%()·÷²³\u00d7\u2212]",
    re.ASCII,
)
_HYPHEN = re.compile(r"(?<=[a-z])-(?=[a-z])")


@dataclass(frozen=True, slots=True)
class _Operator:
    sign: str


_Item = Fraction | _Operator | str
"""A number, an operator, or a word that is neither."""


def find_sum(text: str) -> Result | None:
    """Work out the last sum in `text`; None if there is none.

    A text of more than `MAX_CHARS` or `MAX_WORDS` has none. Never raises.
    """
    if len(text) > MAX_CHARS:
        return None
    words = _WORD.findall(_HYPHEN.sub(" ", text.lower()).replace("per cent", "percent"))
    if len(words) > MAX_WORDS:
        return None
    items = _read(words)
    asking = not _ASKING.isdisjoint(words)
    result: Result | None = None
    first = 0
    while first < len(items):
        last = first
        while last < len(items) and not isinstance(items[last], str):
            last += 1
        before = str(items[first - 1]) if first else ""
        after = str(items[last]) if last < len(items) else ""
        result = _solve(items[first:last], before, after, asking=asking) or result
        first = last + 1
    return result


def _solve(run: Sequence[_Item], before: str, after: str, *, asking: bool) -> Result | None:
    """Work out a run of numbers and operators; None if it is not meant as a sum.

    `before` and `after` are the words around it; `asking`: the text has a "what
    is" or the like somewhere.
    """
    signs = [item.sign for item in run if isinstance(item, _Operator)]
    if len(signs) == len(run) or set(signs) <= {"of", "(", ")"}:
        return None
    common = set(signs) <= _PLAIN_WORDS
    if signs[0] == "-" and len(run) == 2 and run[0] == _Operator("-"):
        return Unclear(before) if asking and before not in _IS else None
    if isinstance(run[0], _Operator) and run[0].sign in _BETWEEN:
        return Unclear(before) if asking or not common else None
    if isinstance(run[-1], _Operator) and run[-1].sign in _OPEN:
        return Unclear(after) if asking or not common else None
    if common and before and not asking and before not in _IS:
        return None
    try:
        return Sum(_say(run), _Parser(run).value())
    except ZeroDivisionError:
        return DividedByZero()
    except OverflowError:
        return TooLarge()
    except _NotASum:
        return Unclear(_say(run))


def _read(words: Sequence[str]) -> list[_Item]:
    """Words to numbers, operators and the rest."""
    items: list[_Item] = []
    at = 0
    while at < len(words):
        if number := read_number(words, at):
            items.append(number[0])
            at = number[1]
        elif operator := _read_operator(words, at):
            items.append(_Operator(operator[0]))
            at = operator[1]
        else:
            items.append(words[at])
            at += 1
    for at, item in enumerate(items):
        around = items[max(0, at - 1) : at + 2]
        if isinstance(item, str) and item in _BETWEEN_NUMBERS:
            if sum(isinstance(other, Fraction) for other in around) == 2:
                items[at] = _Operator(_BETWEEN_NUMBERS[item])
        elif isinstance(item, str) and item in _SOUND_ALIKE:
            signs = {other.sign for other in around if isinstance(other, _Operator)}
            if not signs <= {"of", "(", ")"}:
                items[at] = Fraction(_SOUND_ALIKE[item])
    return items


def _read_operator(words: Sequence[str], at: int) -> tuple[str, int] | None:
    if words[at + 1 : at + 2] == ["by"]:
        # A recogniser makes "invited by" of "divided by"; the answer says the
        # sum again, so a wrong reading is heard.
        for name, sign in _BEFORE_BY.items():
            if SequenceMatcher(None, words[at], name).ratio() > 0.7:
                return sign, at + 2
    sign = _OPERATORS.get(words[at], "")
    return (sign, at + 1) if sign else None


def _say(run: Sequence[_Item]) -> str:
    """The run in figures and words, for the ear: "7 times 6"; "" with brackets."""
    words = []
    for item in run:
        if isinstance(item, Fraction):
            words.append(say_number(item, places=12))
        elif isinstance(item, _Operator):
            if item.sign in "()":
                return ""
            words.append(_SPOKEN.get(item.sign, item.sign))
    return " ".join(words)


class _NotASum(Exception):
    """The run does not follow the grammar."""


class _Parser:
    """Recursive descent over one run.

    sum     = product (("+" | "-") product)*
    product = factor (("*" | "/" | "of") factor)*
    factor  = "-" factor | (number | "(" sum ")") ("²" | "³" | "%")*
    """

    def __init__(self, run: Sequence[_Item]) -> None:
        self._run = run
        self._at = 0

    def value(self) -> Fraction:
        """Raises _NotASum, ZeroDivisionError, OverflowError."""
        value = self._sum()
        if self._at < len(self._run):
            raise _NotASum
        return value

    def _take(self, *signs: str) -> str:
        """Step over one of `signs`, "" if another item stands here."""
        item = self._run[self._at] if self._at < len(self._run) else None
        if isinstance(item, _Operator) and item.sign in signs:
            self._at += 1
            return item.sign
        return ""

    def _sum(self) -> Fraction:
        value = self._product()
        while sign := self._take("+", "-"):
            other = self._product()
            value = _bounded(value + other if sign == "+" else value - other)
        return value

    def _product(self) -> Fraction:
        value = self._factor()
        while sign := self._take("*", "/", "of"):
            other = self._factor()
            value = _bounded(value / other if sign == "/" else value * other)
        return value

    def _factor(self) -> Fraction:
        if self._take("-"):
            return -self._factor()
        if self._take("("):
            value = self._sum()
            if not self._take(")"):
                raise _NotASum
        else:
            item = self._run[self._at] if self._at < len(self._run) else None
            if not isinstance(item, Fraction):
                raise _NotASum
            self._at += 1
            value = _bounded(item)
        while sign := self._take("²", "³", "%"):
            value = _bounded(value / 100 if sign == "%" else value ** (2 if sign == "²" else 3))
        return value


def _bounded(value: Fraction) -> Fraction:
    if max(abs(value.numerator), value.denominator) > _LIMIT:
        raise OverflowError
    return value
