"""What the three OpenAI-compatible engines have in common, on real sockets."""

from __future__ import annotations

import asyncio
import logging
import socket

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_api import OpenaiApi
from scripted_http import Die, Exchange, Refuse, ScriptedServer, Wait

from ivas.engines import Status, openai_server
from ivas.engines.openai_server import OpenaiServer, error_text
from ivas.errors import EngineError, EngineTimeout, EngineUnavailable

KEY = "sk-very-secret-and-long"


def way_to(url: str, *, key: str | None = None, silence_s: float | None = None) -> OpenaiServer:
    return OpenaiServer(
        "speech",
        part="TTS",
        url=url,
        key=key,
        example_url="http://127.0.0.1:8880/v1",
        again="try again",
        at_home="set IVAS_TTS__ENGINE=kokoro for a voice at home",
        silence_s=silence_s,
    )


async def start(server: OpenaiServer) -> None:
    """As an engine starts that wants to see models."""

    async def probe() -> None:
        status, text = await server.get("models")
        if status != 200:
            raise server.refusal(status, text)

    await server.start(probe)


async def refused(server: OpenaiServer) -> str:
    """Why it does not start, which its status says too."""
    try:
        with pytest.raises(EngineUnavailable) as caught:
            await start(server)
        said = str(caught.value)
        assert server.status() == Status(False, said)
        assert said.endswith(".")
        assert "\n" not in said
        assert KEY not in said
        return said
    finally:
        await server.aclose()


@pytest.fixture
async def api(no_leaks):
    async with OpenaiApi(("/v1/work", lambda exchange: exchange.send_json("done"))) as api:
        yield api


@pytest.fixture
async def server(api):
    server = way_to(api.base_url)
    await start(server)
    yield server
    await server.aclose()


# --- starting and ending -------------------------------------------------------------


async def test_it_is_asked_once_and_over_one_connection(api, server):
    await start(server)
    assert server.status() == Status(True)
    assert len(api.requests) == 1
    for _ in range(5):
        assert (await server.get("models"))[0] == 200
    assert api.connections == 1


@pytest.mark.parametrize("url", ["{}", "{}/", "{}//"])
async def test_a_slash_at_the_end_is_none_too_many(api, url):
    server = way_to(url.format(api.base_url))
    await start(server)
    assert api.requests[0].path == "/v1/models"
    await server.aclose()


async def test_only_between_start_and_close_is_there_a_way(api):
    server = way_to(api.base_url)
    with pytest.raises(EngineUnavailable, match="speech server has not been asked yet"):
        await server.get("models")
    await start(server)
    await server.aclose()
    await server.aclose()
    server.answered()  # by what was still on its way
    assert not server.status().ready
    with pytest.raises(EngineUnavailable, match="has been closed; start it again first"):
        await server.get("models")
    await start(server)
    assert server.status().ready
    await server.aclose()


async def test_two_starts_at_once_make_one_client(api):
    server = way_to(api.base_url)
    await asyncio.gather(start(server), start(server))
    assert server.status().ready
    await server.aclose()


@pytest.mark.parametrize(
    ("listing", "said"),
    [
        (Refuse(401, f"Incorrect API key provided: {KEY}"), "set IVAS_TTS__API_KEY"),
        (Refuse(500, f"boom {KEY}"), "failed (boom ***)"),
        (Die(), "broke off in the middle of its answer (RemoteProtocolError)"),
    ],
)
async def test_a_start_that_fails_and_the_next_that_works(api, listing, said):
    api.listing = listing
    server = way_to(api.base_url, key=KEY)
    assert said in await refused(server)
    api.listing = None
    await start(server)
    assert server.status().ready
    await server.aclose()


async def test_a_server_that_hangs_at_the_start(api, monkeypatch):
    monkeypatch.setattr(openai_server, "PROBE_S", 0.05)
    api.listing = Wait(asyncio.Event())
    server = way_to(api.base_url)
    assert await refused(server) == (
        f"The speech server at {api.base_url} said nothing for 0.05 s; see whether it hangs, and "
        "start it anew."
    )


async def test_nobody_is_there(no_leaks):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        assert await refused(way_to(url)) == (
            f"No speech server answers at {url}; start it, or set IVAS_TTS__URL to where it runs."
        )


