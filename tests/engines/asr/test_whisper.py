"""What is Whisper's own; what every ASR promises is in test_contract_asr.py.

First the real model (tests/tiny_whisper.py), then its faults, then the engine around a
model that does what the test says.
"""

from __future__ import annotations

import asyncio
import math
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from tiny_whisper import noise, tiny_whisper, tone

from ivas import hardware
from ivas.engines import Status
from ivas.engines.asr import whisper, whisper_model
from ivas.engines.asr.whisper import WhisperASR
from ivas.engines.asr.whisper_guard import Decoding
from ivas.engines.asr.whisper_model import Encoded
from ivas.errors import EngineError, EngineUnavailable

SAID = "what_time_is_it_slt"
TEXT = "what time is it"


@pytest.fixture
async def asr(no_leaks):
    asr = WhisperASR(model_dir=tiny_whisper())
    await asr.start()
    yield asr
    await asr.aclose()


async def hear(asr, audio, *, urgent=True, **options):
    utterance = asr.open(**options)
    utterance.push(audio)
    try:
        return await utterance.transcript(urgent=urgent)
    finally:
        utterance.close()


# --- hearing -----------------------------------------------------------------


async def test_partials_of_growing_audio_and_the_final(asr, clip):
    audio = clip(SAID)
    utterance = asr.open()
    ends = []
    for start in range(0, len(audio), 1600):
        utterance.push(audio[start : start + 1600])
        partial = await utterance.transcript(urgent=False)
        ends.append(partial.end_sample)
    assert ends == [min(len(audio), 1600 * n) for n in range(1, len(ends) + 1)]
    final = await utterance.transcript()
    utterance.close()
    assert (final.text, final.revision) == (TEXT, len(ends) + 1)
    assert partial.text == TEXT


@pytest.mark.parametrize(("audio", "language"), [(tone(1.5), "de"), (noise(3), "en")])
async def test_a_language_it_is_sure_of_is_told(asr, audio, language):
    assert (await hear(asr, audio)).language == language


async def test_a_translation_is_another_task_of_the_same_model(asr, clip, monkeypatch):
    asked = []
    generate = asr.model()._model.generate

    class Spy:
        def __getattr__(self, name):
            return getattr(asr_model, name)

        def generate(self, output, prompts, **how):
            asked.append(prompts[0])
            return generate(output, prompts, **how)

    asr_model = asr.model()._model
    monkeypatch.setattr(asr.model(), "_model", Spy())
    assert asr.translates
    for translate in (False, True):
        await hear(asr, clip(SAID), language="en", translate=translate)
    plain, translated = asked[0], asked[-1]
    assert len(plain) == len(translated)
    different = [tokens for tokens in zip(plain, translated, strict=True) if len(set(tokens)) > 1]
    tokenizer = asr.model()._library.hf_tokenizer
    words = [[tokenizer.id_to_token(token) for token in tokens] for tokens in different]
    assert words == [["<|transcribe|>", "<|translate|>"]]


async def test_a_language_it_guesses_is_not_told(asr, clip, monkeypatch):
    monkeypatch.setattr(whisper, "CONFIDENT", 0.9999)
    transcript = await hear(asr, clip(SAID))
    assert (transcript.text, transcript.language) == (TEXT, None)


@pytest.mark.parametrize("language", ["en", "en-GB", "EN_us"])
async def test_a_named_language_is_not_looked_for(asr, language):
    assert (await hear(asr, tone(1.5), language=language)).language == "en"


async def test_the_engine_may_have_a_language_of_its_own(no_leaks):
    asr = WhisperASR(model_dir=tiny_whisper(), language="fr")
    await asr.start()
    assert (await hear(asr, tone(1.5))).language == "fr"
    assert (await hear(asr, tone(1.5), language="es")).language == "es"
    await asr.aclose()


@pytest.mark.parametrize(
    ("named", "whispers"), [("jv", "jw"), ("nb-NO", "no"), ("iw", "he"), ("fil", "tl")]
)
async def test_whispers_own_names_of_languages(asr, named, whispers):
    told = (await hear(asr, tone(1.5), language=named)).language
    assert told == ("jv" if whispers == "jw" else whispers)


async def test_cantonese_is_chinese_to_an_older_model(asr):
    assert (await hear(asr, tone(1.5), language="yue-HK")).language == "zh"


