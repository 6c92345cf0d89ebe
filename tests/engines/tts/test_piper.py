"""What is Piper's own; what every TTS promises: test_contract_tts.py.

On tiny ONNX models of the real ones' inputs and outputs, through piper-tts itself.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import shutil
import threading

import numpy as np
import pytest
from tiny_voices import PIPER_RATE_HZ, piper_onnx, write_piper

from ivas.engines.tts import piper
from ivas.engines.tts.piper import PiperTTS
from ivas.errors import EngineError, EngineUnavailable

SENTENCE = "Hello there, it is a quarter past three."
LESSAC, MLS = "en_US-lessac-medium", "de_DE-mls-low"


@pytest.fixture
def models_dir(tmp_path):
    write_piper(tmp_path, LESSAC)
    write_piper(tmp_path, MLS, speakers=("anna", "bert"))
    return tmp_path


@pytest.fixture
async def tts(models_dir, no_leaks):
    tts = PiperTTS(models_dir=models_dir)
    await tts.start()
    yield tts
    await tts.aclose()


async def spoken(tts, text=SENTENCE, voice=LESSAC, **options) -> bytes:
    return b"".join([chunk.pcm async for chunk in tts.stream(text, voice=voice, **options)])


def pitch(pcm: bytes) -> int:
    """The strongest frequency in Hz, to 25 Hz: tells the speakers of the tiny model."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    spectrum = np.abs(np.fft.rfft(samples))
    return round(float(np.argmax(spectrum)) * PIPER_RATE_HZ / len(samples) / 25) * 25


def ids(tts) -> list[str]:
    return [voice.id for voice in tts.voices]


async def refused(tts, problem: str, code: str) -> None:
    with pytest.raises(EngineUnavailable, match=problem) as caught:
        await tts.start()
    assert caught.value.code == code
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    assert tts.status().reason == str(caught.value)


# --- speaking --------------------------------------------------------------------


async def test_every_speaker_is_a_voice(tts):
    assert ids(tts) == [LESSAC, f"{MLS}#anna", f"{MLS}#bert"]
    assert [voice.language for voice in tts.voices] == ["en-US", "de-DE", "de-DE"]
    assert [voice.name for voice in tts.voices] == [
        "Lessac (Tiny, Nowhere)",
        "anna, Mls (Tiny, Nowhere)",
        "bert, Mls (Tiny, Nowhere)",
    ]


async def test_every_speaker_sounds_its_own_way(tts):
    assert (
        len({pitch(await spoken(tts, "Guten Tag.", f"{MLS}#{n}")) for n in ("anna", "bert")}) == 2
    )


async def test_another_language_gets_a_voice_that_speaks_it(tts):
    anna = pitch(await spoken(tts, "Guten Tag.", f"{MLS}#anna"))
    bert = pitch(await spoken(tts, "Guten Tag.", f"{MLS}#bert"))
    assert pitch(await spoken(tts, "Guten Tag.", LESSAC, language="de")) == anna
    assert pitch(await spoken(tts, "Guten Tag.", f"{MLS}#bert", language="de")) == bert


async def test_it_says_what_piper_says(tts):
    from piper import PiperVoice

    path = tts._models_dir / f"piper-{LESSAC}" / f"{LESSAC}.onnx"
    package = PiperVoice.load(path)
    said = np.concatenate([c.audio_float_array for c in package.synthesize("Yes. It is so.")])
    heard = np.frombuffer(await spoken(tts, "Yes. It is so."), "<i2")
    lead = len(said) - len(heard)
    assert 0 <= lead < 0.05 * PIPER_RATE_HZ
    assert np.abs(heard - said[lead:] * 32767).max() < 2


async def test_a_sound_is_heard_at_once(tts):
    quiet = np.concatenate([np.zeros(10_000, np.float32), np.ones(500, np.float32)])
    lead = PIPER_RATE_HZ * piper.LEAD_MS // 1000
    assert len(piper._without_lead(quiet, PIPER_RATE_HZ)) == 500 + lead
    assert len(piper._without_lead(quiet[:100], PIPER_RATE_HZ)) == 100
    assert len(piper._without_lead(quiet[9_990:], PIPER_RATE_HZ)) == 510


async def test_speed_is_of_the_voices_own_pace(models_dir):
    write_piper(models_dir, LESSAC, inference={"length_scale": 2.0})
    slow = PiperTTS(models_dir=models_dir)
    await slow.start()
    own = len(await spoken(slow))
    assert 0.45 < len(await spoken(slow, speed=2.0)) / own < 0.55
    assert 1.9 < len(await spoken(slow, speed=0.5)) / own < 2.1
    await slow.aclose()


