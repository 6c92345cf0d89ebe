"""The embedded responder: holds a small honest conversation without any model.

It lets a machine with no network and no language model be spoken with: the time
and date, sums, a few courtesies, what was said before. It never pretends to know
more: whatever else is asked, it says that this needs a language model and what
it can do instead. English only.

System instructions are not followed, with one exception: a sentence of the form
`Say "..."` (or `Reply only with "..."`), or instructions that are nothing but
`Reply only with ...`, are obeyed to the letter, for tests and demonstrations.
"""

from __future__ import annotations

import asyncio
import random
import re
import unicodedata
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime, timedelta
from fractions import Fraction

from ivas.engines import INAUDIBLE, LLM, Message, Status, Token, Tool, ToolCall
from ivas.engines.llm import phrases
from ivas.engines.llm.arithmetic import DividedByZero, Sum, TooLarge, Unclear, find_sum
from ivas.engines.llm.intents import Intent, find_intent
from ivas.engines.llm.number_words import read_number, say_number

OLLAMA_HINT = (
    "Install Ollama, then type ollama pull, and the name of a model, in a terminal. "
    "I then use it by myself, from the next question on."
)
"""How to get real answers, for the ear."""

_MAX_CHARS = 2000
"""How much of a message is looked at; nobody says more in one breath."""
_MAX_MESSAGES = 200
"""How far back a conversation is remembered."""
_MAX_ECHO_CHARS = 300
_MAX_COUNT = 100
_BEGINNING_CHARS = 12
"""As much of a phrase as tells it from every other."""
_TOKENS_A_TURN = 16
"""Tokens between two chances for other tasks to run."""

_FILLER = r"^\W*(?:(?:please|can you|could you|would you|now|okay|ok|and|so|uh|um)\W+)*"
_REPEAT = re.compile(
    _FILLER + r"(?:(?:repeat|say)(?: this)? after me|repeat the words?)\b\W*(?P<words>.*)",
    re.I | re.S,
)
_SAY = re.compile(
    _FILLER
    + r"(?:say|repeat)\b\W*(?P<words>(?!(?:something|anything|that|this|it|what|an?)\b)\w.*)",
    re.I | re.S,
)
_COUNT = re.compile(r"\bcount(?: up)?(?: from one)? (?:to|till|until) (?P<words>.+)", re.I)
_NAME = re.compile(
    r"\b(?:my name(?:'s| is| was)|call me|i am called|i'm called)\s+(?P<name>[^\W\d_][\w'-]{0,39})",
    re.I,
)
_BARE_NAME = re.compile(
    r"\W*(?:(?:i am|i'm|it is|it's)\s+)?(?P<name>[^\W\d_][\w'-]{0,39})\W*", re.I
)
_NO_NAME = frozenset(
    ("a", "an", "the", "not", "what", "is", "it", "who", "on", "in", "back", "later", "when", "if")
)
_SIMPLE_ORDER = r"(?:please |always |just |only )*(?:say|reply|answer|respond)(?: only| just)?"
_ORDER_QUOTED = re.compile(
    rf"(?:^|[.!?\n])[ \t]*{_SIMPLE_ORDER}(?: with)?:? *"
    r"[\"\u201c](?P<words>[^\"\u201c\u201d]{1,500})[\"\u201d]"
    r"(?: and nothing else)?\s*(?:$|[.!\n])",
    re.I,
)
_ORDER_WHOLE = re.compile(
    rf"\s*{_SIMPLE_ORDER} (?:only )?with:? +(?P<words>[^.!?\n]{{1,80}}[.!?]?)\s*", re.I
)


