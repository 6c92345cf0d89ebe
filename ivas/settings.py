"""Every setting: its type, range, default and meaning. One source of truth.

This file only says what may be set; `ivas/settings_sources.py` finds the values.
docs/configuration.md and `ivas config` are made from these descriptions, so a
description is a sentence for the operator and the unit is in the name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter
from pydantic.fields import FieldInfo

from .settings_types import (
    ApiKey,
    EngineName,
    LanguageCode,
    Name,
    Origins,
    Place,
    WebAddress,
    accepted,
    lowered,
)

ALIASES: Mapping[str, str] = {
    "ASR_DEVICE": "asr.device",
    "ASR_MODEL_SIZE": "asr.model",
    "COQUI_TOS_AGREED": "tts.xtts_licence_accepted",
    "HF_ENDPOINT": "models_hub",
    "LLM_HOST": "llm.host",
    "LLM_MODEL": "llm.model",
    "OLLAMA_HOST": "llm.host",
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
    keys_file: Place = Field(
        Path("~/.config/ivas/keys.json"),
        description="Where `ivas keys` keeps the named keys, hashed.",
    )
    cors_origins: Origins = Field(
        (), description="Web pages of other origins that may use this server; unset allows none."
    )
    max_sessions: int = Field(
        32, ge=1, le=10_000, description="Conversations at once; one more is refused."
    )
    max_sessions_per_key: int = Field(
        32, ge=1, le=10_000, description="Conversations at once with one named key."
    )
    max_sessions_per_address: int = Field(
        32, ge=1, le=10_000, description="Conversations at once from one address without a key."
    )
    max_requests: int = Field(
        8, ge=1, le=10_000, description="Speech and transcription requests served at once."
    )
    max_message_mib: int = Field(
        16, ge=1, le=256, description="Largest message of a client; a larger one is refused."
    )
    max_upload_mib: int = Field(
        25, ge=1, le=4096, description="Largest audio file to transcribe; a larger one is refused."
    )
    max_audio_minutes: int = Field(
        30, ge=1, le=240, description="Longest recording to transcribe; 4 MB of memory a minute."
    )
    max_speech_chars: int = Field(
        4096, ge=1, le=100_000, description="Longest text to speak in one request, in characters."
    )
    session_minutes: int = Field(
        120, ge=1, le=1440, description="Longest conversation; it is ended there, with an error."
    )
    idle_minutes: int = Field(
        30, ge=1, le=1440, description="A conversation in which nothing happens ends after it."
    )


class VadSettings(Group):
    """Hearing whether somebody speaks."""

    engine: Annotated[str, EngineName(("auto", "silero", "webrtc", "fake"))] = Field(
        "auto", description="Engine that hears speech."
    )
    threshold: float = Field(
        0.5, ge=0, le=1, description="Probability from which a frame counts as speech."
    )
    aggressiveness: int = Field(
        2, ge=0, le=3, description="How readily `webrtc` takes a sound for no speech."
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

    engine: Annotated[str, EngineName(("auto", "whisper", "openai", "pocketsphinx", "fake"))] = (
        Field("auto", description="Engine that turns speech into text.")
    )
    model: Name | None = Field(
        None,
        description="Model to hear with: a Whisper size (unset: base, large-v3-turbo in "
        "production) or the name the `openai` server knows.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where Whisper runs; auto is cuda in production, else cpu."
    )
    compute_type: Literal["auto", "int8", "int8_float16", "float16", "float32"] = Field(
        "auto", description="Arithmetic of Whisper; auto is int8 on cpu, float16 on cuda."
    )
    threads: int = Field(
        0, ge=0, le=256, description="CPU threads of Whisper; 0 is all physical cores but one."
    )
    url: WebAddress | None = Field(
        None, description="Address of the transcription server of the `openai` engine."
    )
    partials: bool = Field(
        False, description="Ask the `openai` server for partial transcripts too."
    )
    api_key: ApiKey | None = Field(None, description="Its key, if it wants one.")
    language: LanguageCode | None = Field(
        None, description="Language that is spoken; unset lets the engine find out."
    )
    timeout_s: float = Field(
        5.0, ge=0.1, le=120, description="Longest wait for the text of an utterance."
    )


class LlmSettings(Group):
    """Thinking of the answer."""

    engine: Annotated[str, EngineName(("auto", "ollama", "openai", "builtin", "fake"))] = Field(
        "auto", description="Engine that answers."
    )
    model: Name | None = Field(
        None, description="Model to answer with; unset takes the best that is installed."
    )
    host: Name = Field(
        "http://127.0.0.1:11434", description="Address of Ollama, as in its own OLLAMA_HOST."
    )
    num_ctx: int = Field(
        8192, ge=512, le=1_048_576, description="Context of the model, in tokens; costs memory."
    )
    keep_alive: str = Field(
        "-1",
        min_length=1,
        max_length=20,
        description="How long Ollama keeps an unused model loaded: 30m, 24h; -1 is for ever.",
    )
    temperature: float = Field(
        0.7, ge=0, le=2, description="How freely the model answers; 0 is always the same."
    )
    url: WebAddress | None = Field(
        None, description="Address of the chat server of the `openai` engine."
    )
    api_key: ApiKey | None = Field(None, description="Its key, if it wants one.")
    instructions: str = Field(
        INSTRUCTIONS, max_length=32_768, description="System prompt of a new conversation."
    )
    max_tokens: int = Field(1024, ge=1, le=32_768, description="Longest answer, in tokens.")
    slow_after_s: float = Field(
        4.0, ge=0.1, le=300, description="Wait for the first token after which it says so aloud."
    )
    first_token_timeout_s: float = Field(
        15.0, ge=0.1, le=300, description="Longest wait for the first token of an answer."
    )
    stall_timeout_s: float = Field(
        5.0, ge=0.1, le=300, description="Longest gap between two tokens."
    )


class TtsSettings(Group):
    """Saying it aloud."""

    engine: Annotated[
        str, EngineName(("auto", "xtts", "kokoro", "piper", "openai", "espeak", "fake"))
    ] = Field("auto", description="Engine that speaks.")
    voice: Name | None = Field(None, description="Voice to speak with; unset takes the first.")
    language: LanguageCode | None = Field(
        None, description="Language to speak; unset is the language of the voice."
    )
    speed: float = Field(1.0, ge=0.25, le=4, description="Speaking rate; 1.0 is natural.")
    threads: int = Field(
        0, ge=0, le=256, description="CPU threads of Kokoro and Piper; 0 is one a physical core."
    )
    voices_dir: Place = Field(
        Path("~/.config/ivas/voices"),
        description="WAV files of 6 to 30 s, each a voice for XTTS to clone.",
    )
    xtts_licence_accepted: bool = Field(
        False,
        description="You accept the licence of the XTTS weights (CPML): no commercial use.",
    )
    model: Name | None = Field(
        None, description="Model of the `openai` speech server; unset is tts-1."
    )
    url: WebAddress | None = Field(
        None, description="Address of the speech server of the `openai` engine."
    )
    api_key: ApiKey | None = Field(None, description="Its key, if it wants one.")
    use_gpu: bool | None = Field(
        None, description="Run speech synthesis on the GPU; unset: only in production."
    )
    first_audio_timeout_s: float = Field(
        5.0,
        ge=0.1,
        le=120,
        description="Longest wait for the first audio of a sentence, from its turn on.",
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
        description="What this machine is for; production runs on CUDA and guesses nothing.",
    )
    offline: bool = Field(False, description="Never fetch a model from the network.")
    models_dir: Place = Field(
        Path("~/.cache/ivas/models"), description="Where downloaded models are kept."
    )
    models_hub: WebAddress = Field(
        "https://huggingface.co", description="Where models are downloaded from, or its mirror."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lowered)] = (
        Field("info", description="The least serious messages that are still logged.")
    )
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
        accepts=accepted(field),
        secret=ApiKey in get_args(field.annotation),
        adapter=TypeAdapter(alone),
    )
