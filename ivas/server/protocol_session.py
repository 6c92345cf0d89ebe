"""The `session` object of the OpenAI Realtime protocol (GA shape).

A client updates parts of it, the server always answers with the whole effective
object. Unknown keys are dropped, not refused: some stock clients treat every error
as the end. What this server does not do is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, NoReturn

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ivas.announcements import SessionSettings
from ivas.conversation.events import TurnSettings
from ivas.errors import ClientError

MAX_TEXT = 32_768
"""Longest text of one item or of the instructions, in characters: about what the
context of a small local model holds, and the longest instructions a setting may hold."""

MAX_PARAM = 200
"""Longest `param` of an error, in characters: a client may have made up the key."""

EAGERNESS_MS = {"low": 900, "medium": 600, "auto": 600, "high": 300}
"""`semantic_vad` as a silence window, milliseconds."""

IVAS_EVENTS = frozenset({"latency"})
"""What a client may opt in to; other names are left out of the effective session."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class PcmFormat(_Model):
    type: Literal["audio/pcm"] = "audio/pcm"
    rate: Literal[24000] = 24000


Name = Annotated[str, Field(max_length=200)]


class Transcription(_Model):
    model: Name | None = None
    language: str | None = Field(None, max_length=35)
    prompt: str | None = Field(None, max_length=MAX_TEXT)


class NoiseReduction(_Model):
    type: Literal["near_field", "far_field"]


