"""Hundreds of sessions over real sockets, well and badly behaved: nothing may stay behind.

From outside, on a server process: threads, children, files, memory. From inside, on
the loop of the test: tasks, utterances, streams. Time is real here, so these tests
wait for what happens and measure no delays.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from faults.servers import ask, client, say, send_audio, serving, until
from memory_client import SILENCE, VOICE, fakes

from ivas.audio.pcm import to_pcm16
from ivas.audio.wav import read_wav
from ivas.choice import Engines
from ivas.engines.fake import FakeASR, FakeLLM, FakeTTS
from ivas.session import Session

ROOT = Path(__file__).resolve().parents[2]
CLIP = ROOT / "tests" / "clips" / "what_time_is_it_slt.wav"
SPOKEN = VOICE * 30 + SILENCE * 40
MOST_GROWTH_BYTES = 12 * 2**20
"""Of the resident memory: caches and the allocator's arenas, not 300 sessions."""

MANY = {"IVAS_SERVER__MAX_SESSIONS": "1000", "IVAS_SERVER__MAX_SESSIONS_PER_ADDRESS": "1000"}
FAKES = {
    "IVAS_VAD__ENGINE": "fake",
    "IVAS_ASR__ENGINE": "fake",
    "IVAS_LLM__ENGINE": "fake",
    "IVAS_TTS__ENGINE": "fake",
    "IVAS_FAKE__ASR_MS": "5",
    "IVAS_FAKE__LLM_FIRST_MS": "5",
    "IVAS_FAKE__LLM_TOKENS_PER_S": "1000",
    "IVAS_FAKE__TTS_FIRST_MS": "5",
    "IVAS_FAKE__TTS_RTF": "0",
}
EMBEDDED = {
    "IVAS_VAD__ENGINE": "silero",
    "IVAS_ASR__ENGINE": "pocketsphinx",
    "IVAS_LLM__ENGINE": "builtin",
    "IVAS_TTS__ENGINE": "espeak",
}

# --- what sessions do --------------------------------------------------------


async def talks(url: str) -> None:
    """A spoken turn; leaves politely while the reply still sounds."""
    async with client(url) as websocket:
        await send_audio(websocket, SPOKEN)
        await until(websocket, "response.output_audio.delta")


async def types(url: str) -> None:
    async with client(url) as websocket:
        await say(
            websocket,
            "session.update",
            session={"type": "realtime", "output_modalities": ["text"]},
        )
        await ask(websocket, "Hello.")
        assert (await until(websocket, "response.done"))["response"]["status"] == "completed"


async def barges_in(url: str) -> None:
    async with client(url) as websocket:
        await ask(websocket, "Hello.")
        await until(websocket, "response.output_audio.delta")
        await send_audio(websocket, SPOKEN)
        assert (await until(websocket, "response.done"))["response"]["status"] == "cancelled"
        await until(websocket, "response.output_audio.delta")


async def vanishes(url: str) -> None:
    """The TCP connection is reset in the middle of a reply."""
    async with client(url) as websocket:
        await send_audio(websocket, SPOKEN)
        await until(websocket, "response.output_audio.delta")
        websocket.transport.abort()


async def vanishes_speaking(url: str) -> None:
    async with client(url) as websocket:
        await send_audio(websocket, VOICE * 20)
        await until(websocket, "input_audio_buffer.speech_started")
        websocket.transport.abort()


async def talks_rubbish(url: str) -> None:
    async with client(url) as websocket:
        for rubbish in (
            os.urandom(1000),
            b"",
            "",
            "null",
            "[" * 5000,
            '{"type":' * 5000,
            json.dumps({"type": "input_audio_buffer.append", "audio": "*"}),
            json.dumps({"type": "response.create", "response": {"tools": [{}]}}),
            json.dumps({"type": "conversation.item.delete", "item_id": "\udcff"}),
            '{"type": "session.update", "session": ' + '{"a":' * 500 + "1" + "}" * 501,
        ):  # fmt: skip
            await websocket.send(rubbish)
            await until(websocket, "error")
        await ask(websocket, "Still there?")
        await until(websocket, "response.output_audio.delta")


async def storms(url: str) -> None:
    async with client(url) as websocket:
        for _ in range(20):
            await say(websocket, "response.create")
            await say(websocket, "response.cancel")
        for _ in range(20):
            await until(websocket, "response.done")


