from __future__ import annotations

import asyncio

import httpx
import psutil
import pytest

from ivas.client.launch import own_server
from ivas.errors import IvasError


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for kind in ("VAD", "ASR", "LLM", "TTS"):
        monkeypatch.setenv(f"IVAS_{kind}__ENGINE", "fake")
    return monkeypatch


@pytest.mark.usefixtures("fakes")
async def test_a_server_lives_as_long_as_its_context() -> None:
    states: list[str] = []
    async with own_server(on_wait=states.append) as server:
        process = psutil.Process(server.pid)
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(server.url.replace("ws", "http", 1) + "/ready")
        assert answer.status_code == 200
        assert 0 < server.ready_s < 60
    assert not process.is_running()
    assert states[0] == "waiting for it to answer"


async def test_a_server_that_cannot_start_says_why(fakes: pytest.MonkeyPatch) -> None:
    fakes.setenv("IVAS_TTS__ENGINE", "nowhere.at.all:tts")
    with pytest.raises(
        IvasError, match=r"^The server ended while starting: The engine nowhere.at.all:tts could"
    ):
        async with own_server():
            pass


@pytest.mark.usefixtures("fakes")
async def test_a_server_that_is_not_ready_in_time_is_ended() -> None:
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(IvasError, match=r"^The server was not ready within 0.1 s \(waiting"):
        async with own_server(timeout_s=0.1):
            pass
    assert {child.pid for child in psutil.Process().children()} <= before


@pytest.mark.usefixtures("fakes")
async def test_a_server_that_will_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ivas.client.launch.END_S", 0.2)
    async with own_server() as server:
        process = psutil.Process(server.pid)
        process.suspend()  # it cannot take notice of a gentle word
    assert not process.is_running()


async def test_runs_under_a_prefix(fakes: pytest.MonkeyPatch) -> None:
    fakes.delenv("IVAS_VAD__ENGINE")
    async with own_server(prefix=("env", "IVAS_VAD__ENGINE=fake")) as server:
        environment = await asyncio.to_thread(psutil.Process(server.pid).environ)
    assert environment["IVAS_VAD__ENGINE"] == "fake"
