"""The acceptance of a GPU machine, tried where there is none: on the CPU with tiny models."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ivas import hardware

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_gpu.py"


def check(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *options], capture_output=True, text=True, timeout=240
    )


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("TTS", "faster_whisper")),
    reason="coqui-tts or faster-whisper is not installed",
)
def test_every_engine_speaks_or_hears() -> None:
    done = check("--device", "cpu", "--tiny", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["problems"] == []
    xtts, whisper = result["engines"]
    assert (xtts["engine"], whisper["engine"]) == ("xtts", "whisper")
    for row in (xtts, whisper):
        assert row["device"] == "cpu"
        assert row["problem"] == ""
        assert row["load_s"] > 0
        assert row["first_ms"] > 0
        assert row["audio_s"] > 1
        assert row["rtf"] > 0


@pytest.mark.skipif(bool(hardware.nvidia().gpus), reason="there is a card")
def test_no_card_is_said_before_anything_is_loaded() -> None:
    done = check("--random", "--json")
    assert done.returncode == 1
    result = json.loads(done.stdout)
    assert result["engines"] == []
    assert result["problems"] == [result["card"]["problem"]]
    assert result["problems"][0] in done.stderr


def test_what_is_missing_is_said_for_each_engine(tmp_path: Path) -> None:
    done = check("--device", "cpu", "--models-dir", str(tmp_path), "--whisper", "whisper-base")
    assert done.returncode == 1
    assert "non-commercial use only" in done.stderr
    assert done.stderr.count("\n") == 3  # the card, and a sentence an engine
    assert "FAILED" in done.stdout