class ServerVad(_Model):
    type: Literal["server_vad"]
    threshold: float = Field(0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(300, ge=0, le=2000)
    silence_duration_ms: int = Field(500, ge=0, le=10_000)
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: None = None


class SemanticVad(_Model):
    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True


class AudioInput(_Model):
    format: PcmFormat = PcmFormat()
    transcription: Transcription | None = None
    noise_reduction: NoiseReduction | None = None
    turn_detection: Annotated[ServerVad | SemanticVad, Field(discriminator="type")] | None = None


def _voice_id(value: object) -> object:
    """Clients may say `{"id": ...}`; the echo is always a string."""
    return value["id"] if isinstance(value, Mapping) and "id" in value else value


Voice = Annotated[str, BeforeValidator(_voice_id), Field(max_length=200)]


class AudioOutput(_Model):
    format: PcmFormat = PcmFormat()
    voice: Voice = ""
    speed: float = Field(1.0, ge=0.25, le=4)


class Audio(_Model):
    input: AudioInput = AudioInput()
    output: AudioOutput = AudioOutput()


class TokenLimits(_Model):
    post_instructions: int | None = Field(None, ge=0, lt=2**53)


class RetentionRatio(_Model):
    type: Literal["retention_ratio"]
    retention_ratio: float = Field(ge=0, le=1)
    token_limits: TokenLimits | None = None


class Tracing(_Model):
    workflow_name: Name | None = None
    group_id: Name | None = None


def _known_events(names: list[str]) -> list[str]:
    return sorted(IVAS_EVENTS.intersection(names))


class Extensions(_Model):
    """What a client may opt in to beyond the standard."""

    events: Annotated[list[str], AfterValidator(_known_events)] = []


Include = Literal["item.input_audio_transcription.logprobs"]


class RealtimeSession(_Model):
    """The effective session."""

    type: Literal["realtime"] = "realtime"
    output_modalities: Annotated[
        list[Literal["audio", "text"]], Field(min_length=1, max_length=1)
    ] = ["audio"]
    instructions: str = Field("", max_length=MAX_TEXT)
    audio: Audio = Audio()
    tools: Annotated[list[Any], Field(max_length=0)] = []
    tool_choice: Literal["auto", "none", "required"] = "auto"
    max_output_tokens: Annotated[int, Field(ge=1, le=4096)] | Literal["inf"] = "inf"
    truncation: Literal["auto", "disabled"] | RetentionRatio = "auto"
    tracing: Literal["auto"] | Tracing | None = None
    include: Annotated[list[Include], Field(max_length=8)] | None = None
    ivas: Extensions | None = None


class SessionConfig:
    """One connection's session object. `update` is all or nothing."""

    def __init__(self, *, session_id: str, model: str, defaults: SessionSettings) -> None:
        self._fixed = {"id": session_id, "object": "realtime.session", "model": model}
        self._defaults = defaults
        turn = defaults.turn
        vad = ServerVad(
            type="server_vad",
            threshold=turn.threshold,
            prefix_padding_ms=round(turn.prefix_padding_ms),
            silence_duration_ms=round(turn.silence_ms),
        )
        self._vad_defaults = vad.model_dump()
        self._session = RealtimeSession(
            instructions=defaults.instructions,
            audio=Audio(
                input=AudioInput(turn_detection=vad),
                output=AudioOutput(voice=defaults.voice, speed=defaults.speed),
            ),
        )

    def update(self, changes: object) -> None:
        """Merge a client's `session` object. Raises ClientError and changes nothing."""
        if not isinstance(changes, dict):
            raise ClientError(
                "session.update needs a 'session' object.",
                code="missing_required_parameter",
                param="session",
            )
        if "type" not in changes:
            raise ClientError(
                "Missing required parameter: 'session.type'; send \"realtime\".",
                code="missing_required_parameter",
                param="session.type",
            )
        merged = _merge(self._session.model_dump(), changes)
        _fill_turn_detection(merged, self._vad_defaults)
        try:
            self._session = RealtimeSession.model_validate(merged)
        except ValidationError as error:
            refuse_invalid(error, "session", merged)

    @property
    def echo(self) -> dict[str, Any]:
        """The whole effective session, for `session.created` and `session.updated`."""
        session = self._session.model_dump(exclude_none=False)
        if session["ivas"] is None:
            del session["ivas"]
        if session["include"] is None:
            del session["include"]
        return session | self._fixed

    @property
    def settings(self) -> SessionSettings:
        """What it means for the session."""
        session, defaults = self._session, self._defaults
        heard, spoken = session.audio.input, session.audio.output
        transcription = heard.transcription
        limit = session.max_output_tokens
        wanted = set(session.ivas.events) if session.ivas else set()
        return SessionSettings(
            turn=_turn_settings(heard.turn_detection, defaults.turn),
            instructions=session.instructions,
            modality=session.output_modalities[0],
            voice=spoken.voice,
            language=(transcription.language if transcription else None) or defaults.language,
            spoken_language=defaults.spoken_language,
            prompt=transcription.prompt if transcription else None,
            speed=spoken.speed,
            max_tokens=None if limit == "inf" else limit,
            transcribe=transcription is not None,
            reports_latency="latency" in wanted,
        )


def _turn_settings(
    detection: ServerVad | SemanticVad | None, defaults: TurnSettings
) -> TurnSettings:
    if detection is None:
        return replace(defaults, detection="none")
    turn = replace(
        defaults,
        detection="server_vad",
        create_response=detection.create_response,
        interrupt_response=detection.interrupt_response,
    )
    if isinstance(detection, SemanticVad):
        return replace(turn, silence_ms=EAGERNESS_MS[detection.eagerness])
    return replace(
        turn,
        threshold=detection.threshold,
        silence_ms=detection.silence_duration_ms,
        prefix_padding_ms=detection.prefix_padding_ms,
    )


def _merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Objects are merged, everything else replaced."""
    merged = dict(base)
    for key, value in changes.items():
        before = merged.get(key)
        if isinstance(before, dict) and isinstance(value, dict) and key != "turn_detection":
            merged[key] = _merge(before, value)
        else:
            merged[key] = value
    return merged


def _fill_turn_detection(session: dict[str, Any], defaults: dict[str, Any]) -> None:
    """A `server_vad` that names only some members has the operator's defaults."""
    audio = session.get("audio")
    heard = audio.get("input") if isinstance(audio, dict) else None
    detection = heard.get("turn_detection") if isinstance(heard, dict) else None
    if not isinstance(heard, dict) or not isinstance(detection, dict):
        return
    if detection.get("type") == "server_vad":
        heard["turn_detection"] = defaults | detection


_EXPLAIN = {
    "item.content": "this version takes text, and audio by its transcript",
    "response.tools": "function calls are not served by this version; send tools: []",
    "response.conversation": 'this version replies within the conversation only; send "auto"',
    "response.input": "this version replies to the conversation only; create items instead",
    "response.audio.output.format": 'send {"type": "audio/pcm", "rate": 24000}',
    "session.tool_choice": 'there are no tools to choose from; send "auto"',
    "session.tools": "function calls are not served by this version; send tools: []",
    "session.type": 'this version serves sessions of type "realtime" only',
    "session.audio.input.format": 'send {"type": "audio/pcm", "rate": 24000}',
    "session.audio.output.format": 'send {"type": "audio/pcm", "rate": 24000}',
    "session.audio.input.turn_detection.idle_timeout_ms": "not served by this version; send null",
}


def refuse_invalid(error: ValidationError, root: str, given: object) -> NoReturn:
    """Turn the first complaint about `given` into the Realtime error for it.

    Raises ClientError; its `param` is the path from `root` to what is wrong.
    """
    first = error.errors(include_url=False)[0]
    kind = first["type"]
    missing = kind in ("missing", "union_tag_not_found")
    path = _path(first["loc"], given)
    if kind == "missing":
        path.append(str(first["loc"][-1]))
    elif kind.startswith("union_tag"):
        path.append("type")
    param = ".".join([root, *path])[:MAX_PARAM]
    if missing:
        raise ClientError(
            f"Missing required parameter: '{param}'.",
            code="missing_required_parameter",
            param=param,
        )
    why = first["msg"]
    if kind != "string_too_long":
        why = next((text for prefix, text in _EXPLAIN.items() if param.startswith(prefix)), why)
    raise ClientError(f"Invalid value for '{param}': {why}.", code="invalid_value", param=param)


def _path(loc: tuple[int | str, ...], given: Any) -> list[str]:
    """`loc` less the names pydantic puts into it for the members of a union."""
    path = []
    for step in loc:
        try:
            given = given[step]
        except (KeyError, IndexError, TypeError):
            continue
        path.append(str(step))
    return path
