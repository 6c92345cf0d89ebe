"""Client events of the OpenAI Realtime protocol, from JSON text to commands.

Pure. Whatever cannot be understood becomes a `Malformed` command in its place, so
that errors come back in the order of the events that caused them. `append`, fifty a
second, takes the short way; everything else is validated strictly.
"""

from __future__ import annotations

import binascii
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, ValidationError

from ivas import announcements as say
from ivas.conversation.events import Failure, ReplyOptions
from ivas.conversation.history import AnyItem, FunctionCall, FunctionOutput, Item, Part
from ivas.errors import ClientError
from ivas.ids import new_id

from .protocol_models import MAX_TEXT, Format, Shape, ToolChoice, Tools, Voice, tool_choice
from .protocol_session import SessionConfig, refuse_invalid

MAX_AUDIO_BYTES = 15 * 1024 * 1024
"""Most audio in one append, the limit of the OpenAI API."""

MAX_ID = 512
"""Longest id a client may make up, in characters: the limit of the OpenAI API."""
MAX_INTEGER = 2**53
"""Integers are below it: what JavaScript, and so JSON, holds exactly."""

MAX_CONTEXT = 512
"""Most items a reply may be given instead of the conversation."""

Text = Annotated[str, Field(max_length=MAX_TEXT)]
ItemId = Annotated[str, Field(min_length=1, max_length=64)]


class _TextContent(Shape):
    type: Literal["input_text", "output_text"]
    text: Text


class _AudioContent(Shape):
    type: Literal["input_audio", "output_audio"]
    transcript: Text


class _Message(Shape):
    id: ItemId | None = None
    type: Literal["message"]
    role: Literal["system", "user", "assistant"]
    content: Annotated[
        list[Annotated[_TextContent | _AudioContent, Field(discriminator="type")]],
        Field(min_length=1, max_length=64),
    ]


class _FunctionCall(Shape):
    id: ItemId | None = None
    call_id: Annotated[str, Field(min_length=1, max_length=MAX_ID)] | None = None
    name: Annotated[str, Field(min_length=1, max_length=128)]
    arguments: Text


class _FunctionOutput(Shape):
    id: ItemId | None = None
    call_id: Annotated[str, Field(min_length=1, max_length=MAX_ID)]
    output: Text


class _VoiceOut(Shape):
    format: Format | None = None
    voice: Voice | None = None


class _AudioOut(Shape):
    output: _VoiceOut | None = None


class _Response(Shape):
    output_modalities: (
        Annotated[list[Literal["audio", "text"]], Field(min_length=1, max_length=1)] | None
    ) = None
    instructions: Text | None = None
    audio: _AudioOut | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=4096)] | Literal["inf"] | None = None
    conversation: Literal["auto", "none"] | None = None
    input: Annotated[list[dict[str, Any]], Field(max_length=MAX_CONTEXT)] | None = None
    metadata: (
        Annotated[
            dict[
                Annotated[str, Field(max_length=64)],
                Annotated[str, Field(max_length=512)],
            ],
            Field(max_length=16),
        ]
        | None
    ) = None


def decode(raw: str | bytes, config: SessionConfig, *, max_bytes: int) -> say.Command:
    """One frame from the client. `session.update` is applied to `config` here."""
    if len(raw) > max_bytes:
        message = (
            f"The event is larger than {max_bytes // 2**20} MiB; send audio in smaller pieces."
        )
        return say.Malformed(Failure("invalid_value", message))
    try:
        event = orjson.loads(raw)
    except orjson.JSONDecodeError:
        message = "The event is not valid JSON; send one JSON object a frame."
        return say.Malformed(Failure("invalid_json", message))
    event_id = None
    try:
        if not isinstance(event, dict):
            raise ClientError("An event must be a JSON object.", code="invalid_value")
        kind = event.get("type")
        given_id = event.get("event_id")
        if isinstance(given_id, str) and len(given_id) <= MAX_ID:
            event_id = given_id
        if kind == "input_audio_buffer.append":
            return say.AppendAudio(_audio(event))
        return _command(kind, event, event_id, config)
    except ClientError as error:
        return say.Malformed(Failure(error.code, str(error)), error.param, event_id)


def _audio(event: dict[str, Any]) -> bytes:
    audio = event.get("audio")
    if audio is None:
        raise _missing("audio")
    if not isinstance(audio, str):
        raise _invalid("audio", "it must be a string of base64")
    try:
        pcm = binascii.a2b_base64(audio, strict_mode=True) if audio else b""
    except (binascii.Error, ValueError):
        message = "Invalid value for 'audio': it is not base64; encode PCM16 bytes as base64."
        raise ClientError(message, code="invalid_value", param="audio") from None
    if len(pcm) > MAX_AUDIO_BYTES:
        message = "Invalid value for 'audio': at most 15 MiB in one event; send smaller pieces."
        raise ClientError(message, code="invalid_value", param="audio")
    return pcm


_OF_CONVERSATIONS = frozenset(
    {"response.create", "response.cancel", "conversation.item.create", "conversation.item.truncate"}
)


