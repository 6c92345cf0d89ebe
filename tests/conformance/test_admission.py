"""Who is let in at the door of a real server, and how the others are told."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from conformance.driver import WAIT_S, caller
from openai import AsyncOpenAI, AuthenticationError
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

RIGHT = "openai-insecure-api-key.sk-right"
WRONG = "openai-insecure-api-key.sk-wrong"


def socket(url: str, **options: Any) -> connect:
    address = url.replace("http", "ws", 1) + "/v1/realtime?model=ivas"
    return connect(address, open_timeout=WAIT_S, proxy=None, **options)


def refusal(error: InvalidStatus) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(error.response.body or b"")
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return dict(body["error"], status=error.response.status_code)


async def test_the_right_key_opens(locked: str) -> None:
    async with caller(locked, key="sk-right") as one:
        assert (await one.configure())["object"] == "realtime.session"


async def test_the_wrong_key_does_not(locked: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with caller(locked, key="sk-wrong"):
            pass
    error = refusal(refused.value)
    assert (error["status"], error["code"]) == (401, "invalid_api_key")
    assert "sk-" not in error["message"]


async def test_no_key_does_not_either(locked: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with socket(locked):
            pass
    assert refusal(refused.value)["status"] == 401


async def test_a_browser_brings_its_key_as_a_subprotocol(locked: str) -> None:
    offered = ["realtime", RIGHT, "openai-organization.x"]
    async with socket(locked, subprotocols=offered) as websocket:
        assert websocket.subprotocol == "realtime"
        assert websocket.response is not None
        assert "sk-right" not in str(websocket.response.headers)
        assert json.loads(await websocket.recv())["type"] == "session.created"


async def test_a_key_alone_selects_no_subprotocol(locked: str) -> None:
    async with socket(locked, subprotocols=[RIGHT]) as websocket:
        assert websocket.subprotocol is None


@pytest.mark.parametrize("offered", [["realtime"], ["realtime", WRONG]])
async def test_a_browser_is_told_after_the_handshake(locked: str, offered: list[str]) -> None:
    """It cannot see why a handshake failed."""
    async with socket(locked, subprotocols=offered) as websocket:
        assert websocket.subprotocol == "realtime"
        event = json.loads(await websocket.recv())
        assert (event["type"], event["error"]["code"]) == ("error", "invalid_api_key")
        assert "sk-" not in event["error"]["message"]
        with pytest.raises(ConnectionClosed) as closed:
            await websocket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 3000


async def test_a_server_without_a_key_takes_any(fakes: str) -> None:
    async with caller(fakes, key="whatever") as one:
        await one.settle()
    async with socket(fakes) as websocket:
        assert json.loads(await websocket.recv())["type"] == "session.created"


@pytest.mark.parametrize(
    "query", [{"intent": "translation"}, {"call_id": "call_1"}], ids=["intent", "call_id"]
)
async def test_what_is_not_served_is_refused_at_the_door(fakes: str, query: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with caller(fakes, extra_query=query):
            pass
    error = refusal(refused.value)
    assert (error["status"], error["code"]) == (400, "invalid_value")
    assert next(iter(query)) in error["message"]


async def test_a_page_of_another_site_is_kept_out(fakes: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with socket(fakes, origin="https://evil.example"):
            pass
    assert refusal(refused.value)["status"] == 403
    async with socket(fakes, origin=fakes) as websocket:
        assert json.loads(await websocket.recv())["type"] == "session.created"


async def test_rest_has_the_same_key(locked: str) -> None:
    async with AsyncOpenAI(api_key="sk-right", base_url=f"{locked}/v1") as client:
        assert [model.id async for model in client.models.list()] == ["ivas"]
    async with AsyncOpenAI(api_key="sk-wrong", base_url=f"{locked}/v1") as client:
        with pytest.raises(AuthenticationError):
            await client.models.retrieve("ivas")


async def test_no_compression_is_agreed_on(fakes: str) -> None:
    """Deflate would only undo the base64, at twenty times the cost of the JSON."""
    async with socket(fakes) as websocket:
        assert websocket.response is not None
        assert "Sec-WebSocket-Extensions" not in websocket.response.headers


async def test_health_is_open_to_all(locked: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(f"{locked}/health")).json()["status"] == "ok"
        assert (await http.get(f"{locked}/ready")).status_code == 200
