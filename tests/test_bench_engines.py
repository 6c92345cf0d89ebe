"""The measuring of engines: what it plans, how it measures, and what it says of it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from virtual_time import virtual_time

from ivas.engines import SAMPLE_RATE_HZ
from ivas.engines.fake import FakeASR, FakeLLM, FakeTTS, FakeVAD
from ivas.errors import EngineError

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import bench_engines  # noqa: E402
import bench_one_engine  # noqa: E402
from bench_one_engine import Order, Row  # noqa: E402

SECOND = np.zeros(SAMPLE_RATE_HZ, np.float32)
SPOKEN = 0.1 * np.ones(SAMPLE_RATE_HZ, np.float32)


# --- how it measures ---------------------------------------------------------------


@virtual_time
async def test_asr_is_timed_from_the_last_sample_and_for_all_at_once() -> None:
    asr = FakeASR(ms=130)
    await asr.start()
    found = await bench_one_engine.asr_figures(asr, SPOKEN, rounds=2)
    assert found["first_ms"] == pytest.approx(130)
    assert found["rtf"] == pytest.approx(0.13)
    assert found["audio_s"] == 1
    assert asr.open_utterances == 0


@virtual_time
async def test_llm_is_timed_to_its_first_token_and_for_its_pace() -> None:
    llm = FakeLLM(first_ms=150, tokens_per_s=40)
    await llm.start()
    found = await bench_one_engine.llm_figures(llm, rounds=2)
    assert found["first_ms"] == pytest.approx(150)
    assert found["tokens_per_s"] == pytest.approx(40)


@virtual_time
async def test_an_answer_that_comes_at_once_has_no_pace() -> None:
    llm = FakeLLM(first_ms=1, tokens_per_s=100_000)
    await llm.start()
    assert "tokens_per_s" not in await bench_one_engine.llm_figures(llm, rounds=1)


@virtual_time
async def test_an_engine_that_gives_nothing_is_no_fast_engine() -> None:
    llm, tts = FakeLLM(reply=""), FakeTTS(rtf=0)
    await llm.start()
    with pytest.raises(EngineError, match="answered nothing"):
        await bench_one_engine.llm_figures(llm, rounds=1)
    await tts.start()
    with pytest.raises(EngineError, match="made no sound"):
        await bench_one_engine.tts_figures(tts, rounds=0, most_audio_s=1)


@virtual_time
async def test_tts_is_timed_to_its_first_chunk_and_over_all() -> None:
    tts = FakeTTS(first_ms=100, rtf=0)
    await tts.start()
    found = await bench_one_engine.tts_figures(tts, rounds=2, most_audio_s=float("inf"))
    assert found["first_ms"] == pytest.approx(100)
    sentences = len(bench_one_engine.SENTENCES)
    assert found["n"] == 2 * sentences
    assert found["rtf"] == pytest.approx(sentences * 0.1 / found["audio_s"])


@virtual_time
async def test_a_voice_that_never_stops_is_stopped() -> None:
    tts = FakeTTS(first_ms=0, rtf=0.5)
    await tts.start()
    found = await bench_one_engine.tts_figures(tts, rounds=1, most_audio_s=0.3)
    assert 0.3 <= found["audio_s"] / len(bench_one_engine.SENTENCES) < 0.6


async def test_vad_is_timed_by_whole_frames() -> None:
    vad = FakeVAD()
    await vad.start()
    found = await bench_one_engine.vad_figures(vad, SECOND, rounds=3)
    assert found["n"] == 3 * (SAMPLE_RATE_HZ // vad.frame_samples)
    assert found["frame_ms_of_audio"] == vad.frame_samples / 16
    assert found["frame_us"] > 0


# --- what it plans and says -----------------------------------------------------------


def test_every_engine_once_and_every_whisper_asked_for(tmp_path: Path) -> None:
    asked = bench_engines.arguments(["--models-dir", str(tmp_path), "--whisper", "tiny", "small"])
    rows = bench_engines.plan(asked)
    assert {row.engine for row in rows} == set(bench_engines.KINDS)
    assert [row.model for row in rows if row.engine == "whisper"] == [
        "whisper-tiny",
        "whisper-small",
    ]
    left_out = {row.engine: row.skipped for row in rows if row.skipped}
    assert set(left_out) == {"openai", "xtts"}
    assert "--accept-xtts-licence" in left_out["xtts"]


def test_an_installed_model_is_taken_and_a_missing_whisper_is_made(tmp_path: Path) -> None:
    (tmp_path / "whisper-base").mkdir()
    (tmp_path / "whisper-base" / "model.bin").write_bytes(b"x")
    (tmp_path / "kokoro-int8").mkdir()
    options = ["whisper", "kokoro", "xtts", "--random-xtts", "--models-dir", str(tmp_path)]
    rows = bench_engines.plan(bench_engines.arguments(options))
    assert {row.model: row.random for row in rows} == {
        "whisper-tiny": True,
        "whisper-base": False,
        "kokoro-int8": False,
        "xtts-v2": True,
    }


def test_an_unknown_engine_is_refused_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        bench_engines.arguments(["festival"])
    said = capsys.readouterr().err
    assert "there is no engine festival" in said
    assert "espeak" in said


def test_memory_is_what_came_on_top() -> None:
    row = Row("espeak", "tts")
    assert row.more_mb("ready") is None
    row.memory_mb = {"before": {"rss": 50, "pss": 40}, "ready": {"rss": 90, "pss": 61}}
    assert row.more_mb("ready") == 21
    assert row.more_mb("working") is None
    for memory in row.memory_mb.values():
        del memory["pss"]
    assert row.more_mb("ready") == 40


def test_the_memory_of_a_process_that_is_gone_is_none() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert bench_engines.memory_mb(gone.pid) == {}


def test_the_table_shows_what_was_measured_and_why_the_rest_was_not() -> None:
    heard = Row("whisper", "asr", "whisper-base", random=True, ready_s=0.456)
    heard.figures = {"first_ms": 263.4, "rtf": 0.1234, "whole_window_ratio": 3.26}
    spoke = Row("espeak", "tts", ready_s=0.03)
    spoke.figures = {"first_ms": 0.82, "rtf": 0.00179}
    missing = Row("kokoro", "tts", "kokoro", skipped="No file.")
    lines = bench_engines.table([heard, spoke, missing]).splitlines()
    assert len(lines) == 4
    assert "whisper-base (random)" in lines[1]
    assert "first 263 ms, RTF 0.123, a window of 30 s 3.3 times" in lines[1]
    assert "first 0.8 ms, RTF 0.00179" in lines[2]
    assert lines[3] == "kokoro left out: No file."


# --- the processes ---------------------------------------------------------------------


def order(row: Row) -> Order:
    return Order(
        row=row, models_dir="/nowhere", ollama_host="", openai_url="", rounds=1, only_start=False
    )


async def test_an_engine_that_takes_its_process_along_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "dies.py"
    program.write_text("import sys; print('it burns', file=sys.stderr); sys.exit(3)")
    monkeypatch.setattr(bench_one_engine, "__file__", str(program))
    found = await bench_engines.measured(order(Row("espeak", "tts")), patience_s=30)
    assert found.skipped == "Its process ended with 3: it burns"


async def test_an_engine_that_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "hangs.py"
    program.write_text("import signal; signal.pause()")
    monkeypatch.setattr(bench_one_engine, "__file__", str(program))
    found = await bench_engines.measured(order(Row("espeak", "tts")), patience_s=0)
    assert found.skipped == "It was not done after 0 s."
    mine = [process.cmdline() for process in psutil.Process().children(recursive=True)]
    assert not any(str(program) in command for command in mine)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="espeakng-loader is not installed"
)
def test_it_measures(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, SCRIPTS / "bench_engines.py", "webrtc", "builtin", "espeak", "piper"),
            *("--rounds", "1", "--starts", "2", "--models-dir", tmp_path, "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    webrtc, builtin, espeak, piper = json.loads(done.stdout)["engines"]
    assert 0 < webrtc["figures"]["frame_us"] < 30_000
    assert builtin["figures"]["first_ms"] > 0
    assert espeak["figures"]["audio_s"] > 1
    for row in (webrtc, builtin, espeak):
        assert not row["skipped"]
        assert row["ready_s"] > 0
        assert set(row["memory_mb"]) == {"before", "ready", "working"}
        assert row["memory_mb"]["ready"]["rss"] > 0
    assert "piper" in piper["skipped"].lower()
    assert "measuring" in done.stderr
