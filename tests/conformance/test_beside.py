"""Replies outside of the conversation, beside an audible one."""

from __future__ import annotations

from typing import Any

from conformance.driver import Caller, Event, caller, in_order, some
from conformance.servers import ollama_serving, serving
from ollama_server import Call

from ivas.engines.fake import FakeLLM

WRITTEN = (
    "response.created",
    "response.output_item.added",
    "response.content_part.added",
    some("response.output_text.delta"),
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.done",
)
"""A written reply of no conversation: only the response owns its item."""


def message(role: str, text: str) -> Event:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def mine(one: Caller, response_id: str, mark: int = 0) -> list[str]:
    """Types of the events of one response."""
    return [
        event["type"]
        for event in one.events[mark:]
        if response_id in (event.get("response_id"), event.get("response", {}).get("id"))
    ]


async def test_it_runs_beside_an_audible_one(fakes: str) -> None:
    async with caller(fakes) as one:
        await one.configure(audio={"output": {"speed": 0.25}})
        await one.say("Count slowly.")
        await one.connection.response.create()
        audible = (await one.until("response.created"))["response"]["id"]
        await one.until("response.output_audio.delta")
        mark = len(one.events)
        await one.connection.response.create(
            response={
                "conversation": "none",
                "output_modalities": ["text"],
                "instructions": "Name the topic.",
                "metadata": {"topic": "classify"},
            }
        )
        created = (await one.until("response.created"))["response"]
        done = await one.done(created["id"])
        in_order(mine(one, done["id"], mark), *WRITTEN)
        for response in (created, done):
            assert response["metadata"] == {"topic": "classify"}
            assert response["conversation_id"] is None
        assert done["status"] == "completed"
        assert done["output"][0]["content"][0]["text"] == "One two three. Four five six."
        assert "conversation.item.added" not in one.since(mark)

        # The audible one goes on as if nothing had been.
        sounds = [event["response_id"] for event in one.all("response.output_audio.delta")]
        assert set(sounds) == {audible}
        await one.until("response.output_audio.delta")
        await one.connection.response.cancel(response_id=audible)
        assert (await one.done(audible))["status"] == "cancelled"
        await one.connection.conversation.item.retrieve(item_id=done["output"][0]["id"])
        assert (await one.error())["code"] == "item_retrieve_invalid_item_id"


async def test_what_it_answers_and_what_stays_of_it() -> None:
    async with ollama_serving() as (url, ollama), caller(url) as one:
        await one.configure(instructions="Be brief.", output_modalities=["text"])
        known = await one.say("My name is Ada.")
        await one.say("I like tea.")

        async def asked(**response: Any) -> list[tuple[str, str]]:
            done = await one.reply(conversation="none", **response)
            assert done["status"] == "completed"
            return [(each["role"], each["content"]) for each in ollama.chats[-1]["messages"]]

        system = ("system", "Be brief.")
        assert await asked() == [system, ("user", "My name is Ada.\nI like tea.")]
        own = [message("user", "Say yes.")]
        assert await asked(input=own, instructions="Obey.") == [
            ("system", "Obey."),
            ("user", "Say yes."),
        ]
        referred = [{"type": "item_reference", "id": known}, message("assistant", "Hello, Ada.")]
        assert await asked(input=referred) == [
            system,
            ("user", "My name is Ada."),
            ("assistant", "Hello, Ada."),
        ]
        assert [text for role, text in await asked(input=[]) if role != "system"] == []

        # Nothing of it is in the conversation.
        await one.reply()
        last = " ".join(each["content"] for each in ollama.chats[-1]["messages"])
        assert "Say yes." not in last
        assert "You said" not in last


async def test_sound_is_made_if_asked_for(fakes: str) -> None:
    async with caller(fakes) as one:
        await one.say("Hello.")
        response = await one.reply(conversation="none", output_modalities=["audio"])
        assert response["conversation_id"] is None
        assert response["output"][0]["content"][0]["type"] == "output_audio"
        assert one.audio(response["id"])
        assert not [
            event
            for event in one.all("conversation.item.added")
            if event["item"]["role"] == "assistant"
        ]


async def test_four_at_once_and_no_more() -> None:
    slow = FakeLLM(first_ms=60_000, tokens_per_s=1)
    async with serving(llm=slow) as url, caller(url) as one:
        ids = []
        for number in range(4):
            await one.connection.response.create(
                response={"conversation": "none", "metadata": {"number": str(number)}}
            )
            created = (await one.until("response.created"))["response"]
            assert created["metadata"] == {"number": str(number)}
            ids.append(created["id"])
        await one.connection.response.create(response={"conversation": "none"}, event_id="fifth")
        error = await one.error()
        assert error["code"] == "conversation_already_has_active_response"
        assert error["event_id"] == "fifth"
        for response_id in ids:
            await one.connection.response.cancel(response_id=response_id)
            done = await one.done(response_id)
            assert done["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
        assert slow.live_streams == 0


async def test_functions_are_called_beside_too() -> None:
    tool: Any = {"type": "function", "name": "file", "parameters": {"type": "object"}}
    async with ollama_serving() as (url, ollama), caller(url) as one:
        ollama.replies.append([Call("file", {"as": "greeting"})])
        await one.say("Hello.")
        mark = len(one.events)
        response = await one.reply(conversation="none", tools=[tool])
        assert [item["name"] for item in response["output"]] == ["file"]
        in_order(
            one.since(mark),
            "response.created",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.done",
        )
