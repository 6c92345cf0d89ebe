"""What OpenAI-compatible servers send, in all its dialects."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.engines import Message, Tool, ToolCall
from ivas.engines.llm.openai_stream import (
    MOST_LINE_BYTES,
    Deltas,
    EventReader,
    chat_messages,
    chat_tools,
)

STREAM = (
    b": a comment\n\n"
    b'data: {"a": 1}\r\n\r\n'
    b'event: x\nid: 7\nretry\ndata:{"b":"\xe2\x80\xa8 \xc3\xa9"}\n\n'
    b"data\n"
    b"data: [DONE]"
)
EVENTS = ['{"a": 1}', '{"b":"\u2028 é"}', "[DONE]"]


def read(*pieces: bytes) -> list[str]:
    reader = EventReader()
    events = [event for piece in pieces for event in reader.push(piece)]
    return [*events, *reader.end()]


def test_reads_the_data_of_every_event() -> None:
    assert read(STREAM) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_how_the_bytes_are_cut_does_not_matter(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    assert read(*(STREAM[a:b] for a, b in pairwise(edges))) == EVENTS


def test_a_line_without_end_is_refused() -> None:
    reader = EventReader()
    assert list(reader.push(b"x" * MOST_LINE_BYTES)) == []
    with pytest.raises(ValueError, match="without end"):
        list(reader.push(b"x"))


def event(finish: str | None = None, **delta: object) -> dict:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def call(index: int | None, id_: str | None, name: str | None, arguments: object) -> dict:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": id_, "function": function}


def test_text_is_content_and_nothing_else() -> None:
    deltas = Deltas()
    assert deltas.text(event(role="assistant", content="")) == ""
    assert deltas.text(event(reasoning_content="hm", reasoning="hm")) == ""
    assert deltas.text(event(content="Hel")) == "Hel"
    assert deltas.text(event(content=None)) == ""
    assert not deltas.finished
    assert deltas.text({"choices": [], "usage": {}}) == ""
    assert deltas.text(event("stop")) == ""
    assert deltas.finished


def test_a_whole_message_is_one_delta() -> None:
    deltas = Deltas()
    whole = {"choices": [{"message": {"content": "Hello."}, "finish_reason": "stop"}]}
    assert deltas.text(whole) == "Hello."
    assert deltas.finished


def calls(*parts: dict) -> list[ToolCall]:
    deltas = Deltas()
    for part in parts:
        deltas.text(event(tool_calls=[part]))
    return list(deltas.calls())


def test_the_pieces_of_a_call_are_put_together_by_their_index() -> None:
    assert calls(
        call(0, "c0", "time", ""),
        call(1, "c1", "day", ""),
        call(0, None, None, '{"zone": '),
        call(1, None, None, "{}"),
        call(0, None, None, '"UTC"}'),
    ) == [ToolCall("c0", "time", '{"zone": "UTC"}'), ToolCall("c1", "day", "{}")]


def test_calls_without_an_index_are_whole() -> None:
    assert calls(call(None, "a", "time", "{}"), call(None, "b", "time", None)) == [
        ToolCall("a", "time", "{}"),
        ToolCall("b", "time", "{}"),
    ]
    one, two = calls(call(None, None, "time", {"a": 1}), call(None, None, "time", "{}"))
    assert (one.arguments, two.arguments) == ('{"a": 1}', "{}")
    assert one.call_id != two.call_id


def test_a_call_without_a_name_is_none() -> None:
    assert calls(call(0, "c0", None, "{}")) == []


GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "message", "content", "tool_calls", "function", "index", "id"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["choices", "usage"]), GARBAGE))
def test_garbage_is_text_or_refused(garbage: dict) -> None:
    deltas = Deltas()
    try:
        assert isinstance(deltas.text(garbage), str)
    except ValueError:
        return
    assert all(json.dumps(each.arguments) for each in deltas.calls())


def test_messages_in_the_shape_of_openai() -> None:
    time = ToolCall("c1", "time", "{}")
    assert chat_messages(
        [
            Message("user", "time?"),
            Message("assistant", "", tool_calls=(time,)),
            Message("tool", "noon", tool_call_id="c1"),
        ]
    ) == [
        {"role": "user", "content": "time?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "time", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "content": "noon", "tool_call_id": "c1"},
    ]


def test_tools_in_the_shape_of_openai() -> None:
    assert chat_tools([], "required") == {}
    shaped = chat_tools([Tool("time")], "auto")
    assert shaped["tool_choice"] == "auto"
    assert shaped["tools"][0]["function"] == {
        "name": "time",
        "description": "",
        "parameters": {"type": "object", "properties": {}},
    }
    named = chat_tools([Tool("time", "", {"type": "object", "x": 1})], "time")
    assert named["tools"][0]["function"]["parameters"] == {"type": "object", "x": 1}
    assert named["tool_choice"] == {"type": "function", "function": {"name": "time"}}
