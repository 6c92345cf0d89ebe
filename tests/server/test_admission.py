"""The one door: who comes in, as whom, and what the others are told."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, Response
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Send
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from ivas.keys import KeyRing, Scope, add_key, revoke_key
from ivas.server.admission import Admission, turn_away
from ivas.server.client_secrets import ClientSecrets
from ivas.server.limits import Limits
from ivas.server.rest_errors import install_rest_errors
from ivas.server.rest_requests import Served
from ivas.server.security import Caller, Refusal, cors

START_S = 1_800_000_000.0
PLENTY = Limits(sessions=9, sessions_per_key=9, sessions_per_address=9, requests=9)
API_KEY = "sk-right"


class Door:
    """An `Admission` with a key file and a clock of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        api_key: str | None = None,
        limits: Limits = PLENTY,
        origins: Iterable[str] = (),
    ) -> None:
        self.file = folder / "keys.json"
        self.now_s = START_S
        self.secrets = ClientSecrets(now_s=lambda: self.now_s)
        self.admission = Admission(
            api_key=api_key,
            keys=KeyRing(self.file),
            secrets=self.secrets,
            limits=limits,
            allowed_origins=tuple(origins),
            now_s=lambda: self.now_s,
        )

    def add(self, name: str, *scopes: Scope, lasts_s: int | None = None) -> str:
        return add_key(self.file, name, scopes, lasts_s=lasts_s, now_s=self.now_s)[1]

    def ask(self, key: str | None = None, scope: Scope | None = "talk", **more: Any) -> Any:
        return self.admission.admit(request(key, **more), scope)


def scope_of(
    kind: str, key: str | None, headers: dict[str, str], subprotocols: list[str], address: str
) -> dict[str, Any]:
    shown = {"host": "127.0.0.1:8000"} | headers
    if key is not None:
        shown["authorization"] = f"Bearer {key}"
    return {
        "type": kind,
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "client": (address, 5),
        "subprotocols": subprotocols,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in shown.items()],
    }


