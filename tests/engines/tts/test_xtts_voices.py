"""The voices of XTTS, from recordings and from the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ivas.audio.wav import wav_bytes
from ivas.engines import Voice
from ivas.engines.tts.xtts.voices import catalogue, choose, recordings, voice_id

SPEAKERS = ("Claribel Dervla", "Zofija Kendrick")


def recording(seconds: float) -> bytes:
    return wav_bytes(np.ones(round(seconds * 16_000), np.int16).tobytes(), 16_000)


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("Claribel Dervla", "claribel-dervla"),
        ("O'Neil  2", "o-neil-2"),
        ("Żółw", "żółw"),
        ("--", "voice"),
    ],
)
def test_makes_an_id_of_a_name(name, id_):
    assert voice_id(name) == id_ == voice_id(id_)


def test_a_directory_that_is_not_there_has_no_recordings(tmp_path):
    assert recordings(None) == ({}, [])
    assert recordings(tmp_path / "nowhere") == ({}, [])


def test_takes_usable_recordings_and_says_why_not_the_others(tmp_path):
    good = recording(6)
    for name, content in {
        "Zoe.wav": good,
        "anna.de.WAV": good,
        "anna.wav": good,
        "b.x.wav": good,
        "empty.wav": b"",
        "short.wav": recording(2.9),
        "text.wav": b"hello" * 100,
        "voice.mp3": good,
    }.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.wav").mkdir()
    usable, complaints = recordings(tmp_path)
    assert [(id_, path.name) for id_, path in usable.items()] == [
        ("anna", "anna.de.WAV"),
        ("b-x", "b.x.wav"),
        ("zoe", "Zoe.wav"),
    ]
    assert len(complaints) == 5
    said = " ".join(complaints)
    assert "anna.wav is not used because anna.de.WAV has the same name; rename one." in said
    assert "short.wav is 2.9 s long; record 6 to 30 s." in said
    assert "text.wav is not a PCM WAV file" in said
    assert "empty.wav is not a PCM WAV file" in said
    assert "folder.wav cannot be read" in said


def test_lists_cloned_voices_first_each_id_once():
    recorded = {"anna": Path("anna.de.wav"), "claribel-dervla": Path("Claribel Dervla.wav")}
    assert catalogue(recorded, SPEAKERS, language="fr") == (
        Voice("anna", "anna", "de"),
        Voice("claribel-dervla", "Claribel Dervla", "fr"),
        Voice("zofija-kendrick", "Zofija Kendrick", "fr"),
    )


@pytest.mark.parametrize(
    ("wanted", "id_"),
    [
        ("zofija-kendrick", "zofija-kendrick"),
        ("Zofija Kendrick", "zofija-kendrick"),
        ("nobody", "claribel-dervla"),
        ("", "claribel-dervla"),
    ],
)
def test_chooses_by_id_or_name_else_the_first(wanted, id_):
    assert choose(catalogue({}, SPEAKERS, language="en"), wanted).id == id_
