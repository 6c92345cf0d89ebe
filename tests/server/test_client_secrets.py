"""Client secrets: issued exactly as OpenAI's client wants them, bounded, and forgotten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from openai import AsyncOpenAI, BadRequestError, PermissionDeniedError, RateLimitError

import ivas.server.client_secrets as module
from ivas.announcements import SessionSettings
from ivas.keys import KeyRing, add_key, digest_of
from ivas.server.admission import Admission
from ivas.server.client_secrets import (
    MAX_BODY_BYTES,
    ClientSecrets,
    ClientSecretsOptions,
    client_secrets_router,
)
from ivas.server.limits import Limits
from ivas.server.security import Caller

START_S = 1_800_000_000.9
PATH = "/v1/realtime/client_secrets"
SOMEBODY = Caller("phone", frozenset({"talk"}))


class Server:
    """The route behind a door, with a clock of its own."""

    def __init__(self, api_key: str | None = None, keys: Path | None = None) -> None:
        self.now_s = START_S
        self.secrets = ClientSecrets(now_s=lambda: self.now_s)
        admission = Admission(
            api_key=api_key,
            keys=KeyRing(keys),
            secrets=self.secrets,
            limits=Limits(9, 9, 9, 9),
            now_s=lambda: self.now_s,
        )
        options = ClientSecretsOptions(
            admit=admission.admit, secrets=self.secrets, defaults=SessionSettings(), model="ivas"
        )
        app = FastAPI()
        app.include_router(client_secrets_router(options))
        self._transport = httpx.ASGITransport(app)

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=self._transport, base_url="http://127.0.0.1:8000")

    def openai(self, key: str = "none") -> AsyncOpenAI:
        return AsyncOpenAI(
            api_key=key, base_url="http://127.0.0.1:8000/v1", http_client=self.http(), max_retries=0
        )

    async def post(self, body: object = None, **more: Any) -> httpx.Response:
        async with self.http() as http:
            content = body if isinstance(body, (bytes, str)) else json.dumps(body)
            return await http.post(PATH, content=content, **more)


async def refused(server: Server, body: object) -> dict[str, Any]:
    answer = await server.post(body)
    assert answer.status_code == 400
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["message"].endswith(".")
    assert not server.secrets._open
    return error


# --- the route ---------------------------------------------------------------


async def test_openais_client_takes_the_answer() -> None:
    server = Server()
    async with server.openai() as client:
        made = await client.realtime.client_secrets.create()
        assert made.value.startswith("ek_")
        assert made.expires_at == int(START_S) + 600
        assert made.session.type == "realtime"
        assert made.session.object == "realtime.session"
        assert made.session.id.startswith("sess_")
        assert made.session.model == "ivas"

        bound = await client.realtime.client_secrets.create(
            expires_after={"anchor": "created_at", "seconds": 10},
            session={
                "type": "realtime",
                "model": "gpt-realtime",
                "instructions": "Be brief.",
                "audio": {"output": {"speed": 1.2}},
            },
        )
        assert bound.expires_at == int(START_S) + 10
        assert bound.session.type == "realtime"
        assert bound.session.model == "gpt-realtime"
        assert bound.session.instructions == "Be brief."
        assert bound.session.audio is not None
        assert bound.session.audio.output is not None
        assert bound.session.audio.output.speed == 1.2
        assert bound.value != made.value
        assert bound.session.id != made.session.id

    kept = server.secrets.find(bound.value)
    assert kept is not None
    assert kept.bound_session == {
        "type": "realtime",
        "model": "gpt-realtime",
        "instructions": "Be brief.",
        "audio": {"output": {"speed": 1.2}},
    }


async def test_the_answer_is_whole_and_for_nobody_else() -> None:
    answer = await Server().post({})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"value", "expires_at", "session"}
    assert answer.json()["session"]["audio"]["input"]["turn_detection"]["type"] == "server_vad"


@pytest.mark.parametrize("body", [b"", b" \n", b"{}", b'{"session": null, "expires_after": null}'])
async def test_nothing_has_to_be_asked_for(body: bytes) -> None:
    server = Server()
    answer = await server.post(body)
    assert answer.json()["expires_at"] == int(START_S) + 600
    kept = server.secrets.find(answer.json()["value"])
    assert kept is not None
    assert kept.bound_session == {"type": "realtime"}


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"{", "invalid_json", None),
        (b"\xff", "invalid_json", None),
        (b"[" * 5000 + b"]" * 5000, "invalid_json", None),
        (b'{"expires_after": NaN}', "invalid_json", None),
        ([], "invalid_value", None),
        ("[]", "invalid_value", None),
        (b"1", "invalid_value", None),
        ({"expires_after": 60}, "invalid_value", "expires_after"),
        ({"expires_after": {"seconds": 9}}, "invalid_value", "expires_after.seconds"),
        ({"expires_after": {"seconds": 7201}}, "invalid_value", "expires_after.seconds"),
        ({"expires_after": {"seconds": 60.5}}, "invalid_value", "expires_after.seconds"),
        ({"expires_after": {"seconds": "60"}}, "invalid_value", "expires_after.seconds"),
        ({"expires_after": {"seconds": True}}, "invalid_value", "expires_after.seconds"),
        ({"expires_after": {"seconds": 2**70}}, "invalid_value", "expires_after.seconds"),
        ({"expires_after": {"anchor": "never"}}, "invalid_value", "expires_after.anchor"),
        ({"session": []}, "invalid_value", "session"),
        ({"session": {}}, "missing_required_parameter", "session.type"),
        ({"session": {"type": "phone"}}, "invalid_value", "session.type"),
        (
            {"session": {"type": "realtime", "instructions": 5}},
            "invalid_value",
            "session.instructions",
        ),
    ],
)
async def test_what_is_wrong_is_named(body: object, code: str, param: str | None) -> None:
    error = await refused(Server(), body)
    assert (error["code"], error["param"]) == (code, param)


@pytest.mark.parametrize("depth", [250, 300, 900, 1000, 1015])
async def test_a_session_too_deep_to_be_told_is_not_kept(depth: int) -> None:
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    server = Server()
    answer = await server.post(b'{"session": {"type": "realtime", "more": ' + deep + b"}}")
    assert answer.status_code == (200 if depth == 250 else 400), answer.text
    if depth == 250:
        kept = server.secrets.find(answer.json()["value"])
        assert kept is not None
        assert kept.bound_session["more"]
    else:
        assert answer.json()["error"]["param"] == "session"
        assert not server.secrets._open


async def test_openais_client_understands_the_refusal() -> None:
    async with Server().openai() as client:
        with pytest.raises(BadRequestError) as error:
            await client.realtime.client_secrets.create(expires_after={"seconds": 5})
        assert (error.value.code, error.value.param) == ("invalid_value", "expires_after.seconds")


async def test_a_request_without_end_is_not_read_to_its_end() -> None:
    sent = 0

    async def body() -> Any:
        nonlocal sent
        for _ in range(1000):
            sent += 65_536
            yield b" " * 65_536

    server = Server()
    async with server.http() as http:
        answer = await http.post(PATH, content=body())
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"
    assert sent < 2 * MAX_BODY_BYTES


async def test_the_longest_instructions_fit_however_they_are_written() -> None:
    words = "\N{GRINNING FACE}" * 32_768
    answer = await Server().post({"session": {"type": "realtime", "instructions": words}})
    assert answer.status_code == 200, answer.text
    assert answer.json()["session"]["instructions"] == words


async def test_a_client_that_leaves_breaks_nothing() -> None:
    messages = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": PATH,
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 5),
    }
    server = Server()
    await server._transport.app(scope, receive, send)
    assert not server.secrets._open


async def test_a_secret_is_for_who_has_a_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    _, talk = add_key(path, "phone", ["talk"], now_s=START_S)
    _, speech = add_key(path, "reader", ["speech"], now_s=START_S)
    server = Server("sk-right", path)
    assert (await server.post({})).status_code == 401
    async with server.openai(speech) as client:
        with pytest.raises(PermissionDeniedError):
            await client.realtime.client_secrets.create()
    async with server.openai("sk-right") as client:
        assert (await client.realtime.client_secrets.create()).value
    async with server.openai(talk) as client:
        secret = await client.realtime.client_secrets.create()
    kept = server.secrets.find(secret.value)
    assert kept is not None
    assert kept.maker.name == "phone"
    async with server.openai(secret.value) as client:  # and makes no other
        with pytest.raises(PermissionDeniedError):
            await client.realtime.client_secrets.create()


async def test_too_many_are_refused_until_some_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SECRETS", 2)
    server = Server()
    async with server.openai() as client:
        for seconds in (30, 60):
            await client.realtime.client_secrets.create(expires_after={"seconds": seconds})
        with pytest.raises(RateLimitError) as error:
            await client.realtime.client_secrets.create()
        assert error.value.code == "rate_limit_exceeded"
        assert error.value.response.headers["retry-after"] == "30"
        server.now_s += 30
        await client.realtime.client_secrets.create()
    assert len(server.secrets._open) == 2


async def test_what_they_keep_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT_BYTES", 5000)
    server = Server()
    body = {"session": {"type": "realtime", "instructions": "x" * 3000}}
    assert (await server.post(body)).status_code == 200
    assert (await server.post(body)).status_code == 429
    assert (await server.post({})).status_code == 200


async def test_one_key_does_not_take_the_room_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SECRETS_EACH", 2)
    path = tmp_path / "keys.json"
    keys = [add_key(path, name, ["talk"], now_s=START_S)[1] for name in ("phone", "tablet")]
    phone, tablet, settings = ({"authorization": f"Bearer {k}"} for k in [*keys, "sk-right"])
    server = Server("sk-right", path)
    for_long = {"expires_after": {"seconds": 60}}
    assert (await server.post({"expires_after": {"seconds": 10}}, headers=tablet)).is_success
    for _ in range(2):
        assert (await server.post(for_long, headers=phone)).is_success
    refused = await server.post({}, headers=phone)
    # The tablet's are of no use to it.
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    assert (await server.post({}, headers=tablet)).is_success
    for _ in range(5):
        assert (await server.post({}, headers=settings)).is_success
    server.now_s += 60
    assert (await server.post({}, headers=phone)).is_success


async def test_what_one_key_keeps_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT_BYTES_EACH", 5000)
    secrets = ClientSecrets()
    phone, tablet = (Caller(ip, frozenset({"talk"})) for ip in ("10.0.0.1", "10.0.0.2"))
    long = {"instructions": "x" * 3000}
    assert secrets.issue(phone, seconds=60, session=long)
    assert secrets.issue(phone, seconds=60, session=long) is None
    assert secrets.issue(phone, seconds=60, session={})
    assert secrets.issue(tablet, seconds=60, session=long)


# --- the secrets -------------------------------------------------------------


def issue(
    secrets: ClientSecrets, *, seconds: int = 60, session: dict[str, Any] | None = None
) -> tuple[str, int]:
    issued = secrets.issue(SOMEBODY, seconds=seconds, session=session or {})
    assert issued is not None
    return issued


def test_secrets_are_kept_as_hashes() -> None:
    secrets = ClientSecrets()
    value, _ = issue(secrets)
    assert value not in repr(vars(secrets))
    assert list(secrets._open) == [digest_of(value)]
    assert len(value) == len("ek_") + 43  # 256 bits in base64


def test_a_secret_is_found_until_it_expires() -> None:
    now_s = [100.5]
    secrets = ClientSecrets(now_s=lambda: now_s[0])
    value, expires_at = issue(secrets, seconds=10)
    assert expires_at == 110
    now_s[0] = 109.9
    assert secrets.find(value) is not None
    assert secrets.find(value) is not None  # again and again
    now_s[0] = 110.0
    assert secrets.find(value) is None


@pytest.mark.parametrize("other", ["", "ek_", "ek_\udcff", "ek_\0", "x" * 100_000])
def test_what_is_no_secret_is_not_found(other: str) -> None:
    secrets = ClientSecrets()
    value, _ = issue(secrets)
    assert secrets.find(other) is None
    assert secrets.find(value[:-1]) is None
    assert secrets.find(f"{value}{other}") is None or not other


def test_every_conversation_gets_a_session_of_its_own() -> None:
    secrets = ClientSecrets()
    session: dict[str, Any] = {"type": "realtime", "audio": {"output": {}}}
    value, _ = issue(secrets, session=session)
    session["audio"]["output"]["voice"] = "changed"
    kept = secrets.find(value)
    assert kept is not None
    kept.bound_session["audio"]["output"]["voice"] = "changed too"
    assert kept.bound_session == {"type": "realtime", "audio": {"output": {}}}


def test_what_has_expired_is_forgotten() -> None:
    now_s = [0.0]
    secrets = ClientSecrets(now_s=lambda: now_s[0])
    for second in range(100):
        now_s[0] = float(second)
        issue(secrets, seconds=10)
        assert len(secrets._open) <= 10
