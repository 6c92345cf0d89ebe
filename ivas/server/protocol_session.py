"""The `session` object of one connection, and what it means for the session.

A client updates parts of it, the server always answers with the whole effective
object. What would change the conversation and is not done here is refused by name;
what would not (noise reduction, logprobs, tracing) is accepted and has no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, NoReturn

from pydantic import ValidationError

from ivas.announcements import SessionSettings
from ivas.conversation.events import AudioFormat, TurnSettings
from ivas.errors import ClientError

from .protocol_models import (
    Audio,
    AudioInput,
    AudioOutput,
    RealtimeSession,
    SemanticVad,
    ServerVad,
    TranscriptionAudio,
    TranscriptionInput,
    TranscriptionSession,
    tool_choice,
)

MAX_PARAM = 200
"""Longest `param` of an error, in characters: a client may have made up the key."""

EAGERNESS_MS = {"low": 900, "medium": 600, "auto": 600, "high": 300}
"""`semantic_vad` as a silence window, milliseconds."""

Kind = Literal["realtime", "transcription"]


class SessionConfig:
    """One connection's session object. `update` is all or nothing.

    `kind` None: a conversation, unless the client's first update wants transcripts only.
    `expires_at`: epoch seconds at which the server will end it.
    """

    def __init__(
        self,
        *,
        session_id: str,
        model: str,
        defaults: SessionSettings,
        kind: Kind | None = None,
        expires_at: int | None = None,
    ) -> None:
        self._id = session_id
        self._model = model
        self._expires_at = expires_at
        self._defaults = defaults
        self._undecided = kind is None
        turn = defaults.turn
        self._vad = ServerVad(
            type="server_vad",
            threshold=turn.threshold,
            prefix_padding_ms=round(turn.prefix_padding_ms),
            silence_duration_ms=round(turn.silence_ms),
        )
        self._session = self._begin(kind or "realtime")

    def _begin(self, kind: Kind) -> RealtimeSession | TranscriptionSession:
        if kind == "transcription":
            heard = TranscriptionInput(turn_detection=self._vad)
            return TranscriptionSession(audio=TranscriptionAudio(input=heard))
        defaults = self._defaults
        return RealtimeSession(
            instructions=defaults.instructions,
            audio=Audio(
                input=AudioInput(turn_detection=self._vad),
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
        kind = changes["type"]
        base = self._session
        if kind != base.type and kind in ("realtime", "transcription"):
            if not self._undecided:
                raise ClientError(
                    "Invalid value for 'session.type': a session cannot change its type; "
                    "connect anew for the other.",
                    code="invalid_value",
                    param="session.type",
                )
            base = self._begin(kind)
        merged = _merge(base.model_dump(), changes)
        _fill_turn_detection(merged, self._vad.model_dump())
        try:
            self._session = type(base).model_validate(merged)
        except ValidationError as error:
            refuse_invalid(error, "session", merged)
        self._undecided = False

    @property
    def kind(self) -> Kind:
        return self._session.type

    @property
    def input_format(self) -> AudioFormat:
        """What the client's microphone sends."""
        return self._session.audio.input.format.type

    def wants(self, event: str) -> bool:
        """Whether the client opted in to `ivas.EVENT`."""
        return self._session.ivas is not None and event in self._session.ivas.events

    @property
    def echo(self) -> dict[str, Any]:
        """The whole effective session, for `session.created` and `session.updated`."""
        session = self._session.model_dump(exclude_none=False)
        for key in ("ivas", "include"):
            if session[key] is None:
                del session[key]
        session |= {"id": self._id, "object": "realtime.session"}
        if self.kind == "transcription":
            session["object"] = "realtime.transcription_session"
        else:
            session["model"] = self._model
        if self._expires_at is not None:
            session["expires_at"] = self._expires_at
        return session

    @property
    def settings(self) -> SessionSettings:
        """What it means for the session."""
        session, defaults = self._session, self._defaults
        heard = session.audio.input
        transcription = heard.transcription
        settings = replace(
            defaults,
            turn=_turn_settings(heard.turn_detection, defaults.turn),
            language=(transcription.language if transcription else None) or defaults.language,
            prompt=transcription.prompt if transcription else None,
            transcribe=transcription is not None,
            reports_latency=self.wants("latency"),
        )
        if isinstance(session, TranscriptionSession):
            turn = replace(settings.turn, create_response=False, interrupt_response=False)
            return replace(settings, turn=turn, transcribe=True)
        spoken, limit = session.audio.output, session.max_output_tokens
        return replace(
            settings,
            instructions=session.instructions,
            modality=session.output_modalities[0],
            voice=spoken.voice,
            audio_format=spoken.format.type,
            speed=spoken.speed,
            max_tokens=None if limit == "inf" else limit,
            tools=tuple(function.tool for function in session.tools),
            tool_choice=tool_choice(session.tool_choice),
            trims=session.truncation != "disabled",
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
        idle_timeout_ms=detection.idle_timeout_ms,
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


_FORMATS = 'send {"type": "audio/pcm", "rate": 24000}, or "audio/pcmu" or "audio/pcma"'
_FUNCTIONS = 'send functions: a type "function", a name, and parameters as a JSON schema'
_EXPLAIN = {
    "item.content": "this version takes text, and audio by its transcript",
    "response.tools": _FUNCTIONS,
    "response.tool_choice": 'send "auto", "none", "required" or {"type": "function", "name": ...}',
    "response.audio.output.format": _FORMATS,
    "session.tool_choice": 'send "auto", "none", "required" or {"type": "function", "name": ...}',
    "session.tools": _FUNCTIONS,
    "session.type": 'send "realtime" or "transcription"',
    "session.audio.input.format": _FORMATS,
    "session.audio.output.format": _FORMATS,
    "session.audio.input.turn_detection.idle_timeout_ms": "send 1000 to 3600000, or null",
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
    why = first["msg"].removeprefix("Value error, ")
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        why = "it must be an object"
    elif kind not in ("string_too_long", "too_long", "value_error"):
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