BEHAVIOURS = (talks, types, barges_in, vanishes, vanishes_speaking, talks_rubbish, storms)


async def crowd(url: str, sessions: int, *, at_once: int = 16) -> None:
    places = asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with places, asyncio.timeout(30):
            await BEHAVIOURS[number % len(BEHAVIOURS)](url)

    async with asyncio.TaskGroup() as group:
        for number in range(sessions):
            group.create_task(one(number))


# --- from outside ------------------------------------------------------------


@asynccontextmanager
async def server_process(
    environ: dict[str, str], log: Path
) -> AsyncIterator[tuple[str, psutil.Process]]:
    """The URL of the WebSocket and the process; what it logged must be no trace."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("IVAS_", "TTS_"))}
    with log.open("w") as file:
        process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-m", "ivas", "serve", f"--port={port}"],
            cwd=ROOT,
            env=inherited | environ | MANY | {"IVAS_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
        )
        try:
            assert process.stdout is not None
            assert b"ready" in await asyncio.to_thread(process.stdout.readline)
            yield f"ws://127.0.0.1:{port}/v1/realtime", psutil.Process(process.pid)
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, 20)
            assert process.stdout is not None
            process.stdout.close()
    said = log.read_text()  # noqa: ASYNC240
    assert "Traceback" not in said, said
    assert "never retrieved" not in said, said


def held(process: psutil.Process) -> dict[str, int]:
    return {
        "threads": process.num_threads(),
        "children": len(process.children(recursive=True)),
        "files": process.num_fds(),
        "connections": len(process.net_connections("tcp")),
    }


async def back_to(process: psutil.Process, before: dict[str, int]) -> None:
    """Wait until nothing more is held than before."""
    try:
        async with asyncio.timeout(10):
            while any(now > before[what] for what, now in held(process).items()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"held before: {before}, and now: {held(process)}") from None


@pytest.mark.slow
async def test_a_server_is_after_hundreds_of_sessions_as_it_was_before(tmp_path: Path) -> None:
    async with server_process(FAKES, tmp_path / "log") as (url, process):
        await crowd(url, 280)  # memory levels off: 3,600 sessions were seen to add nothing
        await asyncio.sleep(1)
        before, memory = held(process), process.memory_info().rss
        await crowd(url, 420)
        await back_to(process, before)
        assert process.memory_info().rss - memory < MOST_GROWTH_BYTES
        await talks(url)


@pytest.mark.slow
async def test_the_embedded_engines_give_everything_back(tmp_path: Path) -> None:
    async with server_process(EMBEDDED, tmp_path / "log") as (url, process):
        question = read_wav(CLIP, 24_000)
        pcm = to_pcm16(question) + SILENCE * 40

        async def some(sessions: int) -> None:
            for number in range(sessions):
                async with client(url) as websocket:
                    if number % 3:
                        await ask(websocket, "What is seven times six?")
                    else:
                        await send_audio(websocket, pcm)
                    await until(websocket, "response.output_audio.delta")
                    if number % 2:
                        websocket.transport.abort()

        await some(12)
        await asyncio.sleep(1)
        before, memory = held(process), process.memory_info().rss
        await some(24)
        await back_to(process, before)
        assert process.memory_info().rss - memory < MOST_GROWTH_BYTES


# --- from inside -------------------------------------------------------------


def quick() -> Engines:
    return fakes(
        asr=FakeASR(ms=5),
        llm=FakeLLM(first_ms=5, tokens_per_s=1000),
        tts=FakeTTS(first_ms=5, rtf=0),
    )


async def eventually_alone(before: set[asyncio.Task[object]]) -> None:
    try:
        async with asyncio.timeout(10):
            while asyncio.all_tasks() - before:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"left behind: {asyncio.all_tasks() - before}") from None


async def test_no_task_no_utterance_and_no_stream_stays_behind() -> None:
    engines = quick()
    unheard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    async with serving(engines) as url:
        await talks(url)
        await asyncio.sleep(0.2)
        before = asyncio.all_tasks()
        await crowd(url, 70)
        await eventually_alone(before)
        gc.collect()
        assert not [one for one in gc.get_objects() if isinstance(one, Session)]
        assert engines.asr.open_utterances == 0  # type: ignore[attr-defined]
        assert engines.llm.live_streams == engines.tts.live_streams == 0  # type: ignore[attr-defined]
    assert unheard == []
