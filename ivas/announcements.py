"""What a session tells whoever is connected to it, and what it is told.

A closed union each way: plain values, no wire format. `server/` turns them into
OpenAI Realtime events and back; any other protocol would be another thin layer
over the same session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from .conversation.events import (
    AudioFormat,
    CancelReason,
    Failure,
    Modality,
    Outcome,
    ReplyOptions,
    TurnSettings,
)
from .conversation.history import AnyItem, FunctionCall, ItemStatus
from .engines import Tool

# --- what a client asks for --------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What a client may choose for its session."""

    turn: TurnSettings = TurnSettings()
    instructions: str = ""
    modality: Modality = "audio"
    voice: str = ""
    """A voice id of the TTS engine; anything unknown means its default voice."""
    language: str | None = None
    """What the user speaks, BCP 47; None = the ASR's own choice."""
    spoken_language: str | None = None
    """What the user hears, BCP 47; None = the language of the voice."""
    prompt: str | None = None
    """Words the ASR should expect."""
    audio_format: AudioFormat = "audio/pcm"
    """What the client's speaker takes."""
    speed: float = 1.0
    max_tokens: int | None = None
    tools: tuple[Tool, ...] = field(default=(), hash=False)
    tool_choice: str = "auto"
    """`auto`, `none`, `required`, or the name of the one function to call."""
    trims: bool = True
    """Leave out the oldest messages when the prompt outgrows the model's context."""
    transcribe: bool = False
    """Tell the client what the user said."""
    reports_latency: bool = False
    """Tell the client where the time of each turn went (`ivas.latency`)."""


@dataclass(frozen=True, slots=True)
class Configure:
    """New settings; `echo` comes back in `Configured` once they are in force."""

    settings: SessionSettings
    echo: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class AppendAudio:
    """Microphone audio: PCM16 little-endian mono at 24 kHz; may end in half a sample."""

    pcm: bytes


@dataclass(frozen=True, slots=True)
class CommitAudio:
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class ClearAudio:
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class AddItem:
    """`after`: the id of the item before it, "root" = first, None = last."""

    item: AnyItem
    after: str | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class RetrieveItem:
    item_id: str
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class TruncateItem:
    """The user heard only the first `played_ms` of an assistant's item."""

    item_id: str
    content_index: int
    played_ms: int
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteItem:
    item_id: str
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class CreateReply:
    options: ReplyOptions = ReplyOptions()
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class CancelActiveReply:
    """`reply_id` None = whichever is active."""

    reply_id: str | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Malformed:
    """An event that could not be understood: answered in its place in the order."""

    failure: Failure
    param: str | None = None
    event_id: str | None = None


Command = (
    Configure
    | AppendAudio
    | CommitAudio
    | ClearAudio
    | AddItem
    | RetrieveItem
    | TruncateItem
    | DeleteItem
    | CreateReply
    | CancelActiveReply
    | Malformed
)


# --- what a client is told ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class Configured:
    echo: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    item_id: str
    audio_start_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    item_id: str
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class WaitedForUser:
    """Nobody spoke; an `AudioCommitted` of the same item follows."""

    item_id: str
    audio_start_ms: int
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class AudioCommitted:
    item_id: str
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class AudioCleared:
    pass


@dataclass(frozen=True, slots=True)
class ItemAdded:
    """An item that is complete at once: a user's turn, or one the client made."""

    item: AnyItem
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class ItemRetrieved:
    item: AnyItem


@dataclass(frozen=True, slots=True)
class ItemTruncated:
    item_id: str
    content_index: int
    played_ms: int


@dataclass(frozen=True, slots=True)
class ItemDeleted:
    item_id: str


@dataclass(frozen=True, slots=True)
class TranscriptDelta:
    """More words of the user that will not be taken back."""

    item_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class TranscriptCompleted:
    item_id: str
    transcript: str
    audio_seconds: float


@dataclass(frozen=True, slots=True)
class TranscriptFailed:
    item_id: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one reply as this server counts them: pieces the LLM streamed."""

    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ReplyView:
    """One reply as the client may know it."""

    id: str
    item_id: str
    generation: int
    modality: Modality
    voice: str
    max_tokens: int | None
    metadata: Mapping[str, str] | None = field(default=None, hash=False)
    audio_format: AudioFormat = "audio/pcm"
    in_conversation: bool = True
    """False: none of its items is in the conversation."""


@dataclass(frozen=True, slots=True)
class ReplyStarted:
    reply: ReplyView


@dataclass(frozen=True, slots=True)
class MessageStarted:
    """The reply has something to say: its message exists from here on."""

    reply: ReplyView
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class WordsSpoken:
    """Text of the reply, just ahead of its sound."""

    reply: ReplyView
    delta: str


@dataclass(frozen=True, slots=True)
class AudioSpoken:
    """Sound of the reply: PCM16 little-endian mono at 24 kHz."""

    reply: ReplyView
    pcm: bytes


@dataclass(frozen=True, slots=True)
class MessageEnded:
    """No more of the message; `text` is all of it that was sent."""

    reply: ReplyView
    text: str
    status: ItemStatus
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class FunctionCalled:
    """The reply asks the client to run a function; `index` counts the reply's items."""

    reply: ReplyView
    call: FunctionCall
    index: int
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """How a reply ended; `text` is all of it that was sent, None if nothing was."""

    reply: ReplyView
    outcome: Outcome | Failure | CancelReason
    text: str | None
    calls: tuple[FunctionCall, ...]
    usage: Usage
    message_status: ItemStatus = "completed"
    """Of its message, if it has one."""


@dataclass(frozen=True, slots=True)
class LatencyMeasured:
    """Where the time of one turn went; milliseconds, see `latency.py`."""

    reply: ReplyView
    spans_ms: Mapping[str, float] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """A client's event was wrong; `kind` as in the Realtime `error.type`."""

    failure: Failure
    param: str | None = None
    event_id: str | None = None
    kind: Literal["invalid_request_error", "server_error"] = "invalid_request_error"


Announcement = (
    Configured
    | SpeechStarted
    | SpeechStopped
    | WaitedForUser
    | AudioCommitted
    | AudioCleared
    | ItemAdded
    | ItemRetrieved
    | ItemTruncated
    | ItemDeleted
    | TranscriptDelta
    | TranscriptCompleted
    | TranscriptFailed
    | ReplyStarted
    | MessageStarted
    | WordsSpoken
    | AudioSpoken
    | MessageEnded
    | FunctionCalled
    | ReplyEnded
    | LatencyMeasured
    | Refused
)


class Client(Protocol):
    """The other end of a session."""

    def send(self, announcement: Announcement) -> None:
        """Queue one announcement; order is kept. Never blocks, never raises."""

    def purge(self, generation: int) -> float:
        """Forget queued sound of this generation: it was flushed.

        Returns how many milliseconds of it had not even left.
        """

    @property
    def congested(self) -> bool:
        """Too much is queued already; hold back more sound."""
