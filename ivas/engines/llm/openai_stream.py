"""What an OpenAI-compatible chat server sends and is sent: shapes, events, deltas. Pure.

The servers agree on the large things only. Seen in the wild and understood here: events
without a space behind the colon, comments that keep the connection alive, whole messages
instead of deltas, tool calls without an index or an id, arguments as an object, errors in
the middle of a stream in three shapes.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ivas.engines import Message, Tool, ToolCall

MOST_LINE_BYTES = 4 * 2**20
"""A longer line is garbage: a delta has some hundred bytes, a whole reply some thousands."""


def chat_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The prompt."""
    shaped = []
    for message in messages:
        out: dict[str, Any] = {"role": message.role, "content": message.text}
        if message.tool_calls:
            out["tool_calls"] = [
                {
                    "id": call.call_id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in message.tool_calls
            ]
        if message.tool_call_id is not None:
            out["tool_call_id"] = message.tool_call_id
        shaped.append(out)
    return shaped


def chat_tools(tools: Sequence[Tool], tool_choice: str) -> dict[str, Any]:
    """The members `tools` and `tool_choice` of a request; none where there are no tools.

    `tool_choice`: auto, none, required, or the name of the one to call.
    """
    if not tools:
        return {}
    words = ("auto", "none", "required")
    return {
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": dict(tool.parameters) or {"type": "object", "properties": {}},
                },
            }
            for tool in tools
        ],
        "tool_choice": tool_choice
        if tool_choice in words
        else {"type": "function", "function": {"name": tool_choice}},
    }


class EventReader:
    """Bytes of a text/event-stream in any cut -> the data of its events.

    (https://html.spec.whatwg.org/multipage/server-sent-events.html; no server puts the JSON
    of one event on two lines, so a line is an event here.)
    """

    def __init__(self) -> None:
        self._rest = b""

    def push(self, data: bytes) -> Iterator[str]:
        """The data that is complete now. Raises ValueError for what no such stream holds."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MOST_LINE_BYTES:
            raise ValueError("a line without end")
        for line in lines:
            name, colon, value = line.rstrip(b"\r").partition(b":")
            if name == b"data" and colon:
                yield value.decode().removeprefix(" ")

    def end(self) -> Iterator[str]:
        """The data of a last line that was not ended."""
        yield from self.push(b"\n")


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Deltas:
    """Puts one reply together from its events."""

    finished: bool = False
    """Whether the server said that this is all."""
    _calls: dict[object, _Call] = field(default_factory=dict)

    def text(self, event: Mapping[str, Any]) -> str:
        """What `event` adds to the text. Raises ValueError if it is none of a chat."""
        choices = event.get("choices")
        if not isinstance(choices, list):
            raise ValueError("no choices")
        if not choices:
            return ""  # usage, or a filter's report
        choice = choices[0]
        if not isinstance(choice, Mapping):
            raise ValueError("a choice is no object")
        if choice.get("finish_reason"):
            self.finished = True
        delta = choice.get("delta") or choice.get("message") or {}
        if not isinstance(delta, Mapping):
            raise ValueError("a delta is no object")
        for position, call in enumerate(delta.get("tool_calls") or ()):
            self._merge(call, position)
        content = delta.get("content")
        return content if isinstance(content, str) else ""

    def _merge(self, delta: object, position: int) -> None:
        if not isinstance(delta, Mapping):
            raise ValueError("a tool call is no object")
        function = delta.get("function") or {}
        if not isinstance(function, Mapping):
            raise ValueError("a function is no object")
        id_, index = delta.get("id"), delta.get("index")
        # Without an index a call comes whole, known by its id or by its place.
        key = index if isinstance(index, int) else id_ or ("at", len(self._calls), position)
        call = self._calls.setdefault(key, _Call())
        call.id = call.id or (id_ if isinstance(id_, str) else "")
        call.name = call.name or str(function.get("name") or "")
        more = function.get("arguments")
        call.arguments += more if isinstance(more, str) else json.dumps(more) if more else ""

    def calls(self) -> Iterator[ToolCall]:
        """The tool calls, complete once the reply is; those without a name are left out."""
        for call in self._calls.values():
            if call.name:
                yield ToolCall(
                    call.id or f"call_{uuid.uuid4().hex[:24]}", call.name, call.arguments or "{}"
                )
