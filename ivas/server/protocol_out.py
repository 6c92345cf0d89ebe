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
from ivas.conversation.events import Failure
from ivas.conversation.history import Item, Part, PartKind

Event = dict[str, Any]


class Encoder:
    """Encodes for one connection; `tag` makes its event ids unique."""

    def __init__(self, *, tag: str, conversation_id: str) -> None:
        self._ids = (f"event_{tag}{number:x}" for number in count(1))
        self._conversation_id = conversation_id

    def created(self, session: Event) -> str:
        """The first message of every connection."""
        return self._dump({"type": "session.created", "session": session})

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
                delta = base64.b64encode(pcm).decode("ascii")
                yield _content(reply, "response.output_audio.delta", delta=delta)
            case _:
                yield from self._reply_events(announcement)

    def _reply_events(
        self,
        announcement: say.ReplyStarted | say.MessageStarted | say.WordsSpoken | say.ReplyEnded,
    ) -> Iterator[Event]:
        reply = announcement.reply
        match announcement:
            case say.ReplyStarted():
                yield {
                    "type": "response.created",
                    "response": self._response(reply, "in_progress", None, [], None),
                }
            case say.MessageStarted(reply, previous_id):
                item = _assistant(reply, "in_progress", None)
                yield {
                    "type": "response.output_item.added",
                    "response_id": reply.id,
                    "output_index": 0,
                    "item": item,
                }
                yield {
                    "type": "conversation.item.added",
                    "item": item,
                    "previous_item_id": previous_id,
                }
                yield _content(reply, "response.content_part.added", part=_part(reply, ""))
            case say.WordsSpoken(reply, delta):
                yield _content(reply, f"response.{_text_kind(reply)}.delta", delta=delta)
            case say.ReplyEnded():
                yield from self._ended(reply, announcement)
            case _:
                assert_never(announcement)

    def _ended(self, reply: say.ReplyView, ended: say.ReplyEnded) -> Iterator[Event]:
        status, details = _status(ended.outcome)
        output = []
        if ended.text is not None:
            yield from _message_done(reply, ended.text)
            item = _assistant(
                reply, "completed" if status == "completed" else "incomplete", ended.text
            )
            output = [item]
            yield {
                "type": "conversation.item.done",
                "item": item,
                "previous_item_id": ended.previous_item_id,
            }
            yield {
                "type": "response.output_item.done",
                "response_id": reply.id,
                "output_index": 0,
                "item": item,
            }
        yield {
            "type": "response.done",
            "response": self._response(reply, status, details, output, ended.usage),
        }

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
            "conversation_id": self._conversation_id,
            "output_modalities": [reply.modality],
            "max_output_tokens": reply.max_tokens or "inf",
            "audio": {
                "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": reply.voice}
            },
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


def _item(item: Item) -> Event:
    return {
        "id": item.id,
        "object": "realtime.item",
        "type": "message",
        "role": item.role,
        "status": item.status,
        "content": [_content_part(part) for part in item.parts],
    }


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
