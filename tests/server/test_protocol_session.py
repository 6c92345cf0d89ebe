"""The session object: merged, checked whole, echoed whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.realtime import SessionUpdatedEvent

from ivas.announcements import SessionSettings
from ivas.app import session_defaults
from ivas.conversation.events import TurnSettings
from ivas.engines import Tool
from ivas.errors import ClientError
from ivas.server.protocol_models import MAX_TEXT
from ivas.server.protocol_out import Encoder
from ivas.server.protocol_session import EAGERNESS_MS, SessionConfig
from ivas.settings import Settings

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
DEFAULTS = SessionSettings(
    turn=TurnSettings(threshold=0.6, silence_ms=400, prefix_padding_ms=200, onset_ms=64),
    instructions="Be brief.",
    voice="low",
    language="en",
    speed=1.25,
)


def config(defaults: SessionSettings = DEFAULTS) -> SessionConfig:
    return SessionConfig(session_id="sess_1", model="ivas", defaults=defaults)


def updated(**changes: Any) -> SessionConfig:
    session = config()
    session.update({"type": "realtime", **changes})
    return session


def heard(**changes: Any) -> SessionConfig:
    return updated(audio={"input": changes})


def spoken(**changes: Any) -> SessionConfig:
    return updated(audio={"output": changes})


def refused(session: dict[str, Any]) -> ClientError:
    """The error for a session.update, after which nothing has changed."""
    target = config()
    before = target.echo, target.settings
    with pytest.raises(ClientError) as error:
        target.update(session)
    assert (target.echo, target.settings) == before
    return error.value


def validated(echo: dict[str, Any]) -> dict[str, Any]:
    """`echo` as openai's own type reads it; fails if it is not one, or not JSON."""
    event = {"type": "session.updated", "event_id": "event_1", "session": echo}
    SessionUpdatedEvent.model_validate(event)
    loaded: dict[str, Any] = json.loads(json.dumps(echo, allow_nan=False))
    assert loaded == echo
    return loaded


def test_a_new_session_is_what_the_operator_set() -> None:
    assert validated(config().echo) == {
        "id": "sess_1",
        "object": "realtime.session",
        "model": "ivas",
        "type": "realtime",
        "output_modalities": ["audio"],
        "instructions": "Be brief.",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.6,
                    "prefix_padding_ms": 200,
                    "silence_duration_ms": 400,
                    "create_response": True,
                    "interrupt_response": True,
                    "idle_timeout_ms": None,
                },
            },
            "output": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "voice": "low",
                "speed": 1.25,
            },
        },
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "truncation": "auto",
        "tracing": None,
    }
    assert config().settings == DEFAULTS


LIMITS = {
    "lowest": {
        "turn": {"silence_ms": 100, "prefix_padding_ms": 0},
        "vad": {"threshold": 0},
        "tts": {"speed": 0.25},
    },
    "highest": {
        "turn": {"silence_ms": 10_000, "prefix_padding_ms": 2_000},
        "vad": {"threshold": 1},
        "llm": {"instructions": "x" * 32_768},
        "tts": {"speed": 4, "voice": "v"},
    },
}


@pytest.mark.parametrize("limits", LIMITS)
def test_whatever_the_operator_may_set_is_a_session_of_its_own(limits: str) -> None:
    defaults = session_defaults(Settings.model_validate(LIMITS[limits]))
    session = config(defaults)
    before = session.echo
    session.update(before)
    assert session.echo == before
    assert session.settings == defaults


def test_objects_are_merged_and_lists_replaced() -> None:
    session = heard(transcription={"model": "whisper-1", "prompt": "IVAS"})
    session.update({"type": "realtime", "audio": {"input": {"transcription": {"language": "de"}}}})
    heard_by = session.echo["audio"]["input"]
    assert heard_by["transcription"] == {
        "model": "whisper-1",
        "language": "de",
        "prompt": "IVAS",
    }
    assert session.settings.transcribe
    assert (session.settings.language, session.settings.prompt) == ("de", "IVAS")
    session.update({"type": "realtime", "audio": {"input": {"transcription": None}}})
    assert session.echo["audio"]["input"]["transcription"] is None
    assert not session.settings.transcribe
    assert session.settings.language == "en"  # the operator's again