async def test_sentences_are_heard_one_by_one(tts):
    model = tts._load(tts._installed[LESSAC])
    made = []
    native = model.session._session

    class Counting:
        def run(self, outputs, inputs, options):
            made.append(inputs["input"].shape[1])
            return native.run(outputs, inputs, options)

    model.session._session = Counting()
    await spoken(tts, "One. Two and three. " + "x" * 400)
    assert len(made) >= 3
    assert max(made) <= 3 * 2 * piper.MOST_CHARACTERS


async def test_text_in_brackets_is_text(tts):
    assert len(await spoken(tts, "Say [[ hello ]] now.")) == pytest.approx(
        len(await spoken(tts, "Say [ hello ] now.")), rel=0.3
    )


async def test_only_a_few_voices_stay_loaded(tmp_path):
    voices = [f"en_US-v{number}-low" for number in range(5)]
    for voice in voices:
        write_piper(tmp_path, voice)
    tts = PiperTTS(models_dir=tmp_path)
    await tts.start()
    for voice in [*voices, voices[2]]:
        assert await spoken(tts, "Hi.", voice)
    assert [path.stem for path in tts._loaded] == [voices[3], voices[4], voices[2]]
    await tts.aclose()


async def test_the_wanted_voice_comes_first(models_dir):
    tts = PiperTTS(models_dir=models_dir, voice=MLS)
    await tts.start()
    assert ids(tts) == [f"{MLS}#anna", f"{MLS}#bert", LESSAC]
    assert [path.stem for path in tts._loaded] == [MLS]
    await tts.aclose()


async def test_a_voice_that_was_added_is_found_by_the_next_start(tts, models_dir):
    write_piper(models_dir, "fr_FR-siwis-low")
    await tts.start()
    assert "fr_FR-siwis-low" in ids(tts)
    assert await spoken(tts, "Bonjour.", "fr_FR-siwis-low")


async def test_voices_that_come_and_go_are_found_while_it_speaks(
    tts, models_dir, monkeypatch, eventually
):
    write_piper(models_dir, "fr_FR-siwis-low")
    assert "fr_FR-siwis-low" not in ids(tts)  # it has just looked
    monkeypatch.setattr(piper, "LOOK_EVERY_S", 0.0)
    await eventually(lambda: "fr_FR-siwis-low" in ids(tts))
    assert await spoken(tts, "Bonjour.", "fr_FR-siwis-low")
    for directory in models_dir.glob("piper-*"):
        shutil.rmtree(directory)
    await eventually(lambda: bool(tts.voices) and not tts.status().ready)
    assert "ivas models download" in tts.status().reason
    write_piper(models_dir, LESSAC)
    await tts.start()
    assert LESSAC in ids(tts)


async def test_a_cancel_stops_the_call_that_runs(tts):
    session = tts._load(tts._installed[LESSAC]).session
    native, begun = session._session, threading.Event()

    class Stuck:
        def run(self, outputs, inputs, options):
            begun.set()
            while not options.terminate:
                threading.Event().wait(0.001)
            return native.run(outputs, inputs, options)

    session._session = Stuck()
    stream = tts.stream(SENTENCE, voice=LESSAC)
    waiting = asyncio.create_task(anext(stream))
    await asyncio.to_thread(begun.wait, 5)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await stream.aclose()
    session._session = native
    async with asyncio.timeout(5):  # the slot came back
        assert await spoken(tts)


# --- faults at the start ---------------------------------------------------------


async def test_says_which_package_is_missing(models_dir, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "piper" else find_spec(name)
    )
    tts = PiperTTS(models_dir=models_dir)
    await refused(tts, r"pip install 'ivas\[piper\]'", "package_missing")


@pytest.mark.parametrize("there", [True, False])
async def test_says_how_to_get_a_voice(tmp_path, there):
    models_dir = tmp_path if there else tmp_path / "nowhere"
    tts = PiperTTS(models_dir=models_dir)
    await refused(
        tts, "No Piper voice.*run: ivas models download piper-en_US-kristin-medium", "model_missing"
    )
    write_piper(models_dir, LESSAC)  # it arrives while it runs
    await tts.start()
    assert tts.status().ready
    await tts.aclose()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 63201294\n"


