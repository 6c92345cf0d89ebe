"""The composition root: what the settings name is what serves, and it starts and ends well."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path
from types import ModuleType

import pytest
from fastapi.testclient import TestClient
from memory_client import fakes

from ivas.app import (
    Startup,
    build,
    load,
    session_defaults,
    session_limits,
)
from ivas.composition import choose_engines
from ivas.engines.fake import FakeASR, FakeTTS
from ivas.errors import EngineUnavailable, SettingsError
from ivas.keys import add_key
from ivas.server.websocket import CuttingProtocol
from ivas.serving import uvicorn_config
from ivas.settings import AsrSettings, Settings, TtsSettings


class NoTTS(FakeTTS):
    """Cannot start, with or without saying why."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def start(self) -> None:
        raise self._error


def test_auto_takes_what_comes_with_the_package() -> None:
    names = {kind: engine.name for kind, engine in choose_engines(Settings()).by_kind().items()}
    assert names == {"vad": "silero", "asr": "pocketsphinx", "llm": "builtin", "tts": "espeak"}


def test_fake_takes_its_delays_from_the_settings() -> None:
    fake = {"engine": "fake"}
    settings = Settings.model_validate(
        {"vad": fake, "asr": fake, "llm": fake, "tts": fake, "fake": {"transcript": "yes"}}
    )
    engines = choose_engines(settings)
    assert {engine.name for engine in engines.by_kind().values()} == {"fake"}


def test_a_third_partys_engine_is_made_by_its_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("their_engines")
    module.recogniser = FakeASR  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "their_engines", module)
    settings = Settings(asr=AsrSettings(engine="their_engines:recogniser"))
    assert isinstance(choose_engines(settings).asr, FakeASR)
    for name in ("their_engines:nothing", "nowhere_at_all:recogniser"):
        with pytest.raises(SettingsError, match=name):
            choose_engines(Settings(asr=AsrSettings(engine=name)))


@pytest.mark.parametrize("name", ["os:getcwd", "ivas.engines.fake:FakeTTS"])
def test_what_is_no_recogniser_is_refused_before_it_is_started(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is none of this kind"):
        choose_engines(Settings(asr=AsrSettings(engine=name)))


async def test_an_engine_auto_chose_may_fail_and_one_that_was_named_may_not() -> None:
    unavailable = EngineUnavailable("No voice is installed; install one.")
    called: list[str] = []

    async def starting(settings: Settings, error: Exception) -> Startup:
        called.clear()
        startup = Startup(
            on_failure=lambda: called.append("failed"), on_ready=lambda: called.append("ready")
        )
        await load(fakes(tts=NoTTS(error)), settings, startup)
        assert not startup.loading
        return startup

    assert (await starting(Settings(), unavailable)).failure is None
    assert called == ["ready"]
    named = Settings(tts=TtsSettings(engine="espeak"))
    failure = (await starting(named, unavailable)).failure
    assert failure == "The tts engine fake cannot start: No voice is installed; install one."
    assert called == ["failed"]
    assert (await starting(Settings(), RuntimeError("a bug"))).failure is not None


async def test_a_voice_nobody_has_ends_the_start_with_those_there_are() -> None:
    startup = Startup()
    settings = Settings(tts=TtsSettings(engine="fake", voice="zzz"))
    await load(fakes(), settings, startup)
    assert startup.failure is not None
    assert startup.failure.startswith("The voice zzz is not one of fake; ")
    assert "fake-low" in startup.failure
    startup = Startup()
    await load(fakes(), Settings(tts=TtsSettings(engine="fake", voice="fake-high")), startup)
    assert startup.failure is None
    # With auto a better engine may have it, later.
    await load(fakes(), Settings(tts=TtsSettings(voice="zzz")), startup)
    assert startup.failure is None


async def test_ready_is_said_once_the_socket_listens() -> None:
    looks = iter([False, False, True])
    ready: list[bool] = []
    startup = Startup(listening=lambda: next(looks), on_ready=lambda: ready.append(True))
    await load(fakes(), Settings(), startup)
    assert ready == [True]
    assert next(looks, None) is None


def test_engines_start_and_end_with_the_server() -> None:
    engines = fakes()
    with TestClient(build(Settings(), engines=engines)) as client:
        assert client.get("/health").json()["status"] == "ok"
        assert client.get("/ready").status_code == 200
    assert not any(engine.status().ready for engine in engines.by_kind().values())


def test_the_settings_reach_the_sessions() -> None:
    settings = Settings.model_validate(
        {
            "asr": {"timeout_s": 7, "language": "de"},
            "llm": {"max_tokens": 99, "instructions": "Be brief.", "first_token_timeout_s": 11},
            "tts": {"voice": "anna", "speed": 1.2, "first_audio_timeout_s": 4},
            "turn": {"silence_ms": 700},
        }
    )
    limits, defaults = session_limits(settings), session_defaults(settings)
    assert (limits.transcript_s, limits.max_tokens, limits.reply.first_token_s) == (7, 99, 11)
    assert (defaults.language, defaults.voice, defaults.speed) == ("de", "anna", 1.2)
    assert (defaults.instructions, defaults.turn.silence_ms) == ("Be brief.", 700)
    # The controller's deadlines only catch what the engines' own miss.
    assert defaults.turn.transcript_ms > 1000 * limits.transcript_s
    assert defaults.turn.reply_stall_ms > 1000 * (11 + 4)


def door(host: str, **server: object) -> Settings:
    return Settings.model_validate({"server": {"host": host, **server}})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "assistant.example.org"])
def test_an_open_door_needs_a_key(host: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="ivas keys add") as caught:
        build(door(host), engines=fakes())
    assert host in str(caught.value)
    assert build(door(host, api_key="k"), engines=fakes())
    file = tmp_path / "keys.json"
    add_key(file, "phone", ["talk"], now_s=0)
    assert build(door(host, keys_file=file), engines=fakes())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_this_machine_needs_no_key(host: str) -> None:
    assert build(door(host), engines=fakes())


def test_a_refused_handshake_is_no_error_of_the_server() -> None:
    settings = Settings()
    uvicorn_config(build(settings, engines=fakes()), settings)
    uvicorns, said = logging.getLogger("uvicorn.error"), logging.handlers.BufferingHandler(9)
    uvicorns.addHandler(said)
    uvicorns.error("ASGI callable returned without completing handshake.")
    uvicorns.error("Something else.")
    uvicorns.removeHandler(said)
    assert [record.getMessage() for record in said.buffer] == ["Something else."]


def test_uvicorn_cuts_clients_that_are_gone() -> None:
    settings = Settings()
    config = uvicorn_config(build(settings, engines=fakes()), settings)
    config.load()
    assert config.ws_protocol_class is CuttingProtocol
