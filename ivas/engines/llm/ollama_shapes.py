"""Messages and tools in the shape of Ollama's /api/chat, and tool calls back. Pure.

Ollama differs from OpenAI in three ways: the arguments of a call are an object and not JSON
text, a result names its function and not its call, and of a function's JSON schema it knows
only the outermost properties with type, items, description and enum.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from ivas.engines import Message, Tool, ToolCall

_KNOWN = ("type", "items", "description", "enum")


def chat_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The prompt. A result whose call is not among the messages goes without a name."""
    names: dict[str, str] = {}
    shaped = []
    for message in messages:
        out: dict[str, Any] = {"role": message.role, "content": message.text}
        if message.tool_calls:
            out["tool_calls"] = [
                {"function": {"name": call.name, "arguments": _object(call.arguments)}}
                for call in message.tool_calls
            ]
            names |= {call.call_id: call.name for call in message.tool_calls}
        if message.tool_call_id is not None and message.tool_call_id in names:
            out["tool_name"] = names[message.tool_call_id]
        shaped.append(out)
    return shaped


def chat_tools(tools: Sequence[Tool], tool_choice: str) -> list[dict[str, Any]]:
    """The functions to offer.

    Ollama has no tool_choice. `none` and a name are kept by what is offered; `required`
    cannot be enforced and is `auto`.
    """
    offered = [] if tool_choice == "none" else list(tools)
    if named := [tool for tool in offered if tool.name == tool_choice]:
        offered = named
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": _parameters(tool.parameters),
            },
        }
        for tool in offered
    ]


def tool_call(name: str, arguments: Mapping[str, Any]) -> ToolCall:
    """Ollama's call under an id of our own: it gives none."""
    return ToolCall(
        f"call_{uuid.uuid4().hex[:24]}", name, json.dumps(dict(arguments), ensure_ascii=False)
    )


def _object(arguments: str) -> dict[str, Any]:
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        value = arguments
    return value if isinstance(value, dict) else {"value": value}


def _parameters(schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties")
    required = schema.get("required")
    shaped: dict[str, Any] = {
        "type": "object",
        "properties": {
            str(name): _property(of) for name, of in properties.items() if isinstance(of, Mapping)
        }
        if isinstance(properties, Mapping)
        else {},
    }
    if isinstance(required, list | tuple):
        shaped["required"] = [name for name in required if isinstance(name, str)]
    if isinstance(schema.get("$defs"), Mapping):
        shaped["$defs"] = schema["$defs"]
    return shaped


def _property(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What Ollama knows of it; the rest as JSON in its description, where the model reads it."""
    shaped: dict[str, Any] = {}
    kind, choices = schema.get("type"), schema.get("enum")
    if isinstance(kind, str) or (isinstance(kind, list) and all(isinstance(k, str) for k in kind)):
        shaped["type"] = kind
    if isinstance(choices, list):
        shaped["enum"] = choices
    if "items" in schema:
        shaped["items"] = schema["items"]
    described = schema.get("description")
    description = described if isinstance(described, str) else ""
    if rest := {key: value for key, value in schema.items() if key not in _KNOWN}:
        as_json = json.dumps(rest, ensure_ascii=False, default=str)
        description = f"{description} (JSON schema: {as_json})".strip()
    if description:
        shaped["description"] = description
    return shaped
