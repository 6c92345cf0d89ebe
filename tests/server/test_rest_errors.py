"""Below /v1 every error has the envelope; elsewhere nothing has changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import rest_app
from fastapi import APIRouter, HTTPException, Response
from pydantic import BaseModel

from ivas.errors import ClientError, EngineError, EngineTimeout, IvasError, SettingsError
from ivas.server.rest_errors import RequestRefused, refusal_of
from ivas.server.security import Refusal


class Body(BaseModel):
    number: int


@asynccontextmanager
async def server() -> AsyncIterator[httpx.AsyncClient]:
    router = APIRouter()

    for below in ("/v1", ""):

        @router.post(f"{below}/typed")
        async def typed(body: Body) -> None: ...

        @router.get(f"{below}/crash")
        async def crash() -> None:
            raise RuntimeError("secret")

        @router.get(f"{below}/engine")
        async def engine() -> None:
            raise EngineError("It broke; try again.", code="broken")

        @router.get(f"{below}/refused")
        async def refused() -> None:
            raise HTTPException(418, "I am a teapot", {"X-Pot": "tea"})

        @router.get(f"{below}/fine")
        async def fine() -> Response:
            return Response("fine")

    async with rest_app.client(router) as http:
        yield http


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("POST", "/v1/", 404, "not_found"),
        ("GET", "/v1/%ff%00%E2%82%AC", 404, "not_found"),
        ("DELETE", "/v1/fine", 405, "method_not_allowed"),
        ("GET", "/v1/crash", 500, "internal_error"),
        ("GET", "/v1/engine", 503, "broken"),
        ("GET", "/v1/refused", 418, "http_418"),
        ("POST", "/v1/typed", 400, "invalid_value"),
    ],
)
async def test_below_v1(method: str, path: str, status: int, code: str) -> None:
    async with server() as http:
        answer = await http.request(method, path, json={"number": "x"} if "typed" in path else None)
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert (answer.status_code, body["error"]["code"]) == (status, code)
    expected = "server_error" if status >= 500 else "invalid_request_error"
    assert body["error"]["type"] == expected
    assert body["error"]["message"].endswith((".", "more)."))
    assert body["error"]["message"].isascii()
    assert "secret" not in answer.text


async def test_what_else_an_answer_says_is_kept() -> None:
    async with server() as http:
        assert (await http.delete("/v1/fine")).headers["allow"] == "GET"
        assert (await http.get("/v1/refused")).headers["x-pot"] == "tea"
        typed = await http.post("/v1/typed", json={"number": []})
        assert typed.json()["error"]["param"] == "number"
        broken = await http.post("/v1/typed", content=b"{")
        assert broken.status_code == 400


async def test_elsewhere_it_is_as_it_was() -> None:
    async with server() as http:
        assert (await http.get("/nothing")).json() == {"detail": "Not Found"}
        assert (await http.post("/typed", json={})).status_code == 422
        crash = await http.get("/crash")
        assert (crash.status_code, crash.text) == (500, "Internal Server Error")
        assert (await http.get("/fine")).text == "fine"


@pytest.mark.parametrize(
    ("error", "status", "param"),
    [
        (ClientError("No.", code="c", param="p"), 400, "p"),
        (EngineError("No.", code="c"), 503, None),
        (EngineTimeout("No.", code="c"), 503, None),
        (EngineError("No.", code="unsupported_language"), 400, "language"),
        (RequestRefused(Refusal(413, "c", "No.")), 413, None),
        (SettingsError("No."), 500, None),
    ],
)
def test_who_can_mend_it(error: IvasError, status: int, param: str | None) -> None:
    refusal = refusal_of(error)
    assert (refusal.status, refusal.param, refusal.message) == (status, param, "No.")