def request(key: str | None = None, *, address: str = "127.0.0.1", **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(scope_of("http", key, named, [], address))


async def _nothing(*_: Any) -> Any:
    raise AssertionError("the door neither reads nor writes")


def websocket(
    key: str | None = None,
    *,
    address: str = "127.0.0.1",
    subprotocols: Iterable[str] = (),
    **headers: str,
) -> WebSocket:
    scope = scope_of("websocket", key, headers, list(subprotocols), address)
    return WebSocket(scope, _nothing, _nothing)


def status(answer: Caller | Refusal) -> int:
    if isinstance(answer, Refusal):
        assert answer.message.isascii()
        assert answer.message.endswith(".")
        return answer.status
    return 200


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


# --- keys and scopes ---------------------------------------------------------


def test_without_any_key_everybody_on_this_machine_may_everything(folder: Path) -> None:
    door = Door(folder)
    for key in (None, "none", "sk-whatever", "x" * 10_000):
        caller = door.ask(key, "admin")
        assert (caller.name, caller.key, caller.bound_session) == ("127.0.0.1", None, None)
        assert caller.may("talk")
        assert caller.may("speech")


def test_the_key_of_the_settings_may_everything(folder: Path) -> None:
    door = Door(folder, api_key=API_KEY)
    for scope in ("talk", "speech", "admin", None):
        assert door.ask(API_KEY, scope).name == "server.api_key"
    for wrong in (None, "sk-righ", "sk-right2", "SK-RIGHT", "none", "schlüssel", "\xff"):
        refusal = door.ask(wrong)
        assert (refusal.status, refusal.code) == (401, "invalid_api_key")
        assert "sk-" not in refusal.message


def test_a_named_key_may_what_it_is_for(folder: Path) -> None:
    door = Door(folder)
    may: dict[str, set[Scope]] = {}
    for name, scopes in {
        "phone": ("talk",),
        "reader": ("speech",),
        "both": ("talk", "speech"),
        "boss": ("admin",),
    }.items():
        key = door.add(name, *scopes)  # type: ignore[arg-type]
        assert door.ask(key, None).name == name
        may[name] = {s for s in ("talk", "speech", "admin") if status(door.ask(key, s)) == 200}
        refused = [door.ask(key, s) for s in ("talk", "speech", "admin") if s not in may[name]]
        assert {(one.status, one.code) for one in refused} <= {(403, "insufficient_scope")}
    assert may == {
        "phone": {"talk"},
        "reader": {"speech"},
        "both": {"talk", "speech"},
        "boss": {"talk", "speech", "admin"},
    }


def test_a_named_key_closes_an_open_server_at_once(folder: Path) -> None:
    door = Door(folder)
    assert status(door.ask()) == 200
    key = door.add("phone", "talk")
    assert status(door.ask()) == 401
    assert status(door.ask("none")) == 401
    assert status(door.ask(key)) == 200


def test_a_revoked_key_begins_nothing_new_and_what_runs_goes_on(folder: Path) -> None:
    door = Door(folder)
    key = door.add("phone", "talk")
    with door.admission.session(websocket(key)) as running:
        revoke_key(door.file, "phone")
        assert status(running) == 200
        with door.admission.session(websocket(key)) as new:
            assert status(new) == 401
        assert door.admission.sessions.taken == 1
    assert status(door.ask()) == 401  # the last key is gone, the door stays closed


def test_a_key_ends_when_it_expires(folder: Path) -> None:
    door = Door(folder)
    key = door.add("phone", "talk", lasts_s=60)
    assert status(door.ask(key)) == 200
    door.now_s += 60
    refusal = door.ask(key)
    assert (refusal.status, refusal.code) == (401, "invalid_api_key")
    assert "expired" in refusal.message


def test_both_kinds_of_keys_open_the_same_door(folder: Path) -> None:
    door = Door(folder, api_key=API_KEY)
    key = door.add("phone", "talk")
    assert door.ask(key).name == "phone"
    assert door.ask(API_KEY).name == "server.api_key"
    assert status(door.ask(key, "admin")) == 403


@pytest.mark.parametrize("damage", ["broken", "folder", "gone", "empty"])
def test_a_damaged_key_file_never_opens_the_door(
    folder: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    door, locked = Door(folder), Door(folder, api_key=API_KEY)
    key = door.add("phone", "talk")
    assert status(door.ask(key)) == status(locked.ask(key)) == 200
    door.file.unlink()
    if damage == "broken":
        door.file.write_text('{"keys": []')
    elif damage == "folder":
        door.file.mkdir()
    elif damage == "empty":
        door.file.touch()
    expected = 401 if damage == "gone" else 503
    for shown in (None, "none", key):
        assert status(door.ask(shown)) == status(locked.ask(shown)) == expected
    assert status(locked.ask(API_KEY)) == 200
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(said) == (0 if damage == "gone" else 2)  # once for each, not for every request
    assert all(str(door.file) in one for one in said)
    assert str(folder) not in str(door.ask(key))


def test_a_key_file_broken_from_the_start_does_not_either(folder: Path) -> None:
    (folder / "keys.json").write_text("oops")
    assert status(Door(folder).ask()) == 503


@pytest.mark.parametrize(
    "key", ["\x00", "ivas_\x00", "é" * 100, "ek_", "ivas_", "Bearer", "x" * 100_000, ",", '"']
)
def test_odd_keys_are_wrong_keys(folder: Path, key: str) -> None:
    door = Door(folder, api_key=API_KEY)
    door.add("phone", "talk")
    assert status(door.ask(key)) == 401
    assert status(door.admission.admit(websocket(subprotocols=[ENTRY + key]), "talk")) == 401


@given(st.text(st.characters()))
def test_no_text_but_the_key_is_a_key(tmp_path_factory: pytest.TempPathFactory, key: str) -> None:
    door = Door(tmp_path_factory.getbasetemp() / "nowhere", api_key=API_KEY)
    answer = door.admission.admit(websocket(subprotocols=[ENTRY + key]), "talk")
    assert status(answer) == (200 if key == API_KEY else 401)


def test_two_authorization_headers_are_one_too_many(folder: Path) -> None:
    """A proxy may have looked at the other one."""
    door = Door(folder, api_key=API_KEY)
    twice = request(API_KEY)
    twice.scope["headers"].append((b"authorization", b"Bearer other"))
    assert status(door.admission.admit(Request(twice.scope), "talk")) == 401


def test_a_key_is_not_taken_from_other_places(folder: Path) -> None:
    door = Door(folder, api_key=API_KEY)
    asked = request(cookie=f"key={API_KEY}", x_api_key=API_KEY, sec_websocket_protocol=ENTRY)
    asked.scope["query_string"] = f"api_key={API_KEY}".encode()
    assert status(door.admission.admit(asked, "talk")) == 401


def test_no_refusal_and_no_log_shows_a_key(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    door = Door(folder, api_key=API_KEY)
    key = door.add("phone", "speech")
    for shown in (key, API_KEY + "x", "ek_" + "s" * 43):
        assert shown not in str(door.ask(shown, "talk"))
        assert shown not in str(door.ask(shown, "admin"))
        assert shown not in caplog.text


# --- pages -------------------------------------------------------------------

ENTRY = "openai-insecure-api-key."


def test_a_page_of_a_foreign_site_is_refused_whatever_key_it_has(folder: Path) -> None:
    door = Door(folder, api_key=API_KEY)
    refusal = door.ask(API_KEY, origin="https://evil.example")
    assert (refusal.status, refusal.code) == (403, "origin_not_allowed")
    assert "server.cors_origins" in refusal.message
    assert status(door.ask(API_KEY, origin="http://127.0.0.1:8000")) == 200
    assert status(door.ask(API_KEY, origin="null")) == 403
    assert status(door.ask(API_KEY, sec_fetch_site="cross-site")) == 403
    assert status(door.ask(API_KEY, sec_fetch_site="same-origin")) == 200
    assert status(door.ask(API_KEY, sec_fetch_site="none")) == 200


def test_a_page_of_an_allowed_site_is_let_in(folder: Path) -> None:
    door = Door(folder, api_key=API_KEY, origins=["https://App.example", "http://b.example:80/"])
    for good in ("https://app.example", "http://b.example"):
        assert status(door.ask(API_KEY, origin=good, sec_fetch_site="cross-site")) == 200
        assert status(door.ask("wrong", origin=good)) == 401
        with door.admission.session(websocket(API_KEY, origin=good)) as admitted:
            assert status(admitted) == 200
    for bad in (
        "http://app.example",
        "https://app.example:8443",
        "https://app.example.evil.example",
        "https://evil.example/https://app.example",
        "https://user@app.example",
        "https://app.example, https://evil.example",
        "",
    ):
        assert status(door.ask(API_KEY, origin=bad)) == 403


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("127.0.0.1:8000", None, 200),
        ("localhost:8000", "http://localhost:8000", 200),
        ("evil.example:8000", "http://evil.example:8000", 403),
        ("evil.example:8000", None, 403),
        ("evil.example.:8000", None, 403),
        ("evil.local.example", None, 403),
        ("[::1", None, 403),
        ("host.docker.internal:8000", None, 200),
        ("host.docker.internal:8000", "http://host.docker.internal:8000", 403),
        ("ivas:8000", None, 200),
        ("laptop.local", None, 200),
        ("192.168.1.5:8000", None, 200),
        ("192.168.1.5:8000", "http://192.168.1.5:8000", 403),
    ],
)
def test_a_name_made_to_mean_this_machine_does_not_open_a_keyless_server(
    folder: Path, host: str, origin: str | None, expected: int
) -> None:
    """DNS rebinding: a page of evil.example fetching from "itself" sends no Origin."""
    headers: dict[str, Any] = {"host": host} | ({} if origin is None else {"origin": origin})
    assert status(Door(folder).ask(None, **headers)) == expected
    assert status(Door(folder, api_key=API_KEY).ask(API_KEY, **headers)) == (
        403 if host == "[::1" and origin else 200
    )


# --- how many ----------------------------------------------------------------


def sessions(door: Door, stack: ExitStack, *shown: WebSocket) -> list[int]:
    return [status(stack.enter_context(door.admission.session(one))) for one in shown]


def test_all_conversations_together_are_bounded(folder: Path) -> None:
    door = Door(folder, api_key=API_KEY, limits=Limits(2, 9, 9, 9))
    key = door.add("phone", "talk")
    with ExitStack() as stack:
        assert sessions(door, stack, websocket(API_KEY), websocket(key)) == [200, 200]
        with door.admission.session(websocket(API_KEY)) as third:
            assert isinstance(third, Refusal)
            assert (third.status, third.code) == (503, "session_limit_reached")
            assert third.retry_after_s
        assert door.admission.sessions.taken == 2
    assert door.admission.sessions.taken == 0
    with door.admission.session(websocket(key)) as again:
        assert status(again) == 200


def test_one_key_does_not_take_all_places(folder: Path) -> None:
    door = Door(folder, api_key=API_KEY, limits=Limits(9, 2, 1, 9))
    phone, tablet = door.add("phone", "talk"), door.add("tablet", "talk")
    with ExitStack() as stack:
        # From one address: with a key, the key is what counts.
        assert sessions(door, stack, *[websocket(phone) for _ in range(3)]) == [200, 200, 429]
        assert sessions(door, stack, *[websocket(tablet) for _ in range(3)]) == [200, 200, 429]
        # The operator's own key is bounded by the whole only.
        assert sessions(door, stack, *[websocket(API_KEY) for _ in range(5)]) == [200] * 5
        assert sessions(door, stack, websocket(API_KEY)) == [503]
    assert door.admission.sessions.taken == 0


def test_one_address_does_not_either(folder: Path) -> None:
    door = Door(folder, limits=Limits(9, 9, 1, 9))
    addresses = ["127.0.0.1", "127.0.0.1", "127.0.0.2", "2001:db8::1", "2001:db8::2"]
    with ExitStack() as stack:
        found = sessions(door, stack, *[websocket(address=one) for one in addresses])
        assert found == [200, 429, 200, 200, 429]
        with door.admission.session(websocket()) as refused:
            assert isinstance(refused, Refusal)
            assert (refused.code, refused.kind) == ("rate_limit_exceeded", "rate_limit_error")


def test_what_is_refused_for_another_reason_holds_nothing(folder: Path) -> None:
    door = Door(folder, api_key=API_KEY, limits=Limits(1, 1, 1, 1))
    with ExitStack() as stack:
        wrong = [websocket("wrong"), websocket(API_KEY, origin="https://evil.example")]
        assert sessions(door, stack, *wrong) == [401, 403]
        assert door.admission.sessions.taken == 0


class Work:
    """A route behind a door, whose requests are worked on until `gate` opens."""

    def __init__(self, door: Door) -> None:
        self.gate = asyncio.Event()
        self._settled = asyncio.Semaphore(0)
        """Once for each request that is answered or has a place."""
        self._places = door.admission.requests
        self._app = FastAPI()
        install_rest_errors(self._app)

        @self._app.post("/v1/work")
        async def route(request: Request) -> Response:
            refusal = door.admission.admit_request(request, "speech")
            return refusal or Served(self._places, self._answer)

    async def _answer(self, request: Request, send: Send) -> None:
        self._settled.release()
        await self.gate.wait()
        await Response()(request.scope, request.receive, send)

    async def ask(self, key: str | None = None, address: str = "127.0.0.1") -> int:
        transport = httpx.ASGITransport(self._app, client=(address, 5))
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            answer = await http.post("/v1/work", headers=headers)
        self._settled.release()
        if answer.status_code == 429:
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        return answer.status_code

    async def at_once(self, *asking: Coroutine[Any, Any, int]) -> tuple[list[int], int]:
        """What they are answered, and how many places they held."""
        self.gate.clear()
        self._settled = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(one) for one in asking]
        async with asyncio.timeout(10):
            for _ in tasks:
                await self._settled.acquire()
        taken = self._places.taken
        self.gate.set()
        return await asyncio.gather(*tasks), taken


