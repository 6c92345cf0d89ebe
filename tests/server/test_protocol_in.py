"""Client events become commands, and nothing a client sends is an exception."""

from __future__ import annotations

import ast
import base64
import inspect
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas import announcements as say
from ivas.announcements import SessionSettings
from ivas.conversation.events import ReplyOptions
from ivas.conversation.history import FunctionCall, FunctionOutput, Part
from ivas.engines import Tool
from ivas.server import protocol_in
from ivas.server.protocol_in import MAX_AUDIO_BYTES, MAX_ID, decode
from ivas.server.protocol_models import MAX_TEXT
from ivas.server.protocol_session import SessionConfig

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
MIB = 2**20


def session() -> SessionConfig:
    return SessionConfig(session_id="sess_1", model="ivas", defaults=SessionSettings())


def command(event: Any, *, max_bytes: int = 16 * MIB) -> say.Command:
    return decode(json.dumps(event), session(), max_bytes=max_bytes)


def sent(kind: str, **fields: Any) -> say.Command:
    return command({"type": kind, "event_id": "e1", **fields})


def refused(answer: say.Command) -> tuple[str, str | None, str]:
    """Code, param and sentence."""
    assert isinstance(answer, say.Malformed)
    return answer.failure.code, answer.param, answer.failure.message


def message(*content: Any, role: str = "user", **more: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": list(content), **more}


def text(said: str, kind: str = "input_text") -> dict[str, Any]:
    return {"type": kind, "text": said}


# --- what is understood --------------------------------------------------------


def test_append_is_pcm() -> None:
    audio = base64.b64encode(b"\1\2\3").decode()
    assert sent("input_audio_buffer.append", audio=audio) == say.AppendAudio(b"\1\2\3")
    assert sent("input_audio_buffer.append", audio="") == say.AppendAudio(b"")


def test_binary_json_is_json() -> None:
    raw = b'{"type": "input_audio_buffer.clear"}'
    assert decode(raw, session(), max_bytes=MIB) == say.ClearAudio(None)


def test_an_update_is_in_the_config_at_once_and_its_echo_in_the_command() -> None:
    config = session()
    raw = json.dumps({"type": "session.update", "session": {"type": "realtime",
                                                            "instructions": "Rhyme."}})  # fmt: skip
    answer = decode(raw, config, max_bytes=MIB)
    assert answer == say.Configure(config.settings, config.echo)
    assert config.settings.instructions == "Rhyme."


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"type": "input_audio_buffer.commit"}, say.CommitAudio("e1")),
        ({"type": "input_audio_buffer.clear"}, say.ClearAudio("e1")),
        (
            {"type": "conversation.item.retrieve", "item_id": "i"},
            say.RetrieveItem("i", "e1"),
        ),
        ({"type": "conversation.item.delete", "item_id": "i"}, say.DeleteItem("i", "e1")),
        (
            {
                "type": "conversation.item.truncate",
                "item_id": "i",
                "content_index": 0,
                "audio_end_ms": 1500.0,
            },
            say.TruncateItem("i", 0, 1500, "e1"),
        ),
        ({"type": "response.create"}, say.CreateReply(ReplyOptions(), "e1")),
        (
            {"type": "response.create", "response": {"max_output_tokens": "inf", "tools": []}},
            say.CreateReply(ReplyOptions(max_tokens="inf", tools=()), "e1"),
        ),
        (
            {
                "type": "response.create",
                "response": {
                    "output_modalities": ["text"],
                    "instructions": "Rhyme.",
                    "audio": {
                        "output": {
                            "voice": {"id": "low"},
                            "format": {"type": "audio/pcm", "rate": 24000},
                        }
                    },
                    "max_output_tokens": 5,
                    "conversation": "auto",
                    "metadata": {"topic": "x"},
                },
            },
            say.CreateReply(
                ReplyOptions("text", "Rhyme.", "low", 5, {"topic": "x"}, audio_format="audio/pcm"),
                "e1",
            ),
        ),
        (
            {
                "type": "response.create",
                "response": {
                    "conversation": "none",
                    "tools": [{"type": "function", "name": "look", "parameters": {"a": 1}}],
                    "tool_choice": {"type": "function", "name": "look"},
                    "audio": {"output": {"format": {"type": "audio/pcma"}}},
                    "input": [
                        {"type": "item_reference", "id": "item_1"},
                        {
                            "type": "function_call",
                            "id": "f",
                            "call_id": "c",
                            "name": "look",
                            "arguments": "{}",
                        },
                        {
                            "type": "function_call_output",
                            "id": "o",
                            "call_id": "c",
                            "output": "blue",
                        },
                    ],
                },
            },
            say.CreateReply(
                ReplyOptions(
                    tools=(Tool("look", "", {"a": 1}),),
                    tool_choice="look",
                    audio_format="audio/pcma",
                    in_conversation=False,
                    context=(
                        "item_1",
                        FunctionCall("f", "c", "look", "{}"),
                        FunctionOutput("o", "c", "blue"),
                    ),
                ),
                "e1",
            ),
        ),
        (
            {"type": "response.create", "response": {"tool_choice": "required", "input": []}},
            say.CreateReply(ReplyOptions(tool_choice="required", context=()), "e1"),
        ),
        (
            {
                "type": "conversation.item.create",
                "item": {
                    "type": "function_call",
                    "id": "f",
                    "call_id": "c",
                    "name": "look",
                    "arguments": "{}",
                },
            },
            say.AddItem(FunctionCall("f", "c", "look", "{}"), None, "e1"),
        ),
        (
            {
                "type": "conversation.item.create",
                "item": {"type": "function_call_output", "id": "o", "call_id": "c", "output": ""},
            },
            say.AddItem(FunctionOutput("o", "c", ""), None, "e1"),
        ),
        ({"type": "response.create", "response": {"audio": {}}}, say.CreateReply(event_id="e1")),
        ({"type": "response.cancel"}, say.CancelActiveReply(None, "e1")),
        ({"type": "response.cancel", "response_id": "r"}, say.CancelActiveReply("r", "e1")),
    ],
)
def test_commands(event: dict[str, Any], expected: say.Command) -> None:
    assert command({"event_id": "e1", **event}) == expected