class BuiltinLLM(LLM):
    """The built-in responder. Always ready, answers at once, calls no tools.

    `now`: what time it is, aware or naive. `ollama_hint`: sentences for the ear
    that say how to get a language model. `dice`: where chance comes from.
    """

    name = "builtin"

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = datetime.now,
        ollama_hint: str = OLLAMA_HINT,
        dice: random.Random | None = None,
    ) -> None:
        self._now = now
        self._ollama_hint = ollama_hint
        self._dice = dice or random.Random()

    def status(self) -> Status:
        return Status(ready=True)

    async def start(self) -> None:
        """Nothing to load."""

    async def aclose(self) -> None:
        """Nothing to give back."""

    async def prefill(self, messages: Sequence[Message]) -> None:
        """Does nothing: there is no prompt cache to warm."""

    async def stream(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        tool_choice: str = "auto",
        max_tokens: int | None = None,
    ) -> AsyncGenerator[Token | ToolCall, None]:
        """The reply, word by word: at least one token, at most `max_tokens`. Never raises."""
        words = self._reply(messages).split()
        for number, word in enumerate(words[: None if max_tokens is None else max(1, max_tokens)]):
            if number % _TOKENS_A_TURN == 0:
                await asyncio.sleep(0)
            yield Token(f" {word}" if number else word)

    def _reply(self, messages: Sequence[Message]) -> str:
        if order := _simple_order(messages):
            return order
        past = [m for m in messages[-_MAX_MESSAGES:] if m.role in ("user", "assistant")]
        while past and past[-1].role == "assistant":
            past.pop()
        if not past:
            return phrases.OPENING
        text = past.pop().text[:_MAX_CHARS].replace(INAUDIBLE, "")
        if not any(map(str.isalnum, text)):
            return _pick(phrases.NOTHING_HEARD, past)
        if not _is_latin(text):
            return phrases.ENGLISH_ONLY
        return self._answer(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"), past)

    def _answer(self, text: str, past: Sequence[Message]) -> str:
        """What to say to `text`, said after the messages in `past`."""
        intent = find_intent(text)
        if asked := _REPEAT.match(text) or (None if intent else _SAY.match(text)):
            return _sentence(asked["words"]) or phrases.ASK_WORDS
        if name := _told_name(text, past):
            return f"Nice to meet you, {name}. {phrases.TRY_ME}"
        result = find_sum(text)
        if result is not None and not (isinstance(result, Unclear) and intent):
            return _say_result(result)
        if count := _count(text):
            return count
        if intent is None:
            return _pick(phrases.UNKNOWN, past)
        return self._fulfil(intent, past)

    def _fulfil(self, intent: Intent, past: Sequence[Message]) -> str:
        match intent:
            case "time":
                return _say_time(self._now())
            case "date":
                return f"Today is {_say_date(self._now())}."
            case "tomorrow":
                return f"Tomorrow is {_say_date(self._now() + timedelta(days=1))}."
            case "joke":
                return _pick(phrases.JOKES, past)
            case "story":
                return _pick(phrases.STORIES, past)
            case "coin":
                return f"I flipped it. It is {self._dice.choice(('heads', 'tails'))}."
            case "die":
                return f"I rolled it. It is a {self._dice.randint(1, 6)}."
            case "my_name":
                return _say_name(past)
            case "what_i_said":
                said = _sentence(_last("user", past))
                return f"You said: {said}" if said else "You have said nothing before this."
            case "again":
                return _last("assistant", past) or "I have said nothing yet."
            case "connect":
                return f"{phrases.CONNECT} {self._ollama_hint}"
            case _:
                return _pick(phrases.PLAIN[intent], past)


def _simple_order(messages: Sequence[Message]) -> str:
    """What the instructions say to say, "" if they are of no such simple form."""
    for message in reversed(messages):
        if message.role == "system":
            text = message.text[:_MAX_CHARS]
            order = _ORDER_QUOTED.search(text) or _ORDER_WHOLE.fullmatch(text)
            if order and order["words"].strip():
                return order["words"].strip()
    return ""


def _is_latin(text: str) -> bool:
    """Whether most of the letters at the beginning are Latin; true without letters."""
    letters = [c for c in text if c.isalpha()][:_MAX_ECHO_CHARS]
    latin = sum(
        unicodedata.name(c, "").startswith(("LATIN", "FEMININE", "MASCULINE")) for c in letters
    )
    return 2 * latin >= len(letters)


def _sentence(words: str) -> str:
    """`words`, shortened, as a sentence."""
    words = _shorten(words.strip(" \t\n\"'\u201c\u201d"))
    if not any(map(str.isalnum, words)):
        return ""
    return words[0].upper() + words[1:] + ("" if words[-1] in ".!?\u2026" else ".")


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    if len(text) <= _MAX_ECHO_CHARS:
        return text
    return text[:_MAX_ECHO_CHARS].rsplit(" ", 1)[0] + "\u2026"


def _told_name(text: str, past: Sequence[Message]) -> str:
    """The name the user tells, "" if none: after the question for it, a bare word is one."""
    told = _NAME.search(text)
    if told is None and past and past[-1].text.endswith(phrases.ASK_NAME):
        told = _BARE_NAME.fullmatch(text)
    if told is None or told["name"].lower() in _NO_NAME or find_intent(text):
        return ""
    return told["name"][0].upper() + told["name"][1:]


def _say_name(past: Sequence[Message]) -> str:
    for at in reversed(range(len(past))):
        text = past[at].text[:_MAX_CHARS].replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
        if past[at].role == "user" and (name := _told_name(text, past[:at])):
            return f"Your name is {name}."
    return "You have not told me yet. Say: my name is, and then your name."


def _last(role: str, past: Sequence[Message]) -> str:
    """The last thing said by `role`, "" if nothing was."""
    said = (m.text[:_MAX_CHARS] for m in reversed(past) if m.role == role and m.text.strip())
    return next(said, "")


def _say_result(result: Sum | Unclear | DividedByZero | TooLarge) -> str:
    match result:
        case Sum(asked, value):
            shown = asked if 0 < len(asked) <= _MAX_ECHO_CHARS else "That"
            return f"{shown} is {say_number(value)}."
        case Unclear(""):
            return "A number is missing there. Please say the whole sum again."
        case Unclear(word):
            return (
                f"I did not get one number. I heard {_shorten(word)}, where a number should be. "
                "Please say the sum again."
            )
        case DividedByZero():
            return "That has no answer. Nothing can be divided by zero."
        case TooLarge():
            return "That is too big for me. I calculate with up to 15 digits."


def _count(text: str) -> str:
    """Counting aloud, "" if that is not what was asked."""
    asked = _COUNT.search(text)
    words = re.findall(r"\d+|[a-z]+", asked["words"].lower()[:100]) if asked else []
    number = read_number(words, 0)
    if number is None or number[0] < 1 or number[0].denominator != 1:
        return ""
    last = min(number[0], Fraction(_MAX_COUNT))
    counted = ", ".join(str(n) for n in range(1, int(last) + 1))
    return f"{counted}." + (f" I stop at {_MAX_COUNT}." if last < number[0] else "")


def _say_time(now: datetime) -> str:
    if now.minute == 0 and now.hour % 12 == 0:
        return "It is noon." if now.hour else "It is midnight."
    minutes = f":{now.minute:02d}" if now.minute else ""
    return f"It is {now.hour % 12 or 12}{minutes} {'AM' if now.hour < 12 else 'PM'}."


def _say_date(day: datetime) -> str:
    """ "Friday, November 20, 2026", whatever the locale of the machine."""
    return f"{phrases.DAYS[day.weekday()]}, {phrases.MONTHS[day.month - 1]} {day.day}, {day.year}"


def _pick(variants: Sequence[str], past: Sequence[Message]) -> str:
    """The next of `variants`, by how often one of them was the answer before.

    An answer that was interrupted counts by its beginning.
    """
    beginnings = tuple(variant[:_BEGINNING_CHARS] for variant in variants)
    told = sum(m.role == "assistant" and m.text.startswith(beginnings) for m in past)
    return variants[told % len(variants)]