@pytest.mark.parametrize(("places", "each"), [(1, 1), (4, 2), (5, 3)])
async def test_one_key_or_address_has_half_of_the_places_for_requests(
    folder: Path, places: int, each: int
) -> None:
    door = Door(folder, limits=Limits(9, 9, 9, places))
    work = Work(door)
    network = [work.ask(address=f"2001:db8::{number}") for number in range(6)]
    answers, taken = await work.at_once(*network)
    assert (sorted(answers), taken) == ([200] * each + [429] * (6 - each), each)

    phone, tablet = door.add("phone", "speech"), door.add("tablet", "speech")
    asking = [work.ask(key) for key in [phone] * 6 + [tablet] * 6 + ["wrong"]]
    answers, taken = await work.at_once(*asking)
    assert (sorted(answers[:6]), taken) == ([200] * each + [429] * (6 - each), places)
    assert sorted(answers[6:]) == [200] * (places - each) + [401] + [429] * (6 - places + each)
    assert not door.admission.requests._held


async def test_the_key_of_the_settings_may_have_all_places(folder: Path) -> None:
    work = Work(Door(folder, api_key=API_KEY, limits=Limits(9, 9, 9, 4)))
    answers, _ = await work.at_once(*[work.ask(API_KEY) for _ in range(5)])
    assert sorted(answers) == [200] * 4 + [429]


