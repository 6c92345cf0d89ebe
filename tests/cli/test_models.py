"""`ivas models` as a person meets it, against a small hub."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer, file_server
from model_downloads import content, model_of, serve
from ollama_server import OllamaServer
from typer.testing import CliRunner, Result

import ivas as ivas_package
from ivas.cli.models import app
from ivas.errors import EngineError, SettingsError
from ivas.hardware import Memory
from ivas.models import ModelError
from ivas.models.catalogue import CATALOGUE
from ivas.models.store import ModelStore

FILES = {"voice.onnx": content(200_000), "voice.onnx.json": b"{}"}
FREE = model_of(FILES, model_id="tiny-voice")
BOUND = model_of(FILES, model_id="bound-voice", non_commercial=True)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as files:
        yield files


@pytest.fixture(autouse=True)
def small(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The commands see two small models, that server and an empty directory."""
    for name in [name for name in os.environ if name.startswith(("IVAS_", "TTS_", "HF_"))]:
        monkeypatch.delenv(name)
    for model in (FREE, BOUND):
        serve(server, model, FILES)
    monkeypatch.setenv("IVAS_MODELS_HUB", server.url)
    monkeypatch.setenv("IVAS_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("ivas.models.catalogue.CATALOGUE", (FREE, BOUND))
    monkeypatch.setattr("ivas.models.catalogue._BY_ID", {m.id: m for m in (FREE, BOUND)})
    monkeypatch.setattr(ModelStore.__init__, "__defaults__", ((FREE, BOUND),))
    return tmp_path / "models"


def models(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def refused(result: Result, kind: type[Exception] = ModelError) -> str:
    assert isinstance(result.exception, kind), result.exception
    assert result.stdout == ""
    return str(result.exception)


def listed() -> dict[str, dict[str, object]]:
    done = models("list", "--json")
    assert done.exit_code == 0
    return {model["id"]: model for model in json.loads(done.stdout)["models"]}


def test_a_model_comes_is_listed_checked_and_goes(small: Path) -> None:
    assert not listed()["tiny-voice"]["installed"]
    done = models("download", "tiny-voice")
    assert done.exit_code == 0
    assert done.stdout == f"tiny-voice is in {small / 'tiny-voice'} (200 kB).\n"
    assert listed()["tiny-voice"]["installed"]
    assert models("check").stdout == "tiny-voice: sound\n"
    assert models("remove", "tiny-voice").stdout.startswith("tiny-voice is removed; 200 kB are")
    assert not listed()["tiny-voice"]["installed"]
    assert list(small.iterdir()) == []


def test_the_list_says_all_a_person_chooses_by() -> None:
    models("download", "tiny-voice")
    shown = models("list").stdout
    row = next(line for line in shown.splitlines() if line.startswith("tiny-voice"))
    assert row.split() == ["tiny-voice", "for", "tests", "en", "200", "kB", "MIT", "yes", "fits"]
    assert "CPML, non-commercial" in shown
    assert shown.splitlines()[0].split() == [
        *("MODEL", "FOR", "LANGUAGES", "SIZE", "LICENCE", "HERE", "FITS")
    ]


def test_the_real_catalogue_can_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ivas.models.catalogue.CATALOGUE", CATALOGUE)
    shown = models("list").stdout
    assert all(model.id in shown for model in CATALOGUE)
    told = listed()
    assert set(told) == {model.id for model in CATALOGUE}
    assert {model["fits"] for model in told.values()} <= {"fits", "tight", "too big"}


def test_what_was_put_there_by_hand_is_listed_as_that(small: Path) -> None:
    (small / "tiny-voice").mkdir(parents=True)
    for name, data in FILES.items():
        (small / "tiny-voice" / name).write_bytes(data)
    assert listed()["tiny-voice"]["by_hand"]
    assert "by hand" in models("list").stdout
    assert models("check").stdout == "tiny-voice: sound\n"


def test_damage_is_found_and_mended(small: Path) -> None:
    models("download", "tiny-voice")
    (small / "tiny-voice" / "voice.onnx").write_bytes(bytes(200_000))
    done = models("check")
    assert done.exit_code == 1
    assert done.stdout.count("\n") == 1
    assert "is damaged or changed" in done.stdout
    assert models("download", "tiny-voice").exit_code == 0
    assert models("check", "tiny-voice").exit_code == 0


def test_an_interrupted_download_is_a_fault(small: Path) -> None:
    (small / "tiny-voice").mkdir(parents=True)
    (small / "tiny-voice" / "voice.onnx.part").write_bytes(FILES["voice.onnx"][:1000])
    done = models("check")
    assert done.exit_code == 1
    assert "finish it with: ivas models download tiny-voice" in done.stdout


def test_nothing_to_check_is_no_fault(small: Path) -> None:
    done = models("check")
    assert done.exit_code == 0
    assert done.stdout == f"There is no model in {small}. Get one with: ivas models download ID\n"


def test_a_licence_needs_a_yes(server: FileServer, small: Path) -> None:
    sentence = refused(models("download", "bound-voice"))
    assert "ivas models download bound-voice --accept-licence" in sentence
    assert server.seen == []
    assert models("download", "bound-voice", "--accept-licence").exit_code == 0
    assert json.loads((small / "bound-voice" / "ivas-model.json").read_text())["licence_accepted"]
    (small / "bound-voice" / "voice.onnx.json").unlink()
    assert models("download", "bound-voice").exit_code == 0  # asked once


CHILD = """
from test_models import BOUND
import ivas.models.catalogue as catalogue
catalogue.CATALOGUE, catalogue._BY_ID = (BOUND,), {BOUND.id: BOUND}
from ivas.cli.models import app
app("""


def child_environ() -> dict[str, str]:
    paths = (*Path(__file__).parents[:2], Path(ivas_package.__file__).parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "TERM": "xterm"}


@pytest.mark.parametrize(("answer", "here"), [(b"y\n", True), (b"n\n", False), (b"\n", False)])
def test_a_terminal_is_asked(small: Path, answer: bytes, here: bool) -> None:
    screen, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", f"{CHILD}['download', 'bound-voice'])"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=child_environ(),
    ) as child:
        os.close(terminal)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(screen, 4096)
        os.write(screen, answer)
        while child.poll() is None:
            try:
                shown += os.read(screen, 4096)
            except OSError:  # the other side has closed
                break
    os.close(screen)
    assert b"https://l.example" in shown
    assert (child.returncode == 0) is here
    assert (small / "bound-voice" / "ivas-model.json").exists() is here
    assert (b"200." in shown) is here  # the progress bar, in a terminal only


