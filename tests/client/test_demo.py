"""`ivas demo` as a person meets it: a process of its own, its words and exit code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import wave
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from websockets.asyncio.server import ServerConnection

import ivas
from ivas.audio.wav import wav_bytes

Done = tuple[int, str, str]
Run = Callable[..., Awaitable[Done]]

FAKES = {f"IVAS_{kind}__ENGINE": "fake" for kind in ("VAD", "ASR", "LLM", "TTS")}


def environment(**more: str) -> dict[str, str]:
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("IVAS_", "TTS_")) and name != "PORT"
    }
    return clean | {"PYTHONPATH": str(Path(ivas.__file__).parents[1])} | more


@pytest.fixture
def demo(tmp_path: Path) -> Run:
    """Runs `ivas demo ARGUMENTS` in an empty directory: exit code, stdout, stderr."""

    async def run(*arguments: str, **environ: str) -> Done:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ivas", "demo", *arguments),
            cwd=tmp_path,
            env=environment(**environ),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    return run


def sentence(done: Done) -> str:
    """The one line a failure is."""
    code, _, err = done
    assert code == 1
    assert err.startswith("ivas: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.slow
async def test_asks_the_real_engines_and_writes_the_answer(demo: Run, tmp_path: Path) -> None:
    code, out, err = await demo("--out", "answer.wav")
    assert (code, err) == (0, "")
    assert "heard     what is seven times six" in out, out
    assert "42" in out
    assert "waited to be sure you had finished" in out
    assert "from the last speech sample to the first audible sample" in out
    assert "was written to answer.wav." in out
    with wave.open(str(tmp_path / "answer.wav")) as answer:
        assert answer.getparams()[:3] == (1, 2, 24_000)
        pcm = np.frombuffer(answer.readframes(answer.getnframes()), "<i2")
    assert len(pcm) > 12_000
    assert np.abs(pcm).max() > 3_000


@pytest.mark.slow
async def test_json_is_one_object_and_leaves_no_file(demo: Run, tmp_path: Path) -> None:
    code, out, _ = await demo("--json", **FAKES, IVAS_FAKE__REPLY="Noon.")
    assert code == 0
    found = json.loads(out)
    assert found["transcript"] == "what time is it"
    assert found["reply"] == "Noon."
    assert found["audio_ms"] == 300
    assert found["wav"] is None
    assert 500 < found["first_audio_ms"] <= found["first_audible_ms"]
    assert found["server_spans_ms"]["asr"] >= 99
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
async def test_a_stage_that_takes_too_long_is_named(demo: Run) -> None:
    done = await demo("--timeout", "1", **FAKES, IVAS_FAKE__ASR_MS="4000")
    assert "within 1 s while waiting for the transcript" in sentence(done)


async def test_nothing_listens(demo: Run) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        assert "Nothing listens at" in sentence(await demo("--url", address))


async def test_the_key_is_sent_and_can_be_wrong(demo: Run, serving: Any) -> None:
    async with serving(status=401) as url:
        assert "use --key" in sentence(await demo("--url", url, "--key", "wrong"))


@pytest.mark.parametrize("from_settings", [False, True])
async def test_the_key(demo: Run, serving: Any, from_settings: bool) -> None:
    keys: list[str] = []

    async def server(websocket: ServerConnection) -> None:
        keys.append(websocket.request.headers["Authorization"])
        await websocket.send('{"type":"error","error":{"message":"Enough."}}')

    async with serving(server) as url:
        if from_settings:
            done = await demo("--url", url, IVAS_SERVER__API_KEY="a-good-long-key")
        else:
            done = await demo("--url", url, "--key", "a-good-long-key")
    assert "Enough." in sentence(done)
    assert keys == ["Bearer a-good-long-key"]


async def test_a_silent_server(demo: Run, serving: Any, tmp_path: Path) -> None:
    tone = np.sin(np.arange(4_800)) * 8_000
    (tmp_path / "beep.wav").write_bytes(wav_bytes(tone.astype("<i2").tobytes(), 24_000))
    async with serving() as url:
        done = await demo("--url", url, "--wav", "beep.wav", "--timeout", "1")
    assert "within 1 s while waiting for the server to hear speech" in sentence(done)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"no wav", "not a PCM WAV file"),
        (wav_bytes(bytes(4_800), 24_000), "is silent; give a recording of a question"),
    ],
)
async def test_a_question_that_is_none(demo: Run, tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "q.wav").write_bytes(content)
    code, _, err = await demo("--wav", "q.wav", "--url", "127.0.0.1:1")
    assert code in (1, 2)
    assert why in err
    assert err.count("\n") == 1


@pytest.mark.slow
async def test_ended_from_outside_it_leaves_no_server_behind(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ivas", "demo"),
        cwd=tmp_path,
        env=environment(**FAKES),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    while b"Asking" not in await process.stdout.readline():
        pass
    (server,) = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    _, err = await process.communicate()
    assert process.returncode == 1
    assert err == b"ivas: The demo was ended before it was over; run it again.\n"
    assert not server.is_running()
