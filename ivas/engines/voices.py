"""Which voice speaks, when a client asks for one by a name the engine may not know.

Clients of the OpenAI API ask for `alloy` or `nova`. Every engine has voices of its
own, so these names are dealt out to them: always the same, women to women's names
where ids or names tell, and different names to different voices while there are enough.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from ivas.engines import Voice

ANY_LANGUAGE = ("mul", "und")
"""BCP 47 codes of a voice that speaks many languages, and of one that nobody described."""

Gender = Literal["female", "male"]

OPENAI_VOICES: dict[str, Gender] = {
    "alloy": "female",
    "ash": "male",
    "ballad": "male",
    "coral": "female",
    "echo": "male",
    "fable": "male",
    "onyx": "male",
    "nova": "female",
    "sage": "female",
    "shimmer": "female",
    "verse": "male",
    "marin": "female",
    "cedar": "male",
}
"""The voices of the OpenAI API and as what they are heard; the first is its oldest default."""

_SAME_LANGUAGE = {"cmn": "zh", "nb": "no", "nn": "no", "in": "id", "iw": "he"}
_KOKORO_ID = re.compile(r"[a-z]([fm])_")
_WOMAN = re.compile(r"\b(female|woman|girl|f\d*)\b")
_MAN = re.compile(r"\b(male|man|boy|m\d*)\b")


def choose(wanted: str, voices: Sequence[Voice], *, language: str | None) -> str:
    """The id of the voice of `voices` to speak with when `wanted` was asked for.

    The id itself, in any case; a model of many speakers (`name` of `name#anna`) is its
    first one; else an OpenAI name dealt out to the voices of `language` (None: of the
    first voice's); else the first voice of the language; else the first. `language` is
    a BCP 47 code. `wanted` itself if there are no voices.
    """
    if not voices:
        return wanted
    if named := _named(wanted, voices):
        return named.id
    spoken = speaking(language or voices[0].language, voices) or voices
    name = wanted.strip().casefold()
    if name in OPENAI_VOICES:
        return _dealt(spoken)[name]
    return spoken[0].id if language else voices[0].id


def fitting(wanted: str, voices: Sequence[Voice], language: str | None) -> Voice:
    """The voice `wanted` if it speaks `language`, else one that does, else `wanted` still.

    For an engine whose voices speak one language each. An unknown `wanted` is the first
    voice; one for another language is of the same gender where there is one.
    """
    chosen = _named(wanted, voices) or voices[0]
    if language is None:
        return chosen
    spoken = speaking(language, voices)
    if not spoken or chosen in spoken:
        return chosen
    return next((voice for voice in spoken if gender(voice) == gender(chosen)), spoken[0])


def speaking(language: str, voices: Sequence[Voice]) -> Sequence[Voice]:
    """The voices that speak `language`, those of its very region first."""
    code = language.casefold().replace("_", "-")
    if code in ANY_LANGUAGE:
        return voices
    primary = _primary(code)
    able = [v for v in voices if v.language in ANY_LANGUAGE or _primary(v.language) == primary]
    return sorted(able, key=lambda voice: voice.language.casefold() != code)


def gender(voice: Voice) -> Gender | None:
    """What the id or the name of a voice says, `None` if neither says anything."""
    if kokoro := _KOKORO_ID.match(voice.id):
        return "female" if kokoro[1] == "f" else "male"
    words = f"{voice.id} {voice.name}".casefold().replace("_", " ")
    if _WOMAN.search(words):
        return "female"
    return "male" if _MAN.search(words) else None


def _named(wanted: str, voices: Sequence[Voice]) -> Voice | None:
    """The voice whose id `wanted` is: exactly, in another case, or without its speaker."""
    for voice in voices:
        if voice.id == wanted:
            return voice
    folded = wanted.strip().casefold()
    for voice in voices:
        if voice.id.casefold() == folded:
            return voice
    return next((v for v in voices if v.id.casefold().partition("#")[0] == folded), None)


def _primary(language: str) -> str:
    primary = re.split("[-_]", language.casefold())[0]
    return _SAME_LANGUAGE.get(primary, primary)


def _dealt(voices: Sequence[Voice]) -> dict[str, str]:
    """Every OpenAI name -> the id of a voice.

    A voice that bears the name (`af_nova`) gets it. The others go round by gender, then
    to voices of no known gender; only where there is neither, to the other gender.
    """
    dealt: dict[str, str] = {}
    for voice in voices:
        bears = re.split(r"[^a-z]+", voice.id.casefold())[-1]
        if bears in OPENAI_VOICES:
            dealt.setdefault(bears, voice.id)
    genders = {voice.id: gender(voice) for voice in voices}
    times_used = dict.fromkeys(genders, 0)
    for id_ in dealt.values():
        times_used[id_] += 1
    for name, wanted in OPENAI_VOICES.items():
        if name not in dealt:
            fit = [id_ for id_ in genders if genders[id_] in (wanted, None)] or list(genders)
            # Known gender before unknown among the least used; then the engine's order.
            dealt[name] = min(fit, key=lambda id_: (times_used[id_], genders[id_] is None))
            times_used[dealt[name]] += 1
    return dealt
