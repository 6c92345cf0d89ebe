"""What a recognised sentence probably asks for: a fuzzy match against examples.

A speech recogniser drops, swaps and misspells words ("what days and today"), so
no exact sentence is expected. Words are compared by spelling, and a sentence
matches an example when most of the weight of each is found in the other: what
the example asks for must be there, and little else ("what time is it in Tokyo"
is not "what time is it").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Literal, get_args

Intent = Literal[
    "time",
    "date",
    "tomorrow",
    "greeting",
    "how_are_you",
    "your_name",
    "who_are_you",
    "abilities",
    "can_you_hear",
    "thanks",
    "goodbye",
    "joke",
    "story",
    "coin",
    "die",
    "stop",
    "my_name",
    "what_i_said",
    "again",
    "connect",
    "demo",
    "test",
    "yes",
    "no",
    "praise",
    "emergency",
]

_EXAMPLES: Mapping[Intent, str] = {
    "time": "what time is it; tell me the time; what is the time; do you have the time; "
    "the time please; current time; what does the clock say",
    "date": "what is the date today; what is the date; what day is it today; what day is it; "
    "what is the day today; which day is it; what is today's date; today's date; "
    "what year is it; what month is it; what day of the week is it; what is the day",
    "tomorrow": "what day is tomorrow; what is the date tomorrow; what day is it tomorrow",
    "greeting": "hello; hello there; hi; hi there; hey; hey there; good morning; "
    "good afternoon; good evening; good day; greetings; hello computer; hello assistant",
    "how_are_you": "how are you; hello how are you; hi how are you; how are you today; "
    "how are you doing; how is it going; "
    "how do you feel; are you well",
    "your_name": "what is your name; what are you called; do you have a name; your name; "
    "tell me your name; what should i call you",
    "who_are_you": "who are you; what are you; are you a robot; are you a computer; "
    "are you human; are you real; are you an ai; are you a language model; "
    "are you artificial intelligence; tell me about yourself; introduce yourself; who made you; "
    "which model are you; what model are you",
    "abilities": "what can you do; what do you do; what can i ask you; what can i ask; "
    "what can i say; help; help me; can you help me; how can you help me; "
    "what do you know; what else can you do; how do you work",
    "can_you_hear": "can you hear me; can you here me; do you hear me; are you there; "
    "are you listening; is anybody there; is this working; does this work",
    "thanks": "thank you; thanks; thank you very much; thanks a lot; many thanks",
    "goodbye": "goodbye; good bye; bye; bye bye; see you; see you later; good night; farewell",
    "joke": "tell me a joke; tell me another joke; another joke; joke; make me laugh; "
    "do you know a joke; say something funny; another one; one more joke",
    "story": "tell me a story; tell me another story; read me a story; story; say something long; "
    "talk for a while; say something; keep talking",
    "coin": "flip a coin; toss a coin; heads or tails; throw a coin",
    "die": "roll a die; roll a dice; roll the dice; throw a die; throw the dice",
    "stop": "stop; stop it; stop talking; never mind; nevermind; cancel; be quiet; quiet; "
    "shut up; forget it; that is enough; enough; wait; pause",
    "my_name": "what is my name; do you know my name; do you remember my name; who am i; "
    "what did i say my name is; say my name; do you remember me",
    "what_i_said": "what did i just say; what did i say; what was my last question; "
    "repeat what i said; what did i ask; what have i said; do you remember what i said",
    "again": "say that again; repeat that; repeat; again; say it again; what did you say; "
    "what did you just say; pardon; can you repeat that; come again; sorry what",
    "connect": "how do i get real answers; how do i connect a language model; connect ollama; "
    "how do i connect ollama; how do i install ollama; how do i install a language model; "
    "use a language model; how can you get smarter; how do i make you smarter; "
    "what is ollama; how do i connect one; how can i connect one; connect a model; "
    "use ollama; what do you need; how do i use ollama; how do i set up ollama",
    "demo": "demo; show me a demo; give me a demo; let us do a demo; start the demo; "
    "talk to me; talk with me; let us talk; let us chat; chat with me",
    "test": "test; testing; this is a test; testing testing; test test; microphone test; "
    "mic test; testing one two three",
    "yes": "yes; yes please; yeah; yep; sure; okay; ok; alright; of course; right",
    "no": "no; no thanks; no thank you; nope; not now; nothing",
    "praise": "good; great; very good; well done; nice; good job; that is right; correct; "
    "that is correct; perfect; awesome; wonderful; cool; you are great; i love you; "
    "i like you; that was funny; that is funny; very funny; very nice; good answer",
    "emergency": "call an ambulance; call the police; i need help; emergency; "
    "call emergency; i need a doctor; help me please i am hurt; call for help",
}

_LIGHT_WORDS = (
    "a an and are as at be by can could did do does for from get had has have her his i if in is "
    "it its just know let like me now of on one or said she should so some tell that "
    "the them then there these they this to up us want was we well were will with would you"
)
_MIDDLE_WORDS = "what how who which my your say am again"
_POLITE_WORDS = "please um uh oh er"
_WEIGHTS = dict.fromkeys(_POLITE_WORDS.split(), 0.0)
_WEIGHTS |= dict.fromkeys(_LIGHT_WORDS.split(), 0.1) | dict.fromkeys(_MIDDLE_WORDS.split(), 0.5)
"""Words that any sentence has, and words that only together say something; others weigh 1."""

_ENOUGH = 0.65
"""Share of the weight that must agree, both ways. Set on pocketsphinx transcripts
of these examples in two voices, and on other questions that must not match."""
_NEAR = 0.8
"""Spelling similarity (difflib ratio) from which two words of 4+ letters are one."""
_MAX_WORDS = 24
"""Different words of a sentence that may still be one of these short requests."""

_CONTRACTED = (
    (re.compile(r"\b(what|who|how|that|it|here|there)'?s\b"), r"\1 is"),
    (re.compile(r"\b(you|they|we)'re\b"), r"\1 are"),
    (re.compile(r"\bi'?m\b"), "i am"),
    (re.compile(r"\blet'?s\b"), "let us"),
    (re.compile(r"\bto day\b"), "today"),
    (re.compile(r"'s\b"), ""),
)
_WORDS = re.compile(r"[a-z]+")
_OPENING = re.compile(
    r"\W*(?:(?:hello|hi|hey|good (?:morning|afternoon|evening)|thank you|thanks)"
    r"(?: there| computer| assistant| ivas)?\W+)+",
    re.I,
)
"""Courtesies people begin with: "hello, what time is it"."""


def words_of(text: str) -> list[str]:
    """Lower-case words, contractions written out, marks and figures left out."""
    text = text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    for pattern, replacement in _CONTRACTED:
        text = pattern.sub(replacement, text)
    return _WORDS.findall(text)


def _weight(word: str) -> float:
    return _WEIGHTS.get(word, 1.0)


_PHRASES: tuple[tuple[Intent, frozenset[str], float], ...] = tuple(
    (intent, frozenset(words), sum(map(_weight, frozenset(words))))
    for intent in get_args(Intent)
    for words in map(words_of, _EXAMPLES[intent].split(";"))
)
_VOCABULARY = frozenset[str]().union(*(words for _, words, _ in _PHRASES))


def find_intent(text: str) -> Intent | None:
    """The intent whose example is nearest to `text`; None if none is near enough.

    A greeting before it does not hide it, and alone is an intent of its own.
    """
    heard = dict.fromkeys(words_of(text))
    heard_weight = sum(map(_weight, heard))
    if not heard_weight or len(heard) > _MAX_WORDS:
        return None
    near = _nearest(heard)
    best: Intent | None = None
    best_score = 0.0
    for intent, phrase, phrase_weight in _PHRASES:
        agreed = sum(_weight(word) * near[word] for word in phrase if word in near)
        recall, precision = agreed / phrase_weight, min(1.0, agreed / heard_weight)
        if min(recall, precision) < _ENOUGH:
            continue
        score = recall * precision
        if score > best_score:
            best, best_score = intent, score
    if best is None and (opening := _OPENING.match(text)):
        return find_intent(text[opening.end() :])
    return best


def _nearest(heard: Iterable[str]) -> dict[str, float]:
    """Words of the vocabulary that were heard, with how alike they are (0.8..1)."""
    near: dict[str, float] = {}
    for word in heard:
        for known, ratio in _spelled_like(word):
            near[known] = max(ratio, near.get(known, 0.0))
    return near


@lru_cache(maxsize=2048)
def _spelled_like(word: str) -> tuple[tuple[str, float], ...]:
    singular, plural = word.removesuffix("s"), word + "s"
    found = [(known, 0.95) for known in (singular, plural) if known in _VOCABULARY - {word}]
    if word in _VOCABULARY:
        return ((word, 1.0), *found)
    if len(word) > 20:
        return ()
    matcher = SequenceMatcher(autojunk=False, b=word)
    for known in _VOCABULARY:
        # Slips keep one end of a word, as a rule; asking for it spares most comparisons.
        same_end = known[0] == word[0] or known[-1] == word[-1]
        if same_end and len(known) >= 4 and abs(len(known) - len(word)) <= 2:
            matcher.set_seq1(known)
            if matcher.quick_ratio() >= _NEAR and (ratio := matcher.ratio()) >= _NEAR:
                found.append((known, ratio))
    return tuple(found)
