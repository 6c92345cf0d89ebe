"""The scripts in a checkout of their own, with a Python that only writes down what it is asked.

What pip really installs is for .ci/run; here it is about finding a Python, not
installing twice, going on without pocketsphinx, and handing arguments through.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"

RECORDER = """#!/bin/sh
# One line a call, arguments separated by |. Asked to install, does what $PIP says.
case "$*" in
*"import sys, venv"*) exit 0 ;;
esac
(IFS='|'; printf '%s\\n' "$*") >>"$CALLS"
case "$*" in
*"pip install"*embedded*) eval "$PIP" ;;
esac
"""


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@dataclass(frozen=True, slots=True)
class Checkout:
    """A checkout whose .venv holds the recorder. Its path has a space in it."""

    root: Path

    def run(
        self, script: str, *arguments: str, pip: str = ":", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        calls = self.root / "calls"
        calls.unlink(missing_ok=True)
        return subprocess.run(
            [self.root / "scripts" / script, *arguments],
            env={
                "PATH": os.environ["PATH"],
                "HOME": "/none",
                "CALLS": str(calls),
                "PIP": pip,
                **environ,
            },
            cwd="/",
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def calls(self) -> list[list[str]]:
        calls = self.root / "calls"
        return [line.split("|") for line in calls.read_text().splitlines()]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root = tmp_path / "a checkout"
    shutil.copytree(SCRIPTS, root / "scripts")
    (root / "pyproject.toml").write_text("[project]\n")
    (root / "constraints.txt").write_text("numpy==1\n")
    write_program(root / ".venv/bin/python", RECORDER)
    write_program(root / ".venv/bin/lint-imports", "#!/bin/sh\n")
    return Checkout(root)


def installs(checkout: Checkout) -> list[list[str]]:
    return [call for call in checkout.calls if "install" in call]


def test_serve_installs_once_and_hands_its_arguments_through(checkout: Checkout) -> None:
    done = checkout.run("serve", "--port", "9000", "a b")
    assert done.returncode == 0, done.stderr
    config = str(checkout.root / "config.py")
    serve = ["-m", "ivas", "serve", "--config", config, "--port", "9000", "a b"]
    assert len(checkout.calls) == 2
    assert checkout.calls[0][-4:] == ["-c", "constraints.txt", "-e", ".[embedded,whisper]"]
    assert checkout.calls[1] == serve

    checkout.run("serve", "--port", "9000", "a b")
    assert checkout.calls == [serve]


def test_serve_runs_the_config_that_is_named(checkout: Checkout) -> None:
    checkout.run("serve", IVAS_CONFIG="/etc/ivas.py")
    assert checkout.calls[-1] == ["-m", "ivas", "serve", "--config", "/etc/ivas.py"]


def test_test_runs_pytest_with_its_arguments(checkout: Checkout) -> None:
    checkout.run("test", "tests/audio", "-k", "a or b")
    assert checkout.calls[0][-1] == ".[embedded,whisper,kokoro,piper,dev]"
    assert checkout.calls[1:] == [["-m", "pytest", "tests/audio", "-k", "a or b"]]


def test_test_without_arguments_holds_the_coverage_gate(checkout: Checkout) -> None:
    checkout.run("test")
    assert checkout.calls[1:] == [
        ["-m", "coverage", "run", "-m", "pytest"],
        ["-m", "coverage", "report"],
    ]


def test_check_runs_every_gate_and_stops_at_the_first_that_fails(checkout: Checkout) -> None:
    assert checkout.run("check").returncode == 0
    assert [call[1] for call in checkout.calls[1:]] == ["ruff", "ruff", "mypy"]
    failing = RECORDER + '[ "$2" != ruff ]\n'
    write_program(checkout.root / ".venv/bin/python", failing)
    assert checkout.run("check").returncode == 1
    assert [call[1] for call in checkout.calls] == ["ruff"]


def test_what_test_installed_serves_too(checkout: Checkout) -> None:
    checkout.run("test", "-x")
    checkout.run("serve")
    assert installs(checkout) == []


def test_production_installs_what_a_gpu_needs(checkout: Checkout) -> None:
    (checkout.root / "constraints-cuda.txt").write_text("numpy==1\n")
    checkout.run("serve", IVAS_ENV="production")
    wanted = ["-c", "constraints-cuda.txt", "-e", ".[embedded,whisper,xtts,cuda]"]
    assert checkout.calls[0][-4:] == wanted


def test_what_was_added_once_stays(checkout: Checkout) -> None:
    checkout.run("serve", EXTRAS="kokoro,whisper")
    assert installs(checkout)[0][-1] == ".[embedded,whisper,kokoro]"
    checkout.run("serve")
    assert installs(checkout) == []
    checkout.run("serve", EXTRAS="piper")
    assert installs(checkout)[0][-1] == ".[embedded,whisper,piper,kokoro]"
    checkout.run("serve", EXTRAS="piper,kokoro")
    assert installs(checkout) == []


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_a_change_of_the_requirements_installs_again(checkout: Checkout, changed: str) -> None:
    checkout.run("serve")
    (checkout.root / changed).write_text("changed\n")
    checkout.run("serve")
    assert len(installs(checkout)) == 1


def test_a_moved_checkout_installs_again(checkout: Checkout, tmp_path: Path) -> None:
    checkout.run("serve")
    moved = Checkout(checkout.root.rename(tmp_path / "moved"))
    moved.run("serve")
    assert len(installs(moved)) == 1


@pytest.mark.parametrize(
    ("script", "without"), [("serve", ".[whisper]"), ("test", ".[whisper,kokoro,piper,dev]")]
)
def test_without_pocketsphinx_it_goes_on_and_says_so(
    checkout: Checkout, script: str, without: str
) -> None:
    cannot_build = 'echo "error: Failed to build pocketsphinx"; exit 1'
    done = checkout.run(script, "-x", pip=cannot_build)
    assert done.returncode == 0, done.stderr
    assert "pocketsphinx has no wheel for this Python" in done.stderr
    assert installs(checkout)[1][-2:] == [without, "espeakng-loader"]
    done = checkout.run(script, "-x", pip=cannot_build)
    assert done.stderr == ""
    assert installs(checkout) == []


def test_any_other_failure_to_install_ends_it(checkout: Checkout) -> None:
    done = checkout.run("serve", pip='echo "no route to host"; exit 1')
    assert done.returncode == 1
    assert "no route to host" in done.stderr
    assert "The installation failed; mend what pip says above" in done.stderr
    assert len(checkout.calls) == 1
    checkout.run("serve")
    assert len(installs(checkout)) == 1, "a failed installation must not leave a stamp"


# Finding a Python


def find_python(home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Ask scripts/venv.sh, on a machine that has nothing but `home` and `home`/bin."""
    return subprocess.run(
        ["/bin/sh", "-c", 'root=/none; . "$0/venv.sh"; find_python', SCRIPTS],
        env={"PATH": str(home / "bin"), "HOME": str(home), **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


WORKING = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'
BROKEN_SHIM = "#!/bin/sh\necho 'pyenv: python3.11: command not found' >&2\nexit 127\n"


def test_the_first_choice_is_3_11(tmp_path: Path) -> None:
    write_program(tmp_path / "bin/python3.11", WORKING)
    write_program(tmp_path / "bin/python3.13", WORKING)
    assert find_python(tmp_path).stdout == "python3.11\n"


def test_a_shim_that_fails_is_passed_over(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    write_program(home / "bin/python3.11", BROKEN_SHIM)
    behind = write_program(home / ".pyenv/versions/3.11.9/bin/python", WORKING)
    assert find_python(home).stdout == f"{behind}\n"


def test_the_one_that_is_named_is_taken_or_nothing(tmp_path: Path) -> None:
    write_program(tmp_path / "bin/python3.11", WORKING)
    mine = write_program(tmp_path / "my python", WORKING)
    assert find_python(tmp_path, PYTHON=str(mine)).stdout == f"{mine}\n"
    done = find_python(tmp_path, PYTHON=str(tmp_path / "none"))
    assert (done.returncode != 0, done.stdout) == (True, "")


def test_without_a_python_it_says_how_to_get_one(checkout: Checkout) -> None:
    (checkout.root / ".venv/bin/python").unlink()
    done = subprocess.run(
        [checkout.root / "scripts/serve"],
        env={"PATH": os.environ["PATH"], "HOME": "/none", "PYTHON": "/none/python"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "IVAS needs Python 3.11 or newer" in done.stderr
    assert "/none/python has none that works; get one: " in done.stderr
    assert done.stdout == ""
