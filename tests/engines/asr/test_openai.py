"""What is the remote server's own; what every ASR promises is in test_contract_asr.py."""

from __future__ import annotations

import asyncio
import io
import wave

import numpy as np
import pytest
from openai_asr_server import TranscriptionServer
from scripted_http import Die, Raw, Refuse, Wait

from ivas.engines.asr import openai
from ivas.engines.asr.openai import OpenaiASR
from ivas.errors import EngineError, EngineTimeout, EngineUnavailable

KEY = "sk-very-secret-and-long"
SAID = "what_time_is_it_slt"
TEXT = "what time is it"


@pytest.fixture
async def server(no_leaks):
    async with TranscriptionServer() as server:
        yield server


@pytest.fixture
async def asr(server):
    engine = OpenaiASR(base_url=server.base_url)
    await engine.start()
    yield engine
    await engine.aclose()


async def hear(asr, audio, **options):
    utterance = asr.open(**options)
    utterance.push(audio)
    try:
        return await utterance.transcript()
    finally:
        utterance.close()


def one_sentence(error: EngineError) -> str:
    said = str(error)
    assert "\n" not in said
    assert said.endswith(".")
    assert KEY not in said
    return said


# --- hearing -----------------------------------------------------------------


async def test_the_server_gets_the_recording_and_what_is_known_of_it(server, asr, clip):
    assert (await hear(asr, clip(SAID), language="en_GB", prompt="IVAS, Kolkata")).language
    [asked] = server.asked
    with wave.open(io.BytesIO(asked.pop("file"))) as recording:
        assert recording.getparams()[:4] == (1, 2, 16_000, len(clip(SAID)))
    assert asked == {
        "model": b"whisper-1",
        "response_format": b"json",
        "language": b"en",
        "prompt": b"IVAS, Kolkata",
    }


async def test_what_is_not_known_is_not_sent(server, asr, clip):
    assert await hear(asr, clip(SAID)) == openai.Transcript(TEXT, 1, len(clip(SAID)), None)
    assert set(server.asked[0]) == {"file", "model", "response_format"}


async def test_a_hint_that_utf_8_cannot_say(server, asr, clip):
    await hear(asr, clip(SAID), prompt="IVAS \ud800")
    assert server.asked[0]["prompt"] == b"IVAS ?"


async def test_its_own_model_language_and_key(no_leaks, clip):
    async with TranscriptionServer(key=KEY) as server:
        asr = OpenaiASR(base_url=server.base_url + "/", api_key=KEY, model="big", language="hi")
        await asr.start()
        assert (await hear(asr, clip(SAID))).text == TEXT
        await hear(asr, clip(SAID), language="bn")
        await asr.aclose()
        assert [asked["language"] for asked in server.asked] == [b"hi", b"bn"]
        assert server.asked[0]["model"] == b"big"


async def test_too_loud_is_clipped_not_wrapped(server, asr):
    await hear(asr, np.array([2.0, -2.0, 1.0, -1.0, 0.5], np.float32))
    with wave.open(io.BytesIO(server.asked[0]["file"])) as recording:
        sent = np.frombuffer(recording.readframes(5), "<i2")
    assert sent.tolist() == [32767, -32768, 32767, -32768, 16384]


async def test_silence_asks_the_server_nothing(server, asr):
    transcript = await hear(asr, np.full(16_000, 0.0005, np.float32))
    assert (transcript.text, transcript.end_sample) == ("", 16_000)
    assert server.asked == []


async def test_a_partial_is_the_last_answer_unless_partials_are_wanted(server, clip):
    for partials in (False, True):
        asr = OpenaiASR(base_url=server.base_url, partials=partials)
        await asr.start()
        utterance, audio = asr.open(), clip(SAID)
        utterance.push(audio)
        first = await utterance.transcript(urgent=False)
        assert (first.text, first.end_sample) == ((TEXT, len(audio)) if partials else ("", 0))
        assert (await utterance.transcript()).text == TEXT
        utterance.push(audio)
        later = await utterance.transcript(urgent=False)
        assert later.revision == 3
        assert (later.text, later.end_sample) == (
            ("", 2 * len(audio)) if partials else (TEXT, len(audio))
        )
        utterance.close()
        await asr.aclose()
    assert len(server.asked) == 1 + 3


async def test_the_connection_is_kept(server, asr, clip):
    for _ in range(5):
        await hear(asr, clip(SAID))
    assert server.connections == 1


async def test_more_than_the_longest_utterance_is_not_kept(server, asr, clip, monkeypatch):
    monkeypatch.setattr(openai, "MOST_SAMPLES", 1600)
    utterance = asr.open()
    for _ in range(3):
        utterance.push(clip(SAID)[4000:5600])
    assert (await utterance.transcript()).end_sample == 1600
    utterance.close()


async def test_cancelling_hangs_up(server, asr, clip, eventually):
    never = asyncio.Event()
    server.answers.append([Wait(never)])
    asking = asyncio.create_task(hear(asr, clip(SAID)))
    await eventually(lambda: bool(server.asked))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (await hear(asr, clip(SAID))).text == TEXT
    assert asr.status().ready


async def test_closing_while_it_asks_ends_the_question(server, asr, clip, eventually):
    answer = asyncio.Event()
    server.answers.append([Wait(answer), "too late"])
    utterance = asr.open()
    utterance.push(clip(SAID))
    asking = asyncio.create_task(utterance.transcript())
    await eventually(lambda: bool(server.asked))
    utterance.close()
    answer.set()
    with pytest.raises(EngineError, match="closed"):
        await asking


