"""The images, their composition and the two sets of pins, as far as reading them goes.

That their steps run is scripts/check_images.py's business: it needs root, a network and minutes.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILES = ["Dockerfile.cpu", "Dockerfile.gpu"]
CUDA = re.compile(r"(nvidia|cuda)-|triton$")


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "check_images", ROOT / "scripts" / "check_images.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["check_images"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_images = load_script()


def canonical(name: str) -> str:
    """As packages are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    found = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonical(package): version for package, version in found}


def stages(dockerfile: str) -> list[Any]:
    found: list[Any] = check_images.read_stages((ROOT / dockerfile).read_text())
    return found


def last(dockerfile: str, word: str) -> list[str]:
    """What the instructions `word` of the stage that runs say."""
    return [step.rest for step in stages(dockerfile)[-1].steps if step.word == word]


def environment(dockerfile: str) -> dict[str, str]:
    pairs = (pair.partition("=") for line in last(dockerfile, "ENV") for pair in line.split())
    return {name: value for name, _, value in pairs}


# --- both images ---------------------------------------------------------------------


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_every_stage_begins_with_a_pinned_image_or_an_earlier_stage(dockerfile: str) -> None:
    found = stages(dockerfile)
    assert len(found) > 1, "one stage only: what builds would be shipped"
    names: list[str] = []
    for stage in found:
        pinned = re.fullmatch(r"[\w/.-]+:\d+\.\d+\.\d+[\w.-]*", stage.base)
        assert pinned or stage.base in names, f"{stage.base} may become another image any day"
        names.append(stage.name)
    assert found[-1].base not in names, "the last stage is to begin anew"


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_everything_pip_installs_is_pinned(dockerfile: str) -> None:
    runs = [step.rest for stage in stages(dockerfile) for step in stage.steps if step.word == "RUN"]
    installs = [part for run in runs for part in run.split("&&") if "pip install" in part]
    assert installs
    for install in installs:
        assert "-c constraints" in install or "--no-deps" in install, install


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_it_installs_extras_that_exist(dockerfile: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = re.search(r"'\.\[([\w,]+)\]'", (ROOT / dockerfile).read_text())
    assert found is not None
    assert set(found[1].split(",")) <= project["optional-dependencies"].keys()


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_it_runs_as_nobody_in_particular_and_keeps_things_in_its_volume(dockerfile: str) -> None:
    assert last(dockerfile, "USER") == ["1000:1000"]  # a number: orchestrators check it is not 0
    assert last(dockerfile, "VOLUME") == ["/data"]
    made_for_it = [run for run in last(dockerfile, "RUN") if "/data" in run]
    assert any("--owner=ivas" in run and "--uid 1000" in run for run in made_for_it)
    assert environment(dockerfile).items() >= {
        ("XDG_CACHE_HOME", "/data"),
        ("XDG_CONFIG_HOME", "/data"),
    }


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_it_serves_with_its_own_config_on_the_port_it_is_told(dockerfile: str) -> None:
    (command,) = last(dockerfile, "CMD")
    assert json.loads(command) == ["ivas", "serve", "--config", "/app/config.py"]
    set_here = environment(dockerfile)
    assert set_here["IVAS_SERVER__HOST"] == "0.0.0.0"
    assert set_here["IVAS_CONFIG"] == "/app/config.py"
    # Set here, they would contradict the other name of the port that an operator may set.
    assert not set_here.keys() & {"PORT", "IVAS_SERVER__PORT", "IVAS_SERVER__API_KEY"}
    assert last(dockerfile, "EXPOSE") == ["8000"]


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_it_looks_after_its_health_with_nothing_but_python(dockerfile: str) -> None:
    (health,) = last(dockerfile, "HEALTHCHECK")
    for option in ("--interval", "--timeout", "--start-period", "--retries"):
        assert f"{option}=" in health
    assert "${PORT:-8000}" in health
    assert "/health" in health
    assert not re.search(r"\b(curl|wget)\b", health)


@pytest.fixture
def answering() -> Iterator[dict[str, Any]]:
    """A server that answers /health with `status`, and any other path with 404."""
    known: dict[str, Any] = {"status": 200}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(known["status"] if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        known["port"] = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield known
        server.shutdown()
        thread.join()


def health_code(dockerfile: str, port: int) -> int:
    """What the health check of an image ends with, run as Docker runs it."""
    (health,) = last(dockerfile, "HEALTHCHECK")
    here = Path(sys.executable).parent
    # A proxy that nobody answers at: the check is not to ask it.
    environ = {
        "PATH": f"{here}:/usr/bin:/bin",
        "PORT": str(port),
        "http_proxy": "http://127.0.0.1:9",
    }
    command = ["/bin/sh", "-c", health.partition("CMD ")[2]]
    return subprocess.run(command, env=environ, stderr=subprocess.DEVNULL, check=False).returncode


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_the_health_check_tells_a_well_server_from_a_sick_one_and_none(
    dockerfile: str, answering: dict[str, Any]
) -> None:
    assert health_code(dockerfile, answering["port"]) == 0
    answering["status"] = 503
    assert health_code(dockerfile, answering["port"]) == 1  # the only other code Docker knows
    assert health_code(dockerfile, 9) == 1


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_it_fetches_no_models(dockerfile: str) -> None:
    text = (ROOT / dockerfile).read_text()
    assert not re.search(r"models download|ollama pull|huggingface|git lfs|ADD ", text)


def test_the_two_differ_only_where_they_have_to() -> None:
    """So that a mended fault is mended in both."""
    cpu, gpu = (stages(dockerfile) for dockerfile in DOCKERFILES)
    assert [(stage.base, stage.name) for stage in cpu] == [
        (stage.base, stage.name) for stage in gpu
    ]
    steps = [{f"{s.word} {s.rest}" for stage in image for s in stage.steps} for image in (cpu, gpu)]
    words = {step.partition(" ")[0] for step in steps[0] ^ steps[1]}
    assert words == {"COPY", "ENV", "HEALTHCHECK", "LABEL", "RUN"}
    assert environment("Dockerfile.gpu").keys() - environment("Dockerfile.cpu").keys() == {
        "IVAS_ENV",
        "NVIDIA_DRIVER_CAPABILITIES",
        "NVIDIA_VISIBLE_DEVICES",
    }


def test_the_gpu_image_installs_the_cuda_set() -> None:
    text = (ROOT / "Dockerfile.gpu").read_text()
    assert "-c constraints-cuda.txt" in text
    assert "nvidia-cublas-cu12" in text
    # The wheels bring CUDA; a CUDA base image would bring it again.
    assert all("cuda" not in stage.base for stage in stages("Dockerfile.gpu"))


# --- what goes into them -------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "left_out"),
    [
        ("ivas/app.py", False),
        ("web_client/index.html", False),
        ("config.py", False),
        ("constraints-cuda.txt", False),
        ("scripts/check_gpu.py", False),
        ("scripts/serve", True),
        (".env", True),
        (".git/config", True),
        (".venv/bin/python", True),
        ("ivas/__pycache__/app.cpython-311.pyc", True),
        ("tests/test_images.py", True),
        ("models/model.pth", True),
        ("ivas_secrets/key", True),
    ],
)
def test_docker_is_shown_what_it_needs_and_no_more(path: str, left_out: bool) -> None:
    assert check_images.ignored(path, patterns()) is left_out


def patterns() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_what_is_copied_is_there_and_shown(dockerfile: str) -> None:
    shown = {str(path.relative_to(ROOT)) for path in check_images.context(ROOT)}
    assert shown
    for stage in stages(dockerfile):
        for step in stage.steps:
            if step.word == "COPY" and "--from" not in step.rest and not step.rest.startswith("."):
                for source in step.rest.split()[:-1]:
                    assert any(name == source or name.startswith(f"{source}/") for name in shown)


def test_the_wheel_finds_everything_it_is_made_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    hatch = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*hatch["packages"], *hatch["force-include"], project["project"]["readme"]]
    for name in [*needed, *project["project"]["license-files"]]:
        assert not check_images.ignored(name, patterns()), name


