"""Models that come while people wait: Whisper by `ivas serve` itself, an LLM through Ollama."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance.driver import TRANSCRIPTION, Caller, caller
from file_server import FileServer, file_server
from ollama_server import LLAMA, OllamaServer, Wait
from tiny_whisper import TONE, tone

from ivas.audio.resample import resample_pcm

from .processes import ROOT, WAIT_S, install, ivas, serve
from .stage import heard, opt_in, ready, said, stage, turn
from .tiny_catalogue import MODEL_ID, offer, tiny

pytestmark = pytest.mark.slow

PAUSE_AT = 4_000_000
"""After so many bytes of the weights the hub waits."""


@pytest.fixture
def hub() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


@pytest.fixture
def environment(hub: FileServer, whisper: Path, tmp_path: Path) -> dict[str, str]:
    """A machine with an empty cache, whose hub has the tiny Whisper as whisper-base."""
    run = f"from e2e.tiny_catalogue import hand_in; hand_in({str(whisper)!r})"
    return {
        "IVAS_MODELS_HUB": hub.url,
        "IVAS_MODELS_DIR": str(tmp_path / "models"),
        "IVAS_LLM__ENGINE": "builtin",
        "IVAS_TTS__ENGINE": "espeak",
        "IVAS_ASR__TIMEOUT_S": "60",
        "NO_PROXY": "127.0.0.1",
        "IVAS_OFFLINE": "false",
        **install(tmp_path / "site", run=run),
    }


async def hears_a_tone(one: Caller) -> None:
    """Only the tiny Whisper hears words in it."""
    transcription = {"model": "whisper-1"}
    await one.configure(audio={"input": {"transcription": transcription, "turn_detection": None}})
    await one.hear(resample_pcm(tone(1.2), 16_000, 24_000))
    await one.connection.input_audio_buffer.commit()
    completed = await one.until(f"{TRANSCRIPTION}completed")
    assert completed["transcript"] == TONE


async def test_better_ears_come_in_the_background(
    hub: FileServer, whisper: Path, environment: dict[str, str]
) -> None:
    weights = offer(hub, tiny(whisper), whisper)
    weights.pause_at = PAUSE_AT
    async with serve(**environment) as terminal:
        await terminal.until("IVAS is ready")
        line = await terminal.until("Better ears")
        assert line.startswith(
            "ivas: Better ears are being fetched in the background: whisper-base ("
        )
        assert "MIT" in line
        assert line.endswith("IVAS_OFFLINE=1 forbids it.")
        async with caller(terminal.url) as one:
            await opt_in(one)
            response = await turn(one, "what_time_is_it_slt")
            assert said(response).startswith("It is ")
            assert heard(one) == ["what time is it"]
            assert (await ready(terminal.url))["asr"]["engine"] == "pocketsphinx"
            weights.go_on.set()
            told = await one.until("ivas.engines")
            assert (told["kind"], told["engine"], told["before"]) == (
                "asr",
                "whisper",
                "pocketsphinx",
            )
            assert (await ready(terminal.url))["asr"] == {"engine": "whisper", "ready": True}
            await hears_a_tone(one)
        await terminal.until("ivas: whisper-base: 100% fetched.")
        await terminal.until("ivas: whisper is ready and takes over from pocketsphinx.")
    assert "Traceback" not in terminal.err
    async with ivas("models", "check", MODEL_ID, **environment) as check:
        assert await check.ended() == 0
    assert check.out == "whisper-base: sound\n"


async def test_a_fetch_that_is_interrupted_goes_on_at_the_next_start(
    hub: FileServer, whisper: Path, environment: dict[str, str]
) -> None:
    model = tiny(whisper)
    weights = offer(hub, model, whisper)
    weights.pause_at = PAUSE_AT
    part = Path(environment["IVAS_MODELS_DIR"]) / MODEL_ID / f"{model.files[0].name}.part"
    async with serve(**environment) as terminal:
        async with asyncio.timeout(WAIT_S):
            while not (part.exists() and part.stat().st_size):  # noqa: ASYNC110 - files tell nobody
                await asyncio.sleep(0.02)
        terminal.interrupt()
        assert await terminal.ended() == 0, terminal.err
    assert "Traceback" not in terminal.err
    assert "could not be fetched" not in terminal.out
    weights.pause_at = None
    weights.go_on.set()
    begun = part.stat().st_size
    assert 0 < begun <= PAUSE_AT
    async with serve(**environment) as terminal:
        await terminal.until("whisper is ready and takes over from pocketsphinx.")
    path = f"/{model.files[0].url_path}"
    assert hub.ranges(path)[-1] == f"bytes={begun}-"
    assert not part.exists()


async def test_what_cannot_be_fetched_keeps_nobody_from_talking(
    hub: FileServer, environment: dict[str, str]
) -> None:
    async with serve(**environment) as terminal:  # this hub has nothing
        line = await terminal.until("could not be fetched")
        assert line.startswith("ivas: Whisper could not be fetched, so the simple recogniser stays")
        assert line.endswith("To try again, type: ivas models download whisper-base")
        async with caller(terminal.url) as one:
            await opt_in(one)
            response = await turn(one, "what_time_is_it_slt")
            assert (response["status"], heard(one)) == ("completed", ["what time is it"])
    assert "Traceback" not in terminal.err


async def test_nothing_is_fetched_where_that_is_forbidden(
    hub: FileServer, whisper: Path, environment: dict[str, str]
) -> None:
    offer(hub, tiny(whisper), whisper)
    async with serve(**environment | {"IVAS_OFFLINE": "1"}) as terminal:
        await terminal.until("IVAS is ready")
        why = (await ready(terminal.url))["asr"]["better"]["whisper"]
        assert "being tried" in why or "ivas models download whisper-base" in why
    assert hub.seen == []
    assert "Better ears" not in terminal.out


async def test_a_pull_through_ollama_shows_its_progress_and_is_used(models_dir: Path) -> None:
    """`ivas models download ollama:NAME` in a terminal, beside a server that waits for it."""
    half = asyncio.Event()
    load = {"status": "pulling 74701a8c35f6", "digest": "sha256:74701a8c35f6", "total": 10_000_000}
    async with OllamaServer(models=()) as ollama:
        ollama.pulls.append(
            [
                {"status": "pulling manifest"},
                load | {"completed": 2_500_000},
                Wait(half),
                load | {"completed": 10_000_000},
                {"status": "verifying sha256 digest"},
                {"status": "success"},
            ]
        )
        async with (
            stage(
                models_dir,
                asr={"engine": "whisper"},
                llm={"host": ollama.url},
                tts={"engine": "espeak"},
            ) as on_stage,
            caller(on_stage.url) as one,
        ):
            await opt_in(one)
            await on_stage.probe("llm")
            state = (await on_stage.ready())["llm"]
            assert state["engine"] == "builtin"
            assert f"ollama pull {LLAMA.name}" in state["better"]["ollama"]
            ours, theirs = pty.openpty()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "ivas", "models", "download", f"ollama:{LLAMA.name}"),
                cwd=ROOT,
                env=os.environ
                | {"IVAS_OFFLINE": "false", "IVAS_LLM__HOST": ollama.url}
                | {"TERM": "xterm", "COLUMNS": "120"},
                stdout=asyncio.subprocess.PIPE,
                stderr=theirs,
            )
            os.close(theirs)
            screen = Screen(ours)
            await screen.until("2.5/10.0 MB")
            assert "pulling 74701a8c35f6" in screen.shown
            half.set()
            assert process.stdout is not None
            assert (await process.stdout.read()).decode() == f"{LLAMA.name} is ready in Ollama.\n"
            assert await process.wait() == 0
            await screen.close()
            ollama.models.append(LLAMA)
            await on_stage.probe("llm")
            assert (await one.until("ivas.engines"))["engine"] == "ollama"
            response = await turn(one, "can_you_hear_me_slt")
            assert said(response) == "You said: can you hear me."


class Screen:
    """What a program writes to its terminal."""

    def __init__(self, fd: int) -> None:
        self.shown = ""
        self._fd = fd
        self._more = asyncio.Event()
        asyncio.get_running_loop().add_reader(fd, self._read)

    def _read(self) -> None:
        try:
            self.shown += os.read(self._fd, 65536).decode()
        except OSError:  # the other end is closed
            asyncio.get_running_loop().remove_reader(self._fd)
        self._more.set()

    async def until(self, text: str) -> None:
        async with asyncio.timeout(60):
            while text not in self.shown:
                self._more.clear()
                await self._more.wait()

    async def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
