"""/v1/audio/speech: the whole text, early, in every form; and what may go wrong with it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
import rest_app
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from ivas.audio.decode import decode
from ivas.audio.encode import FORMATS
from ivas.engines import TTS, AudioChunk
from ivas.engines.fake import CHUNK_MS, MS_PER_CHARACTER, FakeTTS, Fault
from ivas.engines.voices import choose
from ivas.errors import EngineError
from ivas.reply import ReplyLimits
from ivas.server import rest_streaming
from ivas.server.limits import Places
from ivas.server.rest_speech import PATH, SpeechOptions, speech_router

TEXT = "It is a fine day. Shall we go for a walk in the park this afternoon, then?"


class Told(FakeTTS):
    """Notes what it was asked to say, and how."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**{"first_ms": 0, "rtf": 0} | how)
        self.texts: list[str] = []
        self.how: list[dict[str, Any]] = []

    def stream(self, text: str, **how: Any) -> AsyncGenerator[AudioChunk, None]:
        self.texts.append(text)
        self.how.append(how)
        return super().stream(text, **how)


async def ready(**how: Any) -> Told:
    tts = Told(**how)
    await tts.start()
    return tts


def options(tts: TTS, **changes: Any) -> SpeechOptions:
    made = SpeechOptions(tts=lambda: tts, admit=rest_app.everybody, places=Places(2))
    return replace(made, **changes)


def exchange(tts: TTS, body: dict[str, Any] | None = None, **changes: Any) -> rest_app.Exchange:
    app = rest_app.app_of(speech_router(options(tts, **changes)))
    asked = {"input": TEXT, "response_format": "pcm"} | (body or {})
    return rest_app.Exchange(app, PATH, json.dumps(asked).encode())


async def post(tts: TTS, body: Any, **changes: Any) -> Any:
    async with rest_app.client(speech_router(options(tts, **changes))) as http:
        how = {"content": body} if isinstance(body, bytes) else {"json": body}
        return await http.post(PATH, **how)


def seconds(text: str, speed: float = 1.0) -> float:
    return len(text) * MS_PER_CHARACTER / 1000 / speed


# --- the sound ---------------------------------------------------------------------


async def test_every_word_is_spoken_once_and_in_order() -> None:
    tts = await ready()
    answer = await post(tts, {"input": TEXT, "model": "tts-1", "voice": "fake-low"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/mpeg")
    assert " ".join(tts.texts) == TEXT
    assert len(tts.texts) > 1
    heard = decode(io.BytesIO(answer.content), most_s=60)
    assert len(heard) / 16_000 == pytest.approx(seconds("".join(tts.texts)), abs=0.15)
    assert {how["priority"] for how in tts.how} == {"later"}  # conversations go first


async def test_so_it_is_with_a_long_text() -> None:
    tts, text = await ready(), TEXT * 50
    await post(tts, {"input": text, "response_format": "pcm"})
    assert "".join(" ".join(tts.texts).split()) == "".join(text.split())


@pytest.mark.parametrize("format_", [format_ for format_ in FORMATS if format_ != "pcm"])
async def test_every_format(format_: str) -> None:
    answer = await post(await ready(), {"input": TEXT, "response_format": format_})
    types = {
        "mp3": "audio/mpeg", "opus": "audio/ogg", "aac": "audio/aac", "flac": "audio/flac",
        "wav": "audio/wav",
    }  # fmt: skip
    assert answer.headers["content-type"] == types[format_]
    assert "content-length" not in answer.headers
    heard = decode(io.BytesIO(answer.content), most_s=60)
    assert len(heard) / 16_000 == pytest.approx(seconds(TEXT) - 0.06, abs=0.15)


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 24_000, 48_000])
async def test_pcm_is_24_khz_whatever_the_engine_speaks_at(rate_hz: int) -> None:
    tts = await ready(rate_hz=rate_hz)
    answer = await post(tts, {"input": "A tone.", "response_format": "pcm", "voice": "fake-middle"})
    assert answer.headers["content-type"] == "audio/pcm"
    sound = np.frombuffer(answer.content, "<i2")
    assert len(sound) == 24_000 * seconds("A tone.")
    assert np.abs(np.fft.rfft(sound)).argmax() * 24_000 / len(sound) == pytest.approx(600, abs=3)


