"""@openai/agents-realtime in node, unchanged, against a real server.

It is stricter than the Python client: what its schemas do not accept it drops, and some
mistakes of a server end it with an uncaught exception. `tests/node/agents.mjs` drives it
and reports; here stands what it must have seen. The microphone runs in real time.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance.driver import CLIPS
from conformance.node import require_node, run_script
from conformance.servers import Listener, ollama_serving, serving
from ollama_server import Call
from openai import AsyncOpenAI
from pydantic import SecretStr

from ivas.audio.pcm import to_samples
from ivas.audio.resample import resample_pcm
from ivas.audio.wav import read_wav
from ivas.engines.fake import FakeLLM
from ivas.engines.vad.silero import SileroVAD

QUESTION = "what_time_is_it_slt"
WORDS = "what time is it"
LONG = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen."


@pytest.fixture(autouse=True)
def node_is_here() -> None:
    require_node()


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded question as a browser's microphone gives it: PCM16 at 24 kHz."""
    file = tmp_path_factory.mktemp("agents") / "question.pcm"
    file.write_bytes(resample_pcm(read_wav(CLIPS / f"{QUESTION}.wav", 16_000), 16_000, 24_000))
    return file


async def drive(scenario: str, url: str, question: Path, *key: str) -> dict[str, Any]:
    """Run one scenario; returns its report."""
    address = url.replace("http", "ws", 1) + "/v1/realtime?model=ivas"
    report = await run_script("agents.mjs", scenario, address, question, *key)
    assert report["lost"] == []  # its schemas accepted every event
    return report


def said(report: dict[str, Any], role: str) -> list[str]:
    """What the SDK holds for the words of this role, an entry a message."""
    messages = [item for item in report["history"] if item.get("role") == role]
    return ["".join(_words(part) for part in item["content"]) for item in messages]


def _words(part: dict[str, Any]) -> str:
    words: str = part.get("transcript") or part.get("text") or ""
    return words


def sound(report: dict[str, Any]) -> np.ndarray:
    return to_samples(base64.b64decode(report["sound"]))


async def test_a_voice_turn(question: Path) -> None:
    listener = Listener(WORDS)
    async with serving(vad=SileroVAD(), asr=listener) as url:
        report = await drive("voice", url, question)
    assert report["statuses"] == ["completed"]
    assert (said(report, "user"), said(report, "assistant")) == ([WORDS], ["One two three."])
    assert listener.likeness(read_wav(CLIPS / f"{QUESTION}.wav", 16_000)) > 0.99
    heard = sound(report)
    assert len(heard) / 24_000 == pytest.approx(len("One two three.") * 0.06, abs=0.02)
    assert np.sqrt(np.mean(heard**2)) > 0.1
    assert report["interruptions"] == 0


async def test_barge_in(question: Path) -> None:
    """What was being said is cut to what was heard, on both sides."""
    llm = FakeLLM(first_ms=0, tokens_per_s=10_000, reply=LONG)
    async with serving(vad=SileroVAD(), asr=Listener(WORDS), llm=llm) as url:
        report = await drive("bargeIn", url, question)
    assert report["interruptions"] == 1
    assert report["statuses"] == ["cancelled", "completed"]
    (truncated,) = report["truncated"]
    first, second = said(report, "assistant")
    assert LONG.startswith(first.strip())
    assert len(first) * 60 == pytest.approx(truncated["audio_end_ms"], abs=600)
    assert second == LONG
    assert said(report, "user") == [WORDS, WORDS]


async def test_the_client_interrupts(question: Path) -> None:
    llm = FakeLLM(first_ms=0, tokens_per_s=10_000, reply=LONG)
    async with serving(llm=llm) as url:
        report = await drive("interrupt", url, question)
    assert report["statuses"] == ["cancelled", "completed"]
    (truncated,) = report["truncated"]
    assert 1000 <= truncated["audio_end_ms"] < 2000
    first, second = said(report, "assistant")
    assert LONG.startswith(first.strip())
    assert len(first) * 60 == pytest.approx(truncated["audio_end_ms"], abs=600)
    assert second == LONG


async def test_a_tool(question: Path) -> None:
    async with ollama_serving() as (url, ollama):
        ollama.replies += [[Call("weather", {"city": "Paris"})], ["It", " is sunny."]]
        report = await drive("tool", url, question)
        prompt = ollama.chats[-1]["messages"]
    assert report["tools"] == [["weather", "It is sunny in Paris."]]
    assert report["statuses"] == ["completed", "completed"]
    assert [message["role"] for message in prompt] == ["system", "user", "assistant", "tool"]
    assert prompt[-1]["content"] == "It is sunny in Paris."
    assert said(report, "assistant") == ["It is sunny."]
    (call,) = [item for item in report["history"] if item["type"] == "function_call"]
    assert (call["status"], call["output"]) == ("completed", "It is sunny in Paris.")
    assert len(sound(report)) > 0


async def test_a_browser_with_a_client_secret(question: Path) -> None:
    """Its key comes in the subprotocols, beside the name of the SDK."""
    async with serving(api_key=SecretStr("sk-right")) as url:
        async with AsyncOpenAI(api_key="sk-right", base_url=f"{url}/v1") as client:
            secret = await client.realtime.client_secrets.create()
        report = await drive("text", url, question, secret.value)
    assert said(report, "user") == ["Hello."]
    assert said(report, "assistant") == ["One two three."]
