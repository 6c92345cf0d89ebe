"""`ivas doctor` as a person meets it: on this machine, and on machines that lack something."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import ivas as ivas_package
from ivas.hardware import nvidia

RUN = (
    "from ivas import cli; from ivas.cli.doctor import doctor;"
    "cli.app.command('doctor')(doctor); cli.main()"
)


@pytest.fixture
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def doctor(tmp_path, free_port):
    """Runs `ivas doctor ARGUMENTS` with a free port, no Ollama, and a torchaudio that is broken.

    Without torch to import it takes a second; `real=True` is this environment as it is.
    """
    site = tmp_path / "site"
    for name, files in {
        "torch-2.13.0": {"torch/__init__.py": "", "torch/version.py": TORCH},
        "torchaudio-2.11.0": {"torchaudio/version.py": "__version__ = '2.11.0+cu130'\n"},
        "torchcodec-0.13.0": {"torchcodec/__init__.py": ""},
    }.items():
        package, _, version = name.partition("-")
        files[f"{name}.dist-info/METADATA"] = f"Name: {package}\nVersion: {version}\n"
        for path, text in files.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(text)

    def run(*arguments, real=False, **environ):
        own = ("IVAS_", "TTS_", "OLLAMA_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        clean.pop("PORT", None)
        checkout = str(Path(ivas_package.__file__).parents[1])
        clean |= {
            "PYTHONPATH": checkout if real else f"{site}{os.pathsep}{checkout}",
            "IVAS_MODELS_DIR": str(tmp_path / "models"),
            "IVAS_SERVER__PORT": str(free_port),
            "IVAS_LLM__HOST": f"127.0.0.1:{free_port}",
        }
        return subprocess.run(
            [sys.executable, "-c", RUN, "doctor", *arguments],
            cwd=tmp_path,
            env=clean | environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


TORCH = "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n"


def findings(done):
    """By name; of several with one name the worst."""
    body = json.loads(done.stdout)
    worst = {}
    for finding in sorted(
        body["findings"], key=lambda one: ["ok", "warn", "fail"].index(one["state"])
    ):
        worst[finding["name"]] = finding
    failed = any(finding["state"] == "fail" for finding in worst.values())
    assert body["ok"] == (not failed)
    assert done.returncode == int(failed), done.stderr
    return worst


def test_this_machine(doctor):
    found = findings(doctor("--json", real=True))
    for name in ("settings", "IVAS", "vad engine", "llm engine", "port", "certificates", "clock"):
        assert found[name]["state"] == "ok", found[name]


def test_a_machine_with_a_broken_torchaudio_and_without_ollama(doctor):
    found = findings(doctor("--json"))
    audio = found["torchaudio"]
    assert audio["state"] == "warn"  # nobody named xtts
    assert "torchaudio 2.11.0+cu130 is built for CUDA 13.0, but torch 2.13.0+cpu" in audio["what"]
    assert "install both from one place" in audio["fix"]
    assert found["Ollama"]["state"] == "warn"
    assert "ollama serve" in found["Ollama"]["fix"]


def test_what_was_named_must_be_there(doctor, free_port):
    done = doctor("--json", IVAS_TTS__ENGINE="xtts", IVAS_LLM__ENGINE="ollama")
    found = findings(done)
    assert done.returncode == 1
    assert found["torchaudio"]["state"] == "fail"
    assert found["tts engine"]["state"] == "fail"
    assert found["Ollama"]["state"] == "fail"
    assert str(free_port) in found["Ollama"]["what"]


def test_a_busy_port(doctor):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = doctor(IVAS_SERVER__PORT=str(port))
    assert done.returncode == 1, done.stderr
    line, fix = next(
        pair
        for pair in zip(done.stdout.splitlines(), done.stdout.splitlines()[1:], strict=False)
        if pair[0].startswith("fail")
    )
    assert f"Port {port} on 127.0.0.1 is taken by" in line
    assert fix.startswith("      ")  # below its finding
    assert fix.endswith(f"IVAS_SERVER__PORT={port + 1}")
    assert "1 to mend" in done.stdout.splitlines()[-1]


def test_a_wrong_setting_is_a_finding_and_the_rest_is_looked_at(doctor):
    found = findings(doctor("--json", IVAS_TTS__SPEED="fast", IVAS_SERVER__API_KEY="hunter2"))
    assert found["settings"]["state"] == "fail"
    assert found["settings"]["what"] == "IVAS_TTS__SPEED is 'fast'."
    assert "vad engine" in found


def test_no_secret_is_shown(doctor):
    done = doctor(IVAS_SERVER__API_KEY="hunter2", IVAS_LLM__API_KEY="hunter3")
    assert "hunter" not in done.stdout + done.stderr
    assert "IVAS works here" in done.stdout.splitlines()[-1]


@pytest.mark.skipif(nvidia().card, reason="this machine has a card")
def test_production_without_a_card(doctor):
    named = {
        "IVAS_ASR__ENGINE": "whisper",
        "IVAS_LLM__ENGINE": "ollama",
        "IVAS_TTS__ENGINE": "xtts",
    }
    found = findings(doctor("--json", IVAS_ENV="production", **named))
    assert found["GPU"]["state"] == "fail"
    assert "Whisper and XTTS should run on it" in found["GPU"]["what"]


def test_an_installation_that_is_broken_is_looked_at_all_the_same(doctor, tmp_path):
    numpy = tmp_path / "site/numpy/__init__.py"
    numpy.parent.mkdir()
    numpy.write_text("raise ImportError('libgfortran.so.5: cannot open shared object file')")
    found = findings(doctor("--json"))
    assert found["numpy"]["state"] == "fail"
    assert found["tts engine"]["state"] == "fail"
    assert "a package is broken (libgfortran" in found["tts engine"]["what"]
    assert found["port"]["state"] == "ok"
