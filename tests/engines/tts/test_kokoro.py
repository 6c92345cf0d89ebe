"""What is Kokoro's own; what every TTS promises: test_contract_tts.py.

On a tiny ONNX model of the real one's inputs and outputs, through kokoro-onnx itself.
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading

import numpy as np
import pytest
from tiny_voices import KOKORO_VOICES, kokoro_onnx, write_kokoro

from ivas.engines.threads import Slots
from ivas.engines.tts import kokoro
from ivas.engines.tts.kokoro import KokoroTTS
from ivas.errors import EngineError, EngineUnavailable

SENTENCE = "Hello there, it is a quarter past three."


@pytest.fixture
def model_dir(tmp_path):
    return write_kokoro(tmp_path / "kokoro")


@pytest.fixture
async def tts(model_dir, no_leaks):
    tts = KokoroTTS(model_dir=model_dir)
    await tts.start()
    yield tts
    await tts.aclose()


async def spoken(tts, text=SENTENCE, voice="af_heart", **options) -> bytes:
    return b"".join([chunk.pcm async for chunk in tts.stream(text, voice=voice, **options)])


def pitch(pcm: bytes) -> int:
    """The strongest frequency in Hz, to 25 Hz: tells the voices of the tiny model."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    spectrum = np.abs(np.fft.rfft(samples))
    return round(float(np.argmax(spectrum)) * kokoro.RATE_HZ / len(samples) / 25) * 25


async def refused(tts, problem: str, code: str) -> None:
    with pytest.raises(EngineUnavailable, match=problem) as caught:
        await tts.start()
    assert caught.value.code == code
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    assert tts.status().reason == str(caught.value)


# --- speaking --------------------------------------------------------------------


async def test_lists_its_voices_by_language(tts):
    assert [voice.id for voice in tts.voices] == list(KOKORO_VOICES)
    named = {voice.id: (voice.name, voice.language) for voice in tts.voices}
    assert named["af_heart"] == ("Heart (American English, female)", "en-US")
    assert named["bm_george"] == ("George (British English, male)", "en-GB")
    assert named["ff_siwis"] == ("Siwis (French, female)", "fr-FR")
    assert named["hf_alpha"][1] == "hi"


async def test_voices_of_ones_own_are_listed_last(tmp_path):
    write_kokoro(tmp_path, voices=["mixture", "x", "zf_xiaoni", "bf_emma", "af_bella"])
    tts = KokoroTTS(model_dir=tmp_path)
    await tts.start()
    assert [v.id for v in tts.voices] == ["af_bella", "bf_emma", "zf_xiaoni", "mixture", "x"]
    assert await spoken(tts, voice="mixture")
    await tts.aclose()


async def test_every_voice_sounds_its_own_way(tts):
    pitches = {pitch(await spoken(tts, voice=voice.id)) for voice in tts.voices}
    assert len(pitches) == len(KOKORO_VOICES)


async def test_another_language_gets_a_voice_that_speaks_it(tts):
    french = pitch(await spoken(tts, "Bonjour.", "ff_siwis"))
    assert pitch(await spoken(tts, "Bonjour.", "af_heart", language="fr-CA")) == french
    assert pitch(await spoken(tts, "Hello.", "af_heart", language="tlh")) != french


async def test_it_says_what_kokoro_onnx_says(tts):
    from kokoro_onnx import Kokoro

    model_dir = tts._model_dir()
    package = Kokoro(str(model_dir / kokoro.MODELS[0]), str(model_dir / kokoro.VOICES))
    samples, _ = package.create(SENTENCE, "af_heart")
    package.voices.close()
    heard = np.frombuffer(await spoken(tts), "<i2")
    pause = round(0.25 * kokoro.RATE_HZ)
    assert len(heard) == len(samples) + pause
    assert np.abs(heard[:-pause] - samples * 32767).max() < 2
    assert not heard[-pause:].any()


async def test_flags_of_foreign_words_are_not_spoken(tts):
    model = tts._model
    assert "(en)" not in model._phonemes("le week-end est fini", "ff_siwis")
    assert model._phonemes("le week-end", "ff_siwis")


async def test_speed(tts):
    natural = len(await spoken(tts))
    assert 0.45 < len(await spoken(tts, speed=2.0)) / natural < 0.55
    assert 1.9 < len(await spoken(tts, speed=0.5)) / natural < 2.1
    assert len(await spoken(tts, speed=4.0)) == len(await spoken(tts, speed=2.0))


