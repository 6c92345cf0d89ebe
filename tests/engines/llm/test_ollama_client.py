"""The models of an Ollama server, pulling, and every trouble on the way in one sentence."""

from __future__ import annotations

import asyncio
import builtins
import ssl
from contextlib import aclosing

import pytest
from ollama_server import (
    EMBEDDER,
    LLAMA,
    QWEN,
    Die,
    Fail,
    Model,
    OllamaServer,
    Raw,
    Refuse,
    Stop,
    Wait,
)
from scripted_http import ScriptedServer

from ivas.engines.llm import ollama_client
from ivas.engines.llm.ollama_client import OllamaServer as Server
from ivas.engines.llm.ollama_client import PullProgress
from ivas.errors import EngineError, EngineUnavailable


@pytest.fixture
async def ollama(no_leaks):
    async with OllamaServer(models=[QWEN, LLAMA, EMBEDDER]) as server:
        yield server


@pytest.fixture
async def client(ollama):
    server = Server(host=ollama.url)
    yield server
    await server.aclose()
    await server.aclose()


async def pulled(client: Server, model: str = "llama3.2:3b") -> list[PullProgress]:
    return [step async for step in client.pull(model)]


async def trouble(work) -> str:
    with pytest.raises(EngineError) as caught:
        await work
    message = str(caught.value)
    assert "\n" not in message
    return message


async def test_lists_what_is_installed_with_what_it_can(client) -> None:
    models = await client.models()
    assert [model.name for model in models] == [LLAMA.name, EMBEDDER.name, QWEN.name]
    llama, embedder, qwen = models
    assert (llama.size_bytes, llama.parameters, llama.quantisation, llama.family) == (
        LLAMA.size,
        "3.2B",
        "Q4_K_M",
        "llama",
    )
    assert (llama.can("tools"), llama.can("thinking"), llama.chats) == (True, False, True)
    assert (qwen.can("thinking"), embedder.chats) == (True, False)


async def test_what_a_model_can_is_asked_once(client, ollama) -> None:
    await client.models()
    asked = len(ollama.requests)
    await client.models()
    assert len(ollama.requests) == asked + 1
    assert ollama.connections <= 4  # one pool


async def test_an_old_server_does_not_say_what_a_model_can(client, ollama) -> None:
    ollama.models = [Model("llama3.2:3b", capabilities=None)]
    (model,) = await client.models()
    assert model.can("tools") is None
    assert model.chats


async def test_one_broken_model_does_not_hide_the_others(client, ollama, monkeypatch) -> None:
    monkeypatch.setattr(ollama, "_find", lambda name: LLAMA if name == LLAMA.name else None)
    models = await client.models()
    assert [model.capabilities is None for model in models] == [False, True, True]


# --- pulling ---------------------------------------------------------------------


async def test_a_pull_reports_how_far_it_is(client, ollama) -> None:
    layer = {"status": "pulling abc", "digest": "sha256:abc", "total": 100}
    ollama.pulls.append(
        [{"status": "pulling manifest"}, layer, layer | {"completed": 50}, {"status": "success"}]
    )
    assert await pulled(client) == [
        PullProgress("pulling manifest"),
        PullProgress("pulling abc", 0, 100, "sha256:abc"),
        PullProgress("pulling abc", 50, 100, "sha256:abc"),
        PullProgress("success"),
    ]
    assert ollama.requests[-1].json["model"] == "llama3.2:3b"


async def test_closing_a_pull_stops_it(client, ollama) -> None:
    gone = asyncio.Event()
    ollama.pulls.append([{"status": "pulling manifest"}, Wait(gone)])
    async with asyncio.timeout(1):
        async with aclosing(client.pull("llama3.2:3b")) as pulling:
            await anext(pulling)
    assert await pulled(client) == [PullProgress("success")]


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (
            Fail("pull model manifest: file does not exist"),
            "Ollama knows no model llama3.2:3b; look for its name at "
            "https://ollama.com/library and type: ollama pull NAME",
        ),
        (
            Fail("write /models/blobs/sha256-1-partial: no space left on device"),
            "The disk of the machine Ollama runs on is full, so llama3.2:3b was not pulled; "
            "make room there (ollama rm NAME) and pull again, it goes on where it stopped.",
        ),
        (
            Fail("dial tcp: lookup registry.ollama.ai: no such host"),
            "Ollama could not pull llama3.2:3b (dial tcp: lookup registry.ollama.ai: no such "
            "host); see to its way to the internet and pull again, it goes on where it stopped.",
        ),
        (
            Refuse(400, "invalid model name"),
            "Ollama knows no model llama3.2:3b; look for its name at "
            "https://ollama.com/library and type: ollama pull NAME",
        ),
        (
            Stop(),
            "The connection to Ollama at {url} was lost while it pulled llama3.2:3b; pull "
            "again, it goes on where it stopped.",
        ),
        (
            Die(),
            "Ollama at {url} broke off in the middle of its answer (RemoteProtocolError); see "
            "whether it still runs: ollama ps",
        ),
        (
            Raw(b"<html>\n"),
            "Ollama at {url} sent an answer that cannot be read; ask again, and update Ollama "
            "if it stays so.",
        ),
    ],
)
async def test_a_failed_pull_says_what_to_do(client, ollama, step, sentence) -> None:
    ollama.pulls.append([step])
    assert await trouble(pulled(client)) == sentence.format(url=ollama.url)
    assert await pulled(client) == [PullProgress("success")]


