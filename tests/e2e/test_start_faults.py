"""What is wrong with an engine is said at the start: one sentence, what to do, exit code 2.

Each case is a machine with one fault and an engine named outright, and `ivas serve` started
on it as an operator does. With `auto` the same faults keep nobody from talking.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from conformance.driver import TRANSCRIPTION, caller
from ollama_server import EMBEDDER, LLAMA, Model, OllamaServer
from ollama_server import Refuse as HttpError

from ivas.hardware import nvidia

from .processes import WAIT_S, install, serve
from .stage import heard, is_sound, opt_in, question, ready, said

pytestmark = pytest.mark.slow

OTHERS = {
    "IVAS_OFFLINE": "1",
    "IVAS_VAD__ENGINE": "fake",
    "IVAS_ASR__ENGINE": "fake",
    "IVAS_LLM__ENGINE": "fake",
    "IVAS_TTS__ENGINE": "fake",
}
"""All engines are sound but the one of the case."""
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    b"size 145217532\n"
)

Damage = Callable[[Path], None]


def gone(path: Path) -> None:
    path.unlink()


def pointer(path: Path) -> None:
    path.write_bytes(POINTER)


def corrupt(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 64)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: Sequence[Damage] = (gone, pointer, corrupt, truncated)


@dataclass(frozen=True, slots=True)
class Weights:
    """Model files of an engine: which one suffers, and what mends it."""

    engine: str
    file: str
    """Below the models directory."""
    fix: str
    """A command that stands in the sentence."""
    also: tuple[tuple[str, str], ...] = ()
    """More settings."""

    @property
    def kind(self) -> str:
        return "ASR" if self.engine == "whisper" else "TTS"


WHISPER = "ivas models download whisper-base"
KOKORO = "ivas models download kokoro"
PIPER = "ivas models download piper-en_US-lessac-medium"
XTTS = "ivas models download xtts-v2"
LICENCE = (("IVAS_TTS__XTTS_LICENCE_ACCEPTED", "true"),)
WEIGHTS = (
    Weights("whisper", "whisper-base/model.bin", WHISPER),
    Weights("kokoro", "kokoro/kokoro-v1.0.onnx", KOKORO),
    Weights("kokoro", "kokoro/voices-v1.0.bin", KOKORO),
    Weights("piper", "piper-en_US-lessac-medium/en_US-lessac-medium.onnx", PIPER),
    Weights("piper", "piper-en_US-lessac-medium/en_US-lessac-medium.onnx.json", PIPER),
    Weights("xtts", "xtts-v2/model.pth", XTTS, LICENCE),
)


@pytest.fixture
def own_models(models_dir: Path, tmp_path: Path) -> Path:
    """A models directory that may be damaged."""
    return copied(models_dir, tmp_path / "models")


def copied(models_dir: Path, own: Path) -> Path:
    for name in ("whisper-base", "kokoro", "piper-en_US-lessac-medium"):
        shutil.copytree(models_dir / name, own / name)
    xtts = own / "xtts-v2"  # as much of one as is looked at before torch is
    xtts.mkdir()
    for name in ("config.json", "vocab.json"):
        (xtts / name).write_text("{}")
    for name in ("model.pth", "speakers_xtts.pth"):
        with zipfile.ZipFile(xtts / name, "w") as archive:
            archive.writestr("archive/data.pkl", bytes(5000))
    return own


async def refused(**environment: str) -> str:
    """The one sentence with which the server ends."""
    async with serve(**OTHERS | environment) as terminal:
        code = await terminal.ended()
    assert code == 2, terminal.err
    assert terminal.out == ""
    assert re.fullmatch(r"ivas: [^\n]+[^\s]\n", terminal.err), terminal.err
    return terminal.err.removeprefix("ivas: ").rstrip()


async def all_refused(starts: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The sentences of several servers, a few of which run at the same time."""
    some = asyncio.Semaphore(4)

    async def one(environment: Mapping[str, str]) -> str:
        async with some:
            return await refused(**environment)

    async with asyncio.TaskGroup() as tasks:
        running = {name: tasks.create_task(one(start)) for name, start in starts.items()}
    return {name: task.result() for name, task in running.items()}


