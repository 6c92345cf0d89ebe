"""Every setting: its type, range, default and meaning. One source of truth.

This file only says what may be set; `ivas/settings_sources.py` finds the values.
docs/configuration.md and `ivas config` are made from these descriptions, so a
description is a sentence for the operator and the unit is in the name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Le, MaxLen
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

ALIASES: Mapping[str, str] = {
    "PORT": "server.port",
    "TTS_ENABLE_GPU": "tts.use_gpu",
    "TTS_ENGINE": "tts.engine",
    "TTS_LOG_LEVEL": "log_level",
    "TTS_USE_GPU": "tts.use_gpu",
}
"""Variables of hosting platforms and of the systems IVAS replaces -> setting path.

An alias and the setting's own variable may both be set only if they agree.
"""

INSTRUCTIONS = (
    "You are a friendly voice assistant and everything you write is spoken aloud. "
    "Begin with a short clause of three to eight words, then go on. "
    "Answer in one to three plain spoken sentences, in the language of the user. "
    "Never use markdown, lists, headings, emoji, abbreviations or web addresses. "
    "What you hear comes from a speech recogniser: if it makes no sense, ask in one sentence."
)
"""The default system prompt. The short first clause lets speech begin early."""


@dataclass(frozen=True, slots=True)
class EngineName:
    """Marks a string as the name of an engine: a known one or `package.module:factory`."""

    known: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def check(self, name: str) -> str:
        module, colon, factory = name.partition(":")
        dotted = all(part.isidentifier() for part in [*module.split("."), factory])
        if name not in self.known and not (colon and dotted):
            raise ValueError("unknown engine")
        return name


def _lowered(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _fit_for_a_header(key: SecretStr) -> SecretStr:
    shown = key.get_secret_value()
    if not shown or not all("!" <= char <= "~" for char in shown):
        raise ValueError("no client could show this key")
    return key


ApiKey = Annotated[SecretStr, AfterValidator(_fit_for_a_header)]
LanguageCode = Annotated[str, Field(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")]
Name = Annotated[str, Field(min_length=1)]


class Group(BaseModel):
    """What all groups share: values never change, and nothing unknown slips in."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(Group):
    """Where the server listens and whom it lets in."""

    host: Name = Field(
        "127.0.0.1",
        description="Address to listen on; any other than this machine's own needs an api_key.",
    )
    port: int = Field(8000, ge=1, le=65535, description="TCP port to listen on.")
    api_key: ApiKey | None = Field(
        None, description="Key every client must show; unset lets everybody on this machine in."
    )
    max_message_mib: int = Field(
        16, ge=1, le=256, description="Largest message of a client; a larger one is refused."
    )


class VadSettings(Group):
    """Hearing whether somebody speaks."""

    engine: Annotated[str, EngineName(("auto", "silero", "fake"))] = Field(
        "auto", description="Engine that hears speech."
    )
    threshold: float = Field(
        0.5, ge=0, le=1, description="Probability from which a frame counts as speech."
    )


class TurnSettings(Group):
    """When a turn begins, ends, and gives way."""

    silence_ms: int = Field(
        500, ge=100, le=10_000, description="Silence after which the user has finished."
    )
    prefix_padding_ms: int = Field(
        300, ge=0, le=2_000, description="Audio kept from before the user began to speak."
    )
    onset_ms: int = Field(96, ge=32, le=1_000, description="Speech it takes to begin a turn.")
    barge_in_ms: int = Field(
        192, ge=32, le=5_000, description="Speech it takes to interrupt a reply."
    )
    max_utterance_s: int = Field(
        60, ge=5, le=600, description="Longest utterance; it is ended there."
    )


class AsrSettings(Group):
    """Understanding what was said."""

    engine: Annotated[str, EngineName(("auto", "pocketsphinx", "fake"))] = Field(
        "auto", description="Engine that turns speech into text."
    )
    language: LanguageCode | None = Field(
        None, description="Language that is spoken; unset lets the engine find out."
    )
    timeout_s: float = Field(
        5.0, ge=0.1, le=120, description="Longest wait for the text of an utterance."
    )


class LlmSettings(Group):
    """Thinking of the answer."""

    engine: Annotated[str, EngineName(("auto", "builtin", "fake"))] = Field(
        "auto", description="Engine that answers."
    )
    instructions: str = Field(
        INSTRUCTIONS, max_length=32_768, description="System prompt of a new conversation."
    )
    max_tokens: int = Field(1024, ge=1, le=32_768, description="Longest answer, in tokens.")
    first_token_timeout_s: float = Field(
        15.0, ge=0.1, le=300, description="Longest wait for the first token of an answer."
    )
    stall_timeout_s: float = Field(
        5.0, ge=0.1, le=300, description="Longest gap between two tokens."
    )


