"""What every TTS engine promises."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest
from openai_speech_server import SpeechServer
from tiny_voices import tiny_models

from ivas.engines import TTS
from ivas.engines.fake import FakeTTS
from ivas.engines.tts.espeak import EspeakTTS
from ivas.engines.tts.kokoro import KokoroTTS
from ivas.engines.tts.openai import OpenaiTTS
from ivas.engines.tts.piper import PiperTTS


@asynccontextmanager
async def openai():
    async with SpeechServer() as server:
        yield OpenaiTTS(base_url=server.base_url)


# Those of xtts are run by tts/test_xtts.py, on one engine: it takes seconds to load.
ENGINES = {
    "espeak": EspeakTTS,
    "fake": lambda: FakeTTS(first_ms=2, rtf=0.001),
    "kokoro": lambda: KokoroTTS(model_dir=tiny_models() / "kokoro"),
    "openai": openai,
    "piper": lambda: PiperTTS(models_dir=tiny_models()),
}
SENTENCE = "Hello there, it is a quarter past three."


@asynccontextmanager
async def made(name):
    """The engine itself, or for one that needs a server both."""
    engine = ENGINES[name]()
    if not hasattr(engine, "__aenter__"):
        yield engine
        return
    async with engine as with_server:
        yield with_server


@pytest.fixture(params=ENGINES)
async def tts(request, no_leaks):
    async with made(request.param) as engine:
        await engine.start()
        yield engine
        await engine.aclose()


async def spoken(tts: TTS, text: str, voice: str | None = None, **options) -> bytes:
    chunks = [c async for c in tts.stream(text, voice=voice or tts.voices[0].id, **options)]
    assert all(len(c.pcm) % 2 == 0 and 8000 <= c.rate_hz <= 48_000 for c in chunks)
    return b"".join(c.pcm for c in chunks)


def alike(one: bytes, other: bytes) -> bool:
    """Whether two pieces of audio are the same speech.

    Engines put noise and flutter into a voice, so it is told by the length (1 %) and
    by the loudness over time (in blocks of 1000 samples).
    """
    if not one or abs(len(one) - len(other)) > 0.01 * len(one):
        return False
    a, b = (np.frombuffer(pcm, np.int16).astype(np.float64) for pcm in (one, other))
    blocks = min(len(a), len(b)) // 1000
    loudness = [np.sqrt(np.mean(x[: blocks * 1000].reshape(-1, 1000) ** 2, axis=1)) for x in (a, b)]
    return bool(np.linalg.norm(loudness[0] - loudness[1]) < 0.2 * np.linalg.norm(loudness[0]))


@pytest.mark.parametrize("name", ENGINES)
async def test_says_whether_it_is_ready(name, no_leaks):
    async with made(name) as engine:
        assert engine.name == name
        assert not engine.status().ready
        assert engine.status().reason
        assert engine.voices
        await engine.start()
        await engine.start()
        assert engine.status().ready
        await engine.aclose()
        await engine.aclose()
        assert not engine.status().ready


async def test_streams_speech(tts):
    chunks = [c async for c in tts.stream(SENTENCE, voice=tts.voices[0].id)]
    assert len(chunks) > 3
    seconds = sum(len(c.pcm) / 2 / c.rate_hz for c in chunks)
    assert 1 < seconds < 6


async def test_says_when_its_turn_has_come(tts):
    chunks = [c async for c in tts.stream(SENTENCE, voice=tts.voices[0].id)]
    audible = [bool(c.pcm) for c in chunks]
    assert not audible[0]
    assert all(audible[1:])


@pytest.mark.parametrize("text", ["", " ", "\n\t "])
async def test_nothing_to_say_yields_nothing(tts, text):
    assert await spoken(tts, text) == b""


@pytest.mark.parametrize("text", ["...", "\U0001f600", "a\0b", "\ud800", "<b>&amp;", "नमस्ते।"])
async def test_survives_odd_text(tts, text):
    await spoken(tts, text)
    assert await spoken(tts, "fine")


async def test_every_voice_has_an_id_of_its_own(tts):
    ids = [voice.id for voice in tts.voices]
    assert ids
    assert len(set(ids)) == len(ids)
    assert all(voice.name and voice.language for voice in tts.voices)


async def test_an_unknown_voice_means_the_default(tts):
    assert alike(await spoken(tts, SENTENCE, "nobody"), await spoken(tts, SENTENCE))


async def test_speed_changes_the_length(tts):
    slow, natural, fast = [len(await spoken(tts, SENTENCE, speed=s)) for s in (0.25, 1.0, 4.0)]
    assert slow > natural > fast > 0


async def test_cancels_at_once_and_works_again(tts):
    natural = await spoken(tts, SENTENCE)
    stream = tts.stream(SENTENCE * 50, voice=tts.voices[0].id)
    while not (await anext(stream)).pcm:
        pass
    async with asyncio.timeout(0.5):
        await stream.aclose()
        await stream.aclose()
    assert alike(await spoken(tts, SENTENCE), natural)


async def test_cancels_before_the_first_chunk(tts):
    natural = await spoken(tts, SENTENCE)
    stream = tts.stream(SENTENCE, voice=tts.voices[0].id)
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await stream.aclose()
    assert alike(await spoken(tts, SENTENCE), natural)


async def test_speech_at_once_does_not_mix(tts):
    texts = ["One.", "Twenty two.", "Three hundred and thirty three.", SENTENCE]
    alone = [await spoken(tts, text) for text in texts]
    at_once = await asyncio.gather(*(spoken(tts, text) for text in texts))
    assert all(alike(*pair) for pair in zip(at_once, alone, strict=True))


async def test_never_stalls_the_loop(tts, never_stalls):
    await never_stalls(lambda: spoken(tts, SENTENCE * 3, priority="first"))
