"""What every LLM engine promises."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext

import pytest
from ollama_server import OllamaServer
from openai_llm_server import ChatServer

from ivas.engines import LLM, Message, Token
from ivas.engines.fake import FakeLLM
from ivas.engines.llm.builtin import BuiltinLLM
from ivas.engines.llm.ollama import OllamaLLM
from ivas.engines.llm.openai import OpenaiLLM


@asynccontextmanager
async def ollama():
    async with OllamaServer() as server:
        yield OllamaLLM(host=server.url)


@asynccontextmanager
async def openai():
    async with ChatServer() as server:
        yield OpenaiLLM(base_url=server.base_url)


ENGINES = {
    "builtin": lambda: nullcontext(BuiltinLLM()),
    "fake": lambda: nullcontext(FakeLLM(first_ms=5, tokens_per_s=1000)),
    "ollama": ollama,
    "openai": openai,
}
ASKED = (Message("system", "Be brief."), Message("user", "what can you do"))


@pytest.fixture(params=ENGINES)
async def llm(request, no_leaks):
    async with ENGINES[request.param]() as engine:
        await engine.start()
        yield engine
        await engine.aclose()


async def said(llm: LLM, messages=ASKED, **options) -> str:
    items = [item async for item in llm.stream(messages, **options)]
    assert all(isinstance(item, Token) and item.text for item in items)
    return "".join(item.text for item in items)


@pytest.mark.parametrize("name", ENGINES)
async def test_says_whether_it_is_ready(name, no_leaks):
    async with ENGINES[name]() as engine:
        assert engine.name == name
        await engine.start()
        await engine.start()
        assert engine.status().ready
        await engine.aclose()
        await engine.aclose()


async def test_streams_a_reply(llm):
    await llm.prefill(ASKED)
    tokens = [item async for item in llm.stream(ASKED)]
    assert len(tokens) > 3
    assert await said(llm)


async def test_survives_an_empty_prompt(llm):
    await llm.prefill(())
    await said(llm, ())
    await said(llm, (Message("user", ""),))
    await said(llm, (Message("system", "Be brief."),))


async def test_most_tokens_is_kept(llm):
    tokens = [item async for item in llm.stream(ASKED, max_tokens=2)]
    assert len(tokens) <= 2


async def test_cancels_at_once_and_works_again(llm):
    stream = llm.stream(ASKED)
    await anext(stream)
    async with asyncio.timeout(0.5):
        await stream.aclose()
        await stream.aclose()
    assert await said(llm)


async def test_cancels_before_the_first_token(llm):
    stream = llm.stream(ASKED)
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await stream.aclose()
    assert await said(llm)


async def test_replies_at_once_do_not_mix(llm):
    questions = [(Message("user", f"what is {n} times six"),) for n in ("two", "three", "four")]
    alone = [await said(llm, question) for question in questions]
    assert await asyncio.gather(*(said(llm, question) for question in questions)) == alone


async def test_never_stalls_the_loop(llm, never_stalls):
    await never_stalls(lambda: said(llm))