# --- starting, or not --------------------------------------------------------


@pytest.mark.parametrize(
    ("listing", "said"),
    [
        (Refuse(401, f"Incorrect API key provided: {KEY}"), "set IVAS_ASR__API_KEY"),
        (Refuse(404, "<html>Not Found</html>"), "no OpenAI-compatible transcription server"),
        (Refuse(200, "<html>Welcome to nginx</html>"), "usually ends in /v1"),
        (Refuse(500, "CUDA\nTraceback"), "failed (CUDA Traceback); say it again"),
        (Raw(b"{ not json"), "no OpenAI-compatible transcription server"),
        (Raw(b"<" * 2**21), "no OpenAI-compatible transcription server"),
    ],
)
async def test_what_a_server_may_answer_at_the_start(server, listing, said):
    server.listing = listing
    asr = OpenaiASR(base_url=server.base_url, api_key=KEY)
    with pytest.raises(EngineUnavailable) as refused:
        await asr.start()
    assert said in one_sentence(refused.value)
    assert asr.status().reason == str(refused.value)
    server.listing = None
    await asr.start()
    assert asr.status().ready
    await asr.aclose()


@pytest.mark.parametrize("status", [404, 405])
async def test_a_server_without_a_list_of_models_will_do(server, status, clip):
    server.listing = Refuse(status, "Not Found")
    asr = OpenaiASR(base_url=server.base_url)
    await asr.start()
    assert (await hear(asr, clip(SAID))).text == TEXT
    await asr.aclose()


async def test_an_address_that_is_none(no_leaks):
    asr = OpenaiASR(base_url="box")
    with pytest.raises(EngineUnavailable, match="set IVAS_ASR__URL to one like"):
        await asr.start()
    await asr.aclose()


async def test_not_started_is_what_the_transcript_says(server, clip):
    with pytest.raises(EngineUnavailable, match="not been asked yet"):
        await hear(OpenaiASR(base_url=server.base_url), clip(SAID))


# --- faults at work ----------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "said", "ready"),
    [
        (Refuse(401, f"Incorrect API key provided: {KEY}"), "IVAS_ASR__API_KEY", False),
        (Refuse(400, "Invalid model: whisper-1"), "set IVAS_ASR__MODEL", False),
        (Refuse(404, "The model does not exist"), "set IVAS_ASR__MODEL", False),
        (Refuse(404, "Not Found"), "no OpenAI-compatible transcription server", False),
        (Refuse(413, "Too large"), "say less at once", True),
        (Refuse(413, "<html>Too large</html>"), "say less at once", True),
        (Refuse(402, "no credit"), "set IVAS_ASR__ENGINE=whisper to transcribe at home", False),
        (Refuse(429, f"Slow down, {KEY}"), "busy (Slow down, ***); say it again", True),
        (Refuse(500, "out of memory"), "failed (out of memory)", True),
        (Refuse(503, "loading"), "still loading its model", False),
        (Refuse(502, "<html>Bad Gateway</html>"), "see whether that server runs", False),
        (Refuse(200, "<html>Log in</html>"), "no OpenAI-compatible", False),
        (Raw(b"{ not json"), "cannot be read", True),
        (Raw(b"[]"), "cannot be read", True),
        (Raw(b"[" * 2**20), "cannot be read", True),
        (Raw(b'{"text": 7}'), "cannot be read", True),
        (Raw(b'{"text": "' + b"a" * 2**21), "cannot be read", True),
        (Raw(b"\xff\xfe"), "cannot be read", True),
        (Die(), "broke off in the middle", False),
    ],
)
async def test_a_fault_costs_one_utterance(server, clip, caplog, fault, said, ready):
    caplog.set_level("DEBUG")
    asr = OpenaiASR(base_url=server.base_url, api_key=KEY)
    await asr.start()
    server.answers.append([fault])
    with pytest.raises(EngineError) as failed:
        await hear(asr, clip(SAID))
    assert said in one_sentence(failed.value)
    assert asr.status().ready is ready
    assert (await hear(asr, clip(SAID))).text == TEXT
    assert asr.status().ready
    assert KEY not in caplog.text
    await asr.aclose()


async def test_a_server_that_hangs_is_given_up(server, clip):
    asr = OpenaiASR(base_url=server.base_url, timeout_s=0.05)
    await asr.start()
    server.answers.append([Wait(asyncio.Event())])
    with pytest.raises(EngineTimeout, match=r"said nothing for 0\.05 s"):
        await hear(asr, clip(SAID))
    assert "0.05 s" in asr.status().reason
    await asr.start()
    assert asr.status().ready
    await asr.aclose()


async def test_a_server_that_went_and_came_back(server, asr, clip):
    await server.stop()
    with pytest.raises(EngineUnavailable, match=r"No transcription server answers|broke off"):
        await hear(asr, clip(SAID))
    assert not asr.status().ready
    await server.start()
    assert (await hear(asr, clip(SAID))).text == TEXT
    assert asr.status().ready


async def test_text_of_any_kind_comes_through(server, asr, clip):
    server.answers.append([" আপনি কেমন আছেন? \n"])
    assert (await hear(asr, clip(SAID))).text == "আপনি কেমন আছেন?"
