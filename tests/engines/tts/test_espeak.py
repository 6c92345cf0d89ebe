"""What is espeak's own; what every TTS promises is in test_contract_tts.py."""

from __future__ import annotations

import asyncio
import sys
import threading

import numpy as np
import pytest

from ivas.engines import Voice
from ivas.engines.tts import espeak
from ivas.engines.tts.espeak import EspeakTTS, choose_voice
from ivas.errors import EngineError, EngineUnavailable

VOICES = [
    Voice("en-us", "American", "en-US"),
    Voice("en-gb", "British", "en-GB"),
    Voice("fr-fr", "French", "fr-FR"),
    Voice("fr-be", "Belgian", "fr-BE"),
    Voice("cmn", "Chinese", "cmn"),
]


@pytest.fixture
async def tts(no_leaks):
    tts = EspeakTTS()
    await tts.start()
    yield tts
    await tts.aclose()


async def samples(tts, text, voice="en-us", **options):
    pcm = b"".join([chunk.pcm async for chunk in tts.stream(text, voice=voice, **options)])
    return np.frombuffer(pcm, np.int16).astype(np.float64)


@pytest.mark.parametrize(
    ("wanted", "language", "chosen"),
    [
        ("en-gb", None, "en-gb"),
        ("EN-GB", None, "en-gb"),
        ("nobody", None, "en-us"),
        ("en-gb", "en-US", "en-gb"),  # it speaks English: the wish counts more than the region
        ("en-gb", "fr", "fr-fr"),
        ("en-gb", "fr_BE", "fr-be"),
        ("en-gb", "fr-CA", "fr-fr"),
        ("en-gb", "zh-CN", "cmn"),
        ("en-gb", "tlh", "en-gb"),
        ("nobody", "tlh", "en-us"),
        ("nobody", "en-AU", "en-us"),
    ],
)
def test_the_voice_that_fits(wanted, language, chosen):
    assert choose_voice(VOICES, wanted, language).id == chosen


async def test_the_best_known_voices_come_first(tts):
    assert [voice.id for voice in tts.voices[:3]] == ["en-us", "en-gb", "es"]
    assert len(tts.voices) > 100
    languages = {voice.id: voice.language for voice in tts.voices}
    assert languages["pt-br"] == "pt-BR"
    assert languages["hi"] == "hi"


async def test_every_voice_can_speak(tts):
    silent = [v.id for v in tts.voices if not (await samples(tts, "hello", v.id)).size]
    assert silent == []


async def test_the_language_is_spoken_even_if_the_voice_is_another(tts):
    text = "Guten Tag, wie geht es Ihnen heute?"
    german = await samples(tts, text, "de")
    asked = await samples(tts, text, "en-us", language="de")
    english = await samples(tts, text, "en-us")
    assert abs(len(asked) - len(german)) < 0.01 * len(german)
    assert abs(len(asked) - len(english)) > 0.01 * len(german)


async def test_the_first_sample_can_be_heard(tts):
    for text in ("Hello.", "   Sixty six.", "... wait"):
        assert abs((await samples(tts, text))[0]) > espeak.SILENCE_PEAK


async def test_silence_within_the_speech_stays(tts):
    loud = np.abs(await samples(tts, "One. Two.")) > espeak.SILENCE_PEAK
    edges = np.flatnonzero(loud)
    assert np.diff(edges).max() > 22_050 * 0.1


async def test_speed_counts_words_a_minute(tts):
    natural = len(await samples(tts, "It is a quarter past three in the afternoon."))
    double = len(await samples(tts, "It is a quarter past three in the afternoon.", speed=2.0))
    assert 0.4 < double / natural < 0.65
    again = len(await samples(tts, "It is a quarter past three in the afternoon."))
    assert abs(again - natural) < 0.01 * natural


async def test_a_listener_that_stays_away_does_not_hold_the_others_up(tts):
    slow = tts.stream("This is one sentence of an ordinary length, to be spoken.", voice="en-us")
    await anext(slow)
    await anext(slow)
    async with asyncio.timeout(2):
        assert (await samples(tts, "Me too.")).size
    await slow.aclose()


async def test_two_engines_share_the_library(tts):
    other = EspeakTTS()
    await other.start()
    one, two = await asyncio.gather(samples(tts, "One two three."), samples(other, "Four five."))
    await other.aclose()
    assert one.size
    assert two.size
    assert (await samples(tts, "One two three.")).size


async def test_a_failure_of_the_library_is_a_plain_sentence(tts):
    with pytest.raises(EngineError, match="could not speak with the voice 'no/such'"):
        tts._library.speak("hello", "no/such", 175, lambda pcm: True)


async def test_speaks_only_when_started():
    with pytest.raises(EngineUnavailable, match="not loaded"):
        await anext(EspeakTTS().stream("hello", voice="en-us"))


async def test_says_which_package_is_missing(monkeypatch):
    monkeypatch.setattr(espeak, "_loaded", None)
    monkeypatch.setattr(espeak, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    tts = EspeakTTS()
    assert 'pip install "ivas[embedded]"' in tts.status().reason
    with pytest.raises(EngineUnavailable, match=r"espeakng-loader is missing"):
        await tts.start()


async def test_no_thread_stays(tts):
    before = threading.active_count()
    for _ in range(5):
        await samples(tts, "Hello.")
    assert threading.active_count() <= before + 1