async def test_an_unknown_language_is_refused_with_the_fix(asr, clip):
    with pytest.raises(EngineError, match=r"'tlh'.*none to detect it\.") as refused:
        await hear(asr, clip(SAID), language="tlh")
    assert refused.value.code == "unsupported_language"
    assert (await hear(asr, clip(SAID))).text == TEXT


async def test_a_model_that_knows_only_english(no_leaks, clip):
    asr = WhisperASR(model_dir=tiny_whisper(multilingual=False))
    await asr.start()
    transcript = await hear(asr, clip(SAID))
    assert (transcript.text, transcript.language) == (TEXT, "en")
    assert (await hear(asr, clip(SAID), language="en-AU")).text == TEXT
    with pytest.raises(EngineError, match=r"knows only English; choose a model without \.en"):
        await hear(asr, clip(SAID), language="de")
    await asr.aclose()


@pytest.mark.parametrize("prompt", ["IVAS, Kolkata", "word " * 2000, "\0\ud83d", " "])
async def test_a_prompt_of_any_kind(asr, clip, prompt):
    assert (await hear(asr, clip(SAID), prompt=prompt)).text == TEXT


async def test_what_it_makes_up_in_a_breath_is_dropped(asr):
    assert (await hear(asr, noise(0.6))).text == ""
    assert (await hear(asr, noise(3))).text == "Thanks for watching!"


async def test_a_whole_window_hears_the_same(no_leaks, clip):
    asr = WhisperASR(model_dir=tiny_whisper(), whole_window=True)
    await asr.start()
    assert (await hear(asr, clip(SAID))).text == TEXT
    await asr.aclose()


async def test_ten_at_once_with_partials_never_stall_the_loop(asr, clip, never_stalls):
    async def speak() -> None:
        utterance = asr.open()
        audio = clip(SAID)
        for start in range(0, len(audio), 4000):
            utterance.push(audio[start : start + 4000])
            await utterance.transcript(urgent=False)
        assert (await utterance.transcript()).text == TEXT
        utterance.close()

    await never_stalls(lambda: asyncio.gather(*(speak() for _ in range(10))))


# --- long utterances ---------------------------------------------------------


async def test_a_long_utterance_is_heard_in_windows_that_stand(asr, clip, monkeypatch):
    windows = []
    encode = whisper_model.WhisperModel.encode

    def counted(model, samples, *, whole):
        windows.append(round(samples.size / 16_000))
        return encode(model, samples, whole=whole)

    monkeypatch.setattr(whisper_model.WhisperModel, "encode", counted)
    spoken = np.concatenate([clip(SAID), np.zeros(8_000, np.float32)])
    long = np.tile(spoken, math.ceil(70 * 16_000 / len(spoken)))
    utterance = asr.open()
    for start in range(0, len(long), 512):
        utterance.push(long[start : start + 512])
    first = await utterance.transcript()
    assert len(windows) == 3
    assert all(24 <= window <= 30 for window in windows[:2])
    assert sum(windows) == pytest.approx(len(long) / 16_000, abs=2)
    assert (first.text, first.end_sample) == (" ".join([TEXT] * 3), len(long))
    utterance.push(spoken)
    again = await utterance.transcript()
    assert (again.text, len(windows)) == (first.text, 4)
    assert windows[3] < 30
    assert len(utterance._recording._blocks) <= 2
    utterance.close()


async def test_questions_at_once_freeze_no_window_twice(asr, clip):
    spoken = np.concatenate([clip(SAID), np.zeros(8_000, np.float32)])
    long = np.tile(spoken, math.ceil(70 * 16_000 / len(spoken)))
    utterance = asr.open()
    utterance.push(long)
    found = await asyncio.gather(*(utterance.transcript() for _ in range(3)))
    utterance.close()
    assert {transcript.text for transcript in found} == {" ".join([TEXT] * 3)}
    assert sorted(transcript.revision for transcript in found) == [1, 2, 3]


async def test_more_than_the_longest_utterance_is_not_kept(asr, clip, monkeypatch):
    monkeypatch.setattr(whisper, "MOST_SAMPLES", 16_000)
    utterance = asr.open()
    utterance.push(clip(SAID)[:16_000])
    utterance.push(clip(SAID))
    assert (await utterance.transcript()).end_sample == 16_000
    utterance.close()


# --- starting, or not --------------------------------------------------------