async def test_a_cancelled_conversation_gives_its_place_back(folder: Path) -> None:
    door = Door(folder, limits=Limits(1, 1, 1, 1))

    async def talk() -> None:
        with door.admission.session(websocket()) as admitted:
            assert status(admitted) == 200
            await asyncio.Event().wait()

    task = asyncio.create_task(talk())
    await asyncio.sleep(0)
    assert door.admission.sessions.taken == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert door.admission.sessions.taken == 0


# --- client secrets ----------------------------------------------------------


def issue(door: Door, key: str | None, **session: Any) -> str:
    maker = door.ask(key)
    assert isinstance(maker, Caller)
    issued = door.secrets.issue(maker, seconds=60, session={"type": "realtime"} | session)
    assert issued is not None
    return issued[0]


def test_a_secret_opens_the_websocket_with_its_session(folder: Path) -> None:
    door = Door(folder)
    key = door.add("phone", "talk", "speech")
    secret = issue(door, key, instructions="Be brief.")
    bound = {"type": "realtime", "instructions": "Be brief."}
    for shown in (websocket(secret), websocket(subprotocols=["realtime", ENTRY + secret])):
        with door.admission.session(shown) as admitted:
            assert isinstance(admitted, Caller)
            assert admitted.name == "phone"
            assert admitted.scopes == {"talk"}
            assert admitted.bound_session == bound
            admitted.bound_session.clear()  # a copy of its own: the next one is whole


