"""scripts/bench_whisper.py on a model that is loaded in no time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_whisper import tiny_whisper

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stderr
    return done


def test_says_what_it_measures() -> None:
    out = run(str(SCRIPTS / "bench_whisper.py"), "--help").stdout
    assert "--json" in out
    assert "final" in out


@pytest.mark.slow
def test_finals_alone_and_together() -> None:
    directory = str(tiny_whisper())
    options = ("--sessions", "2", "--turns", "1", "--json", "--language", "en")
    done = run(str(SCRIPTS / "bench_whisper.py"), "--model-dir", directory, *options)
    found = json.loads(done.stdout)
    assert found["alone"]["finals"] == found["together"]["finals"] == 2
    assert found["alone"]["final_p50_ms"] <= found["alone"]["final_p95_ms"]
    assert found["alone"]["partials"] > 0
    assert found["p95_ratio"] > 0


def test_what_is_missing_is_one_sentence(tmp_path: Path) -> None:
    done = run(str(SCRIPTS / "bench_whisper.py"), "--model-dir", str(tmp_path), code=1)
    assert done.stderr.strip().count("\n") == 0
    assert "run: ivas models download" in done.stderr


def test_a_model_of_random_weights_is_made_and_says_a_sentence(tmp_path: Path) -> None:
    run(str(SCRIPTS / "random_whisper.py"), "tiny", str(tmp_path / "model"))
    program = (
        "import numpy; from pathlib import Path; from ivas.engines.asr.whisper_model import load;"
        f"m = load(Path({str(tmp_path / 'model')!r}), device='cpu', compute_type=None, threads=1);"
        "e = m.encode(numpy.ones(32000, 'f4'), whole=False);"
        "print(len(m.decode(e, language='en', prompt=None).text.split()))"
    )
    assert int(run("-c", program).stdout) == 11