def test_what_is_chosen_is_what_the_session_gets() -> None:
    session = updated(
        output_modalities=["text"],
        instructions="Rhyme.",
        max_output_tokens=7,
        tool_choice="none",
        truncation={"type": "retention_ratio", "retention_ratio": 0.5},
        tracing={"workflow_name": "calls"},
        include=["item.input_audio_transcription.logprobs"],
        ivas={"events": ["latency", "latency", "weather"]},
        audio={
            "input": {"noise_reduction": {"type": "near_field"}},
            "output": {"voice": {"id": "high"}, "speed": 1.5},
        },
    )
    echo = validated(session.echo)
    assert echo["audio"]["output"]["voice"] == "high"  # a string, whatever was sent
    assert echo["audio"]["input"]["noise_reduction"] == {"type": "near_field"}
    assert echo["ivas"] == {"events": ["latency"]}
    assert echo["truncation"]["retention_ratio"] == 0.5
    assert echo["tracing"]["workflow_name"] == "calls"
    assert echo["include"] == ["item.input_audio_transcription.logprobs"]
    settings = session.settings
    assert (settings.modality, settings.instructions, settings.max_tokens) == ("text", "Rhyme.", 7)
    assert (settings.voice, settings.speed, settings.reports_latency) == ("high", 1.5, True)


def test_server_vad_fills_what_is_not_named_with_the_operators_defaults() -> None:
    session = heard(turn_detection={"type": "server_vad", "interrupt_response": False})
    detection = session.echo["audio"]["input"]["turn_detection"]
    assert detection == {
        "type": "server_vad",
        "threshold": 0.6,
        "prefix_padding_ms": 200,
        "silence_duration_ms": 400,
        "create_response": True,
        "interrupt_response": False,
        "idle_timeout_ms": None,
    }
    turn = session.settings.turn
    assert (turn.threshold, turn.silence_ms, turn.prefix_padding_ms) == (0.6, 400, 200)
    assert (turn.create_response, turn.interrupt_response) == (True, False)
    assert turn.onset_ms == 64  # nothing a client may choose


@pytest.mark.parametrize(("eagerness", "silence_ms"), EAGERNESS_MS.items())
def test_semantic_vad_is_a_silence_window(eagerness: str, silence_ms: int) -> None:
    session = heard(turn_detection={"type": "semantic_vad", "eagerness": eagerness})
    assert session.settings.turn.silence_ms == silence_ms
    assert session.settings.turn.threshold == 0.6
    assert session.echo["audio"]["input"]["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": eagerness,
        "create_response": True,
        "interrupt_response": True,
    }


def test_no_turn_detection_is_push_to_talk_and_there_is_a_way_back() -> None:
    session = heard(turn_detection=None)
    assert session.echo["audio"]["input"]["turn_detection"] is None
    assert session.settings.turn.detection == "none"
    session.update(
        {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "server_vad"}}}}
    )
    assert session.settings == DEFAULTS


def test_idle_timeout_reaches_the_controller() -> None:
    session = heard(turn_detection={"type": "server_vad", "idle_timeout_ms": 5000})
    assert session.settings.turn.idle_timeout_ms == 5000


def test_g711_both_ways() -> None:
    session = updated(
        audio={
            "input": {"format": {"type": "audio/pcmu"}},
            "output": {"format": {"type": "audio/pcma"}},
        }
    )
    assert session.input_format == "audio/pcmu"
    assert session.settings.audio_format == "audio/pcma"
    audio = validated(session.echo)["audio"]
    assert audio["input"]["format"] == {"type": "audio/pcmu"}
    assert audio["output"]["format"] == {"type": "audio/pcma"}


