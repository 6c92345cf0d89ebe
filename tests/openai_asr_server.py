"""A server that speaks OpenAI's transcriptions, on a real socket, as a test tells it.

It knows the clips of tests/clips by heart and hears nothing in anything else.
(https://platform.openai.com/docs/api-reference/audio/createTranscription)
"""

from __future__ import annotations

import io
import wave
from collections import deque
from email import message_from_bytes, policy
from functools import cache
from pathlib import Path

from scripted_http import Die, Exchange, Raw, Refuse, Request, ScriptedServer, Wait, refuse, wait

CLIPS = Path(__file__).parent / "clips"

Step = str | Raw | Wait | Die | Refuse
"""A string is the text of the transcript; `Raw` the whole body."""


class TranscriptionServer(ScriptedServer):
    """`key`: what it wants to be shown."""

    def __init__(self, *, key: str | None = None, port: int = 0) -> None:
        super().__init__(self._handle, port=port)
        self.key = key
        self.listing: Step | None = None
        """What to do instead of listing the models."""
        self.answers: deque[list[Step]] = deque()
        """What to do for coming recordings instead of hearing them, in order."""

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def asked(self) -> list[dict[str, bytes]]:
        """The fields of every request for a transcript so far."""
        return [_fields(request) for request in self.requests if request.method == "POST"]

    async def _handle(self, exchange: Exchange) -> None:
        request = exchange.request
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            said = f"Incorrect API key: {request.headers.get('authorization')}"
            await exchange.send_json({"error": {"message": said}}, 401)
        elif (request.method, request.path) == ("POST", "/v1/audio/transcriptions"):
            steps = self.answers.popleft() if self.answers else [_hear(_fields(request)["file"])]
            await self._follow(exchange, steps)
        elif request.path == "/v1/models" and self.listing is not None:
            await self._follow(exchange, [self.listing])
        elif request.path == "/v1/models":
            await exchange.send_json({"object": "list", "data": [{"id": "whisper-1"}]})
        else:
            await exchange.send_json({"detail": "Not Found"}, 404)

    async def _follow(self, exchange: Exchange, steps: list[Step]) -> None:
        for step in steps:
            match step:
                case Refuse():
                    await refuse(exchange, step, {"error": {"message": step.text}})
                case Wait(event):
                    await wait(exchange, event)
                case Raw(data):
                    await exchange.send(200, data)
                case Die():
                    exchange.begin("application/json")
                    await exchange.chunk(b'{"text": "what ti')
                    await exchange.die()
                case str():
                    await exchange.send_json({"text": step})


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
