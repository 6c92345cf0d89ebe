"""Server events of the OpenAI Realtime protocol, from announcements to JSON text.

Pure but for the counter of event ids. Every event carries every field the stock
clients need (shapes and orders from tests with six of them): user audio content
always has its `transcript` key, `previous_item_id` is always sent, `usage` is never
null, and no type outside the official union goes to a client that did not ask.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from itertools import count
from typing import Any, assert_never

import orjson

from ivas import announcements as say
from ivas.audio.g711 import Downsampler24to8, encode_alaw, encode_ulaw
from ivas.choice import Change
from ivas.conversation.events import Failure
from ivas.conversation.history import AnyItem, FunctionCall, FunctionOutput, Item, Part, PartKind

Event = dict[str, Any]


class Encoder:
    """Encodes for one connection; `tag` makes its event ids unique."""

    def __init__(self, *, tag: str, conversation_id: str) -> None:
        self._ids = (f"event_{tag}{number:x}" for number in count(1))
        self._conversation_id = conversation_id
        self._downsampler = Downsampler24to8()
        self._resampled: str | None = None  # the reply whose sound is in it

    def created(self, session: Event) -> str:
        """The first message of every connection."""
        return self._dump({"type": "session.created", "session": session})

    def engines_changed(self, change: Change) -> str:
        """For a client that opted in to `engines`."""
        return self._dump(
            {
                "type": "ivas.engines",
                "kind": change.kind,
                "engine": change.engine,
                "before": change.before,
                "reason": change.reason,
            }
        )

    def encode(self, announcement: say.Announcement) -> Iterator[str]:
        """The frames that say it, in order."""
        for event in self._events(announcement):
            yield self._dump(event)

    def _dump(self, event: Event) -> str:
        event["event_id"] = next(self._ids)
        return orjson.dumps(event).decode()

    def _events(self, announcement: say.Announcement) -> Iterator[Event]:
        match announcement:
            case say.Configured(echo):
                yield {"type": "session.updated", "session": dict(echo)}
            case say.SpeechStarted(item_id, start_ms):
                yield {
                    "type": "input_audio_buffer.speech_started",
                    "audio_start_ms": start_ms,
                    "item_id": item_id,
                }
            case say.SpeechStopped(item_id, end_ms):
                yield {
                    "type": "input_audio_buffer.speech_stopped",
                    "audio_end_ms": end_ms,
                    "item_id": item_id,
                }
            case say.WaitedForUser(item_id, start_ms, end_ms):
                yield {
                    "type": "input_audio_buffer.timeout_triggered",
                    "audio_start_ms": start_ms,
                    "audio_end_ms": end_ms,
                    "item_id": item_id,
                }
            case say.AudioCommitted(item_id, previous_id):
                yield {
                    "type": "input_audio_buffer.committed",
                    "item_id": item_id,
                    "previous_item_id": previous_id,
                }
            case say.AudioCleared():
                yield {"type": "input_audio_buffer.cleared"}
            case say.ItemAdded(item, previous_id):
                for kind in ("added", "done"):
                    yield {
                        "type": f"conversation.item.{kind}",
                        "item": _item(item),
                        "previous_item_id": previous_id,
                    }
            case say.ItemRetrieved(item):
                yield {"type": "conversation.item.retrieved", "item": _item(item)}
            case say.ItemTruncated(item_id, content_index, played_ms):
                yield {
                    "type": "conversation.item.truncated",
                    "item_id": item_id,
                    "content_index": content_index,
                    "audio_end_ms": played_ms,
                }
            case say.ItemDeleted(item_id):
                yield {"type": "conversation.item.deleted", "item_id": item_id}
            case say.TranscriptDelta() | say.TranscriptCompleted() | say.TranscriptFailed():
                yield _transcription(announcement)
            case say.Refused(failure, param, event_id, kind):
                error = {"type": kind, "code": failure.code, "message": failure.message}
                known = {"param": param, "event_id": event_id}  # null would break strict clients
                error |= {key: value for key, value in known.items() if value is not None}
                yield {"type": "error", "error": error}
            case say.LatencyMeasured(reply, spans):
                yield {"type": "ivas.latency", "response_id": reply.id, "spans_ms": dict(spans)}
            case say.AudioSpoken(reply, pcm):
                yield from self._sound(reply, pcm)
            case _:
                yield from self._reply_events(announcement)

    def _sound(self, reply: say.ReplyView, pcm: bytes) -> Iterator[Event]:
        if reply.audio_format != "audio/pcm":
            if self._resampled != reply.id:
                self._resampled, self._downsampler = reply.id, Downsampler24to8()
            pcm = _g711(reply, self._downsampler.push(pcm))
        if pcm:
            delta = base64.b64encode(pcm).decode("ascii")
            yield _content(reply, "response.output_audio.delta", delta=delta)

    def _last_sound(self, reply: say.ReplyView) -> Iterator[Event]:
        """What the resampler still holds of a message that was spoken to its end."""
        if self._resampled == reply.id:
            self._resampled = None
            pcm = _g711(reply, self._downsampler.finish())  # its lag: never nothing
            delta = base64.b64encode(pcm).decode("ascii")
            yield _content(reply, "response.output_audio.delta", delta=delta)

    def _reply_events(
        self,
        announcement: say.ReplyStarted
        | say.MessageStarted
        | say.WordsSpoken
        | say.MessageEnded
        | say.FunctionCalled
        | say.ReplyEnded,
    ) -> Iterator[Event]:
        reply = announcement.reply
        match announcement:
            case say.ReplyStarted():
                yield {
                    "type": "response.created",
                    "response": self._response(reply, "in_progress", None, [], None),
                }
            case say.MessageStarted(_, previous_id):
                item = _assistant(reply, "in_progress", None)
                yield from _item_events(reply, "added", item, 0, previous_id)
                yield _content(reply, "response.content_part.added", part=_part(reply, ""))
            case say.WordsSpoken(_, delta):
                yield _content(reply, f"response.{_text_kind(reply)}.delta", delta=delta)
            case say.MessageEnded(_, said, state, previous_id):
                if state == "completed":
                    yield from self._last_sound(reply)
                yield from _message_done(reply, said)
                item = _assistant(reply, state, said)
                yield from _item_events(reply, "done", item, 0, previous_id)
            case say.FunctionCalled(_, call, index, previous_id):
                yield from _function_called(reply, call, index, previous_id)
            case say.ReplyEnded(_, outcome, text, calls, usage, message_status):
                status, details = _status(outcome)
                output = [_item(call) for call in calls]
                if text is not None:
                    output.insert(0, _assistant(reply, message_status, text))
                yield {
                    "type": "response.done",
                    "response": self._response(reply, status, details, output, usage),
                }
            case _:
                assert_never(announcement)

    def _response(
        self,
        reply: say.ReplyView,
        status: str,
        details: Event | None,
        output: list[Event],
        usage: say.Usage | None,
    ) -> Event:
        return {
            "id": reply.id,
            "object": "realtime.response",
            "status": status,
            "status_details": details,
            "output": output,
            "conversation_id": self._conversation_id if reply.in_conversation else None,
            "output_modalities": [reply.modality],
            "max_output_tokens": reply.max_tokens or "inf",
            "audio": {"output": {"format": _format(reply), "voice": reply.voice}},
            "metadata": reply.metadata,
            "usage": None if usage is None else _usage(usage),
        }


def _status(outcome: object) -> tuple[str, Event | None]:
    match outcome:
        case "completed":
            return "completed", None
        case "max_output_tokens":
            return "incomplete", {"type": "incomplete", "reason": "max_output_tokens"}
        case Failure(code, message):
            error = {"type": "server_error", "code": code, "message": message}
            return "failed", {"type": "failed", "error": error}
        case _:
            return "cancelled", {"type": "cancelled", "reason": outcome}


def _format(reply: say.ReplyView) -> Event:
    if reply.audio_format == "audio/pcm":
        return {"type": "audio/pcm", "rate": 24000}
    return {"type": reply.audio_format}


def _g711(reply: say.ReplyView, pcm: bytes) -> bytes:
    return encode_ulaw(pcm) if reply.audio_format == "audio/pcmu" else encode_alaw(pcm)


def _item_events(
    reply: say.ReplyView, stage: str, item: Event, index: int, previous_id: str | None
) -> Iterator[Event]:
    """An item of a reply comes or is complete; both its owners are told.

    Of one outside of the conversation only the response.
    """
    output = {
        "type": f"response.output_item.{stage}",
        "response_id": reply.id,
        "output_index": index,
        "item": item,
    }
    owned = {
        "type": f"conversation.item.{stage}",
        "item": item,
        "previous_item_id": previous_id,
    }
    if not reply.in_conversation:
        yield output
    elif stage == "added":
        yield from (output, owned)
    else:
        yield from (owned, output)


def _function_called(
    reply: say.ReplyView, call: FunctionCall, index: int, previous_id: str | None
) -> Iterator[Event]:
    begun = _item(call) | {"status": "in_progress", "arguments": ""}
    yield from _item_events(reply, "added", begun, index, previous_id)
    where = {
        "response_id": reply.id,
        "item_id": call.id,
        "output_index": index,
        "call_id": call.call_id,
    }
    arguments = "response.function_call_arguments"
    yield {"type": f"{arguments}.delta", **where, "delta": call.arguments}
    yield {"type": f"{arguments}.done", **where, "name": call.name, "arguments": call.arguments}
    yield from _item_events(reply, "done", _item(call), index, previous_id)


def _message_done(reply: say.ReplyView, text: str) -> Iterator[Event]:
    if reply.modality == "audio":
        yield _content(reply, "response.output_audio.done")
        yield _content(reply, "response.output_audio_transcript.done", transcript=text)
    else:
        yield _content(reply, "response.output_text.done", text=text)
    yield _content(reply, "response.content_part.done", part=_part(reply, text))


def _content(reply: say.ReplyView, kind: str, **more: Any) -> Event:
    return {
        "type": kind,
        "response_id": reply.id,
        "item_id": reply.item_id,
        "output_index": 0,
        "content_index": 0,
        **more,
    }


def _text_kind(reply: say.ReplyView) -> str:
    return "output_audio_transcript" if reply.modality == "audio" else "output_text"


def _part(reply: say.ReplyView, text: str) -> Event:
    """The part of a content_part event: its types differ from those in items."""
    if reply.modality == "audio":
        return {"type": "audio", "transcript": text}
    return {"type": "text", "text": text}


def _assistant(reply: say.ReplyView, status: str, text: str | None) -> Event:
    content = []
    if text is not None:
        kind: PartKind = "output_audio" if reply.modality == "audio" else "output_text"
        content = [_content_part(Part(kind, text))]
    return {
        "id": reply.item_id,
        "object": "realtime.item",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def _item(item: AnyItem) -> Event:
    common: Event = {"id": item.id, "object": "realtime.item", "status": item.status}
    match item:
        case FunctionCall():
            return common | {
                "type": "function_call",
                "call_id": item.call_id,
                "name": item.name,
                "arguments": item.arguments,
            }
        case FunctionOutput():
            return common | {
                "type": "function_call_output",
                "call_id": item.call_id,
                "output": item.output,
            }
        case Item():
            content = [_content_part(part) for part in item.parts]
            return common | {"type": "message", "role": item.role, "content": content}
        case _:
            assert_never(item)


def _content_part(part: Part) -> Event:
    if part.kind in ("input_audio", "output_audio"):
        return {"type": part.kind, "transcript": part.text}
    return {"type": part.kind, "text": part.text or ""}


def _transcription(
    announcement: say.TranscriptDelta | say.TranscriptCompleted | say.TranscriptFailed,
) -> Event:
    event: Event = {"item_id": announcement.item_id, "content_index": 0}
    match announcement:
        case say.TranscriptDelta(_, delta):
            return event | {"type": f"{_TRANSCRIPTION}.delta", "delta": delta}
        case say.TranscriptCompleted(_, transcript, seconds):
            usage = {"type": "duration", "seconds": round(seconds, 3)}
            done = {"type": f"{_TRANSCRIPTION}.completed", "transcript": transcript}
            return event | done | {"usage": usage}
        case say.TranscriptFailed(_, failure):
            error = {"type": "server_error", "code": failure.code, "message": failure.message}
            return event | {"type": f"{_TRANSCRIPTION}.failed", "error": error}
        case _:
            assert_never(announcement)


_TRANSCRIPTION = "conversation.item.input_audio_transcription"


def _usage(usage: say.Usage) -> Event:
    no_audio = {"text_tokens": usage.input_tokens, "audio_tokens": 0, "image_tokens": 0}
    cached = {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0}
    return {
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "input_token_details": no_audio | {"cached_tokens": 0, "cached_tokens_details": cached},
        "output_token_details": {"text_tokens": usage.output_tokens, "audio_tokens": 0},
    }