def test_offline_nothing_is_fetched(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IVAS_OFFLINE", "1")
    sentence = refused(models("download", "tiny-voice"), SettingsError)
    assert sentence.startswith("IVAS_OFFLINE is set")
    assert refused(models("download", "ollama:llama3.2:3b"), SettingsError)
    assert server.seen == []
    assert models("list").exit_code == 0


@pytest.mark.parametrize("command", ["download", "remove", "check"])
@pytest.mark.parametrize("name", ["whisper-huge", "../outside", ""])
def test_a_wrong_name_is_one_sentence(command: str, name: str) -> None:
    sentence = refused(models(command, name))
    assert "\n" not in sentence
    assert "ivas models" in sentence


def test_one_that_does_not_fit_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ivas.hardware.memory", lambda: Memory(2, 0))
    done = models("download", "tiny-voice")
    assert done.exit_code == 0
    assert done.stderr.startswith("tiny-voice is tight for this machine. It needs about")


def test_control_c_keeps_what_came(server: FileServer, small: Path) -> None:
    file = server.files[f"/{BOUND.files[0].url_path}"]
    file.content, file.pause_at = content(2_000_000), 1_000_000
    part = small / "bound-voice" / "voice.onnx.part"
    with subprocess.Popen(
        [sys.executable, "-c", f"{CHILD}['download', 'bound-voice', '--accept-licence'])"],
        env=child_environ(),
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        while not (part.exists() and part.stat().st_size > 500_000):
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=20)
    assert child.returncode == 130
    assert said == "Stopped. Type the same again to go on.\n"
    assert part.stat().st_size > 500_000
    assert not (small / ".bound-voice.lock").exists()


async def test_a_model_of_ollama_is_pulled_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    async with OllamaServer() as ollama:
        monkeypatch.setenv("IVAS_LLM__HOST", ollama.url)
        steps = [{"status": "pulling x", "completed": 5, "total": 10}, {"status": "success"}]
        ollama.pulls.append(steps)
        done = await asyncio.to_thread(models, "download", "ollama:llama3.2:3b")
        assert done.exit_code == 0, done.exception
        assert done.stdout == "llama3.2:3b is ready in Ollama.\n"
        ollama.pulls.append([{"error": "pull model manifest: file does not exist"}])
        assert refused(await asyncio.to_thread(models, "download", "ollama:nonsense"), EngineError)
