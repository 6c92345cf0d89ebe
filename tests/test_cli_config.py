"""The command line as a person meets it: a process of its own, its words and exit code."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ivas as ivas_package
from ivas import __version__
from ivas.settings import all_settings
from ivas.settings_sources import shipped_config

Ivas = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ivas(tmp_path: Path) -> Ivas:
    """Runs `ivas ARGUMENTS` in an empty directory; `environ` is added to a clean one."""

    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("IVAS_", "TTS_")) and name != "PORT"
        }
        # Found also where the tests run from a checkout that was never installed.
        clean["PYTHONPATH"] = str(Path(ivas_package.__file__).parents[1])
        return subprocess.run(
            [sys.executable, "-m", "ivas", *arguments],
            cwd=tmp_path,
            env=clean | environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def refused(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The one sentence a failure is."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("ivas: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_version(ivas: Ivas) -> None:
    assert ivas("--version").stdout == f"ivas {__version__}\n"


def test_config_shows_every_setting_and_its_origin(ivas: Ivas) -> None:
    done = ivas("config", IVAS_TTS__SPEED="1.5")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(" = ")[0] for line in lines] == list(all_settings())
    assert "tts.speed = 1.5  # IVAS_TTS__SPEED, IVAS_TTS__SPEED" in lines
    assert f"server.port = 8000  # IVAS_SERVER__PORT, {shipped_config()}" in lines
    assert "fake.asr_ms = 100  # IVAS_FAKE__ASR_MS, default" in lines


def test_config_as_json(ivas: Ivas) -> None:
    shown = json.loads(ivas("config", "--json", PORT="81").stdout)
    assert shown["config"] == str(shipped_config())
    assert list(shown["settings"]) == list(all_settings())
    assert shown["settings"]["server.port"] == {
        "value": 81,
        "variable": "IVAS_SERVER__PORT",
        "origin": "PORT",
    }


@pytest.mark.parametrize("arguments", [("config",), ("config", "--json")])
def test_config_masks_secrets(ivas: Ivas, arguments: tuple[str, ...]) -> None:
    done = ivas(*arguments, IVAS_SERVER__API_KEY="hunter2")
    assert "hunter2" not in done.stdout + done.stderr
    assert "**********" in done.stdout


def test_init_writes_a_config_that_can_be_used(ivas: Ivas, tmp_path: Path) -> None:
    done = ivas("config", "--init")
    assert done.returncode == 0, done.stderr
    assert "ivas serve --config config.py" in done.stdout
    written = tmp_path / "config.py"
    shipped = shipped_config()
    assert shipped is not None
    assert written.read_bytes() == shipped.read_bytes()
    assert str(written) not in ivas("config").stdout
    assert (
        "server.port = 8000  # IVAS_SERVER__PORT, config.py"
        in ivas("config", "--config", "config.py").stdout.splitlines()
    )


def test_init_overwrites_nothing(ivas: Ivas, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("# mine\n")
    assert "mine.py exists" in refused(ivas("config", "--init", "mine.py"))
    assert mine.read_text() == "# mine\n"


def test_init_in_a_place_that_does_not_exist(ivas: Ivas) -> None:
    text = refused(ivas("config", "--init", "none/config.py"))
    assert "cannot be written (No such file or directory)" in text


def test_a_path_without_init_is_explained(ivas: Ivas) -> None:
    assert "ivas config --config my.py" in refused(ivas("config", "my.py"))


def test_a_wrong_setting_ends_every_command_with_its_sentence(ivas: Ivas) -> None:
    assert "IVAS_ENV is 'staging'" in refused(ivas("config", IVAS_ENV="staging"))
    assert "IVAS_ENV is 'staging'" in refused(ivas("serve", IVAS_ENV="staging"))


def test_serve_refuses_a_missing_config(ivas: Ivas) -> None:
    assert "--config names none.py" in refused(ivas("serve", "--config", "none.py"))


def test_serve_refuses_a_port_out_of_range(ivas: Ivas) -> None:
    assert "--port is 0; it takes a whole number" in refused(ivas("serve", "--port", "0"))


def test_serve_refuses_an_open_door(ivas: Ivas) -> None:
    assert "IVAS_SERVER__API_KEY" in refused(ivas("serve", "--host", "0.0.0.0"))


def test_serve_says_that_a_port_is_taken(ivas: Ivas) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = refused(ivas("serve", "--port", str(port)))
    assert f"Port {port} on 127.0.0.1 is taken by another program" in text


def test_serve_says_that_an_address_is_not_of_this_machine(ivas: Ivas) -> None:
    # 192.0.2.0/24 is kept for documentation (RFC 5737): no machine has it.
    done = ivas("serve", "--host", "192.0.2.1", IVAS_SERVER__API_KEY="k")
    assert "cannot listen on 192.0.2.1" in refused(done)
