"""SillyTavern's own request to a real server.

Its page posts to its Node server, whose src/endpoints/openai.js (`custom`) sends this.
"""

from __future__ import annotations

import io

import httpx
import pytest

from ivas.audio.decode import decode

NODE = {
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate",
    "Accept-Language": "*",
    "Sec-Fetch-Mode": "cors",
    "User-Agent": "node",
    "Content-Type": "application/json",
}


async def generate_voice(
    url: str, *, key: str = "", text: str, voice: str = "alloy", speed: float = 1
) -> httpx.Response:
    """Without a key it sends `Bearer` and nothing."""
    body = {
        "input": text,
        "response_format": "mp3",
        "voice": voice,
        "speed": speed,
        "model": "tts-1",
    }
    async with httpx.AsyncClient(timeout=60) as http:
        headers = NODE | {"Authorization": f"Bearer {key}".strip()}
        return await http.post(f"{url}/v1/audio/speech", json=body, headers=headers)


@pytest.mark.parametrize("voice", ["alloy", "shimmer", "my own voice"])
async def test_a_character_speaks(embedded: str, voice: str) -> None:
    text = 'She laughs. "Well met, traveller!"'
    answer = await generate_voice(embedded, text=text, voice=voice)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/mpeg")
    assert 1.5 < len(decode(io.BytesIO(answer.content), most_s=20)) / 16_000 < 6


async def test_its_speed_is_heard(embedded: str) -> None:
    lengths = []
    for speed in (0.5, 1, 2.0):
        answer = await generate_voice(embedded, text="This is a sentence.", speed=speed)
        lengths.append(len(decode(io.BytesIO(answer.content), most_s=20)))
    assert lengths[0] > 1.5 * lengths[1] > 2 * lengths[2]


async def test_a_stage_direction_alone(embedded: str) -> None:
    answer = await generate_voice(embedded, text="*...*")
    assert answer.status_code == 200
    assert len(decode(io.BytesIO(answer.content), most_s=20)) > 0


async def test_with_a_key(locked: str) -> None:
    assert (await generate_voice(locked, text="Hi.")).status_code == 401
    assert (await generate_voice(locked, key="sk-right", text="Hi.")).status_code == 200
