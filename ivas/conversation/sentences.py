"""The LLM's tokens, cut into what is spoken in one go: first a clause, then sentences.

The first clause is what somebody waits for in silence: it ends at the first clause
or sentence mark after ten letters and is given out by the very token that brings
the mark, unless the mark is ambiguous. Whatever comes after is spoken while earlier
words still sound, so it may wait for the character behind a mark, and short
sentences are joined for the sake of prosody. A line end always ends a piece.

What holds for every text and every cut of it into tokens:

* `"".join(pieces) == text`. White space leads the piece behind it; no piece is
  white space alone but the last, or one out of an endless run of it.
* No piece is longer than `LONGEST`; no more than that and a few characters is kept.
* Where the first clause ends can depend on the tokens: marks and closing quotes
  right behind its mark (`?!`, `."`) belong to it only if they come with it, and a
  "." that ends a token ends a word. All later cuts depend on the text alone.
"""
# ruff: noqa: RUF001, SIM905 - the marks of all scripts are meant, word tables are read as words

from __future__ import annotations

import unicodedata

FIRST_WEIGHT = 10
"""Letters and digits before the first clause may end; a CJK character counts twice."""
JOINED_WEIGHT = 32
"""The same for every later piece: about 40 characters of prose."""
FIRST_LONGEST = 100
"""Characters after which the first piece ends even without a mark, at a space."""
LONG = 180
"""Characters from which a sentence is cut at its last clause mark."""
LONGEST = 250
"""Characters of the longest piece: XTTS may drop the end of longer English ones."""

_SENTENCE_MARKS = frozenset(".!?…‼⁇⁈⁉։؟۔।॥།။።។。！？｡\u037e")  # the last: Greek "?"
_MARKS = _SENTENCE_MARKS | frozenset(",;:—،؛、，；：､")
_NUMBER_MARKS = frozenset(",:.，：")  # 1,000 and 10:30 and 3.14
_DOUBTFUL = frozenset(".,:;!?，：")  # all other marks end something wherever they stand
_RUN = frozenset(".!?…！？。”’)]}›»」』】》〉）］｣'")
"""Marks and closing marks that belong to the mark they follow."""
_TOGGLES = frozenset('"*_~`')  # the same character opens and closes
_CLOSES_AFTER = {"“": "„", "‘": "‚", "«": "»", "‹": "›"}
"""Opens, but closes where this came before it: German and Danish quotes."""
_PAIRS = tuple(zip("([“„«「『（《", ")]”“»」』）》", strict=True))
_SCHEMES = frozenset({"http", "https", "ftp", "file", "mailto", "ws", "wss"})

# Words whose "." is their own. The kinds differ in what must follow it to end a sentence.
_NEVER_LAST = frozenset(
    (
        "dr mr mrs ms prof st mt gen lt sgt capt rev hon gov vs approx cf www "  # en
        "hr hrn fr bzw evtl ggf inkl exkl "  # de
        "mme mlle "  # fr
        "sr sra srta dra ud uds "  # es
        "डॉ"  # hi
    ).split()
)
_BEFORE_NUMBER = frozenset(
    (
        "no nr nos núm fig vol p pp art abb kap ch sec s "
        "jan feb mar apr jun jul aug sep sept oct nov dec"
    ).split()
)
_PERHAPS_LAST = frozenset("etc a.m p.m inc ltd co corp jr bros al usw u.s.w".split())
_BEFORE_ORDINAL = frozenset("der die das den dem des am im vom zum beim".split())
"""German words that make "3." the third."""


class ClauseSplitter:
    """Splits one reply: `push` every token, then `finish` once."""

    def __init__(self) -> None:
        self._text = ""  # what was not given out yet
        self._scan = 0  # how much of it is judged
        self._weight = 0  # of text[:scan]
        self._clause_end = 0  # of the last clause that is heavy enough; 0 = none
        self._first = True

    def push(self, delta: str) -> list[str]:
        """Take a token; returns the pieces it completes, usually none."""
        self._text += delta
        return self._cut(ended=False)

    def finish(self) -> list[str]:
        """The text has ended: returns the rest of it."""
        pieces = self._cut(ended=True)
        if self._text:
            pieces.append(self._text)
            self._text = ""
        return pieces

    def _cut(self, *, ended: bool) -> list[str]:
        pieces: list[str] = []
        while end := self._next_end(ended):
            pieces.append(self._text[:end])
            self._text = self._text[end:]
            self._scan = self._weight = self._clause_end = 0
            self._first = False
        return pieces

    def _next_end(self, ended: bool) -> int:
        """Where the next piece ends; 0 if that is yet to come."""
        text = self._text
        longest = FIRST_LONGEST if self._first else LONGEST
        enough = FIRST_WEIGHT if self._first else JOINED_WEIGHT
        while self._scan < len(text):
            at = self._scan
            if at >= LONG and self._clause_end:
                return self._clause_end
            if at >= longest:
                return _cut_anywhere(text, longest)
            char = text[at]
            if char in "\n\r" and self._weight:
                return at
            if char in _MARKS and self._weight >= enough:
                end = _run_end(text, at, longest)
                verdict = self._judge(at, end)
                if verdict is None and not ended:
                    return 0
                if verdict:
                    if self._first or not _SENTENCE_MARKS.isdisjoint(text[at:end]):
                        return end
                    self._clause_end = self._scan = end
                    continue
            self._weight += _weight(char)
            self._scan = at + 1
        return 0

    def _judge(self, at: int, end: int) -> bool | None:
        """Whether something ends with the mark at `at`; None = more text will tell."""
        text = self._text
        if end == len(text) and not (self._first and _balanced(text)):
            return None  # a closing mark may follow
        return _ends(text, at, end)


