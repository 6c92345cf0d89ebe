"""XTTS by coqui-tts' real classes in the real worker process; only the weights are random."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import io
import json
import logging
import os
import shutil
import signal
import sys
import wave
from pathlib import Path

import numpy as np
import psutil
import pytest
import pytest_asyncio
import tiny_xtts
from tiny_xtts import SECONDS

from ivas.engines import Voice
from ivas.engines.model_process import ModelProcess
from ivas.engines.tts.xtts import RATE_HZ, WORKER, XttsTTS
from ivas.engines.tts.xtts.text import MOST_CHARACTERS
from ivas.errors import EngineError, EngineTimeout, EngineUnavailable

for needed in ("TTS", "torch", "torchaudio"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

CLIPS = Path(__file__).parents[2] / "clips"
PLAIN, FAULTY = "tiny_xtts:load", "tiny_xtts:faulty"
SENTENCE = "Hello there, it is a quarter past three."


def recording(seconds: float, *clips: str, rate_hz: int = 16_000, channels: int = 1) -> bytes:
    """The clips one after the other, again and again, as a WAV file."""
    pcm = b""
    for clip in clips:
        with wave.open(str(CLIPS / f"{clip}.wav")) as file:
            pcm += file.readframes(file.getnframes())
    mono = np.resize(np.frombuffer(pcm, np.int16), round(seconds * rate_hz))
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setparams((channels, 2, rate_hz, 0, "NONE", ""))
        file.writeframes(np.repeat(mono, channels).tobytes())
    return made.getvalue()


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> Path:
    return tiny_xtts.build(tmp_path_factory.mktemp("models") / "xtts-v2")


@pytest.fixture(scope="module")
def voices_dir(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("voices")
    slt = recording(8, "what_time_is_it_slt", "what_can_you_do_slt")
    (directory / "Susan.wav").write_bytes(slt)
    rms = recording(6, "what_time_is_it_rms", rate_hz=44_100, channels=2)
    (directory / "rolf.de.WAV").write_bytes(rms)
    (directory / "short.wav").write_bytes(recording(0.5, "what_time_is_it_rms"))
    (directory / "broken.wav").write_bytes(slt[:20])
    (directory / "cut.wav").write_bytes(slt[: len(slt) // 2])
    (directory / "notes.txt").write_text("not a voice")
    (directory / "xaver.wav").write_bytes(recording(3, "what_can_you_do_rms"))
    return directory


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tts(model_dir, voices_dir):
    engine = XttsTTS(
        model_dir=model_dir,
        voices_dir=voices_dir,
        licence_accepted=True,
        hang_s=5.0,
        worker=FAULTY,
    )
    assert not engine.status().ready
    assert engine.status().reason
    assert engine.voices
    await asyncio.gather(engine.start(), engine.start())
    await engine.start()
    assert len(workers(FAULTY)) == 1
    yield engine
    await engine.aclose()
    await engine.aclose()
    assert not engine.status().ready
    assert not workers(FAULTY)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reference(model_dir, checkpoints):
    arguments = {"model_dir": str(model_dir), "checkpoints": str(checkpoints)}
    process = ModelProcess("tiny_xtts:reference", arguments, name="reference")
    await process.start()
    yield process
    await process.aclose()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    """Where `reference` writes other kinds of model.pth."""
    return tmp_path_factory.mktemp("checkpoints")


def workers(factory: str) -> list[psutil.Process]:
    """The worker processes of this test process that live and run `factory`."""
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and factory in child.cmdline()
    ]


async def spoken(tts: XttsTTS, text: str = SENTENCE, voice: str = "tiny-ann", **options) -> bytes:
    chunks = [chunk async for chunk in tts.stream(text, voice=voice, **options)]
    assert all(chunk.rate_hz == RATE_HZ for chunk in chunks)
    return b"".join(chunk.pcm for chunk in chunks)


async def rest(stream) -> None:
    async for _ in stream:
        pass


def seconds(pcm: bytes) -> float:
    return len(pcm) / 2 / RATE_HZ


def samples(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, np.int16).astype(np.int32)


# --- What every TTS engine promises -------------------------------------------------
# A worker takes seconds to load, so the tests of the contract are run on one engine here.


def _contract():
    path = Path(__file__).parents[1] / "test_contract_tts.py"
    spec = importlib.util.spec_from_file_location("contract_tts", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    for name, test in vars(module).items():
        if name.startswith("test_") and "tts" in inspect.signature(test).parameters:
            yield name, test


globals().update(_contract())


# --- What it says -----------------------------------------------------------------------


@pytest.mark.parametrize("speed", [1.0, 0.25, 0.8, 1.7, 4.0])
@pytest.mark.parametrize("speaker", tiny_xtts.SPEAKERS)
async def test_streams_what_coqui_says_at_once(tts, reference, speed, speaker):
    request = {"text": SENTENCE, "language": "en", "speaker": speaker, "speed": speed}
    whole = b"".join([chunk async for chunk in reference.stream(request)])
    streamed = await spoken(tts, voice=speaker, speed=speed)
    assert len(streamed) == len(whole)  # the tail too, which stock streaming has lost
    assert np.abs(samples(streamed) - samples(whole)).max() <= 1
    assert np.abs(samples(whole)).max() > 100


async def test_however_it_is_cut_each_sample_is_exact(reference):
    trials = [json.loads(answer) async for answer in reference.stream({"trials": 24}) if answer]
    assert len({speed for _, speed, _ in trials}) == 7
    assert max(trials, key=lambda trial: trial[2])[2] < 1e-6


async def test_the_first_chunk_comes_after_eight_tokens(tts):
    chunks = [len(c.pcm) // 2 async for c in tts.stream(SENTENCE, voice="tiny-ann") if c.pcm]
    token = 1024 / 22050 * RATE_HZ
    assert 3 * token < chunks[0] < 5 * token
    assert abs(sum(chunks) - SECONDS * RATE_HZ) <= 256


async def test_a_long_text_is_said_in_pieces_and_whole(tts):
    text = "One two three four five, six seven eight nine ten. " * 12  # 612 characters
    assert round(seconds(await spoken(tts, text)) / SECONDS, 2) == 3
    assert round(seconds(await spoken(tts, "क ख " * 100, language="hi")) / SECONDS, 2) == 3


async def test_numbers_that_grow_too_long_when_spoken_are_said_in_parts(tts):
    text = " ".join(["987654321987654"] * 12)  # 191 characters, more than 402 tokens of words
    assert round(seconds(await spoken(tts, text)) / SECONDS) > 1


@pytest.mark.parametrize("language", MOST_CHARACTERS)
async def test_speaks_every_language_numbers_and_all(tts, language):
    text = "On 3. 4., 12.5% of $1,000,000,000,000,000,000,000,000,000,001 & १२."
    needs = {"zh-cn": "pypinyin", "ja": "cutlet"}.get(language)
    if needs and importlib.util.find_spec(needs) is None:
        with pytest.raises(EngineError, match=f"pip install 'coqui-tts.{language[:2]}.'"):
            await spoken(tts, text, language=language)
    else:
        assert await spoken(tts, text, language=language)


@pytest.mark.parametrize(("wanted", "like"), [("pt-BR", "pt"), ("en_GB", "en"), ("FR", "fr")])
async def test_a_region_is_no_other_language(tts, wanted, like):
    assert await spoken(tts, language=wanted) == await spoken(tts, language=like)


async def test_an_unknown_language_is_refused_by_name(tts):
    with pytest.raises(EngineError, match="cannot speak 'bn'; it speaks ar, cs, de, en") as refusal:
        await spoken(tts, language="bn")
    assert refusal.value.code == "unsupported_language"
    assert all(code in str(refusal.value) for code in MOST_CHARACTERS)


async def test_speaks_the_language_of_the_voice(tts):
    rolf = await spoken(tts, voice="rolf")
    assert rolf == await spoken(tts, voice="rolf", language="de")
    assert rolf != await spoken(tts, voice="rolf", language="en")


# --- Voices -----------------------------------------------------------------------------


async def test_lists_the_cloned_voices_first(tts):
    assert list(tts.voices) == [
        Voice("rolf", "rolf", "de"),
        Voice("susan", "Susan", "en"),
        Voice("xaver", "xaver", "en"),
        Voice("tiny-ann", "Tiny Ann", "en"),
        Voice("tiny-bob", "Tiny Bob", "en"),
    ]


async def test_every_voice_sounds_different(tts):
    voices = [voice.id for voice in tts.voices if voice.id != "xaver"]
    sounds = [await spoken(tts, voice=voice, language="en") for voice in voices]
    assert len(set(sounds)) == len(voices)
    assert all(np.abs(samples(sound)).max() > 100 for sound in sounds)


async def test_a_recording_that_has_gone_costs_its_own_words_only(tts, voices_dir):
    (voices_dir / "xaver.wav").unlink(missing_ok=True)
    with pytest.raises(EngineError, match=r"cannot clone this voice: .*xaver\.wav cannot be read"):
        await spoken(tts, voice="xaver")
    assert await spoken(tts, voice="susan")


# --- Faults at work ---------------------------------------------------------------------


async def test_first_goes_before_later(tts):
    order: list[str] = []

    async def speak(name: str, priority) -> None:
        await spoken(tts, priority=priority)
        order.append(name)

    running = asyncio.create_task(speak("running", "later"))
    await asyncio.sleep(0)
    waiting = [
        asyncio.create_task(speak(name, priority))
        for name, priority in (("later", "later"), ("first", "first"))
    ]
    await asyncio.gather(running, *waiting)
    assert order == ["running", "first", "later"]


@pytest.mark.parametrize(
    ("text", "sentence", "code"),
    [
        ("please run out of memory", "ran out of memory on this machine; end", "out_of_memory"),
        ("please make noise", "made noise instead of speech, so its weights", "model_broken"),
        ("please be wrong", r"\(IndexError: list index out of range\)", "engine_failed"),
    ],
)
async def test_a_fault_costs_its_own_clause_only(tts, text, sentence, code):
    natural = await spoken(tts)
    pid = workers(FAULTY)[0].pid
    with pytest.raises(EngineError, match=sentence) as fault:
        await spoken(tts, text)
    assert fault.value.code == code
    assert await spoken(tts) == natural
    assert workers(FAULTY)[0].pid == pid


@pytest.mark.parametrize(
    ("text", "sentence", "kind"),
    [
        ("please lose the GPU", r"lost the GPU while speaking \(CUDA error: an", EngineError),
        ("please hang", "no sign of life for 5 s", EngineTimeout),
    ],
)
async def test_a_lost_worker_is_replaced(tts, text, sentence, kind, eventually):
    natural = await spoken(tts)
    stream = tts.stream(text, voice="tiny-ann")
    assert not (await anext(stream)).pcm  # its turn has come
    assert (await anext(stream)).pcm
    with pytest.raises(kind, match=sentence):
        await rest(stream)
    assert not tts.status().ready
    await tts.start()  # a clause would wait too, but not as long as a busy machine may take
    assert await spoken(tts) == natural
    assert tts.status().ready


async def test_a_kill_from_outside_is_survived(tts):
    stream = tts.stream(SENTENCE, voice="tiny-ann")
    await anext(stream)
    os.kill(workers(FAULTY)[0].pid, signal.SIGKILL)
    with pytest.raises(EngineError, match="the memory ran out; speak again") as death:
        await rest(stream)
    assert death.value.code == "engine_crashed"
    await tts.start()
    assert await spoken(tts)


# --- Faults at start --------------------------------------------------------------------


def unstarted(model_dir: Path, **options) -> XttsTTS:
    options = {"licence_accepted": True, "worker": PLAIN} | options
    return XttsTTS(model_dir=model_dir, **options)


async def refusal(engine: XttsTTS) -> EngineUnavailable:
    with pytest.raises(EngineUnavailable) as refused:
        await engine.start()
    assert engine.status().reason == str(refused.value)
    assert not engine.status().ready
    with pytest.raises(EngineUnavailable):
        await spoken(engine)
    await engine.aclose()
    assert not workers(PLAIN)
    return refused.value


@pytest.fixture
def copy(model_dir, tmp_path) -> Path:
    return Path(shutil.copytree(model_dir, tmp_path / "copy"))


async def test_asks_for_the_licence_first(tmp_path):
    refused = await refusal(unstarted(tmp_path, licence_accepted=False))
    assert refused.code == "licence_not_accepted"
    assert "non-commercial use only" in str(refused)
    assert "IVAS_TTS__XTTS_LICENCE_ACCEPTED=true" in str(refused)
    assert "ivas models download xtts-v2" in str(refused)


@pytest.mark.parametrize("package", ["TTS", "torch", "torchaudio", "six"])
async def test_says_which_package_is_missing(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    refused = await refusal(unstarted(tmp_path))
    assert f"The package {package} is not installed" in str(refused)
    assert "pip install 'ivas[xtts]'" in str(refused)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.pth", None, "is missing"),
        ("vocab.json", None, "is missing"),
        ("speakers_xtts.pth", None, "is missing"),
        ("config.json", b"", "is empty"),
        ("model.pth", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ],
)
async def test_says_which_file_is_missing(copy, name, content, said):
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    refused = await refusal(unstarted(copy))
    assert f"{copy / name} " in str(refused)
    assert said in str(refused)
    assert "ivas models download xtts-v2" in str(refused)


@pytest.mark.parametrize("name", ["config.json", "vocab.json", "speakers_xtts.pth", "model.pth"])
async def test_says_which_file_is_damaged(copy, name):
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: len(whole) // 2])
    refused = await refusal(unstarted(copy))
    assert f"{copy / name} is damaged or of another model" in str(refused)
    assert "ivas models remove xtts-v2" in str(refused)


async def test_says_that_the_weights_are_noise(copy, reference, checkpoints):
    shutil.copy(checkpoints / "noise.pth", copy / "model.pth")
    refused = await refusal(unstarted(copy))
    assert "made noise instead of speech" in str(refused)
    assert refused.code == "model_broken"


async def test_a_file_fetched_anew_is_tried_at_once(tts, copy, reference, checkpoints):
    """And before that nothing is loaded again, however often `auto` asks."""
    shutil.copy(checkpoints / "other.pth", copy / "model.pth")
    engine = unstarted(copy)
    with pytest.raises(EngineUnavailable, match=r"model\.pth is damaged .* holds no model"):
        await engine.start()
    asking = asyncio.create_task(engine.start())
    with pytest.raises(EngineUnavailable, match="holds no model"):
        await asking
    assert not workers(PLAIN)
    shutil.copy(checkpoints / "published.pth", copy / "model.pth")
    before = (copy / "model.pth").read_bytes()
    await engine.start()
    assert await spoken(engine) == await spoken(tts)
    await engine.aclose()
    assert (copy / "model.pth").read_bytes() == before  # coqui-tts would have rewritten it


async def test_needs_no_speakers_when_there_is_a_recording(copy, voices_dir, tmp_path, caplog):
    (copy / "speakers_xtts.pth").unlink()
    own = tmp_path / "own"
    own.mkdir()
    shutil.copy(voices_dir / "Susan.wav", own)
    for unusable in ("short.wav", "cut.wav", "broken.wav"):
        shutil.copy(voices_dir / unusable, own)
    engine = unstarted(copy, voices_dir=own, language="fr-CA")
    with caplog.at_level(logging.WARNING):
        await engine.start()
    assert "short.wav is 0.5 s long; record 6 to 30 s" in caplog.text
    assert "The voice cut cannot be used" in caplog.text
    assert "broken.wav is not a PCM WAV file" in caplog.text
    assert list(engine.voices) == [Voice("susan", "Susan", "fr")]
    assert await spoken(engine, voice="any")
    await engine.aclose()


async def test_says_that_there_is_no_cuda(model_dir):
    refused = await refusal(unstarted(model_dir, device="cuda", worker=WORKER))
    assert refused.code == "no_cuda"
    assert "xtts cannot use the GPU because" in str(refused)
    assert "TTS_USE_GPU=false" in str(refused)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "mps"}, "it runs on cpu or cuda, and on Apple silicon on the CPU"),
        ({"language": "bn"}, "cannot speak 'bn'; it speaks ar"),
    ],
)
async def test_says_what_it_cannot_do(model_dir, options, said):
    assert said in str(await refusal(unstarted(model_dir, **options)))
