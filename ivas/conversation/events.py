"""What goes into the turn controller and what comes out: two closed unions.

Plain frozen values without behaviour. Do not subclass them; the controller and
the session match on the exact types, and mypy checks that none is forgotten.

Words: an *utterance* is one stretch of user speech, a *generation* one reply.
Both are numbered from 1 within a session and never reused, so that whatever
arrives late can be recognised and ignored. Sample positions are absolute: counted
at 16 kHz from the first sample of the session's microphone audio. Times are
milliseconds of the clock the caller passes in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ivas.engines import Tool

from .history import AnyItem

Modality = Literal["audio", "text"]
AudioFormat = Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
"""On the wire: PCM16 at 24 kHz, or G.711 mu-law and A-law at 8 kHz."""
CancelReason = Literal["turn_detected", "client_cancelled"]
Outcome = Literal["completed", "max_output_tokens"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something ended badly: a code for programs, a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ReplyOptions:
    """How one reply differs from the session's own settings; None = as the session."""

    modality: Modality | None = None
    instructions: str | None = None
    voice: str | None = None
    max_tokens: int | Literal["inf"] | None = None
    metadata: dict[str, str] | None = field(default=None, hash=False)
    tools: tuple[Tool, ...] | None = field(default=None, hash=False)
    tool_choice: str | None = None
    audio_format: AudioFormat | None = None
    in_conversation: bool = True
    """False: it neither enters the conversation nor is entered into it."""
    context: tuple[AnyItem | str, ...] | None = field(default=None, hash=False)
    """What it answers, instead of the conversation: items, or ids of the conversation's."""


# --- events: what happened ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class AudioFrame:
    """One frame of microphone audio ending at `end_sample`."""

    probability: float
    """P(speech), 0..1. Ignored while turn detection is off."""
    end_sample: int


@dataclass(frozen=True, slots=True)
class Transcribed:
    """The answer to `Transcribe(utterance, request)`."""

    utterance: int
    request: int
    text: str


@dataclass(frozen=True, slots=True)
class TranscriptionFailed:
    """`Transcribe(utterance, request)` came to nothing."""

    utterance: int
    request: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class CommitRequested:
    """The client says: the user's turn ends here (`input_audio_buffer.commit`)."""

    end_sample: int
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class ClearRequested:
    """The client says: forget the uncommitted audio (`input_audio_buffer.clear`)."""


@dataclass(frozen=True, slots=True)
class ReplyRequested:
    """The client asks for a reply (`response.create`)."""

    options: ReplyOptions = ReplyOptions()
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """The client cancels a reply (`response.cancel`).

    `generation` None = whichever is active; 0 = one nobody knows.
    """

    generation: int | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class ReplyProgressed:
    """The reply is alive: a token, a clause or a chunk of audio came or was sent."""

    generation: int


@dataclass(frozen=True, slots=True)
class ReplySent:
    """All of the reply went to the client; the speaker is done at `audible_until_ms`."""

    generation: int
    outcome: Outcome
    audible_until_ms: float
    called: bool = False
    """It called functions: the client has the next word, not the user."""


@dataclass(frozen=True, slots=True)
class ReplyFailed:
    """The reply broke; what was sent before plays on until `audible_until_ms`."""

    generation: int
    failure: Failure
    audible_until_ms: float


@dataclass(frozen=True, slots=True)
class PlaybackStopped:
    """The client stopped playing this generation by itself and truncated it."""

    generation: int


@dataclass(frozen=True, slots=True)
class ItemAdded:
    """The client has put something into the conversation: it is at work."""


@dataclass(frozen=True, slots=True)
class Configured:
    """The session's turn settings changed."""

    settings: TurnSettings


@dataclass(frozen=True, slots=True)
class Tick:
    """Only time has passed: `next_deadline()` is due."""


Event = (
    AudioFrame
    | Transcribed
    | TranscriptionFailed
    | CommitRequested
    | ClearRequested
    | ReplyRequested
    | CancelRequested
    | ReplyProgressed
    | ReplySent
    | ReplyFailed
    | PlaybackStopped
    | ItemAdded
    | Configured
    | Tick
)


# --- actions: what to do about it --------------------------------------------


