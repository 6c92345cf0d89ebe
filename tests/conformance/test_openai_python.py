"""The stock openai-python client talks to a real server: every sequence it may see.

The orders are those the six stock clients rely on; `driver.py` looks over every
event. Audio is sent faster than real time: turns end on audio, not on the clock.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from conformance.driver import (
    BEGUN,
    COMMITTED,
    HEARD,
    RATE_HZ,
    REPLY,
    SPEAKING,
    SPOKEN,
    TRANSCRIPTION,
    WRITTEN_REPLY,
    Caller,
    caller,
    clip,
    in_order,
    silence,
    some,
    tone,
)

WORDS = "One two three. Four five six."
HEARD_WORDS = "what time is it"
TRANSCRIBED = {"input": {"transcription": {"model": "whisper-1"}}}
PUSH_TO_TALK = {"input": {"turn_detection": None}}
SLOWLY: dict[str, Any] = {"output": {"speed": 0.25}}
"""So that a reply is still being spoken, 5 s long, when something happens to it."""
FRAME_MS = 32


async def a_turn(one: Caller) -> None:
    """Half a second of silence, 600 ms of speech, silence."""
    await one.hear(silence(500) + tone(600) + silence(700))


async def a_reply_under_way(one: Caller) -> str:
    """A slow reply, two seconds of it sent; returns its item id."""
    await one.configure(audio=SLOWLY)
    await one.say("Count slowly.")
    await one.connection.response.create()
    begun = await one.until("response.output_item.added")
    while len(one.audio(begun["response_id"])) < 2 * RATE_HZ * 2:
        await one.until("response.output_audio.delta")
    item_id: str = begun["item"]["id"]
    return item_id


# --- the session -------------------------------------------------------------------


async def test_connect_and_update(fakes: str) -> None:
    async with caller(fakes, model="gpt-realtime") as one:
        created = one.events[0]["session"]
        assert created["type"] == "realtime"
        assert created["model"] == "gpt-realtime"  # any name is served, and echoed
        detection = created["audio"]["input"]["turn_detection"]
        assert (detection["type"], detection["interrupt_response"]) == ("server_vad", True)
        session = await one.configure(
            instructions="Be brief.",
            output_modalities=["text"],
            max_output_tokens=100,
            tracing="auto",
            audio={
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "transcription": {"model": "gpt-4o-mini-transcribe", "language": "en"},
                    "noise_reduction": {"type": "near_field"},
                    "turn_detection": {"type": "semantic_vad", "eagerness": "low"},
                },
                "output": {"voice": {"id": "fake-high"}, "speed": 1.5},
            },
        )
        changed = {"instructions", "output_modalities", "max_output_tokens", "tracing", "audio"}
        assert {key for key in session if session[key] != created.get(key)} == changed
        assert session["instructions"] == "Be brief."
        assert session["audio"]["output"]["voice"] == "fake-high"
        assert session["audio"]["input"]["turn_detection"] == {
            "type": "semantic_vad",
            "eagerness": "low",
            "create_response": True,
            "interrupt_response": True,
        }
        assert await one.configure() == session


async def test_the_bare_path_serves_too(fakes: str) -> None:
    """LiveKit's client appends `/realtime` to a bare host."""
    async with caller(fakes, path="") as one:
        assert one.events[0]["session"]["model"] == "ivas"


# --- voice turns -------------------------------------------------------------------