@pytest.mark.parametrize(
    ("role", "content", "parts"),
    [
        ("system", [text("a"), text("b")], [Part("input_text", "a"), Part("input_text", "b")]),
        ("user", [text("a")], [Part("input_text", "a")]),
        (
            "user",
            [{"type": "input_audio", "transcript": "a", "audio": "AAAA"}],
            [Part("input_audio", "a")],
        ),
        ("assistant", [text("a", "output_text")], [Part("output_text", "a")]),
        (
            "assistant",
            [{"type": "output_audio", "transcript": "a"}],
            [Part("output_audio", "a")],
        ),
    ],
)
def test_items(role: str, content: list[Any], parts: list[Part]) -> None:
    answer = sent(
        "conversation.item.create",
        item=message(*content, role=role, id="mine"),
        previous_item_id="root",
    )
    assert isinstance(answer, say.AddItem)
    assert (answer.item.id, answer.item.role, answer.item.parts) == ("mine", role, parts)
    assert (answer.item.status, answer.after, answer.event_id) == ("completed", "root", "e1")


def test_an_item_without_an_id_gets_one_of_its_own() -> None:
    answers = [sent("conversation.item.create", item=message(text("a"))) for _ in range(2)]
    ids = [answer.item.id for answer in answers if isinstance(answer, say.AddItem)]
    assert len(set(ids)) == 2
    assert all(id.startswith("item_") for id in ids)


# --- what is not ---------------------------------------------------------------

LONG = "x" * (MAX_TEXT + 1)

