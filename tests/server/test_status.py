"""/health, /ready and /v1/models tell the truth."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from ivas import __version__
from ivas.engines import Engine
from ivas.engines.fake import FakeASR, FakeVAD
from ivas.server.status import readiness, status_router

CARD = {"id": "ivas", "object": "model", "created": 1700000000, "owned_by": "ivas"}


def client(engines: dict[str, Engine], key: str | None = None) -> httpx.AsyncClient:
    app = FastAPI()
    app.include_router(status_router(lambda: engines, model="ivas", started_at=1700000000, key=key))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ivas")


async def test_ready_says_of_every_engine_whether_and_why_not() -> None:
    engines: dict[str, Engine] = {"vad": FakeVAD(), "asr": FakeASR()}
    await engines["vad"].start()
    reason = engines["asr"].status().reason
    assert reason
    body = {
        "ready": False,
        "engines": {
            "vad": {"engine": "fake", "ready": True},
            "asr": {"engine": "fake", "ready": False, "reason": reason},
        },
    }
    assert readiness(engines) == body
    async with client(engines) as http:
        answer = await http.get("/ready")
        assert (answer.status_code, answer.json()) == (503, body)
        await engines["asr"].start()
        answer = await http.get("/ready")
        assert answer.status_code == 200
        assert answer.json()["ready"] is True
        assert answer.json()["engines"]["asr"] == {"engine": "fake", "ready": True}


async def test_health_needs_no_engine_and_no_key() -> None:
    async with client({}, key="sk-1") as http:
        answer = await http.get("/health")
        assert answer.json() == {"status": "ok", "version": __version__}


async def test_models() -> None:
    async with client({}) as http:
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
    async with client({}) as http:
        answer = await http.request(method, path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"
    assert answer.json()["error"]["message"].startswith(f"{method} {path} is not served")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/ivas", "/v1/models/gpt-9", "/v1/audio"])
async def test_the_api_is_for_who_has_the_key(path: str) -> None:
    async with client({}, key="sk-1") as http:
        for headers in ({}, {"Authorization": "Bearer sk-2"}):
            answer = await http.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert "sk-1" not in answer.text
        answer = await http.get(path, headers={"Authorization": "Bearer sk-1"})
        assert answer.status_code in (200, 404)