def _run_end(text: str, at: int, longest: int) -> int:
    """Where the mark at `at` ends with all that belongs to it: `?!`, `."`, `...)`."""
    end = at + 1
    while end < min(len(text), longest):
        char = text[end]
        if char in _TOGGLES:
            # Odd = open. Doubled for Markdown, where ** is one sign.
            if not (text.count(char, 0, end) % 2 or text.count(char * 2, 0, end) % 2):
                break
        elif char in _CLOSES_AFTER:
            if text.find(_CLOSES_AFTER[char], 0, end) < 0:
                break
        elif char not in _RUN:
            break
        end += 1
    return end


def _balanced(text: str) -> bool:
    """Whether no quote or bracket is open at the end of `text`."""
    return text.count('"') % 2 == 0 and not any(
        text.count(opening) > text.count(closing) for opening, closing in _PAIRS
    )


def _ends(text: str, at: int, end: int) -> bool | None:
    """Whether the mark text[at:end] ends a clause; None = what follows will tell."""
    mark = text[at]
    if mark not in _DOUBTFUL:
        return True
    ahead = text[end : end + 1]
    if end == at + 1 and mark in _NUMBER_MARKS and text[at - 1].isdigit():
        if not ahead:
            return None
        if ahead.isdigit():
            return False
    word = _word_before(text, at)
    if "/" in word or "@" in word or "www." in word or (mark == ":" and word.lower() in _SCHEMES):
        # Inside an address only white space can tell that it is over.
        return ahead.isspace() if ahead else None
    if mark != "." or "." in text[at + 1 : end]:
        return True
    return _dot_ends(text, at, end)


def _dot_ends(text: str, at: int, end: int) -> bool | None:
    """The same for a single full stop, which may belong to its word."""
    word = _dotted_word_before(text, at)
    lower = word.lower()
    ahead = text[end : end + 2]
    own_dot = (
        len(word) == 1
        or "." in word
        or lower in _NEVER_LAST
        or lower in _BEFORE_NUMBER
        or lower in _PERHAPS_LAST
    )
    if not ahead:
        return None if own_dot else True
    if not ahead[0].isspace():
        # "index.html", "etc., "; but Chinese may use a full stop without a space.
        goes_on = ahead[0] in ",;:" or (_is_of_word(ahead[0]) and not _is_cjk(ahead[0]))
        return end > at + 1 or not goes_on
    if lower in _BEFORE_NUMBER or lower in _PERHAPS_LAST:
        if len(ahead) == 1:
            return None
        return not (ahead[1].isdigit() or (lower in _PERHAPS_LAST and ahead[1].islower()))
    if lower.isdecimal() and len(lower) <= 2:
        return _word_before(text, at - len(lower) - 1).lower() not in _BEFORE_ORDINAL
    return lower not in _NEVER_LAST and not _is_initials(word)


def _is_initials(word: str) -> bool:
    """J, U.S, Ph.D, e.g: letters that stand for words."""
    if "." not in word:
        return len(word) == 1 and word.isupper()
    return all(part.isalpha() and len(part) <= 2 for part in word.split("."))


def _word_before(text: str, at: int) -> str:
    """What stands before `at`, back to white space or a CJK character."""
    start = at
    while start > 0 and not (text[start - 1].isspace() or _is_cjk(text[start - 1])):
        start -= 1
    return text[start:at]


def _dotted_word_before(text: str, at: int) -> str:
    """The letters, digits and inner dots before `at`."""
    start = at
    while start > 0 and (text[start - 1] == "." or _is_of_word(text[start - 1])):
        start -= 1
    return text[start:at]


def _cut_anywhere(text: str, longest: int) -> int:
    """Where to cut a text that is longer than `longest`: at a space, if one is near."""
    for end in range(longest, longest // 2, -1):
        if text[end].isspace():
            return end
    for end in range(longest, longest // 2, -1):
        if not (_is_mark_on_letter(text[end]) or text[end - 1] in "\u200c\u200d"):
            return end
    return longest


def _weight(char: str) -> int:
    """How much there is to say in it: 0 for space and signs."""
    if not _is_of_word(char):
        return 0
    return 2 if _is_cjk(char) else 1


def _is_of_word(char: str) -> bool:
    return char.isalnum() or _is_mark_on_letter(char)


def _is_mark_on_letter(char: str) -> bool:
    """Accents, vowel signs, joiners: whatever must not be parted from its letter."""
    return char >= "\u0300" and (unicodedata.category(char)[0] == "M" or char in "\u200c\u200d")


def _is_cjk(char: str) -> bool:
    """Han, kana, Hangul, their signs and full-width forms, by Unicode block."""
    return char >= "\u2e80" and (
        char <= "\u9fff"
        or "\uac00" <= char <= "\ud7af"
        or "\uf900" <= char <= "\ufaff"
        or "\uff00" <= char <= "\uffef"
        or char >= "\U00020000"
    )
