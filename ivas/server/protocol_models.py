"""The shapes of the `session` object of the OpenAI Realtime protocol (GA shape).

Only shapes: what a client may send and what the server answers with. Unknown keys are
dropped, not refused: some stock clients treat every error as the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ivas.engines import Tool

MAX_TEXT = 32_768
"""Longest text of one item or of the instructions, in characters: about what the
context of a small local model holds, and the longest instructions a setting may hold."""

MAX_TOOLS_BYTES = 256 * 1024
"""Most a client's tools may take as JSON: they are part of every prompt."""

IVAS_EVENTS = frozenset({"engines", "latency"})
"""What a client may opt in to; other names are left out of the effective session."""


class Shape(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class PcmFormat(Shape):
    type: Literal["audio/pcm"] = "audio/pcm"
    rate: Literal[24000] = 24000


class G711Format(Shape):
    """Mu-law or A-law at 8 kHz."""

    type: Literal["audio/pcmu", "audio/pcma"]


Format = Annotated[PcmFormat | G711Format, Field(discriminator="type")]


Name = Annotated[str, Field(max_length=200)]


class Transcription(Shape):
    model: Name | None = None
    language: str | None = Field(None, max_length=35)
    prompt: str | None = Field(None, max_length=MAX_TEXT)


class NoiseReduction(Shape):
    type: Literal["near_field", "far_field"]


class ServerVad(Shape):
    type: Literal["server_vad"]
    threshold: float = Field(0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(300, ge=0, le=2000)
    silence_duration_ms: int = Field(500, ge=0, le=10_000)
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: int | None = Field(None, ge=1000, le=3_600_000)


class SemanticVad(Shape):
    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True


class AudioInput(Shape):
    format: Format = PcmFormat()
    transcription: Transcription | None = None
    noise_reduction: NoiseReduction | None = None
    turn_detection: Annotated[ServerVad | SemanticVad, Field(discriminator="type")] | None = None


def _voice_id(value: object) -> object:
    """Clients may say `{"id": ...}`; the echo is always a string."""
    return value["id"] if isinstance(value, Mapping) and "id" in value else value


Voice = Annotated[str, BeforeValidator(_voice_id), Field(max_length=200)]


class AudioOutput(Shape):
    format: Format = PcmFormat()
    voice: Voice = ""
    speed: float = Field(1.0, ge=0.25, le=4)


class Audio(Shape):
    input: AudioInput = AudioInput()
    output: AudioOutput = AudioOutput()


class TokenLimits(Shape):
    post_instructions: int | None = Field(None, ge=0, lt=2**53)


class RetentionRatio(Shape):
    type: Literal["retention_ratio"]
    retention_ratio: float = Field(ge=0, le=1)
    token_limits: TokenLimits | None = None


class Function(Shape):
    """A function the client offers to run."""

    type: Literal["function"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
    description: Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    parameters: dict[str, Any] | None = None

    @property
    def tool(self) -> Tool:
        return Tool(self.name, self.description or "", self.parameters or {})


def _of_a_size(tools: list[Function]) -> list[Function]:
    echo: Any = [tool.model_dump() for tool in tools]
    for _ in range(8):  # as deep as it will stand in an event, and some more
        echo = [echo]
    try:
        size = len(orjson.dumps(echo))
    except TypeError as error:  # orjson reads deeper nesting than it writes
        raise ValueError("the tools are nested too deep") from error
    if size > MAX_TOOLS_BYTES:
        raise ValueError(f"at most {MAX_TOOLS_BYTES // 1024} KiB of tools in all")
    return tools


Tools = Annotated[list[Function], Field(max_length=128), AfterValidator(_of_a_size)]


class OneFunction(Shape):
    """The one function the reply has to call."""

    type: Literal["function"]
    name: Annotated[str, Field(max_length=128)]


ToolChoice = Literal["auto", "none", "required"] | OneFunction


def tool_choice(choice: ToolChoice) -> str:
    """As the engines take it: `auto`, `none`, `required` or a function's name."""
    return choice.name if isinstance(choice, OneFunction) else choice


class Tracing(Shape):
    workflow_name: Name | None = None
    group_id: Name | None = None


def _known_events(names: list[str]) -> list[str]:
    return sorted(IVAS_EVENTS.intersection(names))


class Extensions(Shape):
    """What a client may opt in to beyond the standard."""

    events: Annotated[list[str], AfterValidator(_known_events)] = []


Include = Literal["item.input_audio_transcription.logprobs"]


class RealtimeSession(Shape):
    """The effective session."""

    type: Literal["realtime"] = "realtime"
    output_modalities: Annotated[
        list[Literal["audio", "text"]], Field(min_length=1, max_length=1)
    ] = ["audio"]
    instructions: str = Field("", max_length=MAX_TEXT)
    audio: Audio = Audio()
    tools: Tools = []
    tool_choice: ToolChoice = "auto"
    max_output_tokens: Annotated[int, Field(ge=1, le=4096)] | Literal["inf"] = "inf"
    truncation: Literal["auto", "disabled"] | RetentionRatio = "auto"
    tracing: Literal["auto"] | Tracing | None = None
    include: Annotated[list[Include], Field(max_length=8)] | None = None
    ivas: Extensions | None = None


class TranscriptionInput(Shape):
    format: Format = PcmFormat()
    transcription: Transcription | None = Transcription()
    noise_reduction: NoiseReduction | None = None
    turn_detection: ServerVad | None = None


class TranscriptionAudio(Shape):
    input: TranscriptionInput = TranscriptionInput()


class TranscriptionSession(Shape):
    """The effective session of a client that only wants to read what is said."""

    type: Literal["transcription"] = "transcription"
    audio: TranscriptionAudio = TranscriptionAudio()
    include: Annotated[list[Include], Field(max_length=8)] | None = None
    ivas: Extensions | None = None
