"""What `ivas say` does with an engine, on engines that are fakes."""

from __future__ import annotations

import asyncio
import json
import sys
from types import SimpleNamespace

import pytest
from virtual_time import virtual_time

from ivas.choice import Choice
from ivas.cli import speaking
from ivas.cli.speaking import device_of, known_voice, speak
from ivas.engines import Voice
from ivas.engines.fake import FakeTTS, Fault
from ivas.errors import EngineError, EngineTimeout, EngineUnavailable, IvasError, SettingsError
from ivas.settings import Settings

SETTINGS = Settings()
VOICES = [Voice("en-us", "American", "en-US"), Voice("libri#12", "Twelve", "en")]


@pytest.fixture
def serving(monkeypatch):
    """`serving(engine, ...)`: these are the candidates of `auto`, whatever the settings say."""

    def serve(*engines):
        monkeypatch.setattr(speaking, "choose_tts", lambda settings: Choice("tts", engines))
        return engines

    return serve


class Missing(FakeTTS):
    name = "missing"

    async def start(self):
        raise EngineUnavailable("It is missing; get it.")


@virtual_time
async def test_a_text_is_spoken_clause_by_clause():
    heard = []
    spoken = await speak(
        FakeTTS(), "Hello there. **How** are you?", SETTINGS, voice="low", on_sound=heard.append
    )
    assert b"".join(heard) == spoken.pcm
    assert spoken.audio_s == pytest.approx(len("Hello there. How are you?") * 0.06, abs=0.15)
    assert spoken.rtf == spoken.total_s / spoken.audio_s
    assert (spoken.engine, spoken.voice, spoken.device) == ("fake", "low", "cpu")


@virtual_time
async def test_another_rate_becomes_24_khz():
    tts = FakeTTS(rate_hz=22_050)
    spoken = await speak(tts, "Hello there.", SETTINGS, voice="low")
    assert spoken.audio_s == pytest.approx(len("Hello there.") * 0.06, abs=0.05)


@virtual_time
@pytest.mark.parametrize("text", ["...", "🎉", "- -"])
async def test_a_text_without_words_is_an_error(text):
    with pytest.raises(EngineError, match="made no sound of this text"):
        await speak(FakeTTS(), text, SETTINGS, voice="low")


@virtual_time
@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("hang", EngineTimeout, "made no sound for 120 s"),
        ("garbage", EngineError, "half a sample"),
        ("raise", EngineError, "TTS"),
        ("end", EngineError, "made no sound"),
    ],
)
async def test_an_engine_that_fails(kind, error, said):
    tts = FakeTTS(fault=Fault(kind))
    with pytest.raises(error, match=said):
        await speak(tts, "Hello there.", SETTINGS, voice="low")
    assert tts.live_streams == 0


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (None, "en-us"),
        ("en-us", "en-us"),
        ("EN-US", "en-us"),
        ("libri", "libri#12"),
        ("libri#12", "libri#12"),
    ],
)
def test_a_voice_that_is_known(wanted, chosen):
    assert known_voice(wanted, VOICES, None) == chosen


def test_a_name_of_the_openai_api_is_a_voice_too():
    assert known_voice("nova", VOICES, None) in ("en-us", "libri#12")


def test_a_voice_that_nobody_has():
    with pytest.raises(SettingsError, match="no voice en; take one of en-us, libri#12"):
        known_voice("en", VOICES, None)


def test_where_an_engine_works():
    gpu = SETTINGS.model_copy(update={"tts": SETTINGS.tts.model_copy(update={"use_gpu": True})})
    assert device_of("xtts", gpu) == "cuda"
    assert device_of("xtts", SETTINGS) == "cpu"
    assert device_of("kokoro", gpu) == "cpu"
    assert device_of("openai", SETTINGS) == "remote"


# --- one text --------------------------------------------------------------------


async def test_the_best_engine_that_starts_speaks(serving, tmp_path, capsys):
    missing, tts = serving(Missing(), FakeTTS(first_ms=0, rtf=0))
    await speaking.say("Hello.", SETTINGS, tmp_path / "a.wav", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["engine"] == "fake"
    assert told["file"] == str(tmp_path / "a.wav")
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RIFF"
    assert not missing.status().ready
    assert not tts.status().ready  # closed again


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("a.mp3", b"ID3"),
        ("a.ogg", b"OggS"),
        ("a.opus", b"OggS"),
        ("a.flac", b"fLaC"),
        ("a.aac", b"\xff\xf1"),
        ("A.WAV", b"RIFF"),
    ],
)
async def test_every_format(serving, tmp_path, name, begins):
    serving(FakeTTS(first_ms=0, rtf=0))
    await speaking.say("Hello.", SETTINGS, tmp_path / name, as_json=False)
    assert (tmp_path / name).read_bytes().startswith(begins)