async def test_server_sent_events_hold_the_same_bytes() -> None:
    tts = await ready()
    plain = await post(tts, {"input": TEXT, "response_format": "wav"})
    answer = await post(tts, {"input": TEXT, "response_format": "wav", "stream_format": "sse"})
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.text.endswith("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n")[:-1]]
    *deltas, done = events
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    assert b"".join(base64.b64decode(event["audio"]) for event in deltas) == plain.content
    assert done["type"] == "speech.audio.done"
    usage = done["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["output_tokens"] == pytest.approx(20 * seconds(TEXT), abs=3)


async def test_text_is_made_speakable() -> None:
    tts = await ready()
    await post(tts, {"input": "**Look** at https://example.org/a?b=c today 🎉!"})
    assert tts.texts == ["Look at link today!"]


@pytest.mark.parametrize("text", ["🎉🎉", "---", "*", "…"])
async def test_what_nobody_can_say_is_a_short_silence(text: str) -> None:
    tts = await ready()
    answer = await post(tts, {"input": text, "response_format": "wav"})
    assert (answer.status_code, tts.texts) == (200, [])
    assert answer.content[44:] == bytes(4800)


@given(st.text(min_size=1, max_size=300), st.sampled_from(FORMATS))
def test_any_text_in_any_format(text: str, format_: str) -> None:
    async def ask() -> None:
        answer = await post(await ready(), {"input": text, "response_format": format_})
        assert answer.status_code == (200 if text.strip() else 400)
        assert answer.content

    asyncio.run(ask())


# --- as it is made -------------------------------------------------------------------


class ByHand(FakeTTS):
    """Gives out a chunk of 100 ms whenever it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks: asyncio.Queue[AudioChunk | None] = asyncio.Queue()
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

    async def stream(self, text: str, **how: Any) -> AsyncGenerator[AudioChunk, None]:
        self.live_streams += 1
        self.begun.set()
        try:
            while (chunk := await self.chunks.get()) is not None:
                yield chunk
        finally:
            self.live_streams -= 1
            self.ended.set()


CHUNK = AudioChunk(b"\1\0" * 2400, 24_000)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("stream_format", ["audio", "sse"])
async def test_sound_is_sent_as_it_is_made(format_: str, stream_format: str) -> None:
    tts = ByHand()
    await tts.start()
    asked = {"input": "Hello.", "response_format": format_, "stream_format": stream_format}
    one = exchange(tts, asked)
    for number in range(1, 4):
        tts.chunks.put_nowait(CHUNK)
        await one.until(number)  # nothing but this chunk can have brought it
        assert not one.complete
    tts.chunks.put_nowait(None)
    await one.ends()
    assert one.complete
    assert one.headers["x-accel-buffering"] == "no"


async def test_the_answer_begins_with_the_first_sound() -> None:
    tts = ByHand()
    await tts.start()
    one = exchange(tts)
    await tts.begun.wait()
    assert one.status == 0  # so that a failure can still be told by the status
    tts.chunks.put_nowait(CHUNK)
    await one.until(1)
    assert one.status == 200
    await one.leave()


async def test_the_engine_does_not_wait_for_a_slow_client() -> None:
    tts = ByHand()
    await tts.start()
    one = exchange(tts)
    one.stalls = True
    for _ in range(100):
        tts.chunks.put_nowait(CHUNK)
    tts.chunks.put_nowait(None)
    async with asyncio.timeout(10):
        await tts.ended.wait()
    assert one.pieces == []
    await one.leave()


async def test_a_client_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_streaming, "CLIENT_STALL_S", 0.01)
    tts, places = ByHand(), Places(1)
    await tts.start()
    one = exchange(tts, places=places)
    tts.chunks.put_nowait(CHUNK)
    await one.until(1)
    one.stalls = True
    tts.chunks.put_nowait(CHUNK)
    await one.ends()
    assert (tts.live_streams, places.taken, one.complete) == (0, 0, False)


# --- the client leaves -----------------------------------------------------------------


@pytest.mark.parametrize("pieces", [0, 1, 2])
async def test_when_the_client_leaves_the_engine_stops(pieces: int) -> None:
    tts, places = ByHand(), Places(1)
    await tts.start()
    one = exchange(tts, places=places)
    for _ in range(pieces):
        tts.chunks.put_nowait(CHUNK)
    await one.until(pieces)
    await tts.begun.wait()
    assert places.taken == 1
    await one.leave()
    assert (tts.live_streams, places.taken, one.complete) == (0, 0, False)


# --- how it is spoken ------------------------------------------------------------------


async def test_voice_speed_and_language_reach_the_engine() -> None:
    tts = await ready()
    asked = {"input": "Hi.", "voice": {"id": "FAKE-HIGH"}, "speed": 2, "language": "en"}
    await post(tts, asked)
    assert tts.how == [{"voice": "fake-high", "language": "en", "speed": 2.0, "priority": "later"}]


async def test_what_the_client_leaves_open_the_operator_decides() -> None:
    tts = await ready()
    nulls = {"voice": None, "speed": None, "response_format": None, "stream_format": None}
    for body in ({"input": "Hi."}, {"input": "Hi.", **nulls}, {"input": "Hi.", "voice": ""}):
        await post(tts, body, voice="fake-middle", speed=1.5, language="en-GB")
    assert (
        tts.how
        == [{"voice": "fake-middle", "language": "en-GB", "speed": 1.5, "priority": "later"}] * 3
    )


@pytest.mark.parametrize("voice", ["alloy", "onyx", "cedar", "nobody-of-this-name"])
async def test_the_voices_of_others_are_given_to_ours(voice: str) -> None:
    tts = await ready()
    await post(tts, {"input": "Hi.", "voice": voice})
    assert tts.how[0]["voice"] == choose(voice, tts.voices, language=None)
    assert tts.how[0]["voice"] in {known.id for known in tts.voices}


async def test_every_request_asks_which_engine_serves() -> None:
    first, second = await ready(), await ready()
    serving = [first, second]
    router = speech_router(replace(options(first), tts=lambda: serving.pop(0)))
    async with rest_app.client(router) as http:
        for _ in range(2):
            await http.post(PATH, json={"input": "Hi."})
    assert (first.texts, second.texts) == (["Hi."], ["Hi."])


# --- what is wrong with the request ------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "input", "missing_required_parameter"),
        ({"input": ""}, "input", "invalid_value"),
        ({"input": " \n"}, "input", "invalid_value"),
        ({"input": 7}, "input", "invalid_value"),
        ({"input": "x" * 4097}, "input", "string_above_max_length"),
        ({"input": "x", "voice": 7}, "voice", "invalid_value"),
        ({"input": "x", "voice": {"id": []}}, "voice", "invalid_value"),
        ({"input": "x", "response_format": "mp4"}, "response_format", "invalid_value"),
        ({"input": "x", "response_format": ["mp3"]}, "response_format", "invalid_value"),
        ({"input": "x", "stream_format": "ws"}, "stream_format", "invalid_value"),
        ({"input": "x", "speed": 0.2}, "speed", "invalid_value"),
        ({"input": "x", "speed": 4.1}, "speed", "invalid_value"),
        ({"input": "x", "speed": "1"}, "speed", "invalid_value"),
        ({"input": "x", "speed": True}, "speed", "invalid_value"),
        ({"input": "x", "language": 1}, "language", "invalid_value"),
        ([], None, "invalid_value"),
        (b"{", None, "invalid_json"),
        (b"", None, "invalid_json"),
        (b'{"input": NaN}', None, "invalid_json"),
        (b'{"input": "\\ud800"}', None, "invalid_json"),
    ],
)
async def test_is_said_in_the_envelope(body: Any, param: str | None, code: str) -> None:
    tts = await ready()
    answer = await post(tts, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"
    assert error["message"].endswith(".")
    assert tts.texts == []


async def test_a_text_of_the_greatest_length_is_spoken() -> None:
    tts = await ready()
    answer = await post(tts, {"input": "\U0001f600" * 4095 + "a", "response_format": "pcm"})
    assert (answer.status_code, tts.texts) == (200, ["a"])


async def test_a_body_that_is_far_too_large_is_not_read() -> None:
    answer = await post(await ready(), b'{"input": "' + b"x" * 200_000)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


async def test_who_is_not_admitted_is_not_even_heard() -> None:
    answer = await post(await ready(), b"not JSON", admit=rest_app.nobody)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "not_for_speech")


async def test_one_too_many_is_asked_to_come_again() -> None:
    tts, places = ByHand(), Places(1)
    await tts.start()
    first = exchange(tts, places=places)
    await tts.begun.wait()
    second = exchange(tts, places=places)
    await second.ends()
    assert (second.status, second.headers["retry-after"]) == (429, "1")
    assert json.loads(second.body)["error"]["type"] == "rate_limit_error"
    assert tts.live_streams == 1
    await first.leave()
    third = exchange(await ready(), places=places)
    await third.ends()
    assert third.status == 200


async def test_the_next_request_finds_the_place_of_the_one_before() -> None:
    """On its last byte a client may ask again, and it may be quicker than our tidying up."""
    tts, places = await ready(), Places(1)
    one = exchange(tts, places=places)
    taken: list[int] = []
    one.on_complete = lambda: taken.append(places.taken)
    await one.ends()
    assert taken == [0]


# --- what is wrong with the engine ---------------------------------------------------------


async def test_an_engine_that_is_not_ready_gives_its_reason() -> None:
    tts = FakeTTS()
    answer = await post(tts, {"input": "Hi."})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (503, "server_error")
    assert error["message"] == tts.status().reason
    answer = await post(await ready(), {"input": "Hi."}, unready=lambda: "It is loading; wait.")
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "It is loading; wait.")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Fault("raise"), 503, "engine_failed"),
        (Fault("garbage"), 503, "engine_failed"),
        (Fault("end"), 503, "tts_silent"),
        (Fault("hang"), 503, "engine_timeout"),
        (Fault("crash"), 500, "internal_error"),
    ],
)
@pytest.mark.parametrize("stream_format", ["audio", "sse"])
async def test_a_failure_before_the_first_sound_is_an_answer(
    fault: Fault, status: int, code: str, stream_format: str
) -> None:
    tts, places = await ready(fault=replace(fault, times=1)), Places(1)
    how: dict[str, Any] = {"places": places, "limits": ReplyLimits(first_audio_s=0.05)}
    body = {"input": "Hi there.", "stream_format": stream_format}
    answer = await post(tts, body, **how)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (status, "server_error", code)
    assert "purpose" not in error["message"]  # what only the log is to know
    assert (tts.live_streams, places.taken) == (0, 0)
    assert (await post(tts, body, **how)).status_code == 200  # and works again


async def test_who_waits_for_a_turn_is_more_patient_than_who_has_it() -> None:
    class Queued(FakeTTS):
        async def stream(self, text: str, **how: Any) -> AsyncGenerator[AudioChunk, None]:
            await asyncio.sleep(turn_s)
            yield AudioChunk(b"", 8000)  # of no sound the rate is nothing to go by
            await asyncio.sleep(work_s)
            yield CHUNK

    how: dict[str, Any] = {"limits": ReplyLimits(queue_s=0, first_audio_s=0.5), "queue_s": 60}
    tts = Queued()
    await tts.start()
    turn_s, work_s = 0.6, 0.0
    assert (await post(tts, {"input": "Hi."}, **how)).status_code == 200
    turn_s, work_s = 0.0, 60.0
    answer = await post(tts, {"input": "Hi."}, **how)
    assert answer.json()["error"]["code"] == "engine_timeout"


@pytest.mark.parametrize("kind", ["raise", "garbage", "hang", "crash"])
async def test_a_failure_in_mid_sound_cuts_the_connection(
    kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tts, places = await ready(fault=Fault(kind, after=2)), Places(1)
    one = exchange(tts, places=places, limits=ReplyLimits(audio_stall_s=0.05))
    await one.ends()
    assert (one.status, one.complete) == (200, False)  # uvicorn closes such a connection
    assert len(one.body) == 2 * CHUNK_MS * 48
    assert (tts.live_streams, places.taken) == (0, 0)
    assert "speech was cut off" in caplog.text


async def test_events_say_why_they_end() -> None:
    tts = await ready(fault=Fault("raise", after=2))
    one = exchange(tts, {"stream_format": "sse"})
    await one.ends()
    assert not one.complete
    last = json.loads(one.pieces[-1].removeprefix(b"data: "))
    assert (last["type"], last["error"]["code"]) == ("error", "engine_failed")
    assert last["error"]["message"].startswith("The fake TTS failed")


async def test_a_language_the_voice_does_not_know_is_the_clients_to_mend() -> None:
    class English(FakeTTS):
        async def stream(self, text: str, **how: Any) -> AsyncGenerator[AudioChunk, None]:
            raise EngineError("It speaks English only; ask for en.", code="unsupported_language")
            yield CHUNK

    tts = English()
    await tts.start()
    answer = await post(tts, {"input": "Hallo.", "language": "de"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "language")


# --- over a real socket ------------------------------------------------------------------------


@asynccontextmanager
async def uvicorn_of(tts: TTS, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = rest_app.app_of(speech_router(options(tts, **changes)))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110 - uvicorn offers no event for it
            await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            yield http
    finally:
        server.should_exit = True
        await serving


async def test_a_cut_connection_is_seen_as_one() -> None:
    tts = await ready(fault=Fault("raise", after=2))
    async with uvicorn_of(tts) as http:
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            await http.post(PATH, json={"input": TEXT, "response_format": "wav"})


@pytest.mark.parametrize("when", ["before", "amid"])
async def test_a_closed_socket_stops_the_engine(when: str) -> None:
    tts, places = ByHand(), Places(1)
    await tts.start()
    async with uvicorn_of(tts, places=places) as http:
        asked = {"input": TEXT, "response_format": "pcm"}
        if when == "before":
            asking = asyncio.create_task(http.post(PATH, json=asked))
            await tts.begun.wait()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        else:
            tts.chunks.put_nowait(CHUNK)
            async with http.stream("POST", PATH, json=asked) as answer:
                assert await anext(answer.aiter_bytes())
        async with asyncio.timeout(10):
            await tts.ended.wait()
            while places.taken:  # noqa: ASYNC110 - given back right after
                await asyncio.sleep(0)
    assert tts.live_streams == 0
