"""A server that speaks OpenAI's transcriptions, on a real socket, as a test tells it.

It knows the clips of tests/clips by heart and hears nothing in anything else.
(https://platform.openai.com/docs/api-reference/audio/createTranscription)
"""

from __future__ import annotations

import io
import wave
from email import message_from_bytes, policy
from functools import cache
from pathlib import Path
from typing import Any

from openai_api import Fault, OpenaiApi, whole
from scripted_http import Exchange, Request

CLIPS = Path(__file__).parent / "clips"

Step = str | Fault
"""A string is the text of the transcript; `Raw` the whole body."""


class TranscriptionServer(OpenaiApi[Step]):
    """What it has for options is said at `OpenaiApi`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(("/v1/audio/transcriptions", self._transcribe), **options)

    @property
    def asked(self) -> list[dict[str, bytes]]:
        """The fields of every request for a transcript so far."""
        return [_fields(request) for request in self.posts]

    async def _transcribe(self, exchange: Exchange) -> None:
        heard = [_hear(_fields(exchange.request)["file"])]
        for step in self.answers.popleft() if self.answers else heard:
            if isinstance(step, str):
                await exchange.send_json({"text": step})
            else:
                await whole(exchange, step)


def _fields(request: Request) -> dict[str, bytes]:
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    parts = message_from_bytes(head + request.body, policy=policy.HTTP).iter_parts()
    return {
        str(part.get_param("name", header="content-disposition")): part.get_payload(decode=True)
        for part in parts
    }


def _hear(file: bytes) -> str:
    with wave.open(io.BytesIO(file)) as recording:
        assert recording.getparams()[:3] == (1, 2, 16_000)
        return _texts().get(recording.readframes(recording.getnframes()), "")


@cache
def _texts() -> dict[bytes, str]:
    texts = {}
    for path in CLIPS.glob("*.wav"):
        with wave.open(str(path)) as clip:
            texts[clip.readframes(clip.getnframes())] = path.stem[:-4].replace("_", " ")
    return texts
