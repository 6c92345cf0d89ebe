"""The four engine Protocols and the small values that pass through them.

An engine object is the loaded model: made once, shared by every session. What
belongs to one session or one utterance is a separate object got from `open()`.
Engines take keyword arguments and know nothing of settings, sessions or each
other. Cancelling means closing the generator: `aclose()` returns at once and
whatever still comes is discarded.

Whatever an engine does, it never stalls the event loop for more than 10 ms:
what holds the GIL or burns whole cores runs in a worker process
(`engines/process.py`), what blocks but releases the GIL on a thread
(`engines/threads.py`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ = 16_000
"""Rate of every sample inside IVAS from the framing to the ASR engine."""

Samples = npt.NDArray[np.float32]
"""Mono audio at `SAMPLE_RATE_HZ`, shape (n,), in [-1, 1]."""

Role = Literal["system", "user", "assistant", "tool"]
Priority = Literal["first", "later"]
"""`first`: the clause somebody is waiting for in silence. `later`: any other."""


INAUDIBLE = "(inaudible)"
"""Stands in a prompt for words that could not be made out."""


@dataclass(frozen=True, slots=True)
class Status:
    """Whether an engine can serve now; `reason` is one sentence when it cannot."""

    ready: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said so far in one utterance."""

    text: str
    revision: int
    """Counts the transcripts of one utterance, from 1."""
    end_sample: int
    """How many samples of the utterance this transcript covers."""
    language: str | None = None
    """BCP 47 code if the engine detected one."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the prompt an LLM sees."""

    role: Role
    text: str
    tool_call_id: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the reply, as the LLM produced it: spaces included, never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The LLM asks for a function to be run; `arguments` is JSON text."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the LLM may call; `parameters` is its JSON schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice one TTS engine can speak with."""

    id: str
    name: str
    language: str
    """BCP 47 code, e.g. `en`, `en-GB`, `hi`."""


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """Speech as a TTS engine made it: PCM16 little-endian mono."""

    pcm: bytes
    rate_hz: int


class Engine(Protocol):
    """What every engine has, whatever its kind."""

    @property
    def name(self) -> str:
        """The word that chooses it in the settings: `silero`, `espeak`, ..."""

    def status(self) -> Status:
        """Whether it can serve now. Cheap: no I/O, no waiting."""

    async def start(self) -> None:
        """Load and warm up; afterwards `status().ready`. Safe to call again.

        Raises EngineUnavailable with the fix in its sentence.
        """

    async def aclose(self) -> None:
        """Give back threads, processes and memory. Safe to call again."""


class SpeechDetector(Protocol):
    """The VAD state of one session. Called from one thread at a time, whichever it is."""

    def probability(self, frame: Samples) -> float:
        """How probably this frame is speech, 0..1. `frame` has `frame_samples`.

        Called inline for every frame: it must cost well under a millisecond.
        """


class VAD(Engine, Protocol):
    """Voice activity detection: one shared model, one detector a session."""

    @property
    def frame_samples(self) -> int:
        """Samples a frame must have (512 = 32 ms for Silero)."""

    def open(self) -> SpeechDetector: ...


class Utterance(Protocol):
    """The ASR state of one stretch of user speech."""

    def push(self, samples: Samples) -> None:
        """Add audio. Returns at once, never blocks, never raises."""

    async def transcript(self, *, urgent: bool = True) -> Transcript:
        """What all audio pushed so far says.

        May be asked again and again with more `push` between: partials,
        speculation and the final are the same verb. `urgent` False is for a
        partial: an engine whose model is shared answers whoever waits for a
        reply first. Cancellable. Raises EngineError.
        """

    def close(self) -> None:
        """Give the engine's resources back at once. Safe to call again."""


class ASR(Engine, Protocol):
    """Speech to text: one shared model, one `Utterance` a stretch of speech.

    One that can write English whatever is spoken has `translates`, True, and its `open`
    takes `translate=True`.
    """

    def open(self, *, language: str | None = None, prompt: str | None = None) -> Utterance: ...


class LLM(Engine, Protocol):
    """The language model."""

    def stream(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        tool_choice: str = "auto",
        max_tokens: int | None = None,
    ) -> AsyncGenerator[Token | ToolCall, None]:
        """Produce the reply to `messages`. Raises EngineError while iterating."""

    async def prefill(self, messages: Sequence[Message]) -> None:
        """Warm the prompt cache for a prompt that begins with `messages`."""


class TTS(Engine, Protocol):
    """Text to speech."""

    @property
    def voices(self) -> Sequence[Voice]:
        """Every voice; the first is the default."""

    def stream(
        self,
        text: str,
        *,
        voice: str,
        language: str | None = None,
        speed: float = 1.0,
        priority: Priority = "later",
    ) -> AsyncGenerator[AudioChunk, None]:
        """Speak one clause or sentence. An unknown `voice` means the default one.

        `speed` 0.25..4.0, 1.0 = natural. Nothing to say yields no sound.
        An engine whose model is shared says that it is this text's turn with an empty
        chunk before the first sound: who listens is patient until then, and strict from
        then on. So is one that has no queue but whose work may hang.
        Raises EngineError while iterating.
        """