async def test_a_long_text_is_heard_before_all_of_it_is_made(tts):
    calls = []
    speak = tts._model.speak
    tts._model.speak = lambda piece, *rest: calls.append(piece) or speak(piece, *rest)
    await spoken(tts, "A first sentence that is short. " + "And one more of them. " * 12)
    late, calls[:] = list(calls), []
    await spoken(tts, "A first sentence. " + "And one more of them. " * 12, priority="first")
    assert len(late[0]) > 100
    assert len(calls[0]) <= kokoro.FIRST_CHARACTERS
    assert len(calls[0]) < len(calls[1]) < len(calls[2])
    assert max(map(len, calls)) <= kokoro.MOST_CHARACTERS


# --- cancelling ------------------------------------------------------------------


class Stuck:
    """An onnxruntime session whose call hangs until it is told to terminate."""

    def __init__(self, session) -> None:
        self.session = session
        self.begun = threading.Event()
        self.hangs = True

    def run(self, outputs, inputs, options):
        self.begun.set()
        while self.hangs and not options.terminate:
            threading.Event().wait(0.001)
        return self.session.run(outputs, inputs, options)


async def test_a_cancel_stops_the_call_that_runs(tts):
    native = tts._model.session._session = Stuck(tts._model.session._session)
    stream = tts.stream(SENTENCE, voice="af_heart")
    waiting = asyncio.create_task(anext(stream))
    await asyncio.to_thread(native.begun.wait, 5)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await stream.aclose()
    native.hangs = False
    async with asyncio.timeout(5):  # the slot came back
        assert await spoken(tts)


async def test_a_call_that_cannot_be_stopped_keeps_its_slot(tts):
    go = threading.Event()
    speak = tts._model.speak
    tts._model.speak = lambda *all_: go.wait(5) and speak(*all_)
    tts._slots = Slots(1)
    stream = tts.stream(SENTENCE, voice="af_heart")
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    next_one = asyncio.create_task(spoken(tts))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not next_one.done()
    go.set()
    async with asyncio.timeout(5):
        assert await next_one


# --- faults at the start ---------------------------------------------------------


async def test_says_which_package_is_missing(model_dir, monkeypatch):
    find_spec = importlib.util.find_spec
    absent = {"kokoro_onnx"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in absent else find_spec(name)
    )
    await refused(
        KokoroTTS(model_dir=model_dir), r"pip install 'ivas\[kokoro\]'", "package_missing"
    )


async def test_says_which_package_is_broken(model_dir, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "phonemizer.backend", None)
    await refused(KokoroTTS(model_dir=model_dir), "does not load.*reinstall", "package_broken")


async def test_says_how_to_get_the_files(tmp_path):
    tts = KokoroTTS(model_dir=tmp_path / "kokoro-int8")
    await refused(tts, "is missing; run: ivas models download kokoro-int8", "model_missing")
    write_kokoro(
        tmp_path / "kokoro-int8", model="kokoro-v1.0.int8.onnx"
    )  # they arrive while it runs
    await tts.start()
    assert tts.status().ready
    await tts.aclose()


@pytest.mark.parametrize("model", kokoro.MODELS)
async def test_takes_the_model_that_is_there(tmp_path, model):
    tts = KokoroTTS(model_dir=write_kokoro(tmp_path, model=model))
    await tts.start()
    assert await spoken(tts)
    await tts.aclose()


async def test_newer_exports_call_the_tokens_otherwise(tmp_path):
    tts = KokoroTTS(model_dir=write_kokoro(tmp_path, token_input="input_ids"))
    await tts.start()
    assert await spoken(tts)
    await tts.aclose()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 325532387\n"


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        (kokoro.MODELS[0], b"", "is empty; run: ivas models download kokoro"),
        (kokoro.MODELS[0], POINTER, "only a Git LFS pointer"),
        (kokoro.MODELS[0], kokoro_onnx()[:-200], "damaged"),
        (kokoro.MODELS[0], b"<html>Not found</html>" * 100, "damaged"),
        (kokoro.MODELS[0], kokoro_onnx(token_input="words"), "another kind of model"),
        (kokoro.MODELS[0], kokoro_onnx(fault="nan"), "made sound that is no sound"),
        (kokoro.MODELS[0], kokoro_onnx(fault="empty"), "made no sound of a text"),
        (kokoro.VOICES, POINTER, "only a Git LFS pointer"),
        (kokoro.VOICES, b"PK\x03\x04 and then nothing", "voices-v1.0.bin is damaged"),
        (kokoro.VOICES, b"garbage", "voices-v1.0.bin is damaged"),
    ],
)
async def test_a_broken_file_is_named(model_dir, file, content, problem):
    (model_dir / file).write_bytes(content)
    tts = KokoroTTS(model_dir=model_dir)
    with pytest.raises(EngineUnavailable, match=problem) as caught:
        await tts.start()
    assert caught.value.code == "model_broken"
    assert "run: ivas models download kokoro" in str(caught.value)
    assert not tts.status().ready