class TtsSettings(Group):
    """Saying it aloud."""

    engine: Annotated[str, EngineName(("auto", "espeak", "fake"))] = Field(
        "auto", description="Engine that speaks."
    )
    voice: Name | None = Field(None, description="Voice to speak with; unset takes the first.")
    language: LanguageCode | None = Field(
        None, description="Language to speak; unset is the language of the voice."
    )
    speed: float = Field(1.0, ge=0.25, le=4, description="Speaking rate; 1.0 is natural.")
    use_gpu: bool | None = Field(
        None, description="Run speech synthesis on the GPU; unset: only in production."
    )
    first_audio_timeout_s: float = Field(
        5.0, ge=0.1, le=120, description="Longest wait for the first audio of a sentence."
    )
    stall_timeout_s: float = Field(
        5.0, ge=0.1, le=120, description="Longest gap between two pieces of audio."
    )


class FakeSettings(Group):
    """How the `fake` engines behave; they serve tests and latency measurements."""

    asr_ms: int = Field(100, ge=0, le=60_000, description="Time the fake ASR takes.")
    llm_first_ms: int = Field(
        150, ge=0, le=60_000, description="Time to the first token of the fake LLM."
    )
    llm_tokens_per_s: float = Field(
        50.0, ge=0.1, le=100_000, description="Speed of the fake LLM after its first token."
    )
    tts_first_ms: int = Field(
        100, ge=0, le=60_000, description="Time to the first audio of the fake TTS."
    )
    tts_rtf: float = Field(
        0.2, ge=0, le=10, description="Time the fake TTS takes for a second of audio, in seconds."
    )
    transcript: str = Field(
        "what time is it", max_length=10_000, description="What the fake ASR always hears."
    )
    reply: str | None = Field(
        None, max_length=100_000, description="What the fake LLM answers; unset is its own text."
    )


class Settings(Group):
    """Everything that can be set. Got from `settings_sources.load`."""

    env: Literal["development", "production"] = Field(
        "development",
        description="What this machine is for; production guesses nothing: name every engine.",
    )
    offline: bool = Field(
        False, description="Never fetch anything from the network; this version never does."
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], BeforeValidator(_lowered)
    ] = Field("info", description="The least serious messages that are still logged.")
    server: ServerSettings = ServerSettings()
    vad: VadSettings = VadSettings()
    turn: TurnSettings = TurnSettings()
    asr: AsrSettings = AsrSettings()
    llm: LlmSettings = LlmSettings()
    tts: TtsSettings = TtsSettings()
    fake: FakeSettings = FakeSettings()


@dataclass(frozen=True, slots=True)
class Setting:
    """One leaf of `Settings`."""

    path: str
    """As in config.py: `tts.speed`."""
    variable: str
    """As in the environment: `IVAS_TTS__SPEED`."""
    default: Any
    description: str
    accepts: str
    """The values it takes, in words: `a number from 0.25 to 4`."""
    secret: bool
    """Its value is never shown."""
    adapter: TypeAdapter[Any]


@cache
def all_settings() -> Mapping[str, Setting]:
    """Every setting by its path, in the order of this file."""
    leaves: dict[str, Setting] = {}
    for name, field in Settings.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, Group):
            for inner, leaf in group.model_fields.items():
                leaves[f"{name}.{inner}"] = _setting(f"{name}.{inner}", leaf)
        else:
            leaves[name] = _setting(name, field)
    return leaves


def _setting(path: str, field: FieldInfo) -> Setting:
    # A bare annotation has lost its Field(...) metadata; putting it back lets
    # one value be checked alone, with the name of its source at hand.
    alone: Any = Annotated[field.annotation, field]
    return Setting(
        path=path,
        variable="IVAS_" + path.replace(".", "__").upper(),
        default=field.default,
        description=field.description or "",
        accepts=_accepts(field),
        secret=ApiKey in get_args(field.annotation),
        adapter=TypeAdapter(alone),
    )


def _accepts(field: FieldInfo) -> str:
    for mark in field.metadata:
        if isinstance(mark, EngineName):
            return f"{', '.join(mark.known)} or package.module:factory"
    kind = next((k for k in get_args(field.annotation) if k is not type(None)), field.annotation)
    if get_origin(field.annotation) is Literal:
        words = get_args(field.annotation)
        return f"{', '.join(words[:-1])} or {words[-1]}"
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        low = next(m.ge for m in field.metadata if isinstance(m, Ge))
        high = next(m.le for m in field.metadata if isinstance(m, Le))
        return f"a {'whole ' if kind is int else ''}number from {low} to {high}"
    if kind == ApiKey:
        return "printable ASCII characters without spaces"
    if kind == LanguageCode:
        return "a language code such as en or pt-BR"
    longest = next((m.max_length for m in field.metadata if isinstance(m, MaxLen)), None)
    return f"text of at most {longest} characters" if longest else "text"
