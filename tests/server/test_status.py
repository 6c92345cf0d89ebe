"""/health, /ready and /v1/models tell the truth."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from memory_client import fakes

from ivas import __version__
from ivas.app import make_admission
from ivas.choice import Choice, Engines
from ivas.engines.fake import FakeASR, FakeLLM, FakeTTS, FakeVAD
from ivas.server.client_secrets import ClientSecrets
from ivas.server.status import readiness, status_router
from ivas.settings import Settings

CARD = {"id": "ivas", "object": "model", "created": 1700000000, "owned_by": "ivas"}


def client(serving: Engines | None = None, key: str | None = None) -> httpx.AsyncClient:
    app = FastAPI()
    settings = Settings.model_validate({"server": {"api_key": key}})
    admission = make_admission(settings, ClientSecrets())
    app.include_router(
        status_router(serving or fakes(), model="ivas", started_at=1700000000, admission=admission)
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


async def test_ready_says_of_every_engine_whether_and_why_not() -> None:
    engines = fakes()
    for engine in (engines.vad, engines.llm, engines.tts):
        await engine.start()
    reason = engines.asr.status().reason
    assert reason
    ready = {"engine": "fake", "ready": True}
    body = {
        "ready": False,
        "engines": {
            "vad": ready,
            "asr": {"engine": "fake", "ready": False, "reason": reason},
            "llm": ready,
            "tts": ready,
        },
    }
    assert readiness(engines) == body
    async with client(engines) as http:
        answer = await http.get("/ready")
        assert (answer.status_code, answer.json()) == (503, body)
        await engines.asr.start()
        answer = await http.get("/ready")
        assert answer.status_code == 200
        assert answer.json()["ready"] is True
        assert answer.json()["engines"]["asr"] == ready


async def test_nothing_is_ready_while_the_server_is_not() -> None:
    engines, loading = fakes(), ["Still loading."]
    for engine in engines:
        await engine.start()
    app = FastAPI()
    admission = make_admission(Settings(), ClientSecrets())
    app.include_router(
        status_router(
            engines,
            model="ivas",
            started_at=0,
            admission=admission,
            unready=lambda: next(iter(loading), None),
        )
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = await http.get("/ready")
        assert (answer.status_code, answer.json()["reason"]) == (503, "Still loading.")
        loading.clear()
        assert (await http.get("/ready")).status_code == 200


async def test_ready_says_what_would_be_better_and_what_it_lacks() -> None:
    better, sure = FakeLLM(), FakeLLM()
    await sure.start()
    better.name = "better"
    engines = Engines(
        vad=FakeVAD(), asr=FakeASR(), llm=Choice("llm", [better, sure]), tts=FakeTTS()
    )
    state = readiness(engines)["engines"]["llm"]
    assert state == {
        "engine": "fake",
        "ready": True,
        "better": {"better": "better is being tried; look again soon."},
    }
    await better.start()
    assert readiness(engines)["engines"]["llm"] == {"engine": "better", "ready": True}


async def test_what_is_installed_is_for_who_has_a_key() -> None:
    async with client(key="sk-1") as http:
        assert (await http.get("/ready")).json() == {"ready": False}
        body = (await http.get("/ready", headers={"Authorization": "Bearer sk-1"})).json()
        assert set(body["engines"]) == {"vad", "asr", "llm", "tts"}


async def test_health_needs_no_engine_and_no_key() -> None:
    async with client(key="sk-1") as http:
        answer = await http.get("/health")
        assert answer.json() == {"status": "ok", "version": __version__}


async def test_models() -> None:
    async with client() as http:
        assert (await http.get("/v1/models")).json() == {"object": "list", "data": [CARD]}
        assert (await http.get("/v1/models/ivas")).json() == CARD
        answer = await http.get("/v1/models/gpt-9")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"
        assert "'ivas'" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/audio/speech"), ("GET", "/v1/audio/voices"), ("DELETE", "/v1/models/ivas")],
)
async def test_the_rest_of_the_api_is_refused_by_name(method: str, path: str) -> None:
    async with client() as http:
        answer = await http.request(method, path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"
    assert answer.json()["error"]["message"].startswith(f"{method} {path} is not served")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/ivas", "/v1/models/gpt-9", "/v1/audio"])
async def test_the_api_is_for_who_has_the_key(path: str) -> None:
    async with client(key="sk-1") as http:
        for headers in ({}, {"Authorization": "Bearer sk-2"}):
            answer = await http.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert "sk-1" not in answer.text
        answer = await http.get(path, headers={"Authorization": "Bearer sk-1"})
        assert answer.status_code in (200, 404)
