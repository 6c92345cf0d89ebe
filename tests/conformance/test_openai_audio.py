"""The stock openai-python client uses the audio REST of a real server: every form of it."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai import AsyncOpenAI

from ivas.audio.decode import decode
from ivas.audio.encode import FORMATS, AudioFormat
from ivas.audio.wav import read_wav, wav_bytes

CLIPS = Path(__file__).resolve().parents[1] / "clips"
CLIP = CLIPS / "what_time_is_it_slt.wav"
WORDS = "what time is it"
TEXT = "Good morning. It is a fine day, so let us go for a walk."


@pytest.fixture
async def client(embedded: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{embedded}/v1", api_key="none", max_retries=0) as one:
        yield one


# --- speech --------------------------------------------------------------------------


def seconds(data: bytes, format_: str) -> float:
    if format_ == "pcm":
        return len(data) / 48_000
    return len(decode(io.BytesIO(data), most_s=60)) / 16_000


@pytest.mark.parametrize("format_", FORMATS)
async def test_create(client: AsyncOpenAI, format_: Any) -> None:
    answer = await client.audio.speech.create(
        input=TEXT, model="gpt-4o-mini-tts", voice="alloy", response_format=format_
    )
    assert 2 < seconds(answer.content, format_) < 8


async def test_mp3_is_the_default(client: AsyncOpenAI) -> None:
    answer = await client.audio.speech.create(input=TEXT, model="tts-1", voice="nova")
    assert answer.response.headers["content-type"] == "audio/mpeg"
    assert answer.content.startswith(b"ID3")


@pytest.mark.parametrize("format_", FORMATS)
async def test_streamed(client: AsyncOpenAI, format_: Any) -> None:
    speaking = client.audio.speech.with_streaming_response
    async with speaking.create(
        input=TEXT, model="tts-1", voice="alloy", response_format=format_
    ) as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        pieces = [piece async for piece in answer.iter_bytes()]
    assert 2 < seconds(b"".join(pieces), format_) < 8


async def test_streamed_to_a_file(client: AsyncOpenAI, tmp_path: Path) -> None:
    speaking = client.audio.speech.with_streaming_response
    async with speaking.create(
        input=TEXT, model="tts-1", voice="alloy", response_format="wav"
    ) as answer:
        await answer.stream_to_file(tmp_path / "speech.wav")
    assert len(read_wav(tmp_path / "speech.wav", 24_000)) > 2 * 24_000


async def test_as_events(client: AsyncOpenAI) -> None:
    speaking = client.audio.speech.with_streaming_response
    async with speaking.create(
        input=TEXT, model="tts-1", voice="alloy", response_format="pcm", stream_format="sse"
    ) as answer:
        lines = [line async for line in answer.iter_lines()]
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    *deltas, done = events
    sound = b"".join(base64.b64decode(event["audio"]) for event in deltas)
    assert 2 < len(sound) / 48_000 < 8
    assert (done["type"], set(done["usage"])) == (
        "speech.audio.done",
        {"input_tokens", "output_tokens", "total_tokens"},
    )


async def test_voice_object_speed_and_instructions(client: AsyncOpenAI) -> None:
    slow, fast = [
        await client.audio.speech.create(
            input=TEXT,
            model="tts-1",
            voice={"id": "en-gb"},
            speed=speed,
            instructions="Speak like a pirate.",
            response_format="pcm",
        )
        for speed in (0.5, 2.0)
    ]
    assert len(slow.content) > 2 * len(fast.content)


async def test_a_client_that_leaves_is_not_waited_for(embedded: str, client: AsyncOpenAI) -> None:
    """Eight of them would fill all places if they kept theirs."""
    for _ in range(10):
        speaking = client.audio.speech.with_streaming_response
        async with speaking.create(
            input=TEXT * 40, model="tts-1", voice="alloy", response_format="wav"
        ) as answer:
            async for _ in answer.iter_bytes():
                break
    await client.audio.speech.create(input="Hi.", model="tts-1", voice="alloy")


@pytest.mark.parametrize(
    "wrong",
    [{"input": ""}, {"speed": 9}, {"response_format": "midi"}, {"input": "x" * 5000}],
)
async def test_mistakes_are_raised(client: AsyncOpenAI, wrong: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"input": "Hi.", "model": "tts-1", "voice": "alloy"} | wrong
    with pytest.raises(openai.BadRequestError) as caught:
        await client.audio.speech.create(**asked)
    assert caught.value.param == next(iter(wrong))
    assert caught.value.type == "invalid_request_error"


async def test_the_wrong_key(locked: str) -> None:
    async with AsyncOpenAI(base_url=f"{locked}/v1", api_key="sk-wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.audio.speech.create(input="Hi.", model="tts-1", voice="alloy")
        with pytest.raises(openai.AuthenticationError):
            await client.audio.transcriptions.create(file=CLIP, model="whisper-1")


# --- transcriptions --------------------------------------------------------------------


async def test_json(client: AsyncOpenAI) -> None:
    answer = await client.audio.transcriptions.create(file=CLIP, model="whisper-1")
    assert answer.text == WORDS
    assert answer.usage is not None
    assert answer.usage.type == "duration"


async def test_text(client: AsyncOpenAI) -> None:
    answer = await client.audio.transcriptions.create(
        file=CLIP, model="whisper-1", response_format="text"
    )
    assert answer == f"{WORDS}\n"


async def test_subtitles(client: AsyncOpenAI) -> None:
    srt = await client.audio.transcriptions.create(
        file=CLIP, model="whisper-1", response_format="srt"
    )
    assert isinstance(srt, str)
    assert srt.startswith("1\n00:00:0")
    vtt = await client.audio.transcriptions.create(
        file=CLIP, model="whisper-1", response_format="vtt"
    )
    assert isinstance(vtt, str)
    assert vtt.startswith("WEBVTT\n\n00:00:0")
    assert WORDS in srt
    assert WORDS in vtt


async def test_verbose_json(client: AsyncOpenAI) -> None:
    answer = await client.audio.transcriptions.create(
        file=CLIP,
        model="whisper-1",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        language="en",
        prompt="A question.",
        temperature=0.2,
    )
    assert (answer.text, answer.language) == (WORDS, "en")
    assert answer.segments is not None
    assert answer.words is not None
    (segment,) = answer.segments
    assert 0 <= segment.start < segment.end <= answer.duration + 0.001
    assert [word.word for word in answer.words] == WORDS.split()


async def test_segments_have_the_times_of_the_speech(client: AsyncOpenAI) -> None:
    """The clip twice, two seconds apart."""
    clip = read_wav(CLIP, 16_000)
    sound = np.concatenate([clip, np.zeros(32_000, np.float32), clip])
    pcm = (sound * 32767).astype("<i2").tobytes()
    answer = await client.audio.transcriptions.create(
        file=("two.wav", wav_bytes(pcm, 16_000)), model="x", response_format="verbose_json"
    )
    assert answer.segments is not None
    first, second = answer.segments
    apart_s = len(clip) / 16_000 + 2
    assert second.start - first.start == pytest.approx(apart_s, abs=0.15)
    assert second.end - first.end == pytest.approx(apart_s, abs=0.15)
    assert answer.text == f"{WORDS} {WORDS}"


async def test_as_a_stream(client: AsyncOpenAI) -> None:
    stream = await client.audio.transcriptions.create(
        file=CLIP,
        model="gpt-4o-transcribe",
        stream=True,
        include=["logprobs"],
        chunking_strategy={"type": "server_vad", "silence_duration_ms": 300},
    )
    events = [event async for event in stream]
    *deltas, done = events
    assert done.type == "transcript.text.done"
    assert done.text == WORDS
    assert "".join(event.delta for event in deltas) == WORDS  # type: ignore[union-attr]


async def test_what_it_speaks_it_can_hear(client: AsyncOpenAI) -> None:
    formats: tuple[AudioFormat, ...] = ("mp3", "opus")
    for format_ in formats:
        said = await client.audio.speech.create(
            input="Good morning.", model="tts-1", voice="alloy", response_format=format_
        )
        heard = await client.audio.transcriptions.create(
            file=(f"speech.{format_}", said.content), model="whisper-1"
        )
        assert heard.text


async def test_diarised_json_is_refused(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="tell the speakers apart"):
        await client.audio.transcriptions.create(
            file=CLIP, model="gpt-4o-transcribe-diarize", response_format="diarized_json"
        )


async def test_what_the_engine_cannot(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.audio.transcriptions.create(file=CLIP, model="whisper-1", language="fr")
    assert (caught.value.code, caught.value.param) == ("unsupported_language", "language")
    with (
        pytest.warns(DeprecationWarning, match="deprecated"),  # says the client itself
        pytest.raises(openai.BadRequestError, match="cannot translate"),
    ):
        await client.audio.translations.create(file=CLIP, model="whisper-1")


@pytest.mark.parametrize("file", [b"", b"hello", b"RIFF"])
async def test_what_is_no_recording(client: AsyncOpenAI, file: bytes) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.audio.transcriptions.create(file=("a.wav", file), model="whisper-1")
    assert caught.value.param == "file"


async def test_too_large_a_file_is_told_at_once(client: AsyncOpenAI) -> None:
    began_s = time.monotonic()
    with pytest.raises(openai.APIStatusError) as caught:
        await client.audio.transcriptions.create(file=("a.wav", bytes(30 << 20)), model="x")
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")
    assert time.monotonic() - began_s < 10


async def test_what_is_not_served_is_told_in_the_envelope(embedded: str) -> None:
    async with httpx.AsyncClient(base_url=embedded) as http:
        for method, path in (("POST", "/v1/images/generations"), ("GET", "/v1/audio/speech")):
            answer = await http.request(method, path)
            assert answer.status_code in (404, 405)
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