def test_a_secret_opens_nothing_else(folder: Path) -> None:
    door = Door(folder)
    secret = issue(door, door.add("boss", "admin"))
    for scope in ("talk", "speech", "admin", None):
        refusal = door.ask(secret, scope)
        assert (refusal.status, refusal.code) == (403, "insufficient_scope")
    assert status(door.admission.admit(websocket(secret), "admin")) == 403


def test_a_secret_expires_and_what_runs_goes_on(folder: Path) -> None:
    door = Door(folder, api_key=API_KEY)
    secret = issue(door, API_KEY)
    with door.admission.session(websocket(secret)) as running:
        assert status(running) == 200
        door.now_s += 59
        assert status(door.admission.admit(websocket(secret), "talk")) == 200
        door.now_s += 1
        assert status(door.admission.admit(websocket(secret), "talk")) == 401
        assert door.admission.sessions.taken == 1


def test_a_secret_ends_with_the_key_that_made_it(folder: Path) -> None:
    door = Door(folder, api_key=API_KEY)
    secret = issue(door, door.add("phone", "talk"))
    assert status(door.admission.admit(websocket(secret), "talk")) == 200
    revoke_key(door.file, "phone")
    assert status(door.admission.admit(websocket(secret), "talk")) == 401
    door.add("phone", "talk")  # another key of that name
    assert status(door.admission.admit(websocket(secret), "talk")) == 401

    short = issue(door, door.add("short", "talk", lasts_s=30))
    assert status(door.admission.admit(websocket(short), "talk")) == 200
    door.now_s += 30
    assert status(door.admission.admit(websocket(short), "talk")) == 401