async def test_a_file_that_cannot_be_written(serving, tmp_path):
    serving(FakeTTS(first_ms=0, rtf=0))
    with pytest.raises(IvasError, match=r"cannot be written to .*No such file or directory"):
        await speaking.say("Hello.", SETTINGS, tmp_path / "none/a.wav", as_json=False)


async def test_a_file_of_no_format_is_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(SettingsError, match=r"let it end in \.mp3"):
        await speaking.say("Hello.", SETTINGS, tmp_path / "a.txt", as_json=False)


async def test_without_a_loudspeaker_nothing_is_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(IvasError, match=r"No loudspeaker can be used here.*--out speech\.wav"):
        await speaking.say("Hello.", SETTINGS, None, as_json=False)


class Stream:
    """As sounddevice's; what was queued is pulled when it is stopped."""

    def __init__(self, **how):
        self.callback = how["callback"]
        self.heard = b""

    def start(self):
        pass

    def stop(self):
        out = bytearray(2 * 240_000)
        self.callback(memoryview(out), 240_000, None, None)
        self.heard = bytes(out)

    def close(self):
        pass


@virtual_time
async def test_it_is_heard_to_its_end(serving, monkeypatch, capsys):
    streams = []

    def output(**how):
        streams.append(Stream(**how))
        return streams[-1]

    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(RawOutputStream=output))
    serving(FakeTTS(first_ms=100, rtf=0.1))
    await speaking.say("Hello there, how are you today?", SETTINGS, None, as_json=False)
    (stream,) = streams
    audio_s = len("Hello there, how are you today?") * 0.06
    assert len(stream.heard.rstrip(b"\0")) / 48_000 == pytest.approx(audio_s, abs=0.1)
    assert asyncio.get_running_loop().time() >= audio_s  # it was not cut off
    assert "by fake" in capsys.readouterr().out


# --- every engine ----------------------------------------------------------------


def candidates(monkeypatch, **engines):
    """`settings_of` and names, with one engine a name."""

    def settings_of(name):
        if isinstance(engines[name], SettingsError):
            raise engines[name]
        return SimpleNamespace(name=name, tts=SETTINGS.tts)

    monkeypatch.setattr(
        speaking, "choose_tts", lambda settings: Choice("tts", [engines[settings.name]])
    )
    return settings_of, list(engines)


async def test_each_engine_that_is_ready_speaks(monkeypatch, capsys, tmp_path):
    settings_of, names = candidates(
        monkeypatch,
        fake=FakeTTS(first_ms=0, rtf=0),
        missing=Missing(),
        openai=SettingsError("It has no address; set one."),
    )
    folder = tmp_path / "new/sound"
    assert await speaking.smoke(settings_of, names, folder, as_json=True)
    fake, missing, openai = json.loads(capsys.readouterr().out)["engines"]
    assert fake["ok"]
    assert fake["file"] == str(folder / "fake.wav")
    assert fake["rtf"] == pytest.approx(fake["total_s"] / fake["audio_s"], abs=1e-3)
    assert (missing["ok"], missing["broken"]) == (False, False)
    assert missing["reason"] == "It is missing; get it."
    assert openai["reason"] == "It has no address; set one."


@pytest.mark.parametrize("kind", ["raise", "crash", "end"])
async def test_an_engine_that_is_ready_and_broken(monkeypatch, capsys, kind):
    settings_of, names = candidates(
        monkeypatch, good=FakeTTS(first_ms=0, rtf=0), bad=FakeTTS(fault=Fault(kind))
    )
    assert not await speaking.smoke(settings_of, names, None, as_json=False)
    out = capsys.readouterr().out
    assert "bad broken: " in out
    assert "first audio s" in out


async def test_no_engine_is_ready(monkeypatch, capsys):
    settings_of, names = candidates(monkeypatch, missing=Missing())
    assert not await speaking.smoke(settings_of, names, None, as_json=False)
    assert capsys.readouterr().out == "missing not ready: It is missing; get it.\n"


async def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(IvasError, match="cannot be made"):
        await speaking.smoke(lambda name: SETTINGS, [], tmp_path / "file/x", as_json=False)