@pytest.mark.parametrize(
    "weights",
    [pytest.param(weights, id=weights.file.split("/")[1]) for weights in WEIGHTS],
)
async def test_damaged_weights(weights: Weights, models_dir: Path, tmp_path: Path) -> None:
    kind, starts = weights.kind, {}
    for damage in DAMAGES:
        own = copied(models_dir, tmp_path / damage.__name__)
        damage(own / weights.file)
        named = {"IVAS_MODELS_DIR": str(own), f"IVAS_{kind}__ENGINE": weights.engine}
        starts[str(own)] = named | dict(weights.also)
    for own_dir, sentence in (await all_refused(starts)).items():
        assert sentence.startswith(f"The {kind.lower()} engine {weights.engine} cannot start: ")
        assert own_dir in sentence
        assert weights.fix in sentence


EMBEDDED = 'pip install "ivas[embedded]"'


@pytest.mark.parametrize(
    ("kind", "absent"),
    [
        (
            "vad",
            {
                "onnxruntime": ("silero", "pip install"),
                "webrtcvad": ("webrtc", "pip install --force-reinstall webrtcvad-wheels"),
            },
        ),
        (
            "asr",
            {
                "pocketsphinx": ("pocketsphinx", EMBEDDED),
                "faster_whisper": ("whisper", "pip install 'ivas[whisper]'"),
                "ctranslate2": ("whisper", "pip install --force-reinstall 'ivas[whisper]'"),
            },
        ),
        ("llm", {"ollama": ("ollama", "pip install ollama")}),
        (
            "tts",
            {
                "espeakng_loader": ("espeak", EMBEDDED),
                "kokoro_onnx": ("kokoro", "pip install 'ivas[kokoro]'"),
                "piper": ("piper", "pip install 'ivas[piper]'"),
                "TTS": ("xtts", "pip install 'ivas[xtts]'"),
                "six": ("xtts", "pip install 'ivas[xtts]'"),
            },
        ),
    ],
)
async def test_an_absent_package(
    kind: str, absent: Mapping[str, tuple[str, str]], own_models: Path, tmp_path: Path
) -> None:
    starts = {
        package: {
            f"IVAS_{kind.upper()}__ENGINE": engine,
            "IVAS_MODELS_DIR": str(own_models),
            **dict(LICENCE),
            **install(tmp_path / package, without=[package]),
        }
        for package, (engine, _) in absent.items()
    }
    for package, sentence in (await all_refused(starts)).items():
        engine, fix = absent[package]
        assert sentence.startswith(f"The {kind} engine {engine} cannot start: ")
        assert fix in sentence


async def test_what_ollama_lacks() -> None:
    lacks: Mapping[str, tuple[Sequence[Model], HttpError | None, str | None]] = {
        "ollama pull llama3.2:3b (": ((), None, None),
        "no model to converse with": ((EMBEDDER,), None, None),
        "ollama pull qwen3:4b": ((LLAMA,), None, "qwen3:4b"),
        "set IVAS_LLM__MODEL to another one": ((EMBEDDER,), None, EMBEDDER.name),
        "set IVAS_LLM__HOST": ((), HttpError(200, "<html>my router</html>"), None),
        "see its own log": ((), HttpError(500, "boom"), None),
        "ollama signin": ((), HttpError(401, "unauthorized"), None),
    }
    async with AsyncExitStack() as stack:
        starts = {}
        for fix, (models, tags, wanted) in lacks.items():
            ollama = OllamaServer(models=models)
            await stack.enter_async_context(ollama)
            ollama.tags = tags
            starts[fix] = {"IVAS_LLM__ENGINE": "ollama", "IVAS_LLM__HOST": ollama.url}
            if wanted is not None:
                starts[fix]["IVAS_LLM__MODEL"] = wanted
        sentences = await all_refused(starts)
    for fix, sentence in sentences.items():
        assert sentence.startswith("The llm engine ollama cannot start: ")
        assert fix in sentence
        assert starts[fix]["IVAS_LLM__HOST"] in sentence