WRONG: list[tuple[dict[str, Any], str, str | None, str]] = [
    ({}, "missing_required_parameter", "type", ""),
    ({"type": "session.dance"}, "invalid_value", "type", "'session.dance'"),
    ({"type": ["x"]}, "invalid_value", "type", ""),
    ({"type": "output_audio_buffer.clear"}, "invalid_value", "type", "response.cancel"),
    ({"type": "session.update"}, "missing_required_parameter", "session", ""),
    ({"type": "session.update", "session": {}}, "missing_required_parameter", "session.type", ""),
    ({"type": "input_audio_buffer.append"}, "missing_required_parameter", "audio", ""),
    ({"type": "input_audio_buffer.append", "audio": 5}, "invalid_value", "audio", "string"),
    ({"type": "input_audio_buffer.append", "audio": "a"}, "invalid_value", "audio", "base64"),
    ({"type": "input_audio_buffer.append", "audio": "AA=A"}, "invalid_value", "audio", "base64"),
    ({"type": "input_audio_buffer.append", "audio": "&&&&"}, "invalid_value", "audio", "base64"),
    ({"type": "input_audio_buffer.append", "audio": "é"}, "invalid_value", "audio", "base64"),
    ({"type": "conversation.item.create"}, "missing_required_parameter", "item", ""),
    ({"type": "conversation.item.create", "item": {}}, "missing_required_parameter",
     "item.type", ""),
    ({"type": "conversation.item.create", "item": {"type": "function_call", "name": "f"}},
     "missing_required_parameter", "item.arguments", ""),
    ({"type": "conversation.item.create", "item": {"type": "function_call_output"}},
     "missing_required_parameter", "item.call_id", ""),
    ({"type": "conversation.item.create", "item": {"type": "mcp_call"}}, "invalid_value",
     "item.type", "function_call_output"),
    ({"type": "conversation.item.create", "item": message()}, "invalid_value",
     "item.content", ""),
    ({"type": "conversation.item.create", "item": message(text("a"), role="robot")},
     "invalid_value", "item.role", "'user'"),
    ({"type": "conversation.item.create", "item": message({"type": "input_image"})},
     "invalid_value", "item.content.0.type", "text"),
    ({"type": "conversation.item.create", "item": message({"text": "a"})},
     "missing_required_parameter", "item.content.0.type", ""),
    ({"type": "conversation.item.create", "item": message({"type": "input_audio"})},
     "missing_required_parameter", "item.content.0.transcript", ""),
    ({"type": "conversation.item.create", "item": message(text("a"), text("b", "output_text"))},
     "invalid_value", "item.content.1.type", "user"),
    ({"type": "conversation.item.create",
      "item": message({"type": "input_audio", "transcript": ""}, role="system")},
     "invalid_value", "item.content.0.type", "system"),
    ({"type": "conversation.item.create", "item": message(text(LONG))}, "invalid_value",
     "item.content.0.text", f"at most {MAX_TEXT}"),
    ({"type": "conversation.item.create", "item": message(text(LONG[:-1]), text("x"))},
     "invalid_value", "item.content", f"at most {MAX_TEXT}"),
    ({"type": "conversation.item.create", "item": message(text("a"), id="x" * 65)},
     "invalid_value", "item.id", "64"),
    ({"type": "conversation.item.create", "item": message(text("a")), "previous_item_id": 5},
     "invalid_value", "previous_item_id", "string"),
    ({"type": "conversation.item.retrieve"}, "missing_required_parameter", "item_id", ""),
    ({"type": "conversation.item.retrieve", "item_id": 5}, "invalid_value", "item_id", "string"),
    ({"type": "conversation.item.delete", "item_id": "x" * (MAX_ID + 1)}, "invalid_value",
     "item_id", str(MAX_ID)),
    ({"type": "conversation.item.truncate", "item_id": "i"}, "missing_required_parameter",
     "content_index", ""),
    ({"type": "conversation.item.truncate", "item_id": "i", "content_index": True},
     "invalid_value", "content_index", "whole"),
    ({"type": "conversation.item.truncate", "item_id": "i", "content_index": "0"},
     "invalid_value", "content_index", "whole"),
    ({"type": "conversation.item.truncate", "item_id": "i", "content_index": 0,
      "audio_end_ms": 1.5}, "invalid_value", "audio_end_ms", "whole"),
    ({"type": "conversation.item.truncate", "item_id": "i", "content_index": 0,
      "audio_end_ms": -1}, "invalid_value", "audio_end_ms", "from 0"),
    ({"type": "conversation.item.truncate", "item_id": "i", "content_index": 0,
      "audio_end_ms": 10**30}, "invalid_value", "audio_end_ms", "2**53"),
    ({"type": "response.create", "response": 5}, "invalid_value", "response", ""),
    ({"type": "response.create", "response": {"conversation": "new"}}, "invalid_value",
     "response.conversation", "none"),
    ({"type": "response.create", "response": {"input": [{}]}}, "missing_required_parameter",
     "response.input.0.type", ""),
    ({"type": "response.create", "response": {"input": [{"type": "item_reference"}]}},
     "missing_required_parameter", "response.input.0.id", ""),
    ({"type": "response.create", "response": {"input": [message()]}}, "invalid_value",
     "response.input.0.content", ""),
    ({"type": "response.create", "response": {"tools": [{"type": "function"}]}},
     "missing_required_parameter", "response.tools.0.name", ""),
    ({"type": "response.create", "response": {"tools": [{"type": "mcp", "name": "x"}]}},
     "invalid_value", "response.tools.0.type", "functions"),
    ({"type": "response.create", "response": {"tools": [
        {"type": "function", "name": "f", "parameters": {"x": "y" * 300_000}}]}},
     "invalid_value", "response.tools", "256 KiB"),
    ({"type": "response.create", "response": {"tool_choice": "perhaps"}},
     "invalid_value", "response.tool_choice", "required"),
    ({"type": "response.create", "response": {"metadata": {"a": 5}}}, "invalid_value",
     "response.metadata.a", "string"),
    ({"type": "response.create", "response": {"metadata": {"x": "y" * 513}}}, "invalid_value",
     "response.metadata.x", "512"),
    ({"type": "response.create", "response": {"metadata": {str(n): "" for n in range(17)}}},
     "invalid_value", "response.metadata", "16"),
    ({"type": "response.create", "response": {"output_modalities": ["audio", "text"]}},
     "invalid_value", "response.output_modalities", ""),
    ({"type": "response.create", "response": {"audio": {"output": {"format": {
        "type": "audio/opus"}}}}}, "invalid_value", "response.audio.output.format.type", "24000"),
    ({"type": "response.create", "response": {"max_output_tokens": 0}}, "invalid_value",
     "response.max_output_tokens", ""),
    ({"type": "response.cancel", "response_id": 5}, "invalid_value", "response_id", "string"),
]  # fmt: skip