# --- reading a Dockerfile ------------------------------------------------------------


def test_a_dockerfile_is_read_as_docker_reads_it() -> None:
    text = (
        "ARG BASE=debian:12.1.0\n# a comment\nFROM ${BASE} AS one\nRUN a \\\n    # inside\n"
        '    && b\nFROM one\nCMD ["c"]\n'
    )
    found = check_images.read_stages(text)
    assert [(stage.base, stage.name) for stage in found] == [
        ("debian:12.1.0", "one"),
        ("one", "last"),
    ]
    assert [(step.word, step.rest) for step in found[0].steps] == [("RUN", "a && b")]


# --- compose -------------------------------------------------------------------------


def compose(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return found


def test_compose_wants_a_key_and_listens_on_this_machine_only() -> None:
    ivas = compose("compose.yaml")["services"]["ivas"]
    key = ivas["environment"]["IVAS_SERVER__API_KEY"]
    assert key.startswith("${IVAS_SERVER__API_KEY:?")  # empty or missing: told how to make one
    assert key.endswith("}")
    assert key.count("}") == 1  # the first one ends the message
    assert ivas["ports"] == ["127.0.0.1:${PORT:-8000}:8000"]
    assert ivas["environment"]["PORT"] == "8000"
    assert ivas["build"]["dockerfile"] == "Dockerfile.cpu"


def test_compose_brings_ollama_where_ivas_looks_for_it() -> None:
    services = compose("compose.yaml")["services"]
    host = services["ivas"]["environment"]["IVAS_LLM__HOST"]
    name, port = re.fullmatch(r"http://(\w+):(\d+)", host).groups()  # type: ignore[union-attr]
    assert port == "11434"
    assert re.fullmatch(r"ollama/ollama:\d+\.\d+\.\d+", services[name]["image"])
    assert "ports" not in services[name], "Ollama has no key: it is for IVAS alone"
    assert services[name]["healthcheck"]["test"][:2] == ["CMD", "ollama"]


def test_compose_keeps_what_has_to_last() -> None:
    found = compose("compose.yaml")
    mounts = [mount for service in found["services"].values() for mount in service["volumes"]]
    assert "data:/data" in mounts
    assert {mount.partition(":")[0] for mount in mounts} == found["volumes"].keys()


def test_every_ivas_variable_of_compose_is_a_setting() -> None:
    from ivas.settings import ALIASES, all_settings

    known = {setting.variable for setting in all_settings().values()} | set(ALIASES)
    assert compose("compose.yaml")["services"]["ivas"]["environment"].keys() <= known
    for dockerfile in DOCKERFILES:
        names = {name for name in environment(dockerfile) if name.startswith("IVAS_")}
        assert names <= known | {"IVAS_CONFIG"}


def test_the_override_gives_both_services_the_card() -> None:
    over = compose("compose.gpu.yaml")["services"]
    assert over.keys() == compose("compose.yaml")["services"].keys()
    for service in over.values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert over["ivas"]["build"]["dockerfile"] == "Dockerfile.gpu"


# --- constraints ---------------------------------------------------------------------


def test_cuda_pins_nothing_but_cuda_and_takes_the_rest_from_the_other() -> None:
    text = (ROOT / "constraints-cuda.txt").read_text()
    assert "\n-c constraints.txt\n" in text
    assert pins("constraints-cuda.txt")
    assert [name for name in pins("constraints-cuda.txt") if not CUDA.match(name)] == []
    assert [name for name in pins("constraints.txt") if CUDA.match(name)] == []


def test_no_pin_is_of_a_build_that_only_one_machine_has() -> None:
    both = pins("constraints.txt") | pins("constraints-cuda.txt")
    assert [name for name, version in both.items() if "+" in version] == []


def test_the_set_is_of_one_cuda() -> None:
    cuda = pins("constraints-cuda.txt")
    beside = {"nvidia-cublas-cu12", "nvidia-cuda-nvrtc-cu12"}  # ctranslate2's
    assert {name for name in cuda if name.endswith("-cu12")} == beside
    toolkit = ".".join(cuda["cuda-toolkit"].split(".")[:2])
    of_the_toolkit = ("cupti", "nvrtc", "runtime")
    for name in (*(f"nvidia-cuda-{part}" for part in of_the_toolkit), "nvidia-nvjitlink"):
        assert cuda[name].startswith(f"{toolkit}."), name
    assert cuda["cuda-bindings"].startswith(f"{toolkit}.")


def test_ctranslate2_gets_the_cublas_that_ivas_looks_for() -> None:
    from ivas.hardware import CTRANSLATE2_CUDA, CUBLAS

    cuda = pins("constraints-cuda.txt")
    assert cuda["nvidia-cublas-cu12"].startswith(f"{CTRANSLATE2_CUDA}.")
    assert f"libcublas.so.{CTRANSLATE2_CUDA}" == CUBLAS
    pinned = pins("constraints.txt")["ctranslate2"]
    # Which CUDA libraries it opens was read from this release: read it anew for another.
    assert f"ctranslate2 {pinned}" in (ROOT / "constraints-cuda.txt").read_text()


def test_the_torch_family_is_told_of_as_it_is_pinned() -> None:
    text = (ROOT / "constraints-cuda.txt").read_text().replace("\n# ", " ")
    for name in ("torch", "torchaudio", "torchcodec"):
        assert f"{name} {pins('constraints.txt')[name]}" in text


# --- docs/gpu.md ---------------------------------------------------------------------


def spoken(source: str) -> Iterator[str]:
    """Every string of a source file; of an f-string what is fixed, with … for the rest."""
    for node in ast.walk(ast.parse((ROOT / source).read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_sentences_docs_explain_are_those_that_are_said() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "gpu.md").read_text(), re.MULTILINE)
    said = [*spoken("ivas/hardware.py"), *spoken("ivas/engines/tts/xtts/install.py")]
    assert len(rows) > 10
    assert [row for row in rows if not any(row in sentence for sentence in said)] == []