@pytest.fixture
def model_dir(tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(tiny_whisper(), tmp_path / "whisper-base")


async def refusal(asr) -> str:
    with pytest.raises(EngineUnavailable) as refused:
        await asr.start()
    said = str(refused.value)
    assert asr.status().reason == said
    assert not asr.status().ready
    assert "\n" not in said
    return said


@pytest.mark.parametrize("name", ["config.json", "model.bin", "tokenizer.json"])
async def test_absent_files_and_the_command_that_fetches_them(model_dir, name, clip):
    asr = WhisperASR(model_dir=model_dir)
    (model_dir / name).rename(model_dir / "aside")
    said = await refusal(asr)
    assert f"{name} is missing; run: ivas models download whisper-base" in said
    with pytest.raises(EngineUnavailable, match="ivas models download"):
        await hear(asr, clip(SAID))
    (model_dir / "aside").rename(model_dir / name)
    await asr.start()
    assert (await hear(asr, clip(SAID))).text == TEXT
    await asr.aclose()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.bin", b""),
        ("model.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        ("model.bin", 5),
        ("model.bin", 100_000),
        ("model.bin", -1),
        ("model.bin", b"<html>Not Found</html>" * 1000),
        ("model.bin", bytes(100_000)),
        ("config.json", b"{"),
        ("vocabulary.json", 3000),
        ("vocabulary.json", b"<html>"),
        ("tokenizer.json", 3000),
        ("tokenizer.json", b"{}"),
    ],
)
async def test_broken_files_and_the_command_that_mends_them(model_dir, name, content, no_leaks):
    path = model_dir / name
    path.write_bytes(path.read_bytes()[:content] if isinstance(content, int) else content)
    said = await refusal(WhisperASR(model_dir=model_dir))
    assert "ivas models download whisper-base" in said


async def test_broken_files_are_not_read_again_and_again(model_dir, monkeypatch):
    loads = []

    def load(*place, **options):
        loads.append(place)
        return whisper_model.load(*place, **options)

    monkeypatch.setattr(whisper, "load", load)
    asr = WhisperASR(model_dir=model_dir)
    good = (model_dir / "model.bin").read_bytes()
    (model_dir / "model.bin").write_bytes(good[:-1])
    said = await refusal(asr)
    errors = []
    for _ in range(2):
        with pytest.raises(EngineUnavailable) as caught:
            await asr.start()
        errors.append(caught.value)
    assert [(str(error), error.code) for error in errors] == [(said, "model_broken")] * 2
    assert errors[0] is not errors[1]  # one that is raised again and again grows
    assert len(loads) == 1
    (model_dir / "model.bin").write_bytes(good)
    await asr.start()
    assert asr.status().ready
    await asr.aclose()


async def test_an_absent_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    said = await refusal(WhisperASR(model_dir=tiny_whisper()))
    assert "faster_whisper is not installed; install it with: pip install 'ivas[whisper]'" in said


async def test_a_broken_package(monkeypatch):
    def broken(*_, **__):
        raise ImportError("libctranslate2.so: cannot enable executable stack")

    monkeypatch.delitem(sys.modules, "faster_whisper", raising=False)
    monkeypatch.setattr("builtins.__import__", _failing_import("faster_whisper", broken))
    said = await refusal(WhisperASR(model_dir=tiny_whisper()))
    monkeypatch.undo()
    assert "is broken (libctranslate2.so: cannot enable executable stack)" in said
    assert "pip install --force-reinstall" in said


def _failing_import(name, fail):
    real = __import__

    def importing(module, *rest, **options):
        return fail() if module == name else real(module, *rest, **options)

    return importing


async def test_no_cuda_is_said_with_the_reason(monkeypatch):
    problem = "No NVIDIA card is in this machine; use a machine with one."
    monkeypatch.setattr(hardware, "cuda_problem", lambda **wanted: problem)
    said = await refusal(WhisperASR(model_dir=tiny_whisper(), device="cuda"))
    assert said == f"{problem} Whisper runs on the CPU with IVAS_ASR__DEVICE=cpu."


async def test_arithmetic_the_device_does_not_know():
    said = await refusal(WhisperASR(model_dir=tiny_whisper(), compute_type="float16"))
    assert "cannot compute in float16 on this cpu; set IVAS_ASR__COMPUTE_TYPE to int8" in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "not enough memory for it; choose a smaller model"),
        (RuntimeError("std::bad_alloc"), "not enough memory"),
        (RuntimeError("CUDA failed with error out of memory"), "not enough memory"),
        (ImportError("cannot import name Tokenizer"), "pip install --force-reinstall"),
        (RuntimeError("Library libcublas.so.12 is not found"), "ask `ivas doctor`"),
        (RuntimeError("CUDA failed with error no kernel image"), "IVAS_ASR__DEVICE=cpu"),
    ],
)
async def test_what_loading_may_run_into(monkeypatch, error, said):
    import faster_whisper

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(faster_whisper, "WhisperModel", fail)
    assert said in await refusal(WhisperASR(model_dir=tiny_whisper()))


