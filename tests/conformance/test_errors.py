"""What a client does wrong is answered by the right error, and the session lives on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from conformance.driver import COMMITTED, REPLY, Caller, caller, in_order, silence, tone

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
MIB = 2**20
IMAGE = {"type": "input_image", "image_url": "data:,"}
MCP = {"type": "mcp", "server_label": "files", "server_url": "https://mcp.example"}
NAMELESS = {"type": "function", "parameters": {}}


@pytest.fixture
async def ivas(fakes: str) -> AsyncIterator[Caller]:
    """A session that, whatever a test did to it, still holds a conversation."""
    async with caller(fakes) as one:
        await one.configure()  # a session's first update settles its type
        yield one
        await one.configure(output_modalities=["text"])
        mark = len(one.events)
        assert await one.say("Are you still there?")
        assert (await one.reply())["status"] == "completed"
        assert one.since(mark)[:2] == ["conversation.item.added", "conversation.item.done"]


def update(**session: Any) -> dict[str, Any]:
    return {"type": "session.update", "session": {"type": "realtime", **session}}


def heard(**audio: Any) -> dict[str, Any]:
    return update(audio={"input": audio})


def item(**item: Any) -> dict[str, Any]:
    return {"type": "conversation.item.create", "item": item}


def message(*content: dict[str, Any]) -> dict[str, Any]:
    return item(type="message", role="user", content=list(content))


def create(**response: Any) -> dict[str, Any]:
    return {"type": "response.create", "response": response}


def truncate(**more: Any) -> dict[str, Any]:
    known = {"item_id": "nobody", "content_index": 0, "audio_end_ms": 0}
    return {"type": "conversation.item.truncate", **known, **more}


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        ({}, "missing_required_parameter", "type"),
        ({"type": "session.dance"}, "invalid_value", "type"),
        ({"type": "session.update", "session": {}}, "missing_required_parameter",
         "session.type"),
        ({"type": "session.update"}, "missing_required_parameter", "session"),
        (update(output_modalities=["audio", "text"]), "invalid_value",
         "session.output_modalities"),
        (update(type="transcription"), "invalid_value", "session.type"),
        (update(tools=[MCP]), "invalid_value", "session.tools.0.type"),
        (update(tools=[NAMELESS]), "missing_required_parameter", "session.tools.0.name"),
        (update(tool_choice="sometimes"), "invalid_value", "session.tool_choice"),
        (heard(format={"type": "audio/opus"}), "invalid_value",
         "session.audio.input.format.type"),
        (heard(format={"type": "audio/pcm", "rate": 16000}), "invalid_value",
         "session.audio.input.format.rate"),
        (heard(turn_detection={"type": "magic"}), "invalid_value",
         "session.audio.input.turn_detection.type"),
        ({"type": "input_audio_buffer.append", "audio": "&&&"}, "invalid_value", "audio"),
        ({"type": "input_audio_buffer.append"}, "missing_required_parameter", "audio"),
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty", None),
        ({"type": "output_audio_buffer.clear"}, "invalid_value", "type"),
        (item(type="function_call", arguments="{}"), "missing_required_parameter", "item.name"),
        (item(type="function_call_output", output="4"), "missing_required_parameter",
         "item.call_id"),
        (item(type="mcp_call", name="f", arguments="{}"), "invalid_value", "item.type"),
        (item(type="mcp_approval_response", approve=True), "invalid_value", "item.type"),
        (message(IMAGE), "invalid_value", "item.content.0.type"),
        (message({"type": "input_text", "text": "x" * 100_000}), "invalid_value",
         "item.content.0.text"),
        (message({"type": "input_text", "text": "x"}) | {"previous_item_id": "nobody"},
         "invalid_value", "previous_item_id"),
        ({"type": "conversation.item.retrieve", "item_id": "nobody"},
         "item_retrieve_invalid_item_id", "item_id"),
        ({"type": "conversation.item.delete", "item_id": "nobody"},
         "item_delete_invalid_item_id", "item_id"),
        (truncate(), "item_truncate_invalid_item_id", "item_id"),
        (truncate(audio_end_ms=-1), "invalid_value", "audio_end_ms"),
        (create(conversation="other"), "invalid_value", "response.conversation"),
        (create(input=[{"type": "item_reference"}]), "missing_required_parameter",
         "response.input.0.id"),
        (create(input=[{"type": "mcp_call"}]), "invalid_value", "response.input.0.type"),
        (create(tools=[MCP]), "invalid_value", "response.tools.0.type"),
        (create(output_modalities=["video"]), "invalid_value",
         "response.output_modalities.0"),
        ({"type": "response.cancel"}, "response_cancel_not_active", None),
        ({"type": "response.cancel", "response_id": "nobody"}, "response_cancel_not_active",
         None),
    ],
)  # fmt: skip
async def test_every_fault_has_its_error(
    ivas: Caller, event: dict[str, Any], code: str, param: str | None
) -> None:
    await ivas.send({"event_id": "mine-1", **event})
    error = await ivas.error()
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert (error.get("param"), error["event_id"]) == (param, "mine-1")
    assert f"| `{code}` |" in DOCUMENT.read_text(encoding="utf-8")
    if code == "response_cancel_not_active":
        assert error["message"].startswith("Cancellation failed")  # LiveKit reads the text


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "invalid_json"),
        ("", "invalid_json"),
        (b"\x00\xff\xfe rubbish", "invalid_json"),
        ("[]", "invalid_value"),
        ('"response.create"', "invalid_value"),
        ("7", "invalid_value"),
        ('{"type": "session.update", "session": ' + '{"a":' * 5_000 + "}" * 5_001, "invalid_json"),
        ("x" * 20 * MIB, "invalid_value"),
        (b"x" * 20 * MIB, "invalid_value"),
    ],
    ids=lambda value: repr(value[:16]),
)
async def test_what_is_no_event_is_answered_too(
    ivas: Caller, frame: str | bytes, code: str
) -> None:
    await ivas.connection.send_raw(frame)
    error = await ivas.error()
    assert error["code"] == code
    assert "event_id" not in error


async def test_json_in_a_binary_frame_is_an_event(ivas: Caller) -> None:
    await ivas.connection.send_raw(json.dumps(update(instructions="Hi.")).encode())
    assert (await ivas.until("session.updated"))["session"]["instructions"] == "Hi."


async def test_errors_come_in_the_order_of_their_events(ivas: Caller) -> None:
    faults = [{"type": "x"}, {"type": "response.cancel"}, update(type="x"), {"type": "y"}]
    for number, fault in enumerate(faults):
        await ivas.send({"event_id": f"e{number}", **fault})
    assert [(await ivas.error())["event_id"] for _ in faults] == ["e0", "e1", "e2", "e3"]


async def test_a_refused_update_changes_nothing(ivas: Caller) -> None:
    before = await ivas.configure(instructions="Before.")
    await ivas.send(update(instructions="After.", max_output_tokens=0))
    await ivas.error()
    assert await ivas.configure() == before


@pytest.mark.parametrize("pcm", [b"", silence(90)])
async def test_a_commit_of_next_to_nothing(ivas: Caller, pcm: bytes) -> None:
    await ivas.configure(audio={"input": {"turn_detection": None}})
    await ivas.hear(pcm)
    await ivas.connection.input_audio_buffer.commit()
    assert (await ivas.error())["code"] == "input_audio_buffer_commit_empty"
    mark = len(ivas.events)
    await ivas.hear(tone(200))
    await ivas.connection.input_audio_buffer.commit()
    await ivas.settle()
    in_order(ivas.since(mark), *COMMITTED, "session.updated")


async def test_one_reply_at_a_time(ivas: Caller) -> None:
    await ivas.configure(audio={"output": {"speed": 0.25}})
    await ivas.say("Hello.")
    mark = len(ivas.events)
    await ivas.connection.response.create()
    await ivas.connection.response.create(event_id="second")
    while (event := await ivas.next())["type"] != "error":
        pass
    assert event["error"]["code"] == "conversation_already_has_active_response"
    assert event["error"]["event_id"] == "second"
    await ivas.connection.response.cancel()
    assert (await ivas.done())["status"] == "cancelled"
    types = [kind for kind in ivas.since(mark) if kind != "error"]
    assert types.count("response.created") == types.count("response.done") == 1


async def test_only_speech_of_the_assistant_is_truncated(ivas: Caller) -> None:
    user = await ivas.say("Hello.")
    await ivas.send(truncate(item_id=user))
    assert (await ivas.error())["param"] == "item_id"
    mark = len(ivas.events)
    assistant = (await ivas.reply())["output"][0]
    in_order(ivas.since(mark), *REPLY)
    await ivas.send(truncate(item_id=assistant["id"], content_index=1))
    assert (await ivas.error())["param"] == "content_index"
    await ivas.send(truncate(item_id=assistant["id"], audio_end_ms=10**9))
    await ivas.until("conversation.item.truncated")  # more than there is: all was heard
    assert (await ivas.retrieve(assistant["id"]))["content"] == assistant["content"]


async def test_an_id_is_given_once(ivas: Caller) -> None:
    assert await ivas.say("Hello.", id="mine") == "mine"
    again = message({"type": "input_text", "text": "x"})
    again["item"]["id"] = "mine"
    await ivas.send(again)
    assert (await ivas.error())["param"] == "item.id"