async def test_a_voices_file_without_voices(tmp_path):
    write_kokoro(tmp_path, voices=[])
    await refused(KokoroTTS(model_dir=tmp_path), "holds no voice", "model_broken")


async def test_a_truncated_voices_file_is_damaged(model_dir):
    path = model_dir / kokoro.VOICES
    path.write_bytes(path.read_bytes()[:-300])
    await refused(KokoroTTS(model_dir=model_dir), "voices-v1.0.bin is damaged", "model_broken")


async def test_what_is_broken_is_not_read_again_until_it_changes(model_dir, monkeypatch):
    good = (model_dir / kokoro.MODELS[0]).read_bytes()
    (model_dir / kokoro.MODELS[0]).write_bytes(good[:-200])
    tts = KokoroTTS(model_dir=model_dir)
    await refused(tts, "damaged", "model_broken")
    with monkeypatch.context() as patch:
        patch.setattr(kokoro, "_Model", None)  # would raise TypeError
        await refused(tts, "damaged", "model_broken")
    (model_dir / kokoro.MODELS[0]).write_bytes(good)
    await tts.start()
    assert tts.status().ready
    await tts.aclose()


async def test_too_little_memory_is_tried_again(model_dir, monkeypatch):
    import onnxruntime

    def no_memory(*_, **__):
        raise RuntimeError("std::bad_alloc")

    tts = KokoroTTS(model_dir=model_dir)
    with monkeypatch.context() as patch:
        patch.setattr(onnxruntime, "InferenceSession", no_memory)
        await refused(tts, "not enough free memory.*close other programs", "out_of_memory")
    await tts.start()
    assert tts.status().ready
    await tts.aclose()


# --- faults at work --------------------------------------------------------------


async def test_speaks_only_when_started(model_dir):
    with pytest.raises(EngineUnavailable, match="not loaded"):
        await spoken(KokoroTTS(model_dir=model_dir))


async def test_a_damaged_voice_is_named_and_the_others_speak(tmp_path):
    write_kokoro(tmp_path)
    styles = dict(np.load(tmp_path / kokoro.VOICES))
    styles["bf_emma"] = np.zeros((3, 3), np.float32)
    with (tmp_path / kokoro.VOICES).open("wb") as file:
        np.savez_compressed(file, **styles)
    tts = KokoroTTS(model_dir=tmp_path)
    await tts.start()
    with pytest.raises(EngineError, match=r"The voice bf_emma of .* is damaged .*choose another"):
        await spoken(tts, voice="bf_emma")
    assert await spoken(tts)
    await tts.aclose()


class Failing:
    """An onnxruntime session."""

    def __init__(self, failure) -> None:
        self.failure = failure

    def run(self, outputs, inputs, options):
        if isinstance(self.failure, Exception):
            raise self.failure
        return self.failure


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (RuntimeError("[ORT] : 1 : FAIL : the graph fell over\nat node 7"), "the graph fell over"),
        (RuntimeError("Failed to allocate memory for buffer"), "ran out of memory"),
        (MemoryError(), "ran out of memory"),
        ([np.full(24_000, np.inf, np.float32)], "made sound that is no sound"),
        ([np.zeros(0, np.float32)], "made no sound"),
    ],
)
async def test_a_failed_call_is_one_sentence_and_the_next_one_works(tts, failure, said):
    session = tts._model.session
    native, session._session = session._session, Failing(failure)
    with pytest.raises(EngineError, match=said) as caught:
        await spoken(tts)
    assert "\n" not in str(caught.value)
    session._session = native
    assert await spoken(tts)


async def test_it_can_be_started_again(tts):
    await tts.aclose()
    assert not tts.status().ready
    await tts.start()
    assert await spoken(tts)