@pytest.mark.parametrize(
    "url", ["", "box", "localhost", "ftp://127.0.0.1/v1", "http://[::1", "http://box:x/v1"]
)
async def test_an_address_that_is_none(url, no_leaks):
    assert await refused(way_to(url)) == (
        f"The address of the speech server, {url!r}, is none; set IVAS_TTS__URL to one like "
        "http://127.0.0.1:8880/v1."
    )


async def test_a_server_that_went_and_came_back(api, server):
    await api.stop()
    with pytest.raises(EngineUnavailable), server.told():
        await server.get("models")
    assert not server.status().ready
    await api.start()
    await start(server)
    assert server.status().ready


# --- keys, passwords, proxies, certificates --------------------------------------------


async def test_the_key_is_shown_to_the_server(api):
    api.key = KEY
    assert "wants a key; set IVAS_TTS__API_KEY to one it knows." in await refused(
        way_to(api.base_url)
    )
    assert "does not take this key; set" in await refused(way_to(api.base_url, key="wrong"))
    server = way_to(api.base_url, key=KEY)
    await start(server)
    await server.aclose()


@pytest.mark.parametrize("key", ["schlüssel", "two\nlines"])
async def test_a_key_that_cannot_be_sent(api, key):
    said = await refused(way_to(api.base_url, key=key))
    assert "characters that cannot be sent; set IVAS_TTS__API_KEY anew." in said
    assert key not in said


async def test_a_password_in_the_address_goes_to_the_server_and_nowhere_else(api, caplog):
    caplog.set_level(logging.DEBUG)
    server = way_to(api.base_url.replace("//", f"//me:{KEY}@"), key="another")
    await start(server)
    assert api.requests[0].headers["authorization"] == "Basic " + (
        "bWU6c2stdmVyeS1zZWNyZXQtYW5kLWxvbmc="
    )
    await api.stop()
    await server.aclose()
    assert f"answers at {api.base_url};" in await refused(server)
    assert KEY not in caplog.text


@pytest.mark.parametrize("url", ["http://me:a/{}@127.0.0.1/v1", "me:{}@box", "x://@{}@box"])
async def test_a_password_in_an_address_that_is_none_is_not_shown(url, no_leaks):
    assert "is none; set IVAS_TTS__URL" in await refused(way_to(url.format(KEY)))


@pytest.mark.parametrize("user", ["", "me:password@"])
async def test_a_proxy_is_no_way_to_this_machine(api, monkeypatch, user):
    async def asked(exchange: Exchange) -> None:
        raise AssertionError("asked the proxy")

    async with ScriptedServer(asked) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        server = way_to(api.base_url.replace("//", f"//{user}"))
        await start(server)
        await server.aclose()
        assert proxy.connections == 0