@pytest.mark.parametrize(("event", "code", "param", "says"), WRONG)
def test_what_is_wrong_is_named(
    event: dict[str, Any], code: str, param: str | None, says: str
) -> None:
    answer = command({"event_id": "e7", **event})
    assert isinstance(answer, say.Malformed)
    assert refused(answer)[:2] == (code, param)
    assert says in answer.failure.message
    assert answer.event_id == "e7"  # every error says which event it is about


def test_a_key_its_client_made_up_does_not_make_a_long_error() -> None:
    answer = sent("response.create", response={"metadata": {"x" * 10_000: 5}})
    assert isinstance(answer, say.Malformed)
    assert len(str(answer.param)) <= 200
    assert len(answer.failure.message) <= 400


@pytest.mark.parametrize("raw", ["", "{", "nonsense", b"\xff\xfe", b"\0" * 9, "{'type': 1}"])
def test_not_json(raw: str | bytes) -> None:
    answer = decode(raw, session(), max_bytes=MIB)
    assert refused(answer)[:2] == ("invalid_json", None)


@pytest.mark.parametrize("event", [None, 5, "session.update", [], [{"type": "x"}]])
def test_not_an_object(event: Any) -> None:
    assert refused(command(event))[:2] == ("invalid_value", None)


def test_an_event_larger_than_allowed_is_not_even_read() -> None:
    code, param, says = refused(decode("{" * (MIB + 1), session(), max_bytes=MIB))
    assert (code, param) == ("invalid_value", None)
    assert "1 MiB" in says