def _command(
    kind: object, event: dict[str, Any], event_id: str | None, config: SessionConfig
) -> say.Command:
    if config.kind == "transcription" and kind in _OF_CONVERSATIONS:
        raise _invalid("type", f"a transcription session has no {str(kind).partition('.')[0]}s")
    match kind:
        case "session.update":
            config.update(event.get("session"))
            return say.Configure(config.settings, config.echo)
        case "input_audio_buffer.commit":
            return say.CommitAudio(event_id)
        case "input_audio_buffer.clear":
            return say.ClearAudio(event_id)
        case "conversation.item.create":
            after = _optional_id(event, "previous_item_id")
            return say.AddItem(_item(event.get("item"), "item"), after, event_id)
        case "conversation.item.retrieve":
            return say.RetrieveItem(_id(event, "item_id"), event_id)
        case "conversation.item.truncate":
            return say.TruncateItem(
                _id(event, "item_id"),
                _integer(event, "content_index"),
                _integer(event, "audio_end_ms"),
                event_id,
            )
        case "conversation.item.delete":
            return say.DeleteItem(_id(event, "item_id"), event_id)
        case "response.create":
            return say.CreateReply(_reply_options(event.get("response")), event_id)
        case "response.cancel":
            return say.CancelActiveReply(_optional_id(event, "response_id"), event_id)
        case None:
            raise _missing("type")
        case "output_audio_buffer.clear":
            raise _invalid("type", "output_audio_buffer.clear is for WebRTC; send response.cancel")
        case _:
            raise _invalid("type", f"this server knows no event {str(kind)[:100]!r}")


def _item(given: object, at: str) -> AnyItem:
    """One item; `at` is where it stands in the event, for errors."""
    if not isinstance(given, dict):
        raise _missing(at)
    try:
        match given.get("type"):
            case None:
                raise _missing(f"{at}.type")
            case "message":
                return _message(_Message.model_validate(given), at)
            case "function_call":
                call = _FunctionCall.model_validate(given)
                call_id = call.call_id or new_id("call")
                return FunctionCall(_item_id(call.id), call_id, call.name, call.arguments)
            case "function_call_output":
                output = _FunctionOutput.model_validate(given)
                return FunctionOutput(_item_id(output.id), output.call_id, output.output)
    except ValidationError as error:
        refuse_invalid(error, at, given)
    why = "this server knows items of type message, function_call and function_call_output"
    raise _invalid(f"{at}.type", why)


def _message(message: _Message, at: str) -> Item:
    parts = []
    direction = "output" if message.role == "assistant" else "input"
    for index, content in enumerate(message.content):
        spoken = isinstance(content, _AudioContent)
        if not content.type.startswith(direction) or (spoken and message.role == "system"):
            param = f"{at}.content.{index}.type"
            raise _invalid(param, f"a {message.role} message cannot hold {content.type}")
        text = content.transcript if isinstance(content, _AudioContent) else content.text
        parts.append(Part(content.type, text))
    if sum(len(part.text or "") for part in parts) > MAX_TEXT:
        raise _invalid(f"{at}.content", f"at most {MAX_TEXT} characters in one item")
    return Item(_item_id(message.id), message.role, parts)


def _item_id(given: str | None) -> str:
    return given or new_id("item")


def _context(given: list[dict[str, Any]] | None) -> tuple[AnyItem | str, ...] | None:
    if given is None:
        return None
    context: list[AnyItem | str] = []
    for index, entry in enumerate(given):
        at = f"response.input.{index}"
        if entry.get("type") == "item_reference":
            context.append(_id(entry, "id", f"{at}.id"))
        else:
            context.append(_item(entry, at))
    return tuple(context)


def _reply_options(given: object) -> ReplyOptions:
    if given is None:
        return ReplyOptions()
    try:
        response = _Response.model_validate(given)
    except ValidationError as error:
        refuse_invalid(error, "response", given)
    output = response.audio.output if response.audio else None
    choice = response.tool_choice
    return ReplyOptions(
        modality=response.output_modalities[0] if response.output_modalities else None,
        instructions=response.instructions,
        voice=output.voice if output else None,
        max_tokens=response.max_output_tokens,
        metadata=response.metadata,
        tools=None if response.tools is None else tuple(f.tool for f in response.tools),
        tool_choice=None if choice is None else tool_choice(choice),
        audio_format=output.format.type if output and output.format else None,
        in_conversation=response.conversation != "none",
        context=_context(response.input),
    )


def _id(event: dict[str, Any], key: str, at: str | None = None) -> str:
    value = _optional_id(event, key)
    if value is None:
        raise _missing(at or key)
    return value


def _optional_id(event: dict[str, Any], key: str) -> str | None:
    value = event.get(key)
    if value is not None and not (isinstance(value, str) and len(value) <= MAX_ID):
        raise _invalid(key, f"it must be a string of at most {MAX_ID} characters")
    return value


def _integer(event: dict[str, Any], key: str) -> int:
    value = event.get(key)
    if value is None:
        raise _missing(key)
    # orjson reads 1.0, and whatever has more than 64 bits, as float.
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 != 0:
        raise _invalid(key, "it must be a whole number")
    if not 0 <= value < MAX_INTEGER:
        raise _invalid(key, "it must be from 0 to 2**53 - 1")
    return int(value)


def _missing(param: str) -> ClientError:
    message = f"Missing required parameter: '{param}'."
    return ClientError(message, code="missing_required_parameter", param=param)


def _invalid(param: str, why: str) -> ClientError:
    return ClientError(f"Invalid value for '{param}': {why}.", code="invalid_value", param=param)