def test_functions_reach_the_llm() -> None:
    look = {"type": "function", "name": "look", "description": "Look.", "parameters": {"a": 1}}
    session = updated(tools=[look, {"type": "function", "name": "wait"}], tool_choice="required")
    assert session.settings.tools == (Tool("look", "Look.", {"a": 1}), Tool("wait"))
    assert session.settings.tool_choice == "required"
    session.update({"type": "realtime", "tool_choice": {"type": "function", "name": "look"}})
    assert session.settings.tool_choice == "look"
    assert validated(session.echo)["tools"][0] == look
    session.update({"type": "realtime", "tools": [], "tool_choice": "auto"})
    assert session.settings.tools == ()


@pytest.mark.parametrize("depth", [200, 240, 250, 600])
def test_tools_that_are_taken_can_be_echoed(depth: int) -> None:
    deep: Any = {}
    for _ in range(depth):
        deep = {"x": deep}
    session = config()
    try:
        session.update({"type": "realtime", "tools": [
            {"type": "function", "name": "f", "parameters": deep}]})  # fmt: skip
    except ClientError as error:
        assert error.param == "session.tools"  # noqa: PT017
        assert depth > 240
    Encoder(tag="a", conversation_id="c").created(session.echo)


def test_a_client_may_forbid_trimming() -> None:
    assert updated(truncation="auto").settings.trims
    assert not updated(truncation="disabled").settings.trims


def transcription(kind: Literal["transcription"] | None = "transcription") -> SessionConfig:
    return SessionConfig(
        session_id="sess_1", model="ivas", defaults=DEFAULTS, kind=kind, expires_at=1_900_000_000
    )


def test_a_transcription_session_reads_and_never_answers() -> None:
    session = transcription()
    echo = session.echo
    assert (echo["type"], echo["object"]) == ("transcription", "realtime.transcription_session")
    assert echo["expires_at"] == 1_900_000_000
    assert set(echo["audio"]) == {"input"}
    assert not {"instructions", "tools", "model"} & set(echo)
    settings = session.settings
    assert settings.transcribe
    assert not settings.turn.create_response
    assert not settings.turn.interrupt_response
    session.update(
        {
            "type": "transcription",
            "audio": {"input": {"transcription": {"language": "de"}, "turn_detection": None}},
        }
    )
    assert session.settings.language == "de"
    assert session.settings.turn.detection == "none"
    assert session.settings.transcribe


def test_the_first_update_may_still_choose_what_the_session_is() -> None:
    session = transcription(None)
    assert session.kind == "realtime"
    session.update({"type": "transcription"})
    assert session.kind == "transcription"
    with pytest.raises(ClientError, match="cannot change its type"):
        session.update({"type": "realtime"})
    assert session.kind == "transcription"
    with pytest.raises(ClientError, match="cannot change its type"):
        transcription().update({"type": "realtime"})


def test_only_server_vad_hears_for_a_transcription() -> None:
    session = transcription()
    with pytest.raises(ClientError) as caught:
        session.update(
            {"type": "transcription", "audio": {"input": {"turn_detection": {
                "type": "semantic_vad"}}}}
        )  # fmt: skip
    assert caught.value.param == "session.audio.input.turn_detection.type"


def test_opting_in() -> None:
    session = updated(ivas={"events": ["engines"]})
    assert session.wants("engines")
    assert not session.wants("latency")
    assert not config().wants("engines")


def test_unknown_keys_are_dropped_and_the_fixed_ones_stay() -> None:
    session = updated(
        id="sess_2", model="gpt-realtime", object="x", reasoning={"effort": "low"}, fun=1
    )
    assert session.echo == config().echo


