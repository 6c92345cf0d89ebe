"""`ivas say` and `ivas transcribe` as a person meets them: real processes, real engines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ivas as ivas_package
from ivas.audio.wav import wav_bytes

CLIPS = Path(__file__).parents[1] / "clips"
TIME = str(CLIPS / "what_time_is_it_rms.wav")
CAN = str(CLIPS / "what_can_you_do_slt.wav")
RUN = (
    "from ivas import cli; from ivas.cli.speech import say, transcribe;"
    "cli.app.command()(say); cli.app.command()(transcribe); cli.main()"
)


@pytest.fixture
def ivas(tmp_path):
    """Runs `ivas ARGUMENTS` in an empty directory, without any model and any setting."""

    def run(*arguments, stdin=None, **environ):
        own = ("IVAS_", "TTS_", "OLLAMA_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        clean |= {
            "PYTHONPATH": str(Path(ivas_package.__file__).parents[1]),
            "IVAS_MODELS_DIR": str(tmp_path / "models"),
            "IVAS_ASR__ENGINE": "pocketsphinx",
        }
        return subprocess.run(
            [sys.executable, "-c", RUN, *arguments],
            cwd=tmp_path,
            env=clean | environ,
            capture_output=True,
            input=stdin,
            timeout=60,
            check=False,
        )

    return run


def refused(done, code):
    """The one sentence a failure is."""
    assert done.returncode == code, done.stderr
    sentence = done.stderr.decode()
    assert sentence.startswith("ivas: ")
    assert sentence.count("\n") == 1
    return sentence


def test_a_file_with_speech_in_it(ivas, tmp_path):
    done = ivas("say", "What time is it?", "--engine", "espeak", "--out", "a.wav", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["engine"], told["voice"], told["file"]) == ("espeak", "en-us", "a.wav")
    wav = (tmp_path / "a.wav").stat().st_size
    assert wav == pytest.approx(told["audio_s"] * 48_000 + 44, abs=100)
    assert 0.5 < told["audio_s"] < 3
    assert told["rtf"] < 1


def test_text_from_stdin_slowly(ivas):
    how = ("say", "-", "--engine", "fake", "--out", "a.wav", "--json", "--speed", "0.5")
    done = ivas(*how, stdin=b"Hello there.\n", IVAS_FAKE__TTS_RTF="0")
    assert json.loads(done.stdout)["audio_s"] == pytest.approx(2 * 12 * 0.06, abs=0.15)


def test_what_say_refuses(ivas):
    assert "nothing to say" in refused(ivas("say"), 2)
    assert "nothing to say" in refused(ivas("say", "-", stdin=b" \n"), 2)
    assert "leave the text out" in refused(ivas("say", "--smoke", "hello"), 2)
    assert "--speed is 9.0" in refused(ivas("say", "hello", "--speed", "9"), 2)
    assert "--engine is 'hal'" in refused(ivas("say", "hello", "--engine", "hal"), 2)
    nobody = ivas("say", "hi", "--engine", "espeak", "--voice", "nobody", "--out", "a.wav")
    assert "no voice nobody; take one of en-us" in refused(nobody, 2)


def test_smoke(ivas, tmp_path):
    done = ivas("say", "--smoke", "--json", "--out", "sound")
    assert done.returncode == 0, done.stderr
    engines = {one["engine"]: one for one in json.loads(done.stdout)["engines"]}
    assert {"xtts", "kokoro", "piper", "espeak"} <= set(engines)
    assert "fake" not in engines
    assert engines["espeak"]["ok"]
    assert engines["espeak"]["device"] == "cpu"
    assert (tmp_path / "sound/espeak.wav").stat().st_size > 100_000
    assert not engines["xtts"]["ok"]
    assert engines["xtts"]["reason"].endswith(".")


def test_smoke_of_one_engine(ivas):
    done = ivas("say", "--smoke", "--engine", "espeak")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines()[0].split()[:3] == ["engine", "voice", "device"]
    assert done.stdout.decode().splitlines()[1].split()[:3] == ["espeak", "en-us", "cpu"]


def test_what_is_said_in_a_recording(ivas):
    done = ivas("transcribe", TIME)
    assert (done.returncode, done.stdout) == (0, b"what time is it\n"), done.stderr


def test_several_recordings(ivas):
    done = ivas("transcribe", TIME, CAN)
    assert done.stdout.decode() == f"{TIME}:\nwhat time is it\n{CAN}:\nwhat can you do\n"


def test_a_recording_from_stdin_as_json(ivas):
    done = ivas("transcribe", "-", "--json", stdin=Path(TIME).read_bytes())
    (body,) = json.loads(done.stdout)["files"]
    assert (body["text"], body["language"], body["engine"]) == (
        "what time is it",
        "en",
        "pocketsphinx",
    )
    (segment,) = body["segments"]
    assert 0 <= segment["start"] < segment["end"] <= body["duration"]


def test_another_format_than_wav(ivas, tmp_path):
    subprocess.run(
        [sys.executable, "-c", MP3, TIME, str(tmp_path / "a.mp3")], check=True, timeout=60
    )
    assert ivas("transcribe", "a.mp3").stdout == b"what time is it\n"


MP3 = """
import sys
from pathlib import Path
from ivas.audio.encode import RATE_HZ, Encoder
from ivas.audio.pcm import to_pcm16
from ivas.audio.wav import read_wav
encoder = Encoder("mp3")
pcm = to_pcm16(read_wav(Path(sys.argv[1]), RATE_HZ))
Path(sys.argv[2]).write_bytes(encoder.push(pcm) + encoder.finish())
"""


@pytest.mark.parametrize(
    ("format_", "begins"),
    [("srt", "1\n00:00:00,"), ("vtt", "WEBVTT\n\n00:00:00.")],
)
def test_subtitles(ivas, format_, begins):
    done = ivas("transcribe", TIME, "--format", format_)
    assert done.stdout.decode().startswith(begins)
    assert "\nwhat time is it\n" in done.stdout.decode()


def test_silence_is_no_failure(ivas, tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_bytes(bytes(32_000), 16_000))
    done = ivas("transcribe", "a.wav")
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == b"ivas: No speech was heard in a.wav.\n"
    done = ivas("transcribe", "a.wav", "--json")
    assert json.loads(done.stdout)["files"][0]["text"] == ""


def test_what_transcribe_refuses(ivas, tmp_path):
    (tmp_path / "a.txt").write_text("no sound")
    assert "none.wav cannot be read (No such file" in refused(ivas("transcribe", "none.wav"), 1)
    assert "a.txt: The audio file could not be read" in refused(ivas("transcribe", "a.txt"), 1)
    two = ivas("transcribe", TIME, CAN, "--format", "srt")
    assert "Subtitles are of one recording" in refused(two, 2)
    french = ivas("transcribe", TIME, "--language", "fr")
    assert "only knows English" in refused(french, 1)
    unknown = ivas("transcribe", TIME, "--language", "not a language")
    assert "--language is 'not a language'" in refused(unknown, 2)