@pytest.mark.parametrize("transcribed", [False, True])
async def test_a_voice_turn(ivas: Caller, transcribed: bool) -> None:
    if transcribed:
        await ivas.configure(audio=TRANSCRIBED)
    mark = len(ivas.events)
    await a_turn(ivas)
    response = await ivas.done()
    in_order(ivas.since(mark), *HEARD, *REPLY)

    started, stopped, committed, added, done = (ivas.all(kind)[0] for kind in HEARD)
    user = started["item_id"]
    assert user == stopped["item_id"] == committed["item_id"] == added["item"]["id"]
    assert abs(started["audio_start_ms"] - (500 - 300)) <= FRAME_MS
    assert abs(stopped["audio_end_ms"] - 1100) <= FRAME_MS
    assert added["item"] == done["item"]
    assert added["item"]["role"] == "user"
    assert added["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    assert committed["previous_item_id"] is None

    item = response["output"][0]
    assert ivas.all("conversation.item.added")[1]["previous_item_id"] == user
    assert (response["status"], item["status"]) == ("completed", "completed")
    assert item["content"] == [{"type": "output_audio", "transcript": WORDS}]
    deltas = ivas.all("response.output_audio_transcript.delta")
    assert "".join(event["delta"] for event in deltas) == WORDS
    assert len(ivas.audio(response["id"])) / 48 == pytest.approx(len(WORDS) * 60, abs=120)

    transcripts = ivas.all(f"{TRANSCRIPTION}completed")
    assert [event["transcript"] for event in transcripts] == [HEARD_WORDS] * transcribed
    for event in transcripts:
        assert event["item_id"] == user
        assert event["usage"]["type"] == "duration"
        assert event["usage"]["seconds"] == pytest.approx(1.6, abs=0.2)
    heard = (await ivas.retrieve(user))["content"]
    assert heard == [{"type": "input_audio", "transcript": HEARD_WORDS}]


async def test_captions_come_before_the_transcript_and_are_never_taken_back(ivas: Caller) -> None:
    await ivas.configure(audio=TRANSCRIBED)
    await ivas.hear(tone(400))
    await ivas.until("input_audio_buffer.speech_started")
    for _ in range(4):
        await ivas.hear(tone(400))
        await ivas.settle()
    await ivas.hear(silence(700))
    completed = await ivas.until(f"{TRANSCRIPTION}completed")
    deltas = "".join(event["delta"] for event in ivas.all(f"{TRANSCRIPTION}delta"))
    assert completed["transcript"].startswith(deltas)
    await ivas.done()
    assert "".join(event["delta"] for event in ivas.all(f"{TRANSCRIPTION}delta")) == deltas


async def test_without_create_response_the_client_asks_for_the_reply(ivas: Caller) -> None:
    detection = {"type": "server_vad", "create_response": False}
    await ivas.configure(audio={"input": {"turn_detection": detection}})
    mark = len(ivas.events)
    await a_turn(ivas)
    for kind in HEARD:
        await ivas.until(kind)
    await ivas.settle()
    in_order(ivas.since(mark), *HEARD, "session.updated")
    mark = len(ivas.events)
    assert (await ivas.reply())["status"] == "completed"
    in_order(ivas.since(mark), *REPLY)


async def test_push_to_talk(ivas: Caller) -> None:
    await ivas.configure(audio=PUSH_TO_TALK)
    mark = len(ivas.events)
    await ivas.hear(tone(300))
    await ivas.connection.input_audio_buffer.clear()
    await ivas.hear(tone(600) + silence(700))
    await ivas.connection.input_audio_buffer.commit()
    await ivas.connection.response.create()
    await ivas.done()
    in_order(ivas.since(mark), "input_audio_buffer.cleared", *COMMITTED, *REPLY)
    mark = len(ivas.events)
    await ivas.hear(tone(600))
    await ivas.connection.input_audio_buffer.commit()
    await ivas.until("conversation.item.done")
    await ivas.settle()
    in_order(ivas.since(mark), *COMMITTED, "session.updated")  # no reply by itself


async def test_audio_may_come_in_pieces_of_any_length(ivas: Caller) -> None:
    """Odd byte counts carry over: the same sound, so the same moments."""
    pcm = silence(500) + tone(600) + silence(700)
    for at in range(0, len(pcm), 3001):
        await ivas.hear(pcm[at : at + 3001])
    await ivas.done()
    stopped = ivas.all("input_audio_buffer.speech_stopped")[0]
    assert abs(stopped["audio_end_ms"] - 1100) <= FRAME_MS


async def test_a_whole_turn_may_come_in_one_append(ivas: Caller) -> None:
    mark = len(ivas.events)
    audio = base64.b64encode(silence(500) + tone(600) + silence(700)).decode()
    await ivas.connection.input_audio_buffer.append(audio=audio)
    await ivas.done()
    in_order(ivas.since(mark), *HEARD, *REPLY)


async def test_a_voice_turn_with_real_engines(embedded: str) -> None:
    """A person asks, and hears an answer."""
    async with caller(embedded) as one:
        await one.configure(audio=TRANSCRIBED)
        mark = len(one.events)
        await one.hear(silence(300) + clip("can_you_hear_me_slt") + silence(900))
        response = await one.done()
        in_order(one.since(mark), *HEARD, *REPLY)
        (completed,) = one.all(f"{TRANSCRIPTION}completed")
        assert completed["transcript"] == "can you hear me"
        assert "hear you" in response["output"][0]["content"][0]["transcript"]
        sound = np.frombuffer(one.audio(response["id"]), "<i2")
        assert len(sound) > RATE_HZ / 2
        assert np.abs(sound.astype(int)).max() > 3000


# --- text --------------------------------------------------------------------------


async def test_a_text_turn(ivas: Caller) -> None:
    mark = len(ivas.events)
    await ivas.say("Hello.")
    response = await ivas.reply(metadata={"topic": "greeting"})
    items = ("conversation.item.added", "conversation.item.done")
    in_order(ivas.since(mark), *items, *REPLY)
    assert response["metadata"] == {"topic": "greeting"}
    assert ivas.all("response.created")[0]["response"]["metadata"] == {"topic": "greeting"}
    assert response["usage"]["output_tokens"] == len(WORDS.split())


@pytest.mark.parametrize("where", ["session", "response"])
async def test_text_only_output(ivas: Caller, where: str) -> None:
    if where == "session":
        await ivas.configure(output_modalities=["text"])
    await ivas.say("Hello.")
    mark = len(ivas.events)
    response = await ivas.reply(**({"output_modalities": ["text"]} if where == "response" else {}))
    in_order(ivas.since(mark), *WRITTEN_REPLY)
    assert response["output_modalities"] == ["text"]
    assert response["output"][0]["content"] == [{"type": "output_text", "text": WORDS}]
    deltas = ivas.all("response.output_text.delta")
    assert "".join(event["delta"] for event in deltas) == WORDS


async def test_a_token_limit_makes_the_reply_incomplete(ivas: Caller) -> None:
    await ivas.say("Hello.")
    response = await ivas.reply(max_output_tokens=3)
    assert response["status"] == "incomplete"
    assert response["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
    assert response["max_output_tokens"] == 3
    assert response["output"][0]["status"] == "incomplete"
    assert response["output"][0]["content"][0]["transcript"].strip() == "One two three."


# --- interruptions -----------------------------------------------------------------


async def test_barge_in(ivas: Caller) -> None:
    assistant = await a_reply_under_way(ivas)
    await ivas.hear(tone(400))
    interrupted = await ivas.until("input_audio_buffer.speech_started")
    mark = ivas.events.index(interrupted)
    response = await ivas.done()
    in_order(ivas.since(mark), "input_audio_buffer.speech_started", *SPOKEN)
    assert response["status"] == "cancelled"
    assert response["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert response["output"][0]["status"] == "incomplete"

    await ivas.connection.conversation.item.truncate(
        item_id=assistant, content_index=0, audio_end_ms=1700
    )
    truncated = await ivas.until("conversation.item.truncated")
    assert (truncated["item_id"], truncated["audio_end_ms"]) == (assistant, 1700)
    heard = (await ivas.retrieve(assistant))["content"][0]["transcript"]
    assert heard.strip() == "One two"  # 240 ms a character

    mark = len(ivas.events)
    await ivas.hear(tone(400) + silence(700))
    await ivas.configure(audio={"output": {"speed": 1.5}})
    await ivas.done()
    types = [kind for kind in ivas.since(mark) if kind != "session.updated"]
    in_order(types, "input_audio_buffer.speech_stopped", *COMMITTED, *REPLY)


async def test_a_cough_does_not_interrupt(ivas: Caller) -> None:
    await a_reply_under_way(ivas)
    mark = len(ivas.events)
    await ivas.hear(silence(300) + tone(128) + silence(500))
    await ivas.settle()
    in_order(ivas.since(mark), SPEAKING, "session.updated")
    await ivas.connection.response.cancel()
    assert (await ivas.done())["status"] == "cancelled"


async def test_the_tail_of_a_finished_reply_can_be_cut(ivas: Caller) -> None:
    """It was sent whole and still sounds: speech_started, no second response.done."""
    await ivas.say("Hello.")
    response = await ivas.reply()
    assistant = response["output"][0]["id"]
    detection = {"type": "server_vad", "create_response": False}
    await ivas.configure(audio={"input": {"turn_detection": detection}})
    mark = len(ivas.events)
    await ivas.hear(tone(400))
    await ivas.until("input_audio_buffer.speech_started")
    await ivas.connection.conversation.item.truncate(
        item_id=assistant, content_index=0, audio_end_ms=450
    )
    await ivas.until("conversation.item.truncated")
    in_order(ivas.since(mark), "input_audio_buffer.speech_started", "conversation.item.truncated")
    assert (await ivas.retrieve(assistant))["content"][0]["transcript"].strip() == "One two"


async def test_without_interrupt_response_the_reply_goes_on(ivas: Caller) -> None:
    detection = {"type": "server_vad", "interrupt_response": False}
    await ivas.configure(audio={"input": {"turn_detection": detection, **TRANSCRIBED["input"]}})
    await a_reply_under_way(ivas)
    mark = len(ivas.events)
    await a_turn(ivas)
    await ivas.until(f"{TRANSCRIPTION}completed")
    await ivas.settle()
    sound = "response.output_audio.delta"
    types = [kind for kind in ivas.since(mark) if kind != sound]
    in_order(types, *HEARD, "session.updated")  # no second reply, no end of the first
    await ivas.connection.response.cancel()
    response = await ivas.done()
    assert response["status_details"]["reason"] == "client_cancelled"


@pytest.mark.parametrize("named", [False, True])
async def test_the_client_cancels(ivas: Caller, named: bool) -> None:
    assistant = await a_reply_under_way(ivas)
    if named:
        response_id = ivas.all("response.created")[0]["response"]["id"]
        await ivas.connection.response.cancel(response_id=response_id)
    else:
        await ivas.connection.response.cancel()
    mark = len(ivas.events)
    response = await ivas.done()
    in_order(ivas.since(mark), SPEAKING, *SPOKEN)
    assert response["status"] == "cancelled"
    assert response["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    await ivas.connection.conversation.item.truncate(
        item_id=assistant, content_index=0, audio_end_ms=0
    )
    await ivas.until("conversation.item.truncated")
    assert (await ivas.retrieve(assistant))["content"][0]["transcript"] == ""


async def test_a_cancelled_reply_makes_room_for_the_next(ivas: Caller) -> None:
    await a_reply_under_way(ivas)
    await ivas.connection.response.cancel()
    await ivas.connection.session.update(
        session={"type": "realtime", "audio": {"output": {"speed": 1.5}}}
    )
    await ivas.connection.response.create()
    assert (await ivas.done())["status"] == "cancelled"
    mark = len(ivas.events)
    assert (await ivas.done())["status"] == "completed"
    in_order([kind for kind in ivas.since(mark) if kind != "session.updated"], *REPLY)


# --- beside the standard -----------------------------------------------------------


async def test_events_of_our_own_go_to_who_asked(ivas: Caller) -> None:
    await a_turn(ivas)
    await ivas.done()
    assert not ivas.all("ivas.latency")
    await ivas.send({"type": "session.update", "session": {"type": "realtime",
                     "ivas": {"events": ["latency"]}}})  # fmt: skip
    await ivas.until("session.updated")
    mark = len(ivas.events)
    await ivas.connection.input_audio_buffer.clear()
    await a_turn(ivas)
    await ivas.done()
    (latency,) = ivas.all("ivas.latency")
    assert latency["response_id"] == ivas.events[-1]["response"]["id"]
    assert latency["spans_ms"]["total"] > 0
    speaking = some("response.output_audio_transcript.delta", "response.output_audio.delta",
                    "ivas.latency")  # fmt: skip
    in_order(ivas.since(mark), "input_audio_buffer.cleared", *HEARD, *BEGUN, speaking, *SPOKEN)


# --- several at once ---------------------------------------------------------------


async def test_sessions_know_nothing_of_each_other(fakes: str) -> None:
    async with caller(fakes) as one, caller(fakes) as other, caller(fakes) as third:
        await one.configure(instructions="One.", audio=TRANSCRIBED)
        await other.configure(instructions="Other.", output_modalities=["text"])
        await a_turn(one)
        item_id = await other.say("Hello.")
        await other.connection.response.create()
        mine, theirs = await one.done(), await other.done()
        assert (await one.configure())["instructions"] == "One."
        assert (await other.configure())["instructions"] == "Other."
        assert not other.all("input_audio_buffer.speech_started")
        assert not other.all(f"{TRANSCRIPTION}completed")
        assert not other.all("response.output_audio.delta")
        assert mine["id"] != theirs["id"]
        await one.connection.conversation.item.retrieve(item_id=item_id)
        assert (await one.error())["code"] == "item_retrieve_invalid_item_id"
        await third.settle()
        assert third.since(0) == ["session.created", "session.updated"]
