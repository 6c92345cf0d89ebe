"""The voices of XTTS: the speakers that come with it, and those cloned from recordings.

A recording `anna.wav` in the voices' directory is the voice `anna`; `anna.de.wav` is the
voice `anna`, who speaks German unless a text says otherwise. 6 to 30 s of one clear voice
are best; of a longer one the first 30 s count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ivas.audio.wav import read_wav
from ivas.engines import SAMPLE_RATE_HZ, Voice
from ivas.errors import SettingsError

from .text import MOST_CHARACTERS

LEAST_RECORDING_S = 3.0
"""coqui-tts asks for more than 3 s (Xtts.synthesize)."""
BEFORE_START = Voice(id="default", name="XTTS", language="en")
"""Stands for all voices until the model is loaded."""


def voice_id(name: str) -> str:
    """`Claribel Dervla` -> `claribel-dervla`."""
    return re.sub(r"\W+", "-", name.lower()).strip("-_") or "voice"


def recordings(directory: Path | None) -> tuple[dict[str, Path], list[str]]:
    """The usable recordings by the id of their voice, and a sentence for every other.

    Reads all of them: call it on a thread. A directory that is not there has none.
    """
    usable: dict[str, Path] = {}
    complaints = []
    found = directory.glob("*.[wW][aA][vV]") if directory is not None else ()
    for path in sorted(found, key=lambda path: path.name.lower()):
        name, _ = _name_and_language(path)
        try:
            seconds = len(read_wav(path, SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
        except SettingsError as error:
            complaints.append(f"The voice {name} cannot be used: {error}")
            continue
        if seconds < LEAST_RECORDING_S:
            complaints.append(
                f"The voice {name} cannot be used because {path} is {seconds:.1f} s long; record "
                "6 to 30 s."
            )
        elif voice_id(name) in usable:
            complaints.append(
                f"The recording {path} is not used because {usable[voice_id(name)].name} has the "
                "same name; rename one."
            )
        else:
            usable[voice_id(name)] = path
    return usable, complaints


def catalogue(
    recorded: Mapping[str, Path], speakers: Iterable[str], *, language: str
) -> tuple[Voice, ...]:
    """Every voice, the cloned ones first: who put one there wants to hear it.

    `language` is what a voice speaks that is not known to speak another.
    """
    voices = {}
    for id_, path in recorded.items():
        name, own = _name_and_language(path)
        voices[id_] = Voice(id_, name, own or language)
    for speaker in speakers:
        id_ = voice_id(speaker)
        voices.setdefault(id_, Voice(id_, speaker, language))
    return tuple(voices.values())


def choose(voices: Sequence[Voice], wanted: str) -> Voice:
    """The voice with that id or name, else the first."""
    return next((voice for voice in voices if voice.id == voice_id(wanted)), voices[0])


def _name_and_language(path: Path) -> tuple[str, str | None]:
    name, _, code = path.stem.rpartition(".")
    if name and code.lower() in MOST_CHARACTERS:
        return name, code.lower()
    return path.stem, None