@dataclass(frozen=True, slots=True)
class Listen:
    """Open an ASR utterance; feed it the audio from `start_sample` on until it ends."""

    utterance: int
    start_sample: int


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Ask the ASR what all audio of the utterance so far says."""

    utterance: int
    request: int


@dataclass(frozen=True, slots=True)
class AnnounceSpeech:
    """Tell the client that the user speaks (a stock client stops its speaker)."""

    utterance: int
    start_sample: int


@dataclass(frozen=True, slots=True)
class AnnounceSilence:
    """Tell the client that the user stopped."""

    utterance: int
    end_sample: int


@dataclass(frozen=True, slots=True)
class CommitUser:
    """The utterance becomes a user message; `text` None = its transcript follows."""

    utterance: int
    text: str | None


@dataclass(frozen=True, slots=True)
class SetTranscript:
    """The transcript of an already committed utterance."""

    utterance: int
    text: str


@dataclass(frozen=True, slots=True)
class LoseTranscript:
    """A committed utterance will have no transcript."""

    utterance: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class WaitedForUser:
    """Nobody spoke after a reply: tell the client, and commit a user message without words."""

    utterance: int
    start_sample: int
    end_sample: int


@dataclass(frozen=True, slots=True)
class DiscardUser:
    """The utterance was nothing: close it, leave no trace in the history."""

    utterance: int


@dataclass(frozen=True, slots=True)
class StartReply:
    """Start the LLM and the speech of this generation, behind its closed gate."""

    generation: int
    key: str
    """What the reply answers: the normalised user text it may be promoted for."""


@dataclass(frozen=True, slots=True)
class OpenGate:
    """The generation is real now: history, `response.created`, sound."""

    generation: int
    options: ReplyOptions


@dataclass(frozen=True, slots=True)
class Duck:
    """Lower the reply while it is unclear whether the user interrupts."""

    generation: int


@dataclass(frozen=True, slots=True)
class Unduck:
    """Back to full gain."""

    generation: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Hold the egress at the sample it has reached."""

    generation: int


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on at the held sample."""

    generation: int


@dataclass(frozen=True, slots=True)
class Flush:
    """Cut the history to what was heard and drop all that is queued for the speaker."""

    generation: int


@dataclass(frozen=True, slots=True)
class CancelReply:
    """End the generation as cancelled and stop its workers, without waiting."""

    generation: int
    reason: CancelReason


@dataclass(frozen=True, slots=True)
class FinishReply:
    """End the generation: completed (cut short by a token limit or not) or failed."""

    generation: int
    outcome: Outcome | Failure


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer a client's event with an error; nothing else changes."""

    failure: Failure
    event_id: str | None


Action = (
    Listen
    | Transcribe
    | AnnounceSpeech
    | AnnounceSilence
    | CommitUser
    | SetTranscript
    | LoseTranscript
    | WaitedForUser
    | DiscardUser
    | StartReply
    | OpenGate
    | Duck
    | Unduck
    | Pause
    | Resume
    | Flush
    | CancelReply
    | FinishReply
    | Refuse
)


# --- settings ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """How turns are taken. All durations in milliseconds."""

    detection: Literal["server_vad", "none"] = "server_vad"
    """`none` = push-to-talk: the client commits."""
    create_response: bool = True
    """Reply by ourselves when the user's turn ends."""
    interrupt_response: bool = True
    """Stop the reply when the user speaks over it."""

    threshold: float = 0.5
    """P(speech) from which a frame is voiced, 0..1 (the Realtime default)."""
    silence_ms: float = 500
    """Silence that ends an utterance; at least `endpointing.MIN_SILENCE_MS` is kept."""
    prefix_padding_ms: float = 300
    """Audio from before the onset that belongs to the utterance (pre-roll)."""
    onset_ms: float = 96
    """Voiced audio that begins an utterance."""
    max_utterance_ms: float = 60_000
    """An utterance is ended here even if the user talks on."""

    barge_in_ms: float = 192
    """Voiced audio over a reply that stops it."""
    overlap_silence_ms: float = 192
    """Silence after which a shorter sound over a reply is dismissed."""

    idle_timeout_ms: float | None = None
    """Silence after a reply until the assistant speaks again by itself; None = for ever."""

    max_collect_ms: float = 300_000
    """Push-to-talk audio longer than this without a commit is forgotten."""
    min_commit_ms: float = 100
    """A push-to-talk commit of less is refused (the Realtime limit)."""
    silent_microphone_ms: float = 2_000
    """A user who speaks but whose microphone sends nothing for so long has stopped."""
    transcript_ms: float = 6_000
    """Longest wait for a final transcript."""
    reply_stall_ms: float = 30_000
    """A reply that shows no sign of life for so long has failed."""
