"""What is the remote speech server's own; what every TTS promises: test_contract_tts.py."""

from __future__ import annotations

import asyncio

import pytest
from openai_speech_server import SpeechServer, hum
from scripted_http import Die, Raw, Refuse, Wait

from ivas.engines import Voice
from ivas.engines.tts.openai import OpenaiTTS
from ivas.errors import EngineError, EngineTimeout, EngineUnavailable

KEY = "sk-very-secret-and-long"
TEXT = "Hello there."


@pytest.fixture
async def server(no_leaks):
    async with SpeechServer() as server:
        yield server


@pytest.fixture
async def tts(server):
    engine = OpenaiTTS(base_url=server.base_url)
    await engine.start()
    yield engine
    await engine.aclose()


async def spoken(tts, text=TEXT, voice="alloy", **options) -> bytes:
    return b"".join([chunk.pcm async for chunk in tts.stream(text, voice=voice, **options)])


async def failure(tts, kind: type[EngineError] = EngineError) -> str:
    with pytest.raises(kind) as caught:
        await spoken(tts)
    said = str(caught.value)
    assert said.endswith(".")
    assert "\n" not in said
    return said


# --- speaking --------------------------------------------------------------------


async def test_the_sound_is_the_servers(server, tts):
    assert await spoken(tts, voice="nova", speed=2.0) == hum(TEXT, "nova", 2.0)
    assert server.asked == [
        {
            "model": "tts-1",
            "input": TEXT,
            "voice": "nova",
            "speed": 2.0,
            "response_format": "pcm",
        }
    ]


async def test_a_natural_speed_is_not_mentioned(server, tts):
    await spoken(tts)
    assert "speed" not in server.asked[0]


async def test_sound_is_heard_before_the_answer_ends(server, tts):
    more = asyncio.Event()
    server.answers.append([Raw(b"\1\0" * 100), Wait(more), Raw(b"\2\0" * 100)])
    stream = tts.stream(TEXT, voice="alloy")
    assert (await anext(stream)).pcm == b""  # there is no queue here
    assert (await anext(stream)).pcm == b"\1\0" * 100
    more.set()
    assert [chunk.pcm async for chunk in stream] == [b"\2\0" * 100]


async def test_half_a_sample_waits_for_the_other_half(server, tts):
    server.answers.append([Raw(b"\1\0\1"), Raw(b"\0\1\0\1"), Raw(b"\0")])
    assert await spoken(tts) == b"\1\0" * 4


async def test_a_cancelled_stream_ends_the_servers_work(server, tts):
    server.answers.append([Raw(b"\1\0" * 100), Wait(asyncio.Event())])
    stream = tts.stream(TEXT, voice="alloy")
    await anext(stream)
    assert (await anext(stream)).pcm
    async with asyncio.timeout(2):
        await stream.aclose()
        await server.left.wait()
    assert await spoken(tts) == hum(TEXT, "alloy")


async def test_a_long_text_is_asked_for_in_parts(server, tts):
    text = "A sentence of no meaning at all. " * 200
    async for _ in tts.stream(text, voice="alloy", speed=4.0):
        pass
    parts = [asked["input"] for asked in server.asked]
    assert len(parts) == 2
    assert max(map(len, parts)) <= 4096
    assert " ".join(parts) == text.strip()


@pytest.mark.parametrize("text", ["", "...", "\U0001f600 !"])
async def test_nothing_to_say_is_not_asked_for(server, tts, text):
    assert await spoken(tts, text) == b""
    assert server.asked == []


async def test_a_server_that_knows_only_wav_is_asked_for_wav_from_then_on(server, tts):
    server.formats = {"wav"}
    assert await spoken(tts) == hum(TEXT, "alloy")  # it hums PCM all the same: no RIFF header
    assert await spoken(tts) == hum(TEXT, "alloy")
    assert [asked["response_format"] for asked in server.asked] == ["pcm", "wav", "wav"]


# --- voices ----------------------------------------------------------------------


async def test_without_a_list_the_voices_are_openais(server, tts):
    assert [voice.id for voice in tts.voices][:2] == ["alloy", "ash"]
    assert len(tts.voices) == 13
    await spoken(tts, voice="unheard-of", language="hi")
    assert server.asked[0]["voice"] == "alloy"


@pytest.mark.parametrize(
    ("listed", "voices"),
    [
        ({"voices": ["af_heart", "bm_lewis"]}, ["af_heart", "bm_lewis"]),
        ({"voices": [{"id": "a", "name": "Anna", "language": "de"}, {"name": "b"}]}, ["a", "b"]),
        ([{"voice_id": "x"}, "y"], ["x", "y"]),
        ({"data": ["z"]}, ["z"]),
        ({"voices": [1, None, {}, "", "z" * 999, "good", "good"]}, ["good"]),
    ],
)
async def test_the_voices_the_server_lists(server, listed, voices):
    server.voices = listed
    tts = OpenaiTTS(base_url=server.base_url)
    await tts.start()
    assert [voice.id for voice in tts.voices] == voices
    await tts.aclose()


async def test_what_the_server_tells_of_a_voice(server):
    server.voices = {"voices": [{"id": "a", "name": "Anna", "language": "de"}]}
    tts = OpenaiTTS(base_url=server.base_url)
    await tts.start()
    assert tts.voices == (Voice("a", "Anna", "de"),)
    await tts.aclose()


