"""The engine for OpenAI-compatible servers, on real sockets, with every fault they have."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pytest
from openai_api import OpenaiApi
from openai_llm_server import ChatServer
from scripted_http import Call, Die, Fail, Raw, Refuse, Stop, Wait

from ivas.engines import Message, Status, Token, Tool, ToolCall
from ivas.engines.llm.openai import OpenaiLLM
from ivas.errors import EngineError, EngineUnavailable

ASKED = (Message("system", "Be brief."), Message("user", "hello"))
ECHO = "You said: hello."
TIME = Tool("time", "What time it is.", {"type": "object", "properties": {}})
KEY = "sk-very-secret"


@pytest.fixture
async def server(no_leaks):
    async with ChatServer() as server:
        yield server


@pytest.fixture
async def make(server):
    """Makes engines for the server, and closes them."""
    made = []

    def engine(**options) -> OpenaiLLM:
        made.append(OpenaiLLM(**{"base_url": server.base_url} | options))
        return made[-1]

    yield engine
    for each in made:
        await each.aclose()
        await each.aclose()


@pytest.fixture
async def llm(make):
    engine = make()
    await engine.start()
    return engine


async def items(llm: OpenaiLLM, messages=ASKED, **options) -> list[Token | ToolCall]:
    return [item async for item in llm.stream(messages, **options)]


async def said(llm: OpenaiLLM, messages=ASKED, **options) -> str:
    return "".join(item.text for item in await items(llm, messages, **options))


async def refused(llm: OpenaiLLM) -> str:
    """Why it cannot start, which its status says too."""
    with pytest.raises(EngineUnavailable) as caught:
        await llm.start()
    message = str(caught.value)
    assert llm.status() == Status(False, message)
    assert KEY not in message
    assert "\n" not in message
    return message


# --- starting --------------------------------------------------------------------


async def test_takes_the_first_model_that_converses(make, server) -> None:
    server.models = ["text-embedding-3", "whisper-1", "llama", "qwen"]
    llm = make(base_url=f"{server.base_url}/")
    await llm.start()
    await llm.start()
    assert (llm.model, llm.status()) == ("llama", Status(True))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("listed", "wanted"),
    [(["a", "b"], "b"), (["b:latest"], "b"), ([], "b"), (None, "b")],
)
async def test_takes_the_model_that_is_named(make, server, listed, wanted) -> None:
    server.models = listed
    llm = make(model=wanted)
    await llm.start()
    assert await said(llm) == ECHO
    assert server.chats[0]["model"] == wanted


async def test_shows_its_key_and_says_so_when_it_is_refused(make, server) -> None:
    server.key = KEY
    assert await refused(make()) == (
        f"The chat server at {server.base_url} wants a key; set IVAS_LLM__API_KEY to one it knows."
    )
    assert "does not take this key" in await refused(make(api_key="sk-wrong"))
    llm = make(api_key=KEY)
    await llm.start()
    assert await said(llm) == ECHO
    server.answers.append([Refuse(500, f"{KEY} is odd")])
    with pytest.raises(EngineError, match=r"\*\*\* is odd"):
        await items(llm)


@pytest.mark.parametrize(
    ("listing", "sentence"),
    [
        (Refuse(200, "<html>"), "is no OpenAI-compatible chat server; set IVAS_LLM__URL"),
        (Refuse(404, "Not Found"), "is no OpenAI-compatible chat server"),
        (Raw(b"SSH-2.0"), "is no OpenAI-compatible chat server"),
        (Raw(b"[" * 2**20), "is no OpenAI-compatible chat server"),
        (Refuse(429, "slow down"), "is busy (slow down); ask again in a moment."),
        (Refuse(402, "pay"), "set IVAS_LLM__ENGINE=ollama for a model at home."),
        (Die(), "broke off in the middle of its answer"),
    ],
)
async def test_a_start_that_fails(make, server, listing, sentence) -> None:
    server.listing = listing
    llm = make()
    assert sentence in await refused(llm)
    server.listing = None
    await llm.start()
    assert llm.status().ready


async def test_no_model_is_loaded(make, server) -> None:
    server.models = ["text-embedding-3"]
    assert "lists no model to converse with; load one there" in await refused(make())


async def test_the_named_model_is_not_there(make, server) -> None:
    server.models = [f"m{number}" for number in range(8)]
    assert await refused(make(model="gpt")) == (
        f"The chat server at {server.base_url} has no model gpt; set IVAS_LLM__MODEL to one it "
        "has (m0, m1, m2, m3, m4, m5 and more), or unset it."
    )


async def test_no_address(make) -> None:
    assert "set IVAS_LLM__URL to one like http://127.0.0.1:8080/v1" in await refused(
        make(base_url="box")
    )


# --- replies ---------------------------------------------------------------------


async def test_the_reply_comes_as_it_is_made(llm, server) -> None:
    more = asyncio.Event()
    server.answers.append(["Hel", Wait(more), "lo."])
    stream = llm.stream(ASKED, max_tokens=7)
    assert await anext(stream) == Token("Hel")
    more.set()
    assert [item async for item in stream] == [Token("lo.")]
    body = server.chats[0]
    assert body["messages"][1] == {"role": "user", "content": "hello"}
    assert (body["stream"], body["max_tokens"], body["temperature"]) == (True, 7, 0.7)
    assert "tools" not in body


async def test_cancelling_makes_the_server_stop(llm, server) -> None:
    server.answers.append(["Hel", Wait(asyncio.Event())])
    async with aclosing(llm.stream(ASKED)) as stream:
        await anext(stream)
    async with asyncio.timeout(2):
        await server.left.wait()
    assert await said(llm) == ECHO


async def test_a_server_that_hangs_can_be_given_up(llm, server) -> None:
    server.answers.append([Wait(asyncio.Event())])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await items(llm)
    async with asyncio.timeout(2):
        await server.left.wait()
    assert await said(llm) == ECHO


async def test_thoughts_are_not_spoken(llm, server) -> None:
    server.answers.append(
        [{"reasoning_content": "hm"}, "<think>", "hm", "</think>", "\nYes", ", <b"]
    )
    assert await said(llm) == "Yes, <b"


async def test_prefill_reads_and_writes_next_to_nothing(llm, server) -> None:
    await llm.prefill(())
    assert not server.chats
    await llm.prefill(ASKED)
    assert server.chats[0]["max_tokens"] == 1
    server.answers.append([Refuse(500, "no")])
    await llm.prefill(ASKED)  # not its business


async def test_a_tool_call(llm, server) -> None:
    server.answers.append(["One moment.", Call("time", {"zone": "UTC"}), Call("day")])
    assert await items(llm, tools=[TIME], tool_choice="required") == [
        Token("One moment."),
        ToolCall("call_0", "time", '{"zone": "UTC"}'),
        ToolCall("call_1", "day", "{}"),
    ]
    assert server.chats[0]["tools"][0]["function"]["name"] == "time"
    assert server.chats[0]["tool_choice"] == "required"


async def test_what_a_model_does_not_take_is_left_out_from_then_on(llm, server) -> None:
    server.refuses = {"max_tokens", "temperature", "tool_choice"}
    assert await said(llm, max_tokens=9, tools=[TIME]) == ECHO
    assert len(server.chats) == 4
    last = server.chats[-1]
    assert last["max_completion_tokens"] == 9
    assert not server.refuses & set(last)
    assert await said(llm, max_tokens=9) == ECHO
    assert len(server.chats) == 5


async def test_what_no_model_can_do_without_is_not_left_out(llm, server) -> None:
    server.refuses = {"messages"}
    with pytest.raises(EngineError, match="Unsupported parameter: 'messages'"):
        await items(llm)
    assert len(server.chats) == 1


async def test_a_server_that_does_not_stream(make, no_leaks) -> None:
    whole = {"choices": [{"message": {"content": "Hello."}, "finish_reason": "stop"}]}
    chat = ("/v1/chat/completions", lambda exchange: exchange.send_json(whole))
    async with OpenaiApi(chat) as server:
        llm = make(base_url=server.base_url)
        assert await items(llm) == [Token("Hello.")]
        await llm.aclose()


DELTA = b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n'


@pytest.mark.parametrize(
    ("script", "sentence", "still_ready"),
    [
        (["Hel", Die()], "broke off in the middle of its answer", False),
        (["Hel", Stop()], "ended its answer in the middle; ask again.", True),
        (["Hel", Raw(b"data: [DONE]\n\n"), Stop()], "ended its answer in the middle", True),
        (["Hel", Raw(b"data: {{{\n\n")], "sent an answer that cannot be read", True),
        (["Hel", Raw(b"data: \xff\n\n")], "sent an answer that cannot be read", True),
        ([Raw(b"data: [1]\n\n")], "sent an answer that cannot be read", True),
        ([Raw(b"data: " + b"[" * 2**16 + b"\n\n")], "sent an answer that cannot be read", True),
        ([Raw(b'data: {"no": "choices"}\n\n')], "sent an answer that cannot be read", True),
        (["Hel", Fail("engine died")], "failed (engine died)", True),
        ([Raw(b'data: {"error": "overloaded"}\n\n')], "failed (overloaded)", True),
        ([Fail("CUDA out of memory")], "ran out of memory (CUDA out of memory)", True),
        ([Refuse(400, "maximum context length is 4096 tokens")], "maximum context length", True),
        ([Refuse(429, "rate limit")], "is busy (rate limit)", True),
        ([Refuse(429, "insufficient_quota")], "wants to be paid", False),
        ([Refuse(401, "bad key")], "wants a key", False),
        ([Refuse(404, "The model `tiny` does not exist")], "has no model tiny", False),
        ([Refuse(404, "Not Found")], "is no OpenAI-compatible chat server", False),
        ([Refuse(200, "<html>")], "is no OpenAI-compatible chat server", False),
        ([Refuse(500, "<html>")], "is no OpenAI-compatible chat server", False),
        ([Refuse(503, "Loading model")], "is still loading", False),
        ([Refuse(500, "")], "failed", True),
    ],
)
async def test_a_failed_reply_says_why_and_the_next_one_works(
    llm, server, script, sentence, still_ready
) -> None:
    server.answers.append(script)
    with pytest.raises(EngineError) as caught:
        await items(llm)
    message = str(caught.value)
    assert sentence in message
    assert "\n" not in message
    assert llm.status() == Status(still_ready, "" if still_ready else message)
    assert await said(llm) == ECHO
    assert llm.status().ready


async def test_the_server_vanishes_and_comes_back(llm, server) -> None:
    server.answers.append(["Hel", Wait(asyncio.Event())])
    stream = llm.stream(ASKED)
    await anext(stream)
    await server.stop()
    with pytest.raises(EngineError):
        await anext(stream)
    assert not llm.status().ready
    with pytest.raises(EngineUnavailable, match="No chat server answers"):
        await items(llm)
    await server.start()
    await llm.start()
    assert await said(llm) == ECHO


async def test_closing_in_the_middle_of_a_reply_ends_it(llm, server) -> None:
    server.answers.append(["Hel", Wait(asyncio.Event())])
    stream = llm.stream(ASKED)
    await anext(stream)
    reading = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    await llm.aclose()
    with pytest.raises(EngineError):
        async with asyncio.timeout(2):
            await reading
    assert not llm.status().ready


async def test_a_model_that_went_is_not_asked_for_again(make, server) -> None:
    llm = make()
    await llm.start()
    server.models = ["big"]
    server.answers.extend([[Refuse(404, "The model `tiny` does not exist")]] * 2)
    for failed in await asyncio.gather(items(llm), items(llm), return_exceptions=True):
        assert "has no model tiny" in str(failed)
    assert llm.model is None
    assert await said(llm) == ECHO
    assert server.chats[-1]["model"] == "big"


async def test_a_model_that_goes_while_it_answers_is_found_again(llm, server) -> None:
    """What is loaded goes on: its last words do not make ready what has no model."""
    more = asyncio.Event()
    gone = [Refuse(404, "The model `tiny` does not exist")]
    server.answers.extend([["Hel", Wait(more), "lo."], gone])
    async with aclosing(llm.stream(ASKED)) as answering:
        assert await anext(answering) == Token("Hel")
        with pytest.raises(EngineUnavailable, match="has no model tiny"):
            await items(llm)
        more.set()
        assert [item async for item in answering] == [Token("lo.")]
    assert not llm.status().ready
    assert await said(llm) == ECHO
    assert llm.status() == Status(True)
    assert server.chats[-1]["model"] == "tiny"


async def test_once_closed_it_is_not_asked(llm, server) -> None:
    await llm.aclose()
    with pytest.raises(EngineUnavailable, match="has been closed"):
        await items(llm)
    assert not server.chats


async def test_an_end_without_a_line_break_is_read(llm, server) -> None:
    last = {"choices": [{"delta": {"content": "lo."}, "finish_reason": "stop"}]}
    server.answers.append([Raw(DELTA), Raw(b"data: " + json.dumps(last).encode()), Stop()])
    assert await said(llm) == "Hello."


async def test_a_reply_before_the_start_finds_the_server_itself(make) -> None:
    llm = make()
    assert await said(llm) == ECHO
    assert llm.status().ready


async def test_a_flood_of_tokens_does_not_stall_the_loop(llm, server, never_stalls) -> None:
    async def flood() -> None:
        server.answers.append([Raw(DELTA * 2000)])
        assert await said(llm) == "Hel" * 2000

    await never_stalls(flood)
