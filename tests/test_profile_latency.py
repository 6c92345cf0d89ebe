"""scripts/profile_latency.py against a server on fake engines."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from ivas.client.launch import own_server

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "profile_latency.py"


async def profile(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SCRIPT), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("VAD", "ASR", "LLM", "TTS"):
        monkeypatch.setenv(f"IVAS_{kind}__ENGINE", "fake")
    monkeypatch.setenv("IVAS_FAKE__REPLY", "Noon.")


@pytest.mark.slow
async def test_percentiles_of_every_stage() -> None:
    async with own_server() as server:
        code, out, err = await profile(
            "--url", server.url, "--turns", "1", "--sessions", "2", "--json"
        )
        assert code == 0, err
        result = json.loads(out)
        assert (result["sessions"], result["turns"], result["failures"]) == (2, 2, [])
        stages = result["stages_ms"]
        for name in ("client.first_audio", "client.first_audible", "server.asr", "server.total"):
            assert stages[name]["n"] == 2
            assert 0 < stages[name]["p50"] <= stages[name]["p95"]
        assert stages["server.asr"]["p50"] >= 99  # the fake ASR takes 100 ms
        assert "turn 2 of 2: first audio after" in err

        code, out, _ = await profile("--url", server.url, "--turns", "1")
        assert code == 0
        assert out.splitlines()[0].split() == ["stage", "p50", "ms", "p95", "ms", "n"]


async def test_a_server_that_is_not_there() -> None:
    code, _, err = await profile("--url", "127.0.0.1:1", "--turns", "1")
    assert code == 1
    assert "Nothing listens at" in err
    assert "Traceback" not in err


async def test_help_and_nonsense() -> None:
    code, out, _ = await profile("--help")
    assert code == 0
    assert "--sessions" in out
    code, _, err = await profile("--turns", "0")
    assert code == 2
    assert "must be 1 or more" in err
