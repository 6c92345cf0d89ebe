"""Open WebUI's own requests, byte for byte where it matters, to a real server.

Taken from its backend, routers/audio.py: `_tts_openai`, `_transcribe_openai`,
`get_available_voices` and `get_available_models`, with the forms aiohttp makes of them.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from ivas.audio.decode import decode

CLIPS = Path(__file__).resolve().parents[1] / "clips"
USER_AGENT = {"Accept": "*/*", "Accept-Encoding": "gzip, deflate", "User-Agent": "aiohttp/3.13"}
OPENAI_VOICES = ("alloy", "echo", "fable", "onyx", "nova", "shimmer")
"""What it offers where a server lists no voices."""


@pytest.fixture
async def http(embedded: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{embedded}/v1", headers=USER_AGENT, timeout=60) as one:
        yield one


async def speech(http: httpx.AsyncClient, key: str = "none", **payload: str) -> httpx.Response:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    return await http.post("/audio/speech", json=payload, headers=headers)


def form(fields: dict[str, str], name: str, file: bytes) -> tuple[bytes, str]:
    """As aiohttp's FormData writes it; every part has a type."""
    boundary = "0b1b5d1a0d9f4a2e8f0c3a"
    body = b""
    for key, value in fields.items():
        body += (
            f"--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f'Content-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        ).encode()
    body += (
        f"--{boundary}\r\nContent-Type: application/octet-stream\r\n"
        f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    ).encode()
    return (
        body + file + f"\r\n--{boundary}--\r\n".encode(),
        f"multipart/form-data; boundary={boundary}",
    )


async def transcription(
    http: httpx.AsyncClient, file: bytes, name: str, **fields: str
) -> httpx.Response:
    body, content_type = form(fields, name, file)

    async def chunks() -> AsyncIterator[bytes]:  # it sends without a Content-Length
        for at in range(0, len(body), 65_536):
            yield body[at : at + 65_536]

    headers = {"Authorization": "Bearer none", "Content-Type": content_type}
    return await http.post("/audio/transcriptions", content=chunks(), headers=headers)


@pytest.mark.parametrize("voice", [*OPENAI_VOICES, "en-gb", ""])
async def test_reads_aloud(http: httpx.AsyncClient, voice: str) -> None:
    answer = await speech(http, input="It is half past three.", voice=voice, model="tts-1")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/mpeg")
    assert answer.content.startswith(b"ID3")  # it stores this as a .mp3 file
    assert 1 < len(decode(io.BytesIO(answer.content), most_s=10)) / 16_000 < 4


async def test_a_reply_in_markdown_and_emoji(http: httpx.AsyncClient) -> None:
    for sentence in ("## Answer", "**Yes!** 🎉", "🎉", "- one\n- two", "```python\nprint(1)\n```"):
        answer = await speech(http, input=sentence, voice="alloy", model="tts-1-hd")
        assert answer.status_code == 200, sentence
        assert len(decode(io.BytesIO(answer.content), most_s=60)) > 0


async def test_it_is_shown_what_went_wrong(http: httpx.AsyncClient) -> None:
    answer = await speech(http, input="", voice="alloy", model="tts-1")
    assert answer.status_code == 400
    assert "input" in answer.json()["error"]["message"]  # what it shows: f"External: {message}"


async def test_lists_what_may_be_chosen(http: httpx.AsyncClient) -> None:
    voices = (await http.get("/audio/voices")).json()
    offered = {voice["id"]: voice["name"] for voice in voices.get("voices", [])}
    assert offered["en-us"] == "English (America)"
    models = (await http.get("/audio/models")).json()
    assert all({"id", "name"} <= set(model) for model in models["models"])


async def test_behind_a_key_it_offers_the_classic_voices(locked: str) -> None:
    """It asks for voices without its key, and is content with a refusal; to speak it has one."""
    async with httpx.AsyncClient(base_url=f"{locked}/v1", headers=USER_AGENT) as http:
        assert (await http.get("/audio/voices")).status_code == 401
        assert (await http.get("/audio/models")).status_code == 401
        answer = await speech(http, input="Hi there.", voice="nova", model="tts-1")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        answer = await speech(http, "sk-right", input="Hi there.", voice="nova", model="tts-1")
        assert (answer.status_code, answer.content[:3]) == (200, b"ID3")


@pytest.mark.parametrize("fields", [{}, {"language": "en"}])
async def test_takes_dictation(http: httpx.AsyncClient, fields: dict[str, str]) -> None:
    clip = (CLIPS / "what_time_is_it_slt.wav").read_bytes()
    answer = await transcription(http, clip, "recording.wav", model="whisper-1", **fields)
    assert (answer.status_code, answer.json()["text"]) == (200, "what time is it")


async def test_tries_again_without_the_language(http: httpx.AsyncClient) -> None:
    """If the language of the interface is none the engine knows, it leaves it out."""
    clip = (CLIPS / "what_time_is_it_slt.wav").read_bytes()
    answer = await transcription(http, clip, "recording.wav", model="whisper-1", language="de")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "language")
    answer = await transcription(http, clip, "recording.wav", model="whisper-1")
    assert answer.json()["text"] == "what time is it"


async def test_an_empty_recording(http: httpx.AsyncClient) -> None:
    answer = await transcription(http, b"", "recording.webm", model="whisper-1")
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("The audio file is empty")