async def test_nobody_answers() -> None:
    async with OllamaServer() as one_that_leaves:
        url = one_that_leaves.url
    kinds = ("ASR", "LLM", "TTS")
    openai = {kind: {f"IVAS_{kind}__ENGINE": "openai"} for kind in kinds}
    there = {kind: named | {f"IVAS_{kind}__URL": f"{url}/v1"} for kind, named in openai.items()}
    ollama = {"ollama": {"IVAS_LLM__ENGINE": "ollama", "IVAS_LLM__HOST": url}}
    sentences = await all_refused(there | ollama)
    for kind in kinds:
        assert f"{url}/v1" in sentences[kind]
        assert f"IVAS_{kind}__URL" in sentences[kind]
    started = f"Ollama does not answer at {url}; start it with: ollama serve"
    assert started in sentences["ollama"]
    for kind, sentence in (await all_refused(openai)).items():
        assert f"set IVAS_{kind}__URL" in sentence


async def test_a_licence_nobody_accepted(own_models: Path) -> None:
    sentence = await refused(IVAS_TTS__ENGINE="xtts", IVAS_MODELS_DIR=str(own_models))
    assert "set IVAS_TTS__XTTS_LICENCE_ACCEPTED=true" in sentence


@pytest.mark.skipif(bool(nvidia().gpus), reason="this machine has the device")
async def test_production_without_the_device() -> None:
    hears, speaks = {"IVAS_ASR__ENGINE": "whisper"}, {"IVAS_TTS__ENGINE": "xtts"}
    starts = {"hears": hears, "speaks": speaks, "both": hears | speaks}
    sentences = await all_refused(
        {name: {"IVAS_ENV": "production"} | start for name, start in starts.items()}
    )
    for sentence in sentences.values():
        assert sentence.startswith("IVAS_ENV=production runs on CUDA, and cannot here: ")
        assert "IVAS_ENV=development" in sentence


@pytest.mark.skipif(bool(nvidia().gpus), reason="this machine has the device")
async def test_development_without_the_device_goes_on_on_the_processor(own_models: Path) -> None:
    async with serve(
        **OTHERS
        | {"IVAS_ASR__ENGINE": "whisper", "IVAS_ASR__DEVICE": "cuda"}
        | {"IVAS_MODELS_DIR": str(own_models)}
    ) as terminal:
        await terminal.until("IVAS is ready")
        assert (await ready(terminal.url))["asr"] == {"engine": "whisper", "ready": True}
    assert "ivas: A GPU was asked for, but the CPU does the work: " in terminal.err
    assert "Traceback" not in terminal.err


# --- the same with auto ----------------------------------------------------------


async def talked_to(url: str) -> None:
    async with caller(url) as one:
        await one.say("What is seven times six?")
        response = await one.reply()
        assert (response["status"], said(response)) == ("completed", "7 times 6 is 42.")
        assert is_sound(one.audio(response["id"]))


async def better(url: str) -> dict[str, str]:
    """What would serve and why it does not, by engine, once each of them was tried."""
    async with asyncio.timeout(WAIT_S):
        while "is being tried" in str(states := await ready(url)):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.1)
    assert [state["engine"] for state in states.values()] == [
        "silero",
        "pocketsphinx",
        "builtin",
        "espeak",
    ]
    return {name: why for state in states.values() for name, why in state.get("better", {}).items()}


