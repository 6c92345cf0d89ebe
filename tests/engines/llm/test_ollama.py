"""The Ollama engine: real client, real sockets, a server that does as it is told."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import aclosing

import pytest
from ollama_server import (
    EMBEDDER,
    LLAMA,
    QWEN,
    Call,
    Die,
    Fail,
    Model,
    OllamaServer,
    Raw,
    Refuse,
    Stop,
    Thought,
    Wait,
)

from ivas.engines import Message, Status, Token, Tool, ToolCall
from ivas.engines.llm import ollama as engine_module
from ivas.engines.llm.ollama import OllamaLLM
from ivas.errors import EngineError, EngineUnavailable

ASKED = (Message("system", "Be brief."), Message("user", "hello"))
ECHO = "You said: hello."
TIME = Tool("time", "What time it is.", {"type": "object", "properties": {}})


@pytest.fixture
async def ollama(no_leaks):
    async with OllamaServer() as server:
        yield server


@pytest.fixture
async def make(ollama):
    """Makes engines for the server, and closes them."""
    made = []

    def engine(**options) -> OllamaLLM:
        made.append(OllamaLLM(**{"host": ollama.url} | options))
        return made[-1]

    yield engine
    for each in made:
        await each.aclose()


@pytest.fixture
async def llm(make):
    engine = make()
    await engine.start()
    return engine


async def items(llm: OllamaLLM, messages=ASKED, **options) -> list[Token | ToolCall]:
    return [item async for item in llm.stream(messages, **options)]


async def said(llm: OllamaLLM, messages=ASKED, **options) -> str:
    return "".join(item.text for item in await items(llm, messages, **options))


async def refused(llm: OllamaLLM) -> str:
    """Why it cannot start, which its status says too."""
    with pytest.raises(EngineUnavailable) as caught:
        await llm.start()
    assert llm.status() == Status(False, str(caught.value))
    return str(caught.value)


# --- starting --------------------------------------------------------------------


async def test_takes_the_best_model_and_loads_it_ahead(make, ollama, eventually) -> None:
    ollama.models = [EMBEDDER, Model("llama3.2:1b", 1_300_000_000), LLAMA]
    llm = make(num_ctx=2048, keep_alive="30m", temperature=0.2)
    assert not llm.status().ready
    await llm.start()
    assert (llm.status(), llm.model) == (Status(True), "llama3.2:3b")
    await eventually(lambda: bool(ollama.loads))
    await said(llm, max_tokens=50)
    loaded, asked = ollama.loads[0], ollama.chats[0]
    assert loaded["model"] == asked["model"] == "llama3.2:3b"
    assert loaded["keep_alive"] == asked["keep_alive"] == "30m"
    # Another num_ctx would reload the model.
    assert loaded["options"] == {"num_ctx": 2048, "temperature": 0.2, "num_predict": 1}
    assert asked["options"] == {"num_ctx": 2048, "temperature": 0.2, "num_predict": 50}


@pytest.mark.parametrize(("given", "sent"), [("-1", -1), ("3600", 3600), ("24h", "24h")])
async def test_keep_alive_is_a_number_only_where_it_is_one(make, ollama, given, sent) -> None:
    llm = make(keep_alive=given)
    await llm.start()
    await said(llm)
    assert ollama.chats[0]["keep_alive"] == sent


@pytest.mark.parametrize("wanted", ["llama3.2:3b", "llama3.2", "Library/LLAMA3.2"])
async def test_takes_the_model_that_is_named(make, ollama, wanted) -> None:
    ollama.models = [QWEN, LLAMA]
    llm = make(model=wanted)
    await llm.start()
    assert llm.model == "llama3.2:3b"
    assert await said(llm) == ECHO


async def test_the_server_is_down_then_appears(make, ollama) -> None:
    await ollama.stop()
    llm = make()
    assert await refused(llm) == (
        f"Ollama does not answer at {ollama.url}; start it with: ollama serve (or set "
        "IVAS_LLM__HOST to where it runs)."
    )
    await refused(llm)
    await ollama.start()
    await llm.start()
    assert await said(llm) == ECHO


async def test_no_model_then_one(make, ollama) -> None:
    ollama.models = [EMBEDDER]
    llm = make()
    assert await refused(llm) == (
        f"Ollama runs at {ollama.url} but has no model to converse with; type: ollama pull "
        "llama3.2:3b (2 GB; IVAS begins to use it by itself)."
    )
    ollama.models.append(LLAMA)
    await llm.start()
    assert llm.status().ready


@pytest.mark.parametrize(
    ("installed", "wanted", "sentence"),
    [
        ([LLAMA], "mistral", "Ollama at {url} has no model mistral; type: ollama pull mistral"),
        (
            [LLAMA, Model("llama3.2:1b")],
            "llama3.2",
            "Ollama at {url} has llama3.2:1b and llama3.2:3b, but no llama3.2:latest; set "
            "IVAS_LLM__MODEL to one of them, or type: ollama pull llama3.2",
        ),
        (
            [EMBEDDER],
            "nomic-embed-text",
            "The model nomic-embed-text:latest of Ollama at {url} cannot converse; set "
            "IVAS_LLM__MODEL to another one, or type: ollama pull llama3.2:3b",
        ),
    ],
)
async def test_the_named_model_is_not_there(make, ollama, installed, wanted, sentence) -> None:
    ollama.models = installed
    assert await refused(make(model=wanted)) == sentence.format(url=ollama.url)


async def test_the_wrong_host(make) -> None:
    assert "neither http nor https" in await refused(make(host="ftp://box"))


async def test_a_server_that_is_too_busy_to_start(make, ollama) -> None:
    ollama.tags = Refuse(503, "server busy")
    assert "is busy (server busy)" in await refused(make())


async def test_a_server_that_hangs(make, ollama, monkeypatch) -> None:
    monkeypatch.setattr(engine_module, "PROBE_S", 0.05)
    ollama.tags = Wait(asyncio.Event())
    llm = make()
    assert "did not answer within 0.05 s" in await refused(llm)
    ollama.tags = None
    monkeypatch.setattr(engine_module, "PROBE_S", 5)
    await llm.start()
    assert llm.status().ready


async def test_loading_ahead_fails_and_the_next_reply_works(
    make, ollama, caplog, eventually
) -> None:
    ollama.loading = [Refuse(500, "llama runner process has terminated")]
    llm = make()
    with caplog.at_level(logging.WARNING):
        await llm.start()
        await eventually(lambda: bool(caplog.records))
    assert "could not be loaded ahead: Ollama cannot run the model llama3.2:3b" in caplog.text
    assert llm.status().ready
    assert await said(llm) == ECHO


async def test_closing_while_the_model_is_loaded(make, ollama, eventually) -> None:
    ollama.loading = [Wait(asyncio.Event())]
    llm = make()
    await llm.start()
    await eventually(lambda: bool(ollama.loads))
    await llm.aclose()
    assert not llm.status().ready
    await eventually(lambda: ollama.left == 1)


async def test_closing_in_the_middle_of_a_reply_ends_it(llm, ollama) -> None:
    ollama.replies.append(["Hel", Wait(asyncio.Event())])
    stream = llm.stream(ASKED)
    await anext(stream)
    reading = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    await llm.aclose()
    with pytest.raises(EngineError):
        async with asyncio.timeout(2):
            await reading
    assert not llm.status().ready


async def test_starts_again_after_being_closed(llm) -> None:
    await llm.aclose()
    await llm.start()
    assert await said(llm) == ECHO


# --- memory ----------------------------------------------------------------------


async def test_a_model_that_does_not_fit_is_left_alone_for_a_while(
    make, ollama, eventually, monkeypatch
) -> None:
    ollama.loading = [
        Refuse(500, "model requires more system memory (9.1 GiB) than is available (3.8 GiB)")
    ]
    llm = make()
    await llm.start()
    await eventually(lambda: not llm.status().ready)
    assert llm.status().reason == (
        "The model llama3.2:3b does not fit into the memory of the machine Ollama runs on (model "
        "requires more system memory (9.1 GiB) than is available (3.8 GiB)); type: ollama pull "
        "llama3.2:1b, and set IVAS_LLM__MODEL=llama3.2:1b, or lower IVAS_LLM__NUM_CTX."
    )
    asked = len(ollama.requests)
    await refused(llm)
    assert len(ollama.requests) == asked
    monkeypatch.setattr(llm, "_too_large_until_s", 0.0)  # the while is over
    ollama.loading = []
    await llm.start()
    assert llm.status().ready


# --- replies ---------------------------------------------------------------------


async def test_the_reply_comes_as_it_is_made(llm, ollama) -> None:
    more = asyncio.Event()
    ollama.replies.append(["Hel", Wait(more), "lo."])
    stream = llm.stream(ASKED)
    assert await anext(stream) == Token("Hel")
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    assert not waiting.done()
    more.set()
    assert await waiting == Token("lo.")
    await stream.aclose()
    assert ollama.chats[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
    ]


async def test_cancelling_makes_the_server_stop(llm, ollama) -> None:
    ollama.replies.append(["Hel", Wait(asyncio.Event())])
    async with aclosing(llm.stream(ASKED)) as stream:
        await anext(stream)
    async with asyncio.timeout(2):
        await ollama.chat_left.wait()
    assert ollama.open_chats == 0
    assert await said(llm) == ECHO


async def test_a_server_that_hangs_can_be_given_up(llm, ollama) -> None:
    ollama.replies.append([Wait(asyncio.Event())])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await items(llm)
    async with asyncio.timeout(2):
        await ollama.chat_left.wait()
    assert await said(llm) == ECHO


async def test_one_connection_serves_many_replies(llm, ollama, eventually) -> None:
    await eventually(lambda: bool(ollama.loads) and ollama.open_chats == 0)
    before = ollama.connections
    for _ in range(5):
        await said(llm)
    assert ollama.connections <= before + 1


async def test_prefill_reads_and_writes_next_to_nothing(llm, ollama, eventually) -> None:
    await eventually(lambda: bool(ollama.loads) and ollama.open_chats == 0)
    await llm.prefill(ASKED)
    assert ollama.chats[0]["options"]["num_predict"] == 1
    assert len(ollama.chats[0]["messages"]) == 2
    ollama.replies.append([Refuse(500, "no")])
    await llm.prefill(ASKED)  # not its business
    ollama.replies.append([Wait(asyncio.Event())])
    reading = asyncio.create_task(llm.prefill(ASKED))
    await eventually(lambda: ollama.open_chats == 1)
    reading.cancel()
    async with asyncio.timeout(2):
        await ollama.chat_left.wait()


# --- thoughts --------------------------------------------------------------------


async def test_what_it_thinks_is_not_spoken(llm, ollama) -> None:
    ollama.replies.append([Thought("hm"), "<thi", "nk>hm</think>", "\n\nYes", ", <b"])
    assert await said(llm) == "Yes, <b"


async def test_a_model_that_can_think_is_asked_not_to(make, ollama) -> None:
    ollama.models = [QWEN]
    llm = make()
    await llm.start()
    await said(llm)
    assert ollama.chats[-1]["think"] is False


async def test_a_model_that_cannot_but_think_is_asked_for_little(make, ollama) -> None:
    ollama.models = [Model("gpt-oss:20b", 5, capabilities=("completion", "thinking"))]
    llm = make(model="gpt-oss:20b")
    await llm.start()
    await said(llm)
    assert ollama.chats[-1]["think"] == "low"


async def test_a_model_that_does_not_know_the_word_is_not_sent_it(llm, ollama) -> None:
    await said(llm)
    assert "think" not in ollama.chats[-1]


async def test_a_server_that_refuses_the_word_is_asked_without(make, ollama) -> None:
    ollama.models = [QWEN]
    ollama.refuses_think = True
    llm = make()
    await llm.start()
    assert await said(llm) == ECHO
    asked = len(ollama.chats)
    assert await said(llm) == ECHO
    assert len(ollama.chats) == asked + 1  # it was remembered


# --- tools -----------------------------------------------------------------------


async def test_a_tool_call_round_trip(llm, ollama) -> None:
    ollama.replies.append(["One moment.", Call("time", {"zone": "UTC"}), Call("time")])
    token, call, other = await items(llm, tools=[TIME])
    assert token == Token("One moment.")
    assert isinstance(call, ToolCall)
    assert isinstance(other, ToolCall)
    assert (call.name, json.loads(call.arguments)) == ("time", {"zone": "UTC"})
    assert call.call_id != other.call_id
    assert ollama.chats[0]["tools"][0]["function"]["name"] == "time"
    messages = [*ASKED, Message("assistant", "One moment.", tool_calls=(call,))]
    await said(llm, [*messages, Message("tool", "noon", tool_call_id=call.call_id)])
    assert ollama.chats[1]["messages"][2:] == [
        {
            "role": "assistant",
            "content": "One moment.",
            "tool_calls": [{"function": {"name": "time", "arguments": {"zone": "UTC"}}}],
        },
        {"role": "tool", "content": "noon", "tool_name": "time"},
    ]


async def test_a_model_without_tools_answers_without(make, ollama, caplog) -> None:
    ollama.models = [Model("gemma3:4b", capabilities=("completion",))]
    llm = make()
    await llm.start()
    for _ in range(2):
        assert await said(llm, tools=[TIME]) == ECHO
    assert ollama.chats[0]["tools"] == []
    assert caplog.text.count("cannot call functions") == 1


# --- trouble at work -------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "sentence", "still_ready"),
    [
        (["Hel", Die()], "broke off in the middle of its answer", False),
        (["Hel", Stop()], "ended its answer in the middle; ask again.", True),
        (["Hel", Raw(b"\x00\xff{{{\n")], "sent an answer that cannot be read", True),
        ([Raw(b"[1, 2]\n")], "sent an answer that cannot be read", True),
        ([Raw(b'{"message": 7}\n')], "sent an answer that cannot be read", True),
        (["Hel", Fail("an error was encountered")], "failed (an error was encountered)", True),
        ([Fail("unable to load model: /b/sha256-1")], "ollama rm llama3.2:3b && ollama pull", True),
        ([Refuse(503, "server busy, please try again")], "is busy (server busy, please", True),
        ([Refuse(500, "CUDA error: out of memory")], "does not fit into the memory", False),
        ([Refuse(401, "unauthorized")], "type: ollama signin", False),
        ([Refuse(404, 'model "llama3.2:3b" not found')], "type: ollama pull llama3.2:3b", False),
        ([Refuse(502, "<html>")], "does not answer at", False),
        ([Refuse(400, "invalid keep_alive")], "failed (invalid keep_alive)", True),
    ],
)
async def test_a_failed_reply_says_why_and_the_next_one_works(
    llm, ollama, script, sentence, still_ready, eventually
) -> None:
    await eventually(lambda: bool(ollama.loads) and ollama.open_chats == 0)
    ollama.replies.append(script)
    with pytest.raises(EngineError) as caught:
        await items(llm)
    message = str(caught.value)
    assert sentence in message
    assert "\n" not in message
    assert llm.status() == Status(still_ready, "" if still_ready else message)
    assert await said(llm) == ECHO
    assert llm.status().ready


async def test_the_server_vanishes_and_comes_back(llm, ollama) -> None:
    ollama.replies.append(["Hel", Wait(asyncio.Event())])
    stream = llm.stream(ASKED)
    await anext(stream)
    await ollama.stop()
    with pytest.raises(EngineError):
        await anext(stream)
    assert not llm.status().ready
    with pytest.raises(EngineUnavailable, match="ollama serve"):
        await items(llm)
    await refused(llm)
    await ollama.start()
    await llm.start()
    assert await said(llm) == ECHO


async def test_a_model_that_was_removed_gives_way_to_another(llm, ollama) -> None:
    ollama.models = [QWEN]
    with pytest.raises(EngineUnavailable, match=r"ollama pull llama3\.2:3b"):
        await items(llm)
    assert await said(llm) == ECHO
    assert llm.model == QWEN.name


async def test_a_model_that_is_removed_while_it_answers_is_found_again(make, ollama) -> None:
    """What is loaded goes on: its last words do not make ready what has no model."""
    llm = make(model=LLAMA.name)
    await llm.start()
    more = asyncio.Event()
    ollama.replies.append(["Hel", Wait(more), "lo."])
    async with aclosing(llm.stream(ASKED)) as answering:
        assert await anext(answering) == Token("Hel")
        ollama.models = []
        with pytest.raises(EngineUnavailable, match=r"ollama pull llama3\.2:3b"):
            await items(llm)
        more.set()
        assert [item async for item in answering] == [Token("lo.")]
    assert not llm.status().ready
    with pytest.raises(EngineUnavailable, match=r"ollama pull llama3\.2:3b"):
        await items(llm)
    ollama.models = [LLAMA]
    await llm.start()
    assert llm.status() == Status(True)
    assert await said(llm) == ECHO


async def test_a_reply_before_the_start_finds_the_server_itself(make, ollama) -> None:
    llm = make()
    assert await said(llm) == ECHO
    assert llm.status().ready


async def test_lists_and_pulls_without_being_started(make, ollama) -> None:
    ollama.pulls.append([{"status": "pulling manifest"}, {"status": "success"}])
    llm = make()
    assert [model.name for model in await llm.models()] == ["llama3.2:3b"]
    steps = [step.status async for step in llm.pull("qwen3:4b")]
    assert steps == ["pulling manifest", "success"]


async def test_a_flood_of_tokens_does_not_stall_the_loop(llm, ollama, never_stalls) -> None:
    async def flood() -> None:
        line = json.dumps({"message": {"role": "assistant", "content": "a"}, "done": False})
        ollama.replies.append([Raw(f"{line}\n".encode() * 2000)])
        assert await said(llm) == "a" * 2000

    await never_stalls(flood)
