"""The session object: whatever a stock client may put into it is taken, and echoed."""

from __future__ import annotations

from typing import Any

import pytest
from conformance.driver import HEARD, REPLY, Caller, caller, in_order, silence, tone

EVERYTHING: dict[str, Any] = {
    "model": "gpt-realtime",
    "instructions": "Be brief.",
    "output_modalities": ["audio"],
    "max_output_tokens": "inf",
    "parallel_tool_calls": True,
    "prompt": {"id": "pmpt_1"},
    "reasoning": {"effort": "low"},
    "include": ["item.input_audio_transcription.logprobs"],
    "tool_choice": {"type": "function", "name": "clock"},
    "tools": [
        {
            "type": "function",
            "name": "clock",
            "description": "What time it is.",
            "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
        }
    ],
    "tracing": {"workflow_name": "Test", "group_id": "g", "metadata": {"a": "b"}},
    "truncation": {
        "type": "retention_ratio",
        "retention_ratio": 0.8,
        "token_limits": {"post_instructions": 8000},
    },
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "noise_reduction": {"type": "far_field"},
            "transcription": {"model": "gpt-4o-transcribe", "language": "en", "prompt": "Names."},
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.6,
                "prefix_padding_ms": 200,
                "silence_duration_ms": 400,
                "idle_timeout_ms": 30_000,
                "create_response": True,
                "interrupt_response": True,
            },
        },
        "output": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "voice": "marin",
            "speed": 1.1,
        },
    },
}
"""Every member OpenAI's own types have."""


async def test_everything_is_taken(ivas: Caller) -> None:
    echo = await ivas.configure(**EVERYTHING)
    heard = EVERYTHING["audio"]["input"]
    for member in ("format", "noise_reduction", "turn_detection"):
        assert echo["audio"]["input"][member] == heard[member]
    for member, value in heard["transcription"].items():
        assert echo["audio"]["input"]["transcription"][member] == value
    for member in ("instructions", "output_modalities", "max_output_tokens", "tool_choice",
                   "tools", "truncation"):  # fmt: skip
        assert echo[member] == EVERYTHING[member]
    assert echo["tracing"]["workflow_name"] == "Test"
    mark = len(ivas.events)
    await ivas.hear(silence(300) + tone(600) + silence(700))
    assert (await ivas.done())["status"] == "completed"
    in_order(ivas.since(mark), *HEARD, *REPLY)


@pytest.mark.parametrize("intent", ["conversation", "transcription"])
async def test_what_the_server_says_it_takes_back(fakes: str, intent: str) -> None:
    """Some clients keep the session they were told and send it whole with every change."""
    async with caller(fakes, extra_query={"intent": intent}) as one:
        told = one.events[0]["session"]
        assert await one.configure(**told) == told
        changed = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}
        told = await one.configure(type=told["type"], **changed)
        assert await one.configure(**told) == told


async def test_a_response_takes_everything_too(ivas: Caller) -> None:
    await ivas.configure(**EVERYTHING)
    await ivas.say("Hello.")
    response = await ivas.reply(
        conversation="auto",
        instructions="Whisper.",
        output_modalities=["audio"],
        max_output_tokens="inf",
        metadata={"a": "b"},
        tools=EVERYTHING["tools"],
        tool_choice="auto",
        parallel_tool_calls=False,
        prompt={"id": "pmpt_1"},
        reasoning={"effort": "low"},
        audio={"output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "fake-high"}},
    )
    assert response["status"] == "completed"
    assert response["metadata"] == {"a": "b"}
    assert response["audio"]["output"]["voice"] == "fake-high"
    assert response["output_modalities"] == ["audio"]


async def test_only_one_reply_sounds_at_a_time(ivas: Caller) -> None:
    await ivas.configure(audio={"output": {"speed": 0.25}})
    await ivas.say("Hello.")
    await ivas.connection.response.create()
    await ivas.until("response.output_audio.delta")
    second: Any = {"conversation": "none", "output_modalities": ["audio"]}
    await ivas.connection.response.create(response=second, event_id="second")
    while (event := await ivas.next())["type"] != "error":
        pass
    assert event["error"]["code"] == "conversation_already_has_active_response"
    assert event["error"]["event_id"] == "second"
    await ivas.connection.response.cancel()
    assert (await ivas.done())["status"] == "cancelled"
