"""Every announcement becomes the events of section 5 of the protocol, field for field."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from ivas import announcements as say
from ivas.announcements import ReplyView, SessionSettings, Usage
from ivas.audio.g711 import decode_alaw, decode_ulaw
from ivas.choice import Change
from ivas.conversation.events import AudioFormat, Failure
from ivas.conversation.history import FunctionCall, FunctionOutput, Item, Part
from ivas.latency import SPANS
from ivas.server.protocol_out import Encoder
from ivas.server.protocol_session import SessionConfig

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
OFFICIAL: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)

SPOKEN = ReplyView("resp_1", "item_a", 3, "audio", "low", None, {"topic": "x"})
WRITTEN = ReplyView("resp_2", "item_b", 4, "text", "low", 7)
FAILED = Failure("llm_failed", "The language model failed; please ask again.")

IDS = {"response_id", "item_id", "output_index", "content_index"}
FIELDS: dict[str, set[str]] = {
    "session.created": {"session"},
    "session.updated": {"session"},
    "error": {"error"},
    "input_audio_buffer.timeout_triggered": {"audio_start_ms", "audio_end_ms", "item_id"},
    "response.function_call_arguments.delta": {
        "response_id",
        "item_id",
        "output_index",
        "call_id",
        "delta",
    },
    "response.function_call_arguments.done": {
        "response_id",
        "item_id",
        "output_index",
        "call_id",
        "name",
        "arguments",
    },
    "conversation.item.added": {"item", "previous_item_id"},
    "conversation.item.done": {"item", "previous_item_id"},
    "conversation.item.retrieved": {"item"},
    "conversation.item.truncated": {"item_id", "content_index", "audio_end_ms"},
    "conversation.item.deleted": {"item_id"},
    "conversation.item.input_audio_transcription.delta": {"item_id", "content_index", "delta"},
    "conversation.item.input_audio_transcription.completed": {
        "item_id",
        "content_index",
        "transcript",
        "usage",
    },
    "conversation.item.input_audio_transcription.failed": {"item_id", "content_index", "error"},
    "input_audio_buffer.speech_started": {"audio_start_ms", "item_id"},
    "input_audio_buffer.speech_stopped": {"audio_end_ms", "item_id"},
    "input_audio_buffer.committed": {"item_id", "previous_item_id"},
    "input_audio_buffer.cleared": set(),
    "response.created": {"response"},
    "response.done": {"response"},
    "response.output_item.added": {"response_id", "output_index", "item"},
    "response.output_item.done": {"response_id", "output_index", "item"},
    "response.content_part.added": {*IDS, "part"},
    "response.content_part.done": {*IDS, "part"},
    "response.output_audio.delta": {*IDS, "delta"},
    "response.output_audio.done": IDS,
    "response.output_audio_transcript.delta": {*IDS, "delta"},
    "response.output_audio_transcript.done": {*IDS, "transcript"},
    "response.output_text.delta": {*IDS, "delta"},
    "response.output_text.done": {*IDS, "text"},
    "ivas.latency": {"response_id", "spans_ms"},
    "ivas.engines": {"kind", "engine", "before", "reason"},
}
"""Everything an event holds beside `type` and `event_id`: no more, no less."""


def encoder() -> Encoder:
    return Encoder(tag="t", conversation_id="conv_1")


def said(*announcements: say.Announcement) -> list[dict[str, Any]]:
    """The events they become, each looked over."""
    one = encoder()
    events = [json.loads(frame) for what in announcements for frame in one.encode(what)]
    for event in events:
        look_over(event)
    ids = [event["event_id"] for event in events]
    assert len(set(ids)) == len(ids)
    return events


def look_over(event: dict[str, Any]) -> None:
    """What every stock client relies on."""
    kind = event["type"]
    assert set(event) == {"type", "event_id"} | FIELDS[kind]
    if not kind.startswith("ivas."):
        OFFICIAL.validate_python(event)
    assert isinstance(event["event_id"], str)
    for key in ("error", "part"):  # null in them breaks zod
        assert None not in event.get(key, {}).values()
    if "part" in event:
        assert event["part"].keys() in ({"type", "transcript"}, {"type", "text"})
        assert event["part"]["type"] in ("audio", "text")
    items = [event["item"]] if "item" in event else event.get("response", {}).get("output", [])
    for item in items:
        own = {
            "message": {"role", "content"},
            "function_call": {"call_id", "name", "arguments"},
            "function_call_output": {"call_id", "output"},
        }[item["type"]]
        assert set(item) == {"id", "object", "type", "status"} | own
        assert item["object"] == "realtime.item"
        for part in item.get("content", []):
            spoken = part["type"] in ("input_audio", "output_audio")
            assert set(part) == {"type", "transcript" if spoken else "text"}
    if "response" in event:
        response = event["response"]
        assert set(response) == {
            "id", "object", "status", "status_details", "output", "conversation_id",
            "output_modalities", "max_output_tokens", "audio", "metadata", "usage",
        }  # fmt: skip
        assert (response["usage"] is None) == (kind == "response.created")
        assert isinstance(response["audio"]["output"]["voice"], str)


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def user(transcript: str | None) -> Item:
    return Item("item_u", "user", [Part("input_audio", transcript)])


def test_the_session_comes_first_and_whole() -> None:
    config = SessionConfig(session_id="sess_1", model="ivas", defaults=SessionSettings())
    created = json.loads(encoder().created(config.echo))
    look_over(created)
    assert created["session"] == config.echo
    (updated,) = said(say.Configured(config.echo))
    assert updated["session"] == config.echo
    pcm = {"type": "audio/pcm", "rate": 24000}
    assert updated["session"]["audio"]["input"]["format"] == pcm
    assert updated["session"]["audio"]["output"]["format"] == pcm


def test_a_users_turn() -> None:
    events = said(
        say.SpeechStarted("item_u", 100),
        say.SpeechStopped("item_u", 900),
        say.AudioCommitted("item_u", None),
        say.ItemAdded(user(None), None),
        say.TranscriptDelta("item_u", "hello"),
        say.TranscriptCompleted("item_u", "hello there", 0.80049),
    )
    assert types(events) == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
    ]
    started, stopped, committed, added, _, delta, completed = events
    assert (started["item_id"], started["audio_start_ms"]) == ("item_u", 100)
    assert (stopped["item_id"], stopped["audio_end_ms"]) == ("item_u", 900)
    assert committed["previous_item_id"] is None
    assert added["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    assert (delta["delta"], delta["content_index"]) == ("hello", 0)
    assert completed["transcript"] == "hello there"
    assert completed["usage"] == {"type": "duration", "seconds": 0.8}


def test_a_lost_transcript() -> None:
    (event,) = said(say.TranscriptFailed("item_u", FAILED))
    assert event["error"] == {
        "type": "server_error",
        "code": "llm_failed",
        "message": FAILED.message,
    }


def test_items() -> None:
    chain = Item(
        "item_b", "assistant", [Part("output_text", "a"), Part("output_audio", "b")], "incomplete"
    )
    retrieved, truncated, deleted, cleared = said(
        say.ItemRetrieved(chain),
        say.ItemTruncated("item_b", 0, 1500),
        say.ItemDeleted("item_b"),
        say.AudioCleared(),
    )
    assert retrieved["item"] == {
        "id": "item_b",
        "object": "realtime.item",
        "type": "message",
        "role": "assistant",
        "status": "incomplete",
        "content": [
            {"type": "output_text", "text": "a"},
            {"type": "output_audio", "transcript": "b"},
        ],
    }
    assert (truncated["content_index"], truncated["audio_end_ms"]) == (0, 1500)
    assert deleted["item_id"] == "item_b"
    assert cleared["type"] == "input_audio_buffer.cleared"


def test_text_that_is_none_is_empty() -> None:
    (event,) = said(say.ItemRetrieved(Item("i", "system", [Part("input_text", None)])))
    assert event["item"]["content"] == [{"type": "input_text", "text": ""}]


def test_a_spoken_reply() -> None:
    events = said(
        say.ReplyStarted(SPOKEN),
        say.MessageStarted(SPOKEN, "item_u"),
        say.WordsSpoken(SPOKEN, "Hello."),
        say.AudioSpoken(SPOKEN, b"\1\2"),
        say.MessageEnded(SPOKEN, "Hello.", "completed", "item_u"),
        say.ReplyEnded(SPOKEN, "completed", "Hello.", (), Usage(5, 2)),
    )
    assert types(events) == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    created, _, added, part, words, sound, *_, part_done, item_done, _, done = events
    assert created["response"] == {
        "id": "resp_1",
        "object": "realtime.response",
        "status": "in_progress",
        "status_details": None,
        "output": [],
        "conversation_id": "conv_1",
        "output_modalities": ["audio"],
        "max_output_tokens": "inf",
        "audio": {
            "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "low"},
        },
        "metadata": {"topic": "x"},
        "usage": None,
    }
    assert (added["item"]["status"], added["item"]["content"]) == ("in_progress", [])
    assert added["previous_item_id"] == item_done["previous_item_id"] == "item_u"
    assert part["part"] == {"type": "audio", "transcript": ""}
    assert words["delta"] == "Hello."
    assert base64.b64decode(sound["delta"]) == b"\1\2"
    assert part_done["part"] == {"type": "audio", "transcript": "Hello."}
    assert item_done["item"]["status"] == "completed"
    assert item_done["item"]["content"] == [{"type": "output_audio", "transcript": "Hello."}]
    assert done["response"]["output"] == [item_done["item"]]
    assert (done["response"]["status"], done["response"]["status_details"]) == ("completed", None)
    usage = done["response"]["usage"]
    assert (usage["total_tokens"], usage["input_tokens"], usage["output_tokens"]) == (7, 5, 2)
    assert usage["input_token_details"] == {
        "text_tokens": 5,
        "audio_tokens": 0,
        "image_tokens": 0,
        "cached_tokens": 0,
        "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0},
    }
    assert usage["output_token_details"] == {"text_tokens": 2, "audio_tokens": 0}


def test_a_written_reply_has_no_sound() -> None:
    events = said(
        say.ReplyStarted(WRITTEN),
        say.MessageStarted(WRITTEN, None),
        say.WordsSpoken(WRITTEN, "Hi."),
        say.MessageEnded(WRITTEN, "Hi.", "completed", None),
        say.ReplyEnded(WRITTEN, "completed", "Hi.", (), Usage()),
    )
    assert types(events) == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    assert events[0]["response"]["max_output_tokens"] == 7
    assert events[0]["response"]["metadata"] is None
    assert events[3]["part"] == {"type": "text", "text": ""}
    assert events[5]["text"] == "Hi."
    assert events[7]["item"]["content"] == [{"type": "output_text", "text": "Hi."}]


@pytest.mark.parametrize(
    ("outcome", "status", "details"),
    [
        ("turn_detected", "cancelled", {"type": "cancelled", "reason": "turn_detected"}),
        ("client_cancelled", "cancelled", {"type": "cancelled", "reason": "client_cancelled"}),
        (
            "max_output_tokens",
            "incomplete",
            {"type": "incomplete", "reason": "max_output_tokens"},
        ),
        (
            FAILED,
            "failed",
            {
                "type": "failed",
                "error": {
                    "type": "server_error",
                    "code": "llm_failed",
                    "message": FAILED.message,
                },
            },
        ),
    ],
)
def test_other_ends(outcome: Any, status: str, details: dict[str, Any]) -> None:
    *_, item_done, output_done, done = said(
        say.MessageEnded(SPOKEN, "Hel", "incomplete", "item_u"),
        say.ReplyEnded(SPOKEN, outcome, "Hel", (), Usage(1, 1)),
    )
    assert item_done["item"]["status"] == output_done["item"]["status"] == "incomplete"
    assert done["response"]["status"] == status
    assert done["response"]["status_details"] == details
    (nothing_said,) = said(say.ReplyEnded(SPOKEN, outcome, None, (), Usage()))
    assert nothing_said["type"] == "response.done"
    assert nothing_said["response"]["output"] == []
    assert nothing_said["response"]["usage"]["total_tokens"] == 0


def test_a_function_call_has_every_event_somebody_listens_to() -> None:
    call = FunctionCall("item_f", "call_1", "look", '{"at": "sky"}')
    begun, owned, delta, arguments, done, output_done = said(
        say.FunctionCalled(SPOKEN, call, 1, "item_a")
    )
    assert types([begun, owned, delta, arguments, done, output_done]) == [
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "conversation.item.done",
        "response.output_item.done",
    ]
    assert begun["item"] == {
        "id": "item_f",
        "object": "realtime.item",
        "type": "function_call",
        "status": "in_progress",
        "call_id": "call_1",
        "name": "look",
        "arguments": "",
    }
    assert owned["previous_item_id"] == done["previous_item_id"] == "item_a"
    assert (delta["delta"], delta["call_id"]) == ('{"at": "sky"}', "call_1")
    assert (arguments["name"], arguments["arguments"]) == ("look", '{"at": "sky"}')
    assert {event["output_index"] for event in (begun, delta, arguments, output_done)} == {1}
    assert output_done["item"]["status"] == "completed"
    assert output_done["item"]["arguments"] == '{"at": "sky"}'
    (ended,) = said(say.ReplyEnded(SPOKEN, "completed", "Hm.", (call,), Usage()))
    kinds = [item["type"] for item in ended["response"]["output"]]
    assert kinds == ["message", "function_call"]


def test_what_a_function_gave_back_is_an_item() -> None:
    (event,) = said(say.ItemRetrieved(FunctionOutput("item_o", "call_1", "blue")))
    assert event["item"] == {
        "id": "item_o",
        "object": "realtime.item",
        "type": "function_call_output",
        "status": "completed",
        "call_id": "call_1",
        "output": "blue",
    }


def test_outside_of_the_conversation_only_the_response_is_told() -> None:
    apart = replace(WRITTEN, in_conversation=False)
    call = FunctionCall("item_f", "call_1", "look", "{}")
    events = said(
        say.ReplyStarted(apart),
        say.MessageStarted(apart, None),
        say.MessageEnded(apart, "Hi.", "completed", None),
        say.FunctionCalled(apart, call, 1, None),
        say.ReplyEnded(apart, "completed", "Hi.", (call,), Usage()),
    )
    assert not [kind for kind in types(events) if kind.startswith("conversation.")]
    assert events[0]["response"]["conversation_id"] is None


def test_nobody_spoke() -> None:
    (event,) = said(say.WaitedForUser("item_w", 1200, 6200))
    assert event["type"] == "input_audio_buffer.timeout_triggered"
    assert (event["audio_start_ms"], event["audio_end_ms"]) == (1200, 6200)
    assert event["item_id"] == "item_w"


@pytest.mark.parametrize(
    ("audio_format", "decoded"), [("audio/pcmu", decode_ulaw), ("audio/pcma", decode_alaw)]
)
def test_g711_is_the_same_sound_at_a_third_of_the_rate(
    audio_format: AudioFormat, decoded: Callable[[bytes], bytes]
) -> None:
    view = replace(SPOKEN, audio_format=audio_format)
    tone = np.round(8000 * np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000)).astype("<i2")
    spoken = [
        say.AudioSpoken(view, tone[at : at + 2400].tobytes()) for at in range(0, len(tone), 2400)
    ]
    events = said(*spoken, say.MessageEnded(view, "a", "completed", None))
    sounds = [event for event in events if event["type"] == "response.output_audio.delta"]
    codes = b"".join(base64.b64decode(event["delta"]) for event in sounds)
    heard = np.frombuffer(decoded(codes), "<i2").astype(float)
    assert len(heard) == pytest.approx(8_000, abs=80)
    spectrum = np.abs(np.fft.rfft(heard))
    assert np.argmax(spectrum) * 8_000 / len(heard) == pytest.approx(440, abs=3)
    # The last of it left before the sound was said to be over.
    assert types(events).index("response.output_audio.done") > events.index(sounds[-1])
    ended = said(say.ReplyEnded(view, "completed", "a", (), Usage()))[0]
    assert ended["response"]["audio"]["output"]["format"] == {"type": audio_format}


def test_no_sound_is_no_event() -> None:
    assert said(say.AudioSpoken(SPOKEN, b"")) == []


def test_what_was_cut_off_does_not_sound_in_the_next_reply() -> None:
    first, second = (replace(SPOKEN, id=name, audio_format="audio/pcmu") for name in "ab")
    loud = np.full(2_400, 20_000, "<i2").tobytes()
    events = said(
        say.AudioSpoken(first, loud),
        say.MessageEnded(first, "a", "incomplete", None),
        say.AudioSpoken(second, bytes(4_800)),
    )
    quiet = decode_ulaw(base64.b64decode(events[-1]["delta"]))
    assert np.max(np.abs(np.frombuffer(quiet, "<i2"))) < 10


def test_a_change_of_engines_is_an_event_of_our_own() -> None:
    encoder = Encoder(tag="a", conversation_id="c")
    change = Change("llm", "ollama", "builtin", "ollama is ready.")
    event = json.loads(encoder.engines_changed(change))
    assert event["type"] == "ivas.engines"
    assert (event["kind"], event["engine"], event["before"]) == ("llm", "ollama", "builtin")
    assert event["reason"] == "ollama is ready."


def test_errors_leave_out_what_is_not_known() -> None:
    about, bare = said(
        say.Refused(FAILED, "session.type", "e1"), say.Refused(FAILED, kind="server_error")
    )
    error = {"code": "llm_failed", "message": FAILED.message}
    assert about["error"] == {
        "type": "invalid_request_error",
        "param": "session.type",
        "event_id": "e1",
        **error,
    }
    assert bare["error"] == {"type": "server_error", **error}


def test_latency_is_an_event_of_our_own() -> None:
    (event,) = said(say.LatencyMeasured(SPOKEN, {"total": 420.5}))
    assert (event["response_id"], event["spans_ms"]) == ("resp_1", {"total": 420.5})


def test_every_frame_of_a_connection_has_an_id_of_its_own() -> None:
    one, other = Encoder(tag="a", conversation_id="c"), Encoder(tag="b", conversation_id="c")
    cleared = say.AudioCleared()
    frames = [*one.encode(cleared), *one.encode(cleared), *other.encode(cleared)]
    assert len({json.loads(frame)["event_id"] for frame in frames}) == 3


@given(
    st.binary(min_size=2, max_size=64).filter(lambda pcm: len(pcm) % 2 == 0), st.text(), st.text()
)
def test_any_sound_and_any_words_come_through(pcm: bytes, words: str, more: str) -> None:
    try:
        (words + more).encode()
    except UnicodeEncodeError:
        return  # half a surrogate pair: no decoder and no engine ever gives one
    sound, delta, *_, done = said(
        say.AudioSpoken(SPOKEN, pcm),
        say.WordsSpoken(SPOKEN, words),
        say.ReplyEnded(SPOKEN, "completed", words + more, (), Usage()),
    )
    assert base64.b64decode(sound["delta"]) == pcm
    assert delta["delta"] == words
    assert done["response"]["output"][0]["content"][0]["transcript"] == words + more


def test_the_document_lists_exactly_these_events() -> None:
    _, _, rest = DOCUMENT.read_text(encoding="utf-8").partition("<!-- server events -->")
    rows = [line.split("|") for line in rest.partition("<!-- end -->")[0].splitlines()[3:]]
    documented = {row[1].strip(" `"): set(row[2].split("`")[1::2]) for row in rows}
    assert documented == FIELDS


def test_the_document_names_every_span_of_a_turn() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [name for name, _, _ in SPANS if f"`{name}`" not in text] == []