async def test_a_proxy_is_the_way_to_another_machine(no_leaks, monkeypatch):
    async def answer(exchange: Exchange) -> None:
        await exchange.send_json([exchange.request.path])

    async with ScriptedServer(answer) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        server = way_to("http://localhost.example/v1")
        await start(server)
        assert await server.get("models") == (200, '["http://localhost.example/v1/models"]')
        await server.aclose()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", f"odd://me:{KEY}@box"),
        ("ALL_PROXY", f"http://me:{KEY}@box:x"),
        ("SSL_CERT_FILE", "/none"),
    ],
)
async def test_an_environment_that_cannot_be_used(no_leaks, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    said = await refused(way_to("https://box.example/v1"))
    assert "the environment names a proxy or a file of certificates that cannot be used" in said
    assert variable in said


async def test_tls_with_a_server_that_speaks_none(no_leaks):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    plain = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with plain:
        said = await refused(way_to(f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}/v1"))
    assert "does not speak TLS" in said
    assert "set IVAS_TTS__URL to its address with http:" in said


async def test_a_certificate_that_is_not_trusted():
    server = way_to("https://box/v1")
    with (
        pytest.raises(EngineUnavailable, match=r"^The certificate of https://box/v1 is not one"),
        server.told(),
    ):
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")


# --- what goes wrong at work -------------------------------------------------------------


async def test_what_utf_8_cannot_say_is_sent_as_a_question_mark(api, server):
    async with server.post("work", {"said": "ü \ud800", "odd": float("nan")}) as response:
        assert response.status_code == 200
    [asked] = api.posts
    assert asked.headers["content-type"] == "application/json"
    assert asked.body.decode() == '{"said": "ü ?", "odd": NaN}'


async def test_silence_at_work(api):
    server = way_to(api.base_url, silence_s=0.05)
    await start(server)
    api.listing = Wait(asyncio.Event())
    with pytest.raises(EngineTimeout, match=r"said nothing for 0\.05 s"), server.told(0.05):
        await server.get("models")
    assert "said nothing" in server.status().reason
    server.answered()
    assert server.status() == Status(True)
    await server.aclose()


async def test_what_the_next_request_would_not_meet_leaves_it_ready(server):
    with pytest.raises(EngineError), server.told():
        raise server.garbled()
    assert server.status().ready
    with pytest.raises(EngineUnavailable) as caught, server.told():
        raise server.foreign()
    assert server.status() == Status(False, str(caught.value))


async def test_an_answer_without_end_is_read_to_the_most(no_leaks):
    async def answer(exchange: Exchange) -> None:
        exchange.begin("application/json")
        for _ in range(2):
            await exchange.chunk(b"[" * 2**20)
        await exchange.gone.wait()

    async with ScriptedServer(answer) as endless:
        server = way_to(endless.url)
        await start(server)
        assert await server.get("models") == (200, "[" * 2**20)
        await server.aclose()


@pytest.mark.parametrize(
    ("status", "text", "said", "lasting"),
    [
        (401, "no", "wants a key; set IVAS_TTS__API_KEY to one it knows.", True),
        (403, "<html>", "wants a key", True),
        (402, "pay", "wants to be paid (pay); see to the account, or set IVAS_TTS__ENGINE=", True),
        (429, '{"error": {"message": "no", "code": "insufficient_quota"}}', "to be paid", True),
        (503, "Loading model", "is still loading its model; wait a moment.", True),
        (429, '{"error": {"message": "slow\\ndown"}}', "is busy (slow down); try again in", False),
        (503, "<html>", "is busy (503); try again in a moment.", False),
        (502, "<html>", "does not reach its speech server (HTTP 502); see whether that", True),
        (504, '{"error": "no worker"}', "does not reach its speech server (no worker)", True),
        (200, "<html>", "is no OpenAI-compatible speech server; set IVAS_TTS__URL", True),
        (500, " \n<!doctype html>", "is no OpenAI-compatible speech server", True),
        (301, "", "is no OpenAI-compatible speech server", True),
        (404, '{"detail": "Not Found"}', "its address, which usually ends in /v1.", True),
        (405, "", "is no OpenAI-compatible speech server", True),
        (500, '{"message": "CUDA"}', "failed (CUDA); try again, and see its own log if it", False),
        (500, "", "failed (HTTP 500)", False),
    ],
)
def test_what_a_refusal_means(status, text, said, lasting):
    error = way_to("http://box/v1").refusal(status, text)
    assert said in str(error)
    assert isinstance(error, EngineUnavailable) is lasting


@given(st.lists(st.text() | st.sampled_from([KEY, *'{}[]":,\n\0\ud800'])))
def test_its_own_words_are_one_line_without_the_key(words):
    text, server = "".join(words), way_to("http://box/v1", key=KEY)
    for said in (server.quoted(text), server.quoted(f'{{"error": "{text}"}}')):
        assert KEY not in said
        assert said.isprintable()
        assert said == said.strip()


def test_its_own_words_are_few():
    server = way_to("http://box/v1", key=KEY)
    assert server.quoted("a" * 300) == "a" * 200 + "…"
    assert server.quoted("[" * 100_000) == "[" * 200 + "…"  # deeper than JSON is read


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": {"message": "no"}}, "no"),
        ({"error": {"code": 7}}, "{'code': 7}"),
        ({"error": "no"}, "no"),
        ({"object": "error", "message": "no"}, "no"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"error": None, "choices": []}, None),
        ([], None),
    ],
)
def test_errors_in_three_shapes(body: object, text: str | None) -> None:
    assert error_text(body) == text