async def test_not_started_is_what_the_transcript_says(clip):
    with pytest.raises(EngineUnavailable, match="not loaded; start"):
        await hear(WhisperASR(model_dir=tiny_whisper()), clip(SAID))


def test_importing_it_loads_nothing_heavy():
    program = (
        "import sys, ivas.engines.asr.whisper;"
        "print([n for n in ('faster_whisper', 'ctranslate2', 'torch', 'av') if n in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert answer.stdout.strip() == b"[]"


# --- at work: a model that does what the test says ---------------------------


class Model:
    """Stands for a loaded Whisper. `calls` are what was asked of it."""

    languages = frozenset({"en", "de"})

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.held = threading.Event()
        self.let_go = threading.Event()
        self.let_go.set()
        self.fails: list[Exception] = []
        self.decodings: list[Decoding] = []

    def encode(self, samples, *, whole):
        self.calls.append(f"encode {samples.size}{' whole' * whole}")
        self.held.set()
        assert self.let_go.wait(5)
        if self.fails:
            raise self.fails.pop(0)
        return Encoded(samples.size, samples.size / 16_000, whole)

    def detect(self, encoded):
        return "en", 1.0

    def decode(self, encoded, *, language, prompt, task="transcribe"):
        self.calls.append(f"decode {encoded.output}")
        return self.decodings.pop(0) if self.decodings else Decoding(" hello", -0.1, 0.01)

    def hold(self) -> None:
        self.held.clear()
        self.let_go.clear()


@pytest.fixture
def model(monkeypatch):
    model = Model()
    monkeypatch.setattr(whisper, "load", lambda *_, **__: model)
    yield model
    model.let_go.set()


@pytest.fixture
async def played(model, no_leaks):
    """An engine with that model."""
    asr = WhisperASR(model_dir=tiny_whisper())
    await asr.start()
    yield asr
    await asr.aclose()


def speech(samples: int) -> np.ndarray:
    return np.full(samples, 0.1, np.float32)


def ask(asr, samples: int, *, urgent: bool = True) -> asyncio.Task:
    return asyncio.create_task(hear(asr, speech(samples), urgent=urgent))


async def test_who_waits_for_a_reply_goes_first_even_between_the_halves(played, model, eventually):
    model.hold()
    running = ask(played, 1, urgent=False)
    await eventually(model.held.is_set)
    waiting = [ask(played, 2, urgent=False), ask(played, 3), ask(played, 4)]
    await asyncio.sleep(0)
    model.let_go.set()
    await asyncio.gather(running, *waiting)
    assert model.calls == [
        *("encode 1", "encode 3", "decode 3", "encode 4", "decode 4"),
        *("encode 2", "decode 1", "decode 2"),
    ]


async def test_a_partial_overtaken_by_a_newer_question_is_dropped(played, model, eventually):
    model.hold()
    running = ask(played, 1)
    await eventually(model.held.is_set)
    utterance = played.open()
    utterance.push(speech(5))
    partial = asyncio.create_task(utterance.transcript(urgent=False))
    await asyncio.sleep(0)
    utterance.push(speech(5))
    final = asyncio.create_task(utterance.transcript())
    await asyncio.sleep(0)
    model.let_go.set()
    assert (await final).end_sample == 10
    with pytest.raises(EngineError) as dropped:
        await partial
    await running
    utterance.close()
    assert dropped.value.code == "superseded"
    assert model.calls == ["encode 1", "decode 1", "encode 10", "decode 10"]


async def test_closing_drops_what_waits_and_what_runs(played, model, eventually):
    model.hold()
    utterances = [played.open(), played.open()]
    asking = []
    for utterance in utterances:
        utterance.push(speech(7))
        asking.append(asyncio.create_task(utterance.transcript()))
    await eventually(model.held.is_set)
    for utterance in utterances:
        utterance.close()
    model.let_go.set()
    for answer in asking:
        with pytest.raises(EngineError, match="closed"):
            await answer
    assert model.calls == ["encode 7"]
    assert (await ask(played, 9)).text == "hello"


async def test_a_hang_ends_with_the_callers_patience_and_keeps_its_slot(played, model, eventually):
    model.hold()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await hear(played, speech(7))
    following = ask(played, 8)
    for _ in range(5):
        await asyncio.sleep(0)
    assert model.calls == ["encode 7"]
    model.let_go.set()
    assert (await following).text == "hello"
    assert model.calls == ["encode 7", "encode 8", "decode 8"]


async def test_a_call_that_never_ends_makes_it_not_ready(played, model, eventually, monkeypatch):
    model.hold()
    stuck = ask(played, 7)
    await eventually(model.held.is_set)
    assert played.status().ready
    monkeypatch.setattr(whisper, "STUCK_S", 0)
    assert "restart the server" in played.status().reason
    with pytest.raises(EngineUnavailable, match="restart the server"):
        await played.start()
    model.let_go.set()
    await stuck
    assert played.status().ready


async def test_out_of_memory_costs_one_utterance(played, model):
    model.fails = [RuntimeError("CUDA failed with error out of memory")]
    with pytest.raises(EngineError, match="ran out of memory") as failed:
        await hear(played, speech(7))
    assert failed.value.code == "out_of_memory"
    assert played.status().ready
    assert (await hear(played, speech(7))).text == "hello"


async def test_a_lost_card_makes_it_not_ready_until_it_is_started_again(played, model):
    model.fails = [RuntimeError("CUDA failed with error unspecified launch failure")]
    with pytest.raises(EngineError, match="lost the NVIDIA card"):
        await hear(played, speech(7), urgent=False)
    assert "nvidia-smi" in played.status().reason
    with pytest.raises(EngineUnavailable, match="nvidia-smi"):
        await hear(played, speech(7))
    await played.start()
    assert (await hear(played, speech(7))).text == "hello"


@pytest.mark.parametrize(
    "garbage",
    [
        Decoding("!" * 200, -math.inf, 0.0),
        Decoding(" la la" * 40, -0.1, 0.0),
        Decoding(" " + "x" * 90, -0.5, 0.0),
        Decoding(" hello", -2.0, 0.9),
        Decoding("", 0.0, 0.0),
    ],
)
async def test_garbage_is_nothing_said(played, model, garbage):
    model.decodings = [garbage, garbage]
    assert (await hear(played, speech(16_000))).text == ""
    model.decodings.clear()
    assert (await hear(played, speech(16_000))).text == "hello"


async def test_doubtful_is_decoded_again_in_a_full_window_if_somebody_waits(played, model):
    doubtful, good = Decoding(" huh", -1.5, 0.1), Decoding(" hello there", -0.1, 0.1)
    model.decodings = [doubtful, good]
    assert (await hear(played, speech(800))).text == "hello there"
    assert model.calls == ["encode 800", "decode 800", "encode 800 whole", "decode 800"]
    model.calls.clear()
    model.decodings = [doubtful]
    assert (await hear(played, speech(800), urgent=False)).text == "huh"
    assert model.calls == ["encode 800", "decode 800"]


async def test_silence_asks_the_model_nothing(played, model):
    transcript = await hear(played, np.zeros(16_000, np.float32))
    assert (transcript.text, transcript.end_sample, transcript.language) == ("", 16_000, None)
    assert model.calls == []


async def test_starting_twice_at_once_loads_once(model, monkeypatch):
    loads = []
    monkeypatch.setattr(whisper, "load", lambda *place, **_: loads.append(place) or model)
    asr = WhisperASR(model_dir=tiny_whisper())
    await asyncio.gather(asr.start(), asr.start(), asr.start())
    assert len(loads) == 1
    await asr.aclose()


async def test_a_start_given_up_is_waited_out_by_the_next(model, monkeypatch, no_leaks, eventually):
    loading, go_on, loads = threading.Event(), threading.Event(), []

    def load(*_, **__):
        loads.append("begun")
        loading.set()
        assert go_on.wait(5)
        loads.append("done")
        return model

    monkeypatch.setattr(whisper, "load", load)
    asr = WhisperASR(model_dir=tiny_whisper())
    first = asyncio.create_task(asr.start())
    await eventually(loading.is_set)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert asr.status() == Status(ready=False, reason="Whisper is being loaded; wait a moment.")
    second = asyncio.create_task(asr.start())
    for _ in range(5):
        await asyncio.sleep(0)
    assert loads == ["begun"]
    go_on.set()
    await second
    assert loads == ["begun", "done", "begun", "done"]
    assert asr.status().ready
    await asr.aclose()