@pytest.mark.parametrize(
    ("session", "code", "param", "says"),
    [
        ({}, "missing_required_parameter", "session.type", "Missing"),
        ({"type": "video"}, "invalid_value", "session.type", "transcription"),
        ({"type": "realtime", "tools": [{"type": "function"}]}, "missing_required_parameter",
         "session.tools.0.name", "Missing"),
        ({"type": "realtime", "tools": [{"type": "mcp", "name": "x"}]}, "invalid_value",
         "session.tools.0.type", "functions"),
        ({"type": "realtime", "tool_choice": {"type": "mcp"}}, "invalid_value",
         "session.tool_choice", "required"),
        ({"type": "realtime", "output_modalities": ["audio", "text"]}, "invalid_value",
         "session.output_modalities", ""),
        ({"type": "realtime", "output_modalities": ["video"]}, "invalid_value",
         "session.output_modalities.0", "'audio' or 'text'"),
        ({"type": "realtime", "instructions": "x" * (MAX_TEXT + 1)}, "invalid_value",
         "session.instructions", str(MAX_TEXT)),
        ({"type": "realtime", "max_output_tokens": 4097}, "invalid_value",
         "session.max_output_tokens", "4096"),
        ({"type": "realtime", "audio": 5}, "invalid_value", "session.audio", ""),
        ({"type": "realtime", "audio": {"input": {"format": {"type": "audio/opus"}}}},
         "invalid_value", "session.audio.input.format.type", "24000"),
        ({"type": "realtime", "audio": {"output": {"format": {"rate": 16000}}}},
         "invalid_value", "session.audio.output.format.rate", "24000"),
        ({"type": "realtime", "audio": {"output": {"speed": 9}}}, "invalid_value",
         "session.audio.output.speed", "4"),
        ({"type": "realtime", "audio": {"output": {"voice": {"id": 5}}}}, "invalid_value",
         "session.audio.output.voice", "string"),
        ({"type": "realtime", "audio": {"input": {"turn_detection": {"threshold": 1}}}},
         "missing_required_parameter", "session.audio.input.turn_detection.type", "Missing"),
        ({"type": "realtime", "audio": {"input": {"turn_detection": {"type": "magic"}}}},
         "invalid_value", "session.audio.input.turn_detection.type", "'server_vad'"),
        ({"type": "realtime", "audio": {"input": {"turn_detection": {
            "type": "server_vad", "threshold": 2}}}}, "invalid_value",
         "session.audio.input.turn_detection.threshold", "1"),
        ({"type": "realtime", "audio": {"input": {"turn_detection": {
            "type": "server_vad", "idle_timeout_ms": 5}}}}, "invalid_value",
         "session.audio.input.turn_detection.idle_timeout_ms", "null"),
        ({"type": "realtime", "audio": {"input": {"noise_reduction": {}}}},
         "missing_required_parameter", "session.audio.input.noise_reduction.type", "Missing"),
        ({"type": "realtime", "audio": {"input": []}}, "invalid_value",
         "session.audio.input", ""),
        ({"type": "realtime", "truncation": {"type": "retention_ratio"}}, "invalid_value",
         "session.truncation", ""),
        ({"type": "realtime", "include": ["everything"]}, "invalid_value",
         "session.include.0", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_changes_nothing(
    session: dict[str, Any], code: str, param: str, says: str
) -> None:
    error = refused({"instructions": "changed"} | session)
    assert (error.code, error.param) == (code, param)
    assert param in str(error)
    assert says in str(error)


@pytest.mark.parametrize("session", [None, 5, "x", []])
def test_an_update_needs_a_session(session: Any) -> None:
    with pytest.raises(ClientError) as error:
        config().update(session)
    assert (error.value.code, error.value.param) == ("missing_required_parameter", "session")


def leaves(session: Any, path: str = "") -> Iterator[str]:
    """`audio.output.voice` and so on; an object that may be null is one too."""
    if not isinstance(session, dict):
        yield path
        return
    if path.endswith((".transcription", ".turn_detection", ".noise_reduction")):
        yield path
        if path.endswith(".noise_reduction"):
            return
    for key, value in session.items():
        yield from leaves(value, f"{path}.{key}" if path else key)


def test_the_document_lists_exactly_these_fields() -> None:
    semantic = {"turn_detection": {"type": "semantic_vad"}}
    everything = updated(
        include=[],
        ivas={"events": ["latency"]},
        audio={"input": {"transcription": {}, "noise_reduction": {"type": "far_field"}}},
    )
    fields = {*leaves(everything.echo), *leaves(heard(**semantic).echo), "expires_at"}
    _, _, rest = DOCUMENT.read_text(encoding="utf-8").partition("<!-- session fields -->")
    rows = rest.partition("<!-- end -->")[0].splitlines()[3:]
    documented = [row.split("`")[1] for row in rows]
    assert set(documented) == fields
    assert len(documented) == len(set(documented))


# --- anything a client may send ----------------------------------------------

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def sometimes(**keys: Any) -> st.SearchStrategy[Any]:
    """An object with some of these keys; now and then something else altogether."""
    mapping = st.fixed_dictionaries({}, optional={key: value | anything for key, value in
                                                  keys.items()})  # fmt: skip
    return st.one_of(mapping, mapping, mapping, anything)


words = st.sampled_from
formats = sometimes(type=words(["audio/pcm", "audio/pcmu"]), rate=words([24000, 16000]))
sessions = st.fixed_dictionaries(
    {"type": st.just("realtime")},
    optional={
        "output_modalities": words([["audio"], ["text"], ["audio", "text"], []]),
        "instructions": st.text(max_size=20) | anything,
        "tools": words([[], [{}], None]),
        "tool_choice": words(["auto", "none", "required"]) | anything,
        "max_output_tokens": st.integers(-1, 5000) | words(["inf", None]) | anything,
        "truncation": words(["auto", "disabled"])
        | sometimes(
            type=st.just("retention_ratio"),
            retention_ratio=st.floats(-0.5, 1.5),
            token_limits=sometimes(post_instructions=st.integers()),
        ),
        "tracing": words([None, "auto"])
        | sometimes(workflow_name=st.text(), group_id=st.text(), metadata=anything),
        "include": words([None, [], ["item.input_audio_transcription.logprobs"]]) | anything,
        "ivas": sometimes(events=st.lists(words(["latency", "more"]), max_size=3)),
        "audio": sometimes(
            input=sometimes(
                format=formats,
                transcription=sometimes(
                    model=st.text(max_size=9), language=st.text(max_size=40), prompt=st.text()
                ),
                noise_reduction=sometimes(type=words(["near_field", "far_field", "none"])),
                turn_detection=sometimes(
                    type=words(["server_vad", "semantic_vad", "none"]),
                    threshold=st.floats(-0.5, 1.5),
                    prefix_padding_ms=st.integers(-10, 3000),
                    silence_duration_ms=st.integers(-10, 20_000),
                    eagerness=words(["low", "medium", "high", "auto", "very"]),
                    create_response=st.booleans(),
                    interrupt_response=st.booleans(),
                    idle_timeout_ms=words([None, 5000]),
                ),
            ),
            output=sometimes(
                format=formats,
                voice=st.text(max_size=9) | sometimes(id=st.text(max_size=9)),
                speed=st.floats(0, 5),
            ),
        ),
    },
)


@given(st.lists(sessions | anything, min_size=1, max_size=4))
def test_any_update_is_all_or_nothing_and_its_echo_is_a_session(updates: list[Any]) -> None:
    session = config()
    for changes in updates:
        before = session.echo, session.settings
        complaint = update(session, changes)
        if complaint is not None:
            assert complaint.code in ("invalid_value", "missing_required_parameter")
            assert str(complaint.param).startswith("session")
            assert (session.echo, session.settings) == before
        else:
            echo, settings = validated(session.echo), session.settings
            session.update(echo)  # to update with one's own echo changes nothing
            assert (session.echo, session.settings) == (echo, settings)


def update(session: SessionConfig, changes: Any) -> ClientError | None:
    try:
        session.update(changes)
    except ClientError as error:
        return error
    return None
