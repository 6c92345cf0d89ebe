"""Function calls of the stock client, made by the real Ollama engine: there and back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from conformance.driver import (
    BEGUN,
    CALL,
    HEARD,
    REPLY,
    SPEAKING,
    SPOKEN,
    TRANSCRIPTION,
    Caller,
    Event,
    caller,
    in_order,
    silence,
    tone,
)
from conformance.servers import ollama_serving
from ollama_server import Call, OllamaServer

WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "Where."}},
        "required": ["city"],
    },
}
CLOCK: dict[str, Any] = {"type": "function", "name": "clock", "parameters": {"type": "object"}}
PARIS = Call("weather", {"city": "Paris"})


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Caller, OllamaServer]]:
    """A caller with a function to call, and the Ollama behind its server."""
    async with ollama_serving() as (url, ollama), caller(url) as one:
        await one.configure(tools=[WEATHER], tool_choice="auto")
        yield one, ollama


async def give(one: Caller, call_id: str, output: str) -> None:
    """The result of a call."""
    item: Any = {"type": "function_call_output", "call_id": call_id, "output": output}
    await one.connection.conversation.item.create(item=item)
    added = await one.until("conversation.item.added")
    assert added["item"] | item == added["item"]
    await one.until("conversation.item.done")


def offered(ollama: OllamaServer) -> list[str]:
    """The functions the model was last offered."""
    return [tool["function"]["name"] for tool in ollama.chats[-1].get("tools") or []]


def same_call(one: Caller, response: Event, index: int) -> Event:
    """The call at this index of the output: all the events that tell of it agree."""
    call: Event = response["output"][index]
    key = {"item_id": call["id"], "response_id": response["id"], "output_index": index}
    for kind in ("delta", "done"):
        (event,) = [
            event
            for event in one.all(f"response.function_call_arguments.{kind}")
            if event["item_id"] == call["id"]
        ]
        assert event | key | {"call_id": call["call_id"]} == event
        assert event.get("delta", event.get("arguments")) == call["arguments"]
    assert event["name"] == call["name"]
    for kind, status in (("added", "in_progress"), ("done", "completed")):
        for owner in ("response.output_item", "conversation.item"):
            (item,) = [
                event["item"]
                for event in one.all(f"{owner}.{kind}")
                if event["item"]["id"] == call["id"]
            ]
            arguments = call["arguments"] if kind == "done" else ""
            assert item == call | {"status": status, "arguments": arguments}
    return call


async def test_there_and_back_by_voice(pair: tuple[Caller, OllamaServer]) -> None:
    one, ollama = pair
    await one.configure(audio={"input": {"transcription": {"model": "whisper-1"}}})
    ollama.replies += [[PARIS], ["It is", " sunny."]]
    mark = len(one.events)
    await one.hear(silence(500) + tone(600) + silence(700))
    response = await one.done()
    in_order(one.since(mark), *HEARD, "response.created", *CALL, "response.done")
    assert response["status"] == "completed"
    call = same_call(one, response, 0)
    assert (call["name"], json.loads(call["arguments"])) == ("weather", {"city": "Paris"})
    user = one.all(f"{TRANSCRIPTION}completed")[0]["item_id"]
    assert one.all("conversation.item.added")[1]["previous_item_id"] == user

    mark = len(one.events)
    await give(one, call["call_id"], '{"sky": "clear"}')
    response = await one.reply()
    items = ("conversation.item.added", "conversation.item.done")
    in_order(one.since(mark), *items, *REPLY)
    assert response["output"][0]["content"][0]["transcript"] == "It is sunny."
    assert one.audio(response["id"])

    first, second = ollama.chats
    assert first["tools"][0]["function"] == {
        key: WEATHER[key] for key in ("name", "description", "parameters")
    }
    called, result = second["messages"][-2:]
    assert called["tool_calls"][0]["function"] == {
        "name": "weather",
        "arguments": {"city": "Paris"},
    }
    assert (result["role"], result["content"]) == ("tool", '{"sky": "clear"}')
    assert result["tool_name"] == "weather"


async def test_words_before_a_call_are_an_item_of_their_own(
    pair: tuple[Caller, OllamaServer],
) -> None:
    one, ollama = pair
    ollama.replies.append(["Let me", " look.", PARIS])
    await one.say("What is the weather in Paris?")
    mark = len(one.events)
    response = await one.reply()
    spoken = [kind for kind in SPOKEN if kind != "response.done"]
    in_order(one.since(mark), *BEGUN, SPEAKING, *spoken, *CALL, "response.done")
    message, call = response["output"]
    assert message["content"][0]["transcript"] == "Let me look."
    assert message["status"] == "completed"
    assert same_call(one, response, 1) == call
    # The message is the item before the call.
    added = one.all("conversation.item.added")[-1]
    assert (added["item"]["id"], added["previous_item_id"]) == (call["id"], message["id"])
    assert (await one.retrieve(call["id"])) == call


async def test_two_calls_in_one_reply(pair: tuple[Caller, OllamaServer]) -> None:
    one, ollama = pair
    ollama.replies += [[PARIS, Call("weather", {"city": "Rome"})], ["Both", " are sunny."]]
    await one.configure(output_modalities=["text"])
    await one.say("What is the weather in Paris and in Rome?")
    mark = len(one.events)
    response = await one.reply()
    in_order(one.since(mark), "response.created", *CALL, *CALL, "response.done")
    calls = [same_call(one, response, index) for index in (0, 1)]
    assert calls[0]["call_id"] != calls[1]["call_id"]
    for call in reversed(calls):  # in any order
        await give(one, call["call_id"], json.loads(call["arguments"])["city"])
    response = await one.reply()
    assert response["output"][0]["content"][0]["text"] == "Both are sunny."


@pytest.mark.parametrize("where", ["session", "response"])
@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", ["weather", "clock"]),
        ("required", ["weather", "clock"]),
        ("none", []),
        ({"type": "function", "name": "clock"}, ["clock"]),
    ],
    ids=["auto", "required", "none", "named"],
)
async def test_the_client_chooses_what_may_be_called(
    pair: tuple[Caller, OllamaServer], where: str, choice: Any, expected: list[str]
) -> None:
    one, ollama = pair
    chosen = {"tool_choice": choice}
    session = await one.configure(tools=[WEATHER, CLOCK], **(chosen if where == "session" else {}))
    if where == "session":
        assert session["tool_choice"] == choice
    await one.say("Hello.")
    response = await one.reply(**(chosen if where == "response" else {}))
    assert response["status"] == "completed"
    assert offered(ollama) == expected


async def test_a_response_may_bring_its_own_functions(pair: tuple[Caller, OllamaServer]) -> None:
    one, ollama = pair
    await one.say("Hello.")
    for tools, expected in (([CLOCK], ["clock"]), ([], []), (None, ["weather"])):
        await one.reply(output_modalities=["text"], **({} if tools is None else {"tools": tools}))
        assert offered(ollama) == expected


async def test_functions_go_when_the_session_says_so(pair: tuple[Caller, OllamaServer]) -> None:
    one, ollama = pair
    assert (await one.configure(tools=[]))["tools"] == []
    await one.say("Hello.")
    await one.reply()
    assert offered(ollama) == []


async def test_a_call_that_is_cancelled_is_made_no_more(pair: tuple[Caller, OllamaServer]) -> None:
    """The words before it are being spoken; the call would come behind them."""
    one, ollama = pair
    await one.configure(audio={"output": {"speed": 0.25}})
    ollama.replies.append(["This is a rather long introduction to it.", PARIS])
    await one.say("What is the weather in Paris?")
    await one.connection.response.create()
    await one.until("response.output_audio.delta")
    await one.connection.response.cancel()
    response = await one.done()
    assert response["status"] == "cancelled"
    assert [item["type"] for item in response["output"]] == ["message"]
    await one.settle()
    assert not one.all("response.function_call_arguments.done")


async def test_a_model_that_dies_leaves_a_session_that_lives(
    pair: tuple[Caller, OllamaServer],
) -> None:
    one, ollama = pair
    await one.configure(output_modalities=["text"])
    await one.say("Hello.")
    await ollama.stop()
    response = await one.reply()
    assert response["status"] == "failed"
    assert "ollama serve" in response["status_details"]["error"]["message"]
    await ollama.start()
    assert (await one.reply())["status"] == "completed"
