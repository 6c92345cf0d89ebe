"""When better ears are fetched unasked, and when not. The fetching itself: tests/e2e."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ivas.fetching import wants_ears
from ivas.models.catalogue import find
from ivas.settings import Settings

NAMES = [file.name for file in find("whisper-base").files]


def wanted(models_dir: Path, **settings: Any) -> bool:
    return wants_ears(Settings.model_validate({"models_dir": models_dir, **settings}))


def lay(directory: Path, *names: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_bytes(b"something")


def test_ears_are_wanted_where_there_are_none(tmp_path: Path) -> None:
    assert wanted(tmp_path)
    assert wanted(tmp_path, asr={"model": "base"})
    assert wanted(tmp_path / "not" / "there" / "yet")


@pytest.mark.parametrize(
    "settings",
    [
        {"offline": True},
        {"env": "production"},
        {"asr": {"engine": "pocketsphinx"}},
        {"asr": {"engine": "whisper"}},
        {"asr": {"model": "large-v3"}},
        {"asr": {"model": "/opt/whisper"}},
    ],
)
def test_nothing_is_fetched_where_somebody_decided(settings: Any, tmp_path: Path) -> None:
    assert not wanted(tmp_path, **settings)


@pytest.mark.parametrize(
    "left",
    [
        (),
        (f"{NAMES[0]}.part", f"{NAMES[0]}.part.json"),
        (NAMES[0],),
        (NAMES[0], f"{NAMES[1]}.part"),
    ],
)
def test_what_was_interrupted_is_finished(left: tuple[str, ...], tmp_path: Path) -> None:
    lay(tmp_path / "whisper-base", *left)
    assert wanted(tmp_path)


def test_what_is_complete_is_left_alone(tmp_path: Path) -> None:
    lay(tmp_path / "whisper-base", *NAMES)
    assert not wanted(tmp_path)


@pytest.mark.parametrize("own", ["vocabulary.json", "README.md", "ivas-model.json"])
def test_what_somebody_put_there_is_left_alone(own: str, tmp_path: Path) -> None:
    lay(tmp_path / "whisper-base", NAMES[0], own)
    assert not wanted(tmp_path)


def test_a_file_in_the_place_of_the_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "whisper-base").write_bytes(b"")
    assert not wanted(tmp_path)