async def test_auto_without_any_package_of_the_better_ones(tmp_path: Path) -> None:
    absent = ["faster_whisper", "ctranslate2", "ollama", "kokoro_onnx", "piper", "TTS", "torch"]
    environment = install(tmp_path / "site", without=absent)
    async with serve(IVAS_MODELS_DIR=str(tmp_path / "models"), **environment) as terminal:
        await terminal.until("IVAS is ready")
        await talked_to(terminal.url)
        missing = await better(terminal.url)
    assert {name: bool(re.search("pip install", why)) for name, why in missing.items()} == {
        "whisper": True,
        "ollama": True,
        "kokoro": True,
        "piper": True,
    }
    assert "Better ears" not in terminal.out  # nothing to hear with: nothing is fetched
    assert "Traceback" not in terminal.err


@pytest.mark.parametrize("damage", [gone, pointer, corrupt], ids=lambda damage: damage.__name__)
async def test_auto_with_damaged_weights_everywhere(damage: Damage, own_models: Path) -> None:
    for weights in WEIGHTS:
        damage(own_models / weights.file)
    async with OllamaServer(models=()) as ollama:
        environment = {"IVAS_MODELS_DIR": str(own_models), "IVAS_LLM__HOST": ollama.url}
        async with serve(IVAS_OFFLINE="1", **environment) as terminal:
            await terminal.until("IVAS is ready")
            await talked_to(terminal.url)
            missing = await better(terminal.url)
    assert WHISPER in missing["whisper"]
    assert KOKORO in missing["kokoro"]
    assert PIPER in missing["piper"]
    assert "ollama pull" in missing["ollama"]
    assert "Traceback" not in terminal.err
    assert terminal.out.count("\n") == 1, terminal.out


async def test_auto_where_the_embedded_ones_are_not_installed(
    own_models: Path, tmp_path: Path
) -> None:
    """As on a Python for which pocketsphinx has no wheel: what is there serves at once."""
    environment = install(tmp_path / "site", without=["pocketsphinx", "espeakng_loader"])
    models = {"IVAS_MODELS_DIR": str(own_models), "IVAS_LLM__ENGINE": "builtin"}
    async with serve(IVAS_OFFLINE="1", **models, **environment) as terminal:
        await terminal.until("IVAS is ready")
        states = await ready(terminal.url)
        assert states["asr"]["engine"] == "whisper"
        assert states["tts"]["engine"] in ("kokoro", "piper")
        await talked_to(terminal.url)
    assert "Traceback" not in terminal.err


async def test_auto_with_nothing_to_hear_and_speak_with(whisper: Path, tmp_path: Path) -> None:
    """It starts, says what is missing, and begins to work once that is there."""
    environment = install(tmp_path / "site", without=["pocketsphinx", "espeakng_loader"])
    models_dir = tmp_path / "models"
    models = {"IVAS_MODELS_DIR": str(models_dir), "IVAS_LLM__ENGINE": "builtin"}
    async with serve(IVAS_OFFLINE="1", **models, **environment) as terminal:
        await terminal.until("IVAS is ready")
        for name in ("pocketsphinx", "espeak"):
            assert re.search(f"engine {name} cannot start: [^\\n]+pip install", terminal.err)
        async with caller(terminal.url) as one:
            await opt_in(one)
            await one.hear(question("what_time_is_it_slt"))
            failed = await one.until(f"{TRANSCRIPTION}failed")
            assert failed["error"]["message"].startswith("pocketsphinx cannot listen")
            shutil.copytree(whisper, models_dir / "whisper-base")
            while (await one.until("ivas.engines"))["engine"] != "whisper":
                pass
            await one.hear(question("what_time_is_it_slt"))
            await one.until(f"{TRANSCRIPTION}completed")
            assert heard(one) == ["what time is it"]
            response = await one.done()
            assert response["status"] == "failed"
            why = response["status_details"]["error"]["message"]
            assert 'pip install "ivas[embedded]"' in why
    assert "Traceback" not in terminal.err