def test_a_secret_of_nobody_ends_when_the_server_gets_a_key(folder: Path) -> None:
    door = Door(folder)
    secret = issue(door, None, instructions="Be brief.")
    admitted = door.admission.admit(websocket(secret, address="127.0.0.9"), "talk")
    assert isinstance(admitted, Caller)
    assert (admitted.name, admitted.scopes) == ("127.0.0.9", {"talk"})
    assert admitted.bound_session is not None
    # An open server takes any key, but a session it does not know it cannot open.
    assert status(door.admission.admit(websocket("ek_unknown"), "talk")) == 401
    door.add("phone", "talk")
    assert status(door.admission.admit(websocket(secret), "talk")) == 401


def test_secrets_count_as_the_key_that_made_them(folder: Path) -> None:
    door = Door(folder, limits=Limits(9, 2, 9, 9))
    key = door.add("phone", "talk")
    one, two = issue(door, key), issue(door, key)
    with ExitStack() as stack:
        found = sessions(door, stack, websocket(one), websocket(two), websocket(key))
        assert found == [200, 200, 429]


# --- over a real server ------------------------------------------------------


@asynccontextmanager
async def serving(door: Door, *, origins: Iterable[str] = ()) -> AsyncIterator[str]:
    """host:port of a server behind this door."""
    allowed = tuple(origins)
    app = FastAPI(middleware=[cors(allowed)] if allowed else [])

    @app.post("/work")
    async def work(request: Request) -> JSONResponse:
        return door.admission.admit_request(request, "speech") or JSONResponse("done")

    @app.websocket("/talk")
    async def talk(websocket: WebSocket) -> None:
        with door.admission.session(websocket) as admitted:
            if isinstance(admitted, Refusal):
                await turn_away(websocket, admitted)
                return
            offered = "realtime" in websocket.scope["subprotocols"]
            await websocket.accept(subprotocol="realtime" if offered else None)
            await websocket.send_json({"name": admitted.name})
            await websocket.receive()

    config = uvicorn.Config(app, port=0, log_level="error", lifespan="off", proxy_headers=False)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:  # noqa: ASYNC110 - uvicorn offers no event for it
            await asyncio.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


def talk(at: str, **options: Any) -> connect:
    return connect(f"ws://{at}/talk", proxy=None, open_timeout=30, **options)


async def test_a_program_is_told_before_the_handshake(folder: Path) -> None:
    door = Door(folder, limits=Limits(1, 1, 1, 1))
    async with serving(door) as at:
        async with talk(at) as first:
            assert json.loads(await first.recv()) == {"name": "127.0.0.1"}
            with pytest.raises(InvalidStatus) as refused:
                async with talk(at):
                    pass
            response = refused.value.response
            assert response.status_code == 503
            assert response.headers["retry-after"] == "10"
            assert json.loads(response.body or b"")["error"]["code"] == "session_limit_reached"
            # Whoever would forge an address to be counted apart is counted where it is.
            with pytest.raises(InvalidStatus):
                async with talk(at, additional_headers={"X-Forwarded-For": "192.0.2.1"}):
                    pass
        async with asyncio.timeout(30):
            while door.admission.sessions.taken:  # noqa: ASYNC110 - the server sees it go
                await asyncio.sleep(0.005)
        async with talk(at) as again:
            await again.recv()


@pytest.mark.parametrize(
    ("offered", "code", "close"),
    [
        (["realtime"], "invalid_api_key", 3000),
        (["realtime", ENTRY + "wrong"], "invalid_api_key", 3000),
        (["realtime", ENTRY + "{reader}"], "insufficient_scope", 1008),
        (["realtime", ENTRY + "{reader}"], "origin_not_allowed", 1008),
    ],
)
async def test_a_browser_is_told_after_it(
    folder: Path, offered: list[str], code: str, close: int
) -> None:
    door = Door(folder)
    reader = door.add("reader", "speech")
    subprotocols: Any = [entry.format(reader=reader) for entry in offered]
    origin: Any = "https://evil.example" if code == "origin_not_allowed" else None
    async with serving(door) as at, talk(at, subprotocols=subprotocols, origin=origin) as one:
        assert one.subprotocol == "realtime"
        event = json.loads(await one.recv())
        assert (event["type"], event["error"]["code"]) == ("error", code)
        assert None not in event["error"].values()
        with pytest.raises(ConnectionClosed) as closed:
            await one.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == close
        assert event["error"]["message"].startswith(closed.value.rcvd.reason)


