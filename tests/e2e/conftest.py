"""Models of the real classes, small and without a mind of their own, as they lie on a disk."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
import tiny_voices
import tiny_whisper
import tiny_xtts


def need(*packages: str, extra: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; the extra {extra} brings it")


@pytest.fixture(scope="session")
def whisper() -> Path:
    """A Whisper that knows the recorded questions."""
    need("faster_whisper", extra="whisper")
    return tiny_whisper.tiny_whisper()


@pytest.fixture(scope="session")
def voices() -> Path:
    """A models directory with kokoro/ and piper-*/."""
    need("kokoro_onnx", extra="kokoro")
    need("piper", extra="piper")
    return tiny_voices.tiny_models()


@pytest.fixture(scope="session")
def models_dir(whisper: Path, voices: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them in one directory, under the names `ivas models` has for them."""
    directory = tmp_path_factory.mktemp("models")
    shutil.copytree(voices, directory, dirs_exist_ok=True)
    shutil.copytree(whisper, directory / "whisper-base")
    return directory


@pytest.fixture(scope="session")
def xtts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny XTTS; its worker is one of tests/tiny_xtts.py."""
    need("TTS", "torch", "torchaudio", extra="xtts")
    return tiny_xtts.build(tmp_path_factory.mktemp("xtts") / "xtts-v2")
