"""The check of every extra, without installing any: what it makes of a server and its words."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import check_extras  # noqa: E402
from check_extras import EXTRAS, Failed  # noqa: E402

NOTHING_TO_START = {"cuda", "languages", "cluster", "telemetry", "dev"}
"""A library of NVIDIA's, extras of coming releases, and the one of developers."""

LISTEN = """\
import http.server, sys
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Ready).serve_forever()
"""


def a_python(tmp_path: Path, program: str) -> Path:
    """What stands for the Python of an environment: whatever it is asked, it runs `program`."""
    source = tmp_path / "program.py"
    source.write_text(program)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{source}" "$@"\n')
    python.chmod(0o755)
    return python


def serve(tmp_path: Path, extra: str, program: str) -> str:
    python = a_python(tmp_path, program)
    return check_extras.serve(python, EXTRAS[extra], dict(os.environ), tmp_path)


def test_every_extra_with_something_to_start_is_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"]) - NOTHING_TO_START


def test_a_server_that_starts_is_told_when(tmp_path: Path) -> None:
    assert serve(tmp_path, "embedded", LISTEN).startswith("ready after ")


def test_a_server_that_starts_without_its_model_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="started with kokoro and no model"):
        serve(tmp_path, "kokoro", LISTEN)


def test_the_sentence_about_a_missing_model_is_what_is_wanted(tmp_path: Path) -> None:
    sentence = "ivas: It is missing; run: ivas models download kokoro."
    assert serve(tmp_path, "kokoro", f"import sys; sys.exit({sentence!r})") == sentence


@pytest.mark.parametrize(
    ("extra", "program"),
    [
        ("kokoro", "import sys; sys.exit('ivas: something else is wrong.')"),
        ("kokoro", "raise ValueError('ivas models download kokoro')"),
        ("embedded", "import sys; sys.exit('ivas: it cannot start.')"),
        ("embedded", ""),
    ],
)
def test_any_other_end_is_a_failure(tmp_path: Path, extra: str, program: str) -> None:
    with pytest.raises(Failed, match="ivas serve ended with"):
        serve(tmp_path, extra, program)


def test_a_server_that_does_neither_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_extras, "READY_S", 0.0)
    with pytest.raises(Failed, match="neither started nor ended"):
        serve(tmp_path, "embedded", "import signal; signal.pause()")


def test_a_doctor_that_prints_no_json_is_a_failure(tmp_path: Path) -> None:
    env = dict(os.environ)
    check_extras.doctor(a_python(tmp_path, "print('{}'); raise SystemExit(1)"), env, tmp_path)
    with pytest.raises(Failed, match="printed no JSON: it hurts"):
        check_extras.doctor(a_python(tmp_path, "print('it hurts')"), env, tmp_path)


def test_a_step_that_fails_tells_its_last_words(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "print('so it is'); raise SystemExit(4)")
    with pytest.raises(Failed, match="ended with 4: so it is"):
        check_extras.run(*command, env=dict(os.environ))