@pytest.mark.parametrize(
    ("ending", "content", "problem"),
    [
        (".onnx", None, "is missing"),
        (".onnx", b"", "is empty"),
        (".onnx", POINTER, "only a Git LFS pointer"),
        (".onnx", piper_onnx()[:-200], "damaged"),
        (".onnx", b"<html>Not found</html>" * 100, "damaged"),
        (".onnx", piper_onnx(speakers=2), "another kind of model"),
        (".onnx", piper_onnx(fault="nan"), "made sound that is no sound"),
        (".onnx", piper_onnx(fault="empty"), "made no sound"),
        (".onnx.json", None, "is missing"),
        (".onnx.json", b"{", "description .* is damaged"),
        (".onnx.json", b"[]", "description .* is damaged"),
        (".onnx.json", b"{}", "description .* is damaged"),
        (".onnx.json", b"\xff\xfe", "description .* is damaged"),
    ],
)
async def test_a_broken_voice_is_named_and_the_others_speak(
    models_dir, ending, content, problem, caplog
):
    path = models_dir / f"piper-{LESSAC}" / f"{LESSAC}{ending}"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    tts = PiperTTS(models_dir=models_dir)
    with caplog.at_level(logging.WARNING):
        await tts.start()
    assert ids(tts) == [f"{MLS}#anna", f"{MLS}#bert"]
    assert await spoken(tts)
    assert f"run: ivas models download piper-{LESSAC}" in caplog.text
    await tts.aclose()

    for other in (models_dir / f"piper-{MLS}").iterdir():
        other.unlink()
    (models_dir / f"piper-{MLS}").rmdir()
    alone = PiperTTS(models_dir=models_dir)
    with pytest.raises(EngineUnavailable, match=problem) as caught:
        await alone.start()
    assert f"run: ivas models download piper-{LESSAC}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not alone.status().ready


async def test_a_phonemizer_that_is_not_there_is_not_fetched(tmp_path):
    write_piper(tmp_path, "zh_CN-chaowen-medium", phoneme_type="pinyin")
    tts = PiperTTS(models_dir=tmp_path)
    await refused(tts, "needs a pinyin phonemizer.*choose another voice", "model_unsupported")


async def test_what_is_broken_is_not_read_again_until_it_changes(tmp_path, monkeypatch):
    path = write_piper(tmp_path, LESSAC) / f"{LESSAC}.onnx"
    good = path.read_bytes()
    path.write_bytes(good[:-200])
    tts = PiperTTS(models_dir=tmp_path)
    await refused(tts, "damaged", "model_broken")
    with monkeypatch.context() as patch:
        patch.setattr(piper, "_open", None)  # would raise TypeError
        await refused(tts, "damaged", "model_broken")
    path.write_bytes(good)
    await tts.start()
    assert tts.status().ready
    await tts.aclose()


async def test_too_little_memory_is_tried_again(models_dir, monkeypatch):
    import onnxruntime

    def no_memory(*_, **__):
        raise RuntimeError("std::bad_alloc")

    tts = PiperTTS(models_dir=models_dir)
    with monkeypatch.context() as patch:
        patch.setattr(onnxruntime, "InferenceSession", no_memory)
        await refused(tts, "not enough free memory.*close other programs", "out_of_memory")
    await tts.start()
    assert tts.status().ready
    await tts.aclose()


# --- faults at work --------------------------------------------------------------


async def test_speaks_only_when_started(models_dir):
    with pytest.raises(EngineUnavailable, match="not loaded"):
        await spoken(PiperTTS(models_dir=models_dir))


async def test_a_voice_that_turns_out_broken_is_named_and_the_others_speak(tts, models_dir):
    path = models_dir / f"piper-{MLS}" / f"{MLS}.onnx"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(EngineError, match=f"damaged .*ivas models download piper-{MLS}"):
        await spoken(tts, "Guten Tag.", f"{MLS}#anna")
    assert tts.status().ready
    assert await spoken(tts)


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (RuntimeError("[ORT] : 1 : FAIL : the graph fell over\nat node 7"), "the graph fell over"),
        (MemoryError(), "ran out of memory"),
        ([np.full((1, 1, 1, 99), np.inf, np.float32)], "made sound that is no sound"),
        ([np.zeros((1, 1, 1, 0), np.float32)], "made no sound"),
    ],
)
async def test_a_failed_call_is_one_sentence_and_the_next_one_works(tts, failure, said):
    class Failing:
        def run(self, outputs, inputs, options):
            if isinstance(failure, Exception):
                raise failure
            return failure

    session = tts._load(tts._installed[LESSAC]).session
    native, session._session = session._session, Failing()
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