async def test_a_pull_that_hangs_is_given_up(client, ollama, monkeypatch) -> None:
    monkeypatch.setattr(ollama_client, "PULL_STALL_S", 0.02)
    ollama.pulls.append([{"status": "pulling manifest"}, Wait(asyncio.Event())])
    assert "has reported nothing for 0.02 s" in await trouble(pulled(client))


# --- the way there ---------------------------------------------------------------


async def test_nobody_is_there(client, ollama) -> None:
    await ollama.stop()
    assert await trouble(client.models()) == (
        f"Ollama does not answer at {ollama.url}; start it with: ollama serve (or set "
        "IVAS_LLM__HOST to where it runs)."
    )


@pytest.mark.parametrize(
    "fault",
    [
        Refuse(200, "<html>a router</html>"),
        Refuse(404, "<html>nginx</html>"),
        Refuse(404, "page not found"),
        Raw(b'{"object": "list"}\n'),
        Raw(b"[]"),
        Raw(b"SSH-2.0"),
    ],
)
async def test_somebody_else_is_there(client, ollama, fault) -> None:
    ollama.tags = fault
    message = await trouble(client.models())
    assert message == (
        f"What answers at {ollama.url} is not Ollama; set IVAS_LLM__HOST to where Ollama runs, "
        "usually http://127.0.0.1:11434."
    )


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Refuse(502, "<html>Bad Gateway</html>"), "does not answer at"),
        (Refuse(401, "unauthorized"), "ollama signin"),
        (Refuse(500, "something  odd\n\x1b[0m" + "x" * 500), "failed (something odd [0mxxx"),
        (Refuse(500, ""), "failed (HTTP 500)"),
        (Die(), "broke off in the middle"),
    ],
)
async def test_it_refuses(client, ollama, fault, words) -> None:
    ollama.tags = fault
    message = await trouble(client.models())
    assert words in message
    assert len(message) < 400


@pytest.mark.parametrize("host", ["ftp://box", "a b", "box:port"])
async def test_no_address(host, no_leaks) -> None:
    message = await trouble(Server(host=host).models())
    assert message.startswith(f"The address of Ollama, '{host}', cannot be used because ")
    assert message.endswith("set IVAS_LLM__HOST to one like http://127.0.0.1:11434.")


async def test_tls_to_a_server_without_it(ollama, monkeypatch) -> None:
    monkeypatch.setattr(ollama_client, "CONNECT_S", 0.1)
    client = Server(host=ollama.url.replace("http:", "https:"))
    assert "does not answer" in await trouble(client.models())
    await client.aclose()


def test_a_certificate_that_is_not_trusted() -> None:
    import httpx

    error = httpx.ConnectError(str(ssl.SSLCertVerificationError("certificate verify failed")))
    said = Server(host="https://box").explained(error)
    assert str(said).startswith("The certificate of https://box:443 is not one this machine trusts")


async def test_the_package_is_missing(monkeypatch, no_leaks) -> None:
    original = builtins.__import__

    def without(name, *more):
        if name == "ollama":
            raise ImportError(name)
        return original(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(EngineUnavailable, match="pip install ollama"):
        await Server(host="http://127.0.0.1:1").models()


async def test_a_proxy_is_no_way_to_this_machine(ollama, monkeypatch) -> None:
    async def unreachable(exchange) -> None:
        raise AssertionError("asked the proxy")

    async with ScriptedServer(unreachable) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        client = Server(host=ollama.url)
        assert await client.models()
        await client.aclose()
        assert proxy.connections == 0
