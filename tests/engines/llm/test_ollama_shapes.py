"""Messages and tools in the shape of Ollama, and through its client unharmed."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from ollama import Tool as OllamaTool

from ivas.engines import Message, Tool, ToolCall
from ivas.engines.llm.ollama_shapes import chat_messages, chat_tools, tool_call

WEATHER = Tool(
    "weather",
    "What the sky does.",
    {
        "type": "object",
        "properties": {
            "place": {"type": "string", "description": "A town."},
            "days": {"type": "integer", "minimum": 1},
            "units": {"type": "string", "enum": ["C", "F"]},
            "at": {"type": "object", "properties": {"lat": {"type": "number"}}},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["place"],
    },
)
TIME = Tool("time")


def through_the_client(tools) -> list[dict]:
    """As the official client sends them."""
    return [OllamaTool.model_validate(tool).model_dump(exclude_none=True) for tool in tools]


def test_a_function_arrives_with_all_its_schema() -> None:
    (sent,) = through_the_client(chat_tools([WEATHER], "auto"))
    assert (sent["type"], sent["function"]["name"]) == ("function", "weather")
    parameters = sent["function"]["parameters"]
    assert parameters["required"] == ["place"]
    properties = parameters["properties"]
    assert properties["place"] == {"type": "string", "description": "A town."}
    assert properties["units"] == {"type": "string", "enum": ["C", "F"]}
    assert properties["tags"] == {"type": "array", "items": {"type": "string"}}
    assert properties["days"]["description"] == '(JSON schema: {"minimum": 1})'
    assert '"lat": {"type": "number"}' in properties["at"]["description"]


def test_the_choice_is_kept_as_far_as_ollama_can() -> None:
    def names(choice: str) -> list[str]:
        return [tool["function"]["name"] for tool in chat_tools([WEATHER, TIME], choice)]

    assert names("auto") == names("required") == names("unknown") == ["weather", "time"]
    assert names("none") == []
    assert names("time") == ["time"]


SCHEMAS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "properties", "items", "required", "enum", "description", "$defs", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["type", "properties", "required", "$defs"]), SCHEMAS))
def test_no_schema_breaks_the_client(schema: dict) -> None:
    assert through_the_client(chat_tools([Tool("f", "", schema)], "auto"))


def test_a_call_and_its_result() -> None:
    messages = chat_messages(
        [
            Message("user", "time?"),
            Message("assistant", "", tool_calls=(ToolCall("c1", "time", '{"zone": "UTC"}'),)),
            Message("tool", "noon", tool_call_id="c1"),
            Message("tool", "late", tool_call_id="c0"),
        ]
    )
    assert messages[1]["tool_calls"] == [
        {"function": {"name": "time", "arguments": {"zone": "UTC"}}}
    ]
    assert messages[2] == {"role": "tool", "content": "noon", "tool_name": "time"}
    assert messages[3] == {"role": "tool", "content": "late"}


def test_arguments_are_always_an_object() -> None:
    def sent(arguments: str) -> object:
        call = ToolCall("1", "f", arguments)
        (message,) = chat_messages([Message("assistant", "", tool_calls=(call,))])
        return message["tool_calls"][0]["function"]["arguments"]

    assert sent("") == {}
    assert sent("[1]") == {"value": [1]}
    assert sent("{broken") == {"value": "{broken"}


def test_every_call_gets_an_id_of_its_own() -> None:
    one, two = tool_call("f", {"ä": 1}), tool_call("f", {"ä": 1})
    assert one.call_id != two.call_id
    assert one.arguments == '{"ä": 1}'
    assert json.loads(one.arguments) == {"ä": 1}