def test_more_audio_than_openai_takes_is_refused() -> None:
    most = base64.b64encode(bytes(MAX_AUDIO_BYTES)).decode()
    more = base64.b64encode(bytes(MAX_AUDIO_BYTES + 1)).decode()
    allowed, big = ({"type": "input_audio_buffer.append", "audio": a} for a in (most, more))
    assert isinstance(command(allowed, max_bytes=32 * MIB), say.AppendAudio)
    code, param, says = refused(command(big, max_bytes=32 * MIB))
    assert (code, param) == ("invalid_value", "audio")
    assert "15 MiB" in says


@pytest.mark.parametrize("event_id", [5, None, "x" * (MAX_ID + 1)])
def test_an_event_id_that_is_none_is_not_echoed(event_id: Any) -> None:
    answer = command({"type": "session.dance", "event_id": event_id})
    assert isinstance(answer, say.Malformed)
    assert answer.event_id is None


@pytest.mark.parametrize(
    "kind",
    ["response.create", "response.cancel", "conversation.item.create",
     "conversation.item.truncate"],
)  # fmt: skip
def test_a_transcription_session_has_no_replies(kind: str) -> None:
    config = session()
    raw = json.dumps({"type": "session.update", "session": {"type": "transcription"}})
    assert isinstance(decode(raw, config, max_bytes=MIB), say.Configure)
    answer = decode(json.dumps({"type": kind}), config, max_bytes=MIB)
    code, param, says = refused(answer)
    assert (code, param) == ("invalid_value", "type")
    assert "transcription session" in says


# --- anything --------------------------------------------------------------------

KINDS = [
    "session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "conversation.item.create",
    "conversation.item.retrieve",
    "conversation.item.truncate",
    "conversation.item.delete",
    "response.create",
    "response.cancel",
]
FIELDS = ["event_id", "session", "audio", "item", "previous_item_id", "item_id"]
FIELDS += ["content_index", "audio_end_ms", "response", "response_id"]
COMMANDS = get_args(say.Command)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=5)
            | st.sampled_from(
                [
                    "id",
                    "type",
                    "role",
                    "content",
                    "text",
                    "transcript",
                    "audio",
                    "input",
                    "metadata",
                ]
            ),
            inner | st.sampled_from(["message", "user", "input_text", "audio/pcm", "realtime"]),
        )
    ),
    max_leaves=10,
)
events = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS)},
    optional=dict.fromkeys(FIELDS, json_values),
)


@given(events | json_values)
def test_any_json_is_a_command(event: Any) -> None:
    assert isinstance(command(event), COMMANDS)


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_frame_is_a_command(raw: str | bytes) -> None:
    assert isinstance(decode(raw, session(), max_bytes=MIB), COMMANDS)


@given(st.binary(max_size=100))
def test_any_audio_comes_through(pcm: bytes) -> None:
    audio = base64.b64encode(pcm).decode()
    assert sent("input_audio_buffer.append", audio=audio) == say.AppendAudio(pcm)


def test_deep_nesting_is_refused_or_ignored() -> None:
    for depth in (200, 2_000, 100_000):
        raw = '{"type":"session.update","session":' + '{"a":' * depth + "1" + "}" * (depth + 1)
        assert isinstance(decode(raw, session(), max_bytes=MIB), say.Malformed)


def test_the_document_lists_exactly_the_events_that_are_understood() -> None:
    _, _, rest = DOCUMENT.read_text(encoding="utf-8").partition("<!-- client events -->")
    rows = [line.split("|") for line in rest.partition("<!-- end -->")[0].splitlines()[3:]]
    documented = [row[1].strip(" `") for row in rows]
    cases = ast.walk(ast.parse(inspect.getsource(protocol_in._command)))
    literals = [case.value for case in cases if isinstance(case, ast.MatchValue)]
    known = {value.value for value in literals if isinstance(value, ast.Constant)}
    refused = {"output_audio_buffer.clear"}
    assert set(documented) == known - refused | {"input_audio_buffer.append"} == set(KINDS)
    for row in rows:  # every field is one that the codec reads
        for name in row[2].split("`")[1::2]:
            assert name in FIELDS