async def test_a_full_server_asks_a_browser_to_try_later(folder: Path) -> None:
    subprotocols: Any = ["realtime"]
    door = Door(folder, limits=Limits(9, 9, 1, 1))
    async with serving(door) as at, talk(at, subprotocols=subprotocols) as first:
        await first.recv()
        async with talk(at, subprotocols=subprotocols) as second:
            error = json.loads(await second.recv())["error"]
            assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
            with pytest.raises(ConnectionClosed) as closed:
                await second.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1013


@pytest.mark.parametrize(
    "lines",
    [
        [b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.\xff\xfe"],
        [b"Authorization: Bearer \xff\xfe"],
        [b"Authorization: Bearer sk-wrong", b"Authorization: Bearer sk-right"],
        [b"authorization : Bearer sk-right"],
        [b"X-Forwarded-For: 127.0.0.1", b"Sec-WebSocket-Protocol: sk-right"],
        [b"Authorization: Bearer " + b"k" * 8_000],
        [b"Authorization: Bearer sk-right\x00"],
        [b"Sec-WebSocket-Protocol: realtime", b"Sec-WebSocket-Protocol: sk-right,,,"],
    ],
)
@pytest.mark.parametrize("path", ["/talk", "/work"])
async def test_no_odd_header_opens_or_breaks_the_door(
    folder: Path, path: str, lines: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    door = Door(folder, api_key=API_KEY)
    async with serving(door) as at:
        host, _, port = at.partition(":")
        upgrade = [
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            b"Sec-WebSocket-Version: 13",
        ]
        plain = [b"Connection: close", b"Content-Length: 0"]
        asked, more = (b"GET", upgrade) if path == "/talk" else (b"POST", plain)
        head = [asked + b" " + path.encode() + b" HTTP/1.1", *more]
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"\r\n".join([*head, f"Host: {at}".encode(), *lines, b"", b""]))
        async with asyncio.timeout(30):
            first = await reader.readline()
            writer.close()
            await writer.wait_closed()
    # 101: a browser's, which is told inside; closed at once: too large a header.
    assert first[9:12] in (b"101", b"400", b"401", b"431", b""), first
    assert door.admission.sessions.taken == 0
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


async def test_pages_of_allowed_origins_may_read_the_answers(folder: Path) -> None:
    good, bad = "https://app.example", "https://evil.example"
    door = Door(folder, api_key=API_KEY, origins=[good])
    ask = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
    }
    async with (
        serving(door, origins=["https://APP.example:443"]) as at,
        httpx.AsyncClient(base_url=f"http://{at}", trust_env=False) as http,
    ):
        answer = await http.options("/work", headers=ask | {"Origin": good})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == good
        assert "authorization" in answer.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in answer.headers
        answer = await http.options("/work", headers=ask | {"Origin": bad})
        assert "access-control-allow-origin" not in answer.headers

        key = {"Authorization": f"Bearer {API_KEY}"}
        answer = await http.post("/work", headers=key | {"Origin": good})
        assert answer.json() == "done"
        assert answer.headers["access-control-allow-origin"] == good
        answer = await http.post("/work", headers={"Origin": good})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["access-control-allow-origin"] == good
        answer = await http.post("/work", headers=key | {"Origin": bad})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in answer.headers


async def test_no_page_may_where_none_is_allowed(folder: Path) -> None:
    door = Door(folder)
    async with (
        serving(door) as at,
        httpx.AsyncClient(base_url=f"http://{at}", trust_env=False) as http,
    ):
        answer = await http.options(
            "/work",
            headers={"Origin": "https://a.example", "Access-Control-Request-Method": "POST"},
        )
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_client_that_does_not_wait_for_its_refusal_breaks_nothing() -> None:
    async def gone(message: Any) -> None:
        raise OSError

    async def coming() -> Any:
        return {"type": "websocket.connect"}

    for offered in ([], ["realtime"]):
        scope = scope_of("websocket", None, {}, offered, "127.0.0.1")
        scope["extensions"] = {"websocket.http.response": {}}
        one = WebSocket(scope, coming, gone)
        await turn_away(one, Refusal(401, "invalid_api_key", "No."))
