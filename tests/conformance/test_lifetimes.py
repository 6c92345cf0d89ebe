"""What a session is begun with, and what ends it: secrets, silence, its longest length."""

from __future__ import annotations

import time
from typing import Any

import pytest
from conformance.driver import (
    HEARD,
    REPLY,
    TRANSCRIPTION,
    caller,
    in_order,
    silence,
    tone,
)
from conformance.servers import ollama_serving, serving
from openai import AsyncOpenAI, AuthenticationError, BadRequestError, PermissionDeniedError
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from ivas.engines.fake import FakeLLM

LIMIT = 0.005
"""Minutes: 300 ms."""

# --- client secrets ----------------------------------------------------------------


async def secret(url: str, key: str, **wanted: Any) -> Any:
    async with AsyncOpenAI(api_key=key, base_url=f"{url}/v1") as client:
        return await client.realtime.client_secrets.create(**wanted)


async def test_a_secret_opens_a_session_as_its_maker_bound_it(locked: str) -> None:
    before = time.time()
    made = await secret(
        locked,
        "sk-right",
        expires_after={"anchor": "created_at", "seconds": 60},
        session={
            "type": "realtime",
            "model": "gpt-realtime",
            "instructions": "Speak like a pirate.",
            "output_modalities": ["text"],
            "tools": [{"type": "function", "name": "sail", "parameters": {"type": "object"}}],
        },
    )
    assert made.value.startswith("ek_")
    assert before + 59 <= made.expires_at <= time.time() + 61
    assert (made.session.type, made.session.instructions) == ("realtime", "Speak like a pirate.")

    for _ in range(2):  # it may begin several
        async with caller(locked, key=made.value, model="gpt-realtime") as one:
            session = one.events[0]["session"]
            assert session["instructions"] == "Speak like a pirate."
            assert session["output_modalities"] == ["text"]
            assert [tool["name"] for tool in session["tools"]] == ["sail"]
            assert session["model"] == "gpt-realtime"
            await one.say("Hello.")
            assert (await one.reply())["output"][0]["content"][0]["type"] == "output_text"
            changed = await one.configure(instructions="Speak like a parrot.")
            assert changed["instructions"] == "Speak like a parrot."


async def test_a_secret_for_writing_down(locked: str) -> None:
    made = await secret(locked, "sk-right", session={"type": "transcription"})
    async with caller(locked, key=made.value) as one:
        assert one.events[0]["session"]["type"] == "transcription"
        await one.hear(silence(300) + tone(600) + silence(700))
        await one.until(f"{TRANSCRIPTION}completed")


async def test_a_secret_for_talking_writes_nothing_down(locked: str) -> None:
    made = await secret(locked, "sk-right")
    url = f"{locked.replace('http', 'ws', 1)}/v1/realtime?intent=transcription"
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, additional_headers={"Authorization": f"Bearer {made.value}"})
    assert refused.value.response.status_code == 400
    assert b"another kind" in refused.value.response.body


async def test_a_secret_makes_no_secrets_and_opens_no_rest(locked: str) -> None:
    made = await secret(locked, "sk-right")
    with pytest.raises(PermissionDeniedError):
        await secret(locked, made.value)
    with pytest.raises(AuthenticationError):
        await secret(locked, "sk-wrong")
    async with AsyncOpenAI(api_key=made.value, base_url=f"{locked}/v1") as client:
        with pytest.raises(PermissionDeniedError):
            await client.models.list()


async def test_what_is_bound_is_looked_at_when_it_is_bound(locked: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        await secret(locked, "sk-right", session={"type": "realtime", "max_output_tokens": 0})
    assert refused.value.param == "session.max_output_tokens"


# --- silence -----------------------------------------------------------------------


async def test_who_says_nothing_is_asked_again() -> None:
    async with ollama_serving() as (url, ollama), caller(url) as one:
        ollama.replies += [["Hi."], ["Still there?"]]
        detection = {"type": "server_vad", "idle_timeout_ms": 1000}
        session = await one.configure(audio={"input": {"turn_detection": detection}})
        assert session["audio"]["input"]["turn_detection"]["idle_timeout_ms"] == 1000
        await one.hear(silence(300) + tone(600) + silence(700))
        first = await one.done()
        spoken_s = len(one.audio(first["id"])) / 48_000
        await one.hear(silence(500))
        asked = time.monotonic()
        mark = len(one.events)
        second = await one.done()
        assert time.monotonic() - asked >= 0.9 + spoken_s
        in_order(
            one.since(mark),
            "input_audio_buffer.timeout_triggered",
            *HEARD[2:],
            *REPLY,
        )
        triggered = one.all("input_audio_buffer.timeout_triggered")[0]
        assert triggered["audio_start_ms"] <= triggered["audio_end_ms"] <= 300 + 600 + 700 + 500
        committed = one.all("input_audio_buffer.committed")[-1]
        assert committed["item_id"] == triggered["item_id"]
        assert second["output"][0]["content"][0]["transcript"] == "Still there?"
        user = await one.retrieve(triggered["item_id"])
        assert (user["role"], user["content"][0]["type"]) == ("user", "input_audio")
        assert ollama.chats[-1]["messages"][-1]["role"] == "user"


# --- the end -----------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["session_minutes", "idle_minutes"])
async def test_a_session_that_expires_is_told(limit: str) -> None:
    async with serving(**{limit: LIMIT}) as url, caller(url) as one:
        expires_at = one.events[0]["session"]["expires_at"]
        assert expires_at >= int(time.time())
        error = await one.error()
        assert error["code"] == "session_expired"
        assert "connect again" in error["message"]
        with pytest.raises(ConnectionClosed) as closed:
            await one.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        async with caller(url) as again:
            await again.settle()


async def test_it_expires_in_the_middle_of_a_reply() -> None:
    llm = FakeLLM(first_ms=0, tokens_per_s=20)
    async with serving(llm=llm, session_minutes=LIMIT) as url, caller(url) as one:
        await one.say("Hello.")
        await one.connection.response.create()
        while (event := await one.next())["type"] != "error":
            pass
        assert event["error"]["code"] == "session_expired"
        with pytest.raises(ConnectionClosed):
            await one.next()
    assert llm.live_streams == 0


async def test_talk_is_a_sign_of_life() -> None:
    """Twice the limit, and somebody speaks all the time."""
    async with serving(idle_minutes=LIMIT) as url, caller(url) as one:
        begun = time.monotonic()
        while time.monotonic() < begun + 2 * LIMIT * 60:
            await one.settle()
        mark = len(one.events)
        await one.hear(tone(600) + silence(700))
        await one.done()
        in_order(one.since(mark), *HEARD, *REPLY)