@pytest.mark.parametrize("voice", ["nova", "my-own"])
async def test_the_voice_of_the_settings_is_the_default(server, voice):
    tts = OpenaiTTS(base_url=server.base_url, voice=voice)
    await tts.start()
    assert tts.voices[0].id == voice
    assert [v.id for v in tts.voices].count(voice) == 1
    await spoken(tts, voice="unheard-of")
    assert server.asked[0]["voice"] == voice
    await tts.aclose()


# --- faults at the start ---------------------------------------------------------


async def refused(tts, problem: str) -> EngineError:
    with pytest.raises(EngineError, match=problem) as caught:
        await tts.start()
    assert not tts.status().ready
    assert tts.status().reason == str(caught.value)
    assert KEY not in str(caught.value)
    await tts.aclose()
    return caught.value


async def test_the_key_is_shown_to_the_server_only(server):
    server.key = KEY
    tts = OpenaiTTS(base_url=server.base_url, api_key=KEY)
    await tts.start()
    assert await spoken(tts)
    server.answers.append([Refuse(500, f"who is {KEY}?")])
    assert "***" in await failure(tts)
    await tts.aclose()


@pytest.mark.parametrize("text", ["<html>a router</html>", "nothing here"])
async def test_something_that_is_no_speech_server(server, text):
    server.models = None
    server.listing = Refuse(404 if text[0] != "<" else 500, text)
    tts = OpenaiTTS(base_url=server.base_url.replace("/v1", "/v2"))
    await refused(tts, "no OpenAI-compatible speech server.*ends in /v1")


async def test_a_server_without_any_list_can_be_told_by_its_endpoint(server):
    server.models = None
    tts = OpenaiTTS(base_url=server.base_url)
    await tts.start()
    assert tts.status().ready
    await tts.aclose()


async def test_an_address_that_is_none(no_leaks):
    await refused(OpenaiTTS(base_url="box"), "is none; set IVAS_TTS__URL to one like http")


async def test_it_speaks_only_when_started(server):
    tts = OpenaiTTS(base_url=server.base_url)
    assert "not been asked yet" in await failure(tts, EngineUnavailable)
    await tts.start()
    await tts.aclose()
    assert "has been closed" in await failure(tts, EngineUnavailable)


# --- faults at work --------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "said", "still_ready"),
    [
        ([Refuse(401, "no")], "wants a key", False),
        ([Refuse(402, "no credit")], "wants to be paid", False),
        ([Refuse(429, "You have hit insufficient_quota")], "wants to be paid", False),
        ([Refuse(429, "slow down")], "is busy (slow down)", True),
        ([Refuse(404, "The model `tts-1` does not exist")], "set IVAS_TTS__MODEL", False),
        ([Refuse(400, "Voice 'alloy' not found")], "set IVAS_TTS__VOICE to one", True),
        ([Refuse(404, "nothing")], "no OpenAI-compatible", False),
        ([Refuse(502, "<html>Bad gateway</html>")], "does not reach its speech server", False),
        ([Refuse(500, "CUDA\nout of memory")], "failed (CUDA out of memory)", True),
        ([Refuse(200, "it is broken")], "failed (it is broken)", True),
        ([Die()], "broke off in the middle", False),
        ([Raw(b"\1\0" * 50), Die()], "broke off in the middle", False),
        ([], "sent no sound", True),
        ([Raw(b"ID3 some music")], "MP3 instead of PCM or WAV", True),
        ([Raw(b"RIFF\0\0\0\0WAVE and then nothing of use")], "WAV file without sound", True),
        ([Raw(b"\1\0" * 24_000)] * 50, "more than 42 s of sound", True),
    ],
)
async def test_a_fault_is_one_sentence_and_the_next_text_is_spoken(
    server, tts, steps, said, still_ready
):
    server.answers.append(steps)
    assert said in await failure(tts)
    assert tts.status().ready == still_ready
    assert await spoken(tts) == hum(TEXT, "alloy")
    assert tts.status().ready


async def test_text_instead_of_sound(server, tts):
    server.kind = "text/plain; charset=utf-8"
    server.answers.append([Raw(b"Internal trouble")])
    assert "failed (Internal trouble)" in await failure(tts)


async def test_silence_that_is_too_long(server):
    tts = OpenaiTTS(base_url=server.base_url, timeout_s=0.05)
    await tts.start()
    for steps in ([Wait(asyncio.Event())], [Raw(b"\1\0" * 50), Wait(asyncio.Event())]):
        server.answers.append(steps)
        assert "said nothing for 0.05 s" in await failure(tts, EngineTimeout)
        assert not tts.status().ready
    await tts.aclose()


async def test_a_server_that_went_away_and_came_back(server, tts):
    await server.stop()
    assert "No speech server answers" in await failure(tts, EngineUnavailable)
    assert "No speech server answers" in tts.status().reason
    await server.start()
    assert await spoken(tts) == hum(TEXT, "alloy")
    assert tts.status().ready


async def test_closed_between_two_parts_it_says_so(server, tts):
    server.answers.append([Raw(b"\1\0" * 100)])
    stream = tts.stream("A sentence of no meaning at all. " * 200, voice="alloy")
    await anext(stream)
    assert (await anext(stream)).pcm
    await tts.aclose()
    with pytest.raises(EngineError):
        async for _ in stream:
            pass


async def test_a_voice_that_ends_elsewhere_does_not_make_a_closed_engine_ready(server, tts):
    stream = tts.stream(TEXT, voice="alloy")
    await anext(stream)
    assert (await anext(stream)).pcm
    await tts.aclose()
    try:
        async for _ in stream:
            pass
    except EngineError:
        pass
    assert not tts.status().ready
