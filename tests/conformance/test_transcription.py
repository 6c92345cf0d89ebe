"""Sessions that only write down what is said, in the hands of the stock client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from conformance.driver import (
    COMMITTED,
    HEARD,
    TRANSCRIPTION,
    Caller,
    caller,
    clip,
    in_order,
    silence,
    tone,
)

WORDS = "what time is it"


@asynccontextmanager
async def writer(url: str, how: str) -> AsyncIterator[Caller]:
    """A transcription session: asked for when connecting, or by the first update."""
    if how == "intent":
        async with caller(url, extra_query={"intent": "transcription"}) as one:
            yield one
    else:
        async with caller(url) as one:
            echo = await one.configure(type="transcription")
            one.events[0]["session"] = echo  # from here on, the driver knows its type
            yield one


@pytest.fixture(params=["intent", "update"])
async def ivas(fakes: str, request: pytest.FixtureRequest) -> AsyncIterator[Caller]:
    async with writer(fakes, request.param) as one:
        yield one


async def test_its_session_object(ivas: Caller) -> None:
    session = await ivas.configure(
        type="transcription",
        audio={"input": {"transcription": {"model": "gpt-4o-transcribe", "language": "en"}}},
    )
    assert (session["type"], session["object"]) == (
        "transcription",
        "realtime.transcription_session",
    )
    assert set(session["audio"]) == {"input"}
    assert session["audio"]["input"]["transcription"]["language"] == "en"
    assert not {"instructions", "tools", "output_modalities"} & set(session)


async def test_what_is_said_is_written_down(ivas: Caller) -> None:
    """Words as they become sure, then all of them; twice; and nobody answers."""
    for _ in range(2):
        mark = len(ivas.events)
        await ivas.hear(silence(300) + tone(400))
        await ivas.until("input_audio_buffer.speech_started")
        for _ in range(4):
            await ivas.hear(tone(400))
            await ivas.settle()
        await ivas.hear(silence(700))
        completed = await ivas.until(f"{TRANSCRIPTION}completed")
        assert completed["transcript"] == WORDS
        deltas = [event["delta"] for event in ivas.events[mark:] if "delta" in event]
        assert deltas
        assert WORDS.startswith("".join(deltas))
        await ivas.settle()
        types = [kind for kind in ivas.since(mark) if kind != "session.updated"]
        in_order(types, *HEARD)
    first, second = ivas.all("input_audio_buffer.committed")
    assert (first["previous_item_id"], second["previous_item_id"]) == (None, first["item_id"])


async def test_push_to_talk(ivas: Caller) -> None:
    await ivas.configure(type="transcription", audio={"input": {"turn_detection": None}})
    mark = len(ivas.events)
    await ivas.hear(tone(600))
    await ivas.connection.input_audio_buffer.commit()
    completed = await ivas.until(f"{TRANSCRIPTION}completed")
    assert completed["usage"]["seconds"] == pytest.approx(0.6, abs=0.05)
    in_order(ivas.since(mark), *COMMITTED)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.create"},
        {"type": "response.cancel"},
        {"type": "conversation.item.create", "item": {"type": "message", "role": "user",
         "content": [{"type": "input_text", "text": "Hello."}]}},
    ],
    ids=lambda event: str(event["type"]),
)  # fmt: skip
async def test_it_answers_nothing(ivas: Caller, event: dict[str, Any]) -> None:
    await ivas.send({"event_id": "mine", **event})
    error = await ivas.error()
    assert (error["code"], error["param"], error["event_id"]) == ("invalid_value", "type", "mine")
    await ivas.settle()


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"type": "realtime"}, "session.type"),
        ({"type": "transcription",
          "audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}},
         "session.audio.input.turn_detection.type"),
    ],
    ids=["type", "semantic_vad"],
)  # fmt: skip
async def test_what_it_cannot_become(ivas: Caller, session: dict[str, Any], param: str) -> None:
    await ivas.send({"type": "session.update", "session": session})
    error = await ivas.error()
    assert (error["code"], error["param"]) == ("invalid_value", param)


async def test_a_conversation_stays_one(fakes: str) -> None:
    async with caller(fakes) as one:
        await one.configure()
        await one.send({"type": "session.update", "session": {"type": "transcription"}})
        assert (await one.error())["param"] == "session.type"


@pytest.mark.parametrize("how", ["intent", "update"])
async def test_with_real_engines(embedded: str, how: str) -> None:
    async with writer(embedded, how) as one:
        await one.hear(silence(300) + clip("can_you_hear_me_slt") + silence(900))
        completed = await one.until(f"{TRANSCRIPTION}completed")
        assert completed["transcript"] == "can you hear me"
