"""Callers for the conformance tests: the stock openai client, its events looked over.

A `Caller` is one connection. It reads one event at a time, every wait is bounded,
every event must be one of OpenAI's, and the rules that hold for every conversation
are checked as the events come. An `error` nobody waits for fails the test.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeServerEvent
from pydantic import BaseModel

from ivas.audio.resample import resample_pcm
from ivas.audio.wav import read_wav

Event = dict[str, Any]

WAIT_S = 60.0
"""Longest wait for one event; only ever used up by a test that fails."""
RATE_HZ = 24_000
CLIPS = Path(__file__).resolve().parents[1] / "clips"
TRANSCRIPTION = "conversation.item.input_audio_transcription."


def _by_type() -> dict[str, type[BaseModel]]:
    """The official types of server events by their `type`."""
    union = get_args(RealtimeServerEvent)[0]
    return {get_args(one.model_fields["type"].annotation)[0]: one for one in get_args(union)}


OFFICIAL = _by_type()


class Caller:
    """See the module. `events`: all that came; `connection`: the client, to send with."""

    def __init__(self, connection: AsyncRealtimeConnection) -> None:
        self.connection = connection
        self.events: list[Event] = []
        self._ids: set[str] = set()
        self._active: str | None = None  # the response in progress
        self._beside: set[str] = set()  # those outside of the conversation
        self._sounding = False  # the audio part of the active one is open

    # --- reading -------------------------------------------------------------

    async def next(self) -> Event:
        async with asyncio.timeout(WAIT_S):
            raw = await self.connection.recv_bytes()
        assert len(raw) < 2**20  # what the strictest stock client takes
        event: Event = json.loads(raw)
        self.connection.parse_event(raw)
        self._look_over(event)
        self.events.append(event)
        return event

    async def until(self, kind: str) -> Event:
        """The next event of this type; those before it are kept in `events`."""
        while True:
            event = await self.next()
            if event["type"] == kind:
                return event
            assert event["type"] != "error", event

    async def settle(self) -> None:
        """Until the server has answered everything sent so far."""
        kind = self.events[0]["session"]["type"]
        await self.connection.session.update(session={"type": kind})
        await self.until("session.updated")

    def since(self, mark: int, *, transcripts: bool = False) -> list[str]:
        """Types of the events from `mark` on; transcription ones may come anywhere."""
        types = [event["type"] for event in self.events[mark:]]
        return [kind for kind in types if transcripts or not kind.startswith(TRANSCRIPTION)]

    def all(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["type"] == kind]

    def audio(self, response_id: str) -> bytes:
        """The sound of a response as it came; by default PCM16 at 24 kHz."""
        deltas = self.all("response.output_audio.delta")
        mine = [event["delta"] for event in deltas if event["response_id"] == response_id]
        return b"".join(base64.b64decode(delta, validate=True) for delta in mine)

    def _look_over(self, event: Event) -> None:
        kind = event["type"]
        if not kind.startswith("ivas."):
            OFFICIAL[kind].model_validate(event)
        assert event["event_id"] not in self._ids
        self._ids.add(event["event_id"])
        if not self.events:
            assert kind == "session.created"
        if self.events and self.events[0]["session"]["type"] == "transcription":
            assert not kind.startswith("response.")
        if kind.startswith("response."):
            self._look_over_response(event)

    def _look_over_response(self, event: Event) -> None:
        """Nothing of a response before response.created or after response.done."""
        kind = event["type"]
        if kind == "response.created":
            response = event["response"]
            if response["conversation_id"] is None:
                self._beside.add(response["id"])
            else:
                assert self._active is None
                self._active = response["id"]
        elif kind == "response.done":
            response_id = event["response"]["id"]
            if response_id in self._beside:
                self._beside.remove(response_id)
            else:
                assert response_id == self._active
                self._active = None
        elif event["response_id"] in self._beside:
            return
        else:
            assert event["response_id"] == self._active
        if kind in ("response.content_part.added", "response.output_audio.done"):
            self._sounding = kind == "response.content_part.added"
        if kind == "response.output_audio.delta":
            assert self._sounding

    # --- sending -------------------------------------------------------------

    async def configure(self, **session: Any) -> Event:
        """A session.update; returns the effective session."""
        session = {"type": "realtime"} | session
        await self.connection.session.update(session=session)
        echo: Event = (await self.until("session.updated"))["session"]
        return echo

    async def send(self, event: Event) -> None:
        """Send what the client has no method for, or would not send."""
        await self.connection.send_raw(json.dumps(event))

    async def hear(self, sound: bytes, step: int = RATE_HZ // 10 * 2) -> None:
        """Append audio in pieces of `step` bytes; of PCM16, they are 100 ms."""
        for at in range(0, len(sound), step):
            audio = base64.b64encode(sound[at : at + step]).decode()
            await self.connection.input_audio_buffer.append(audio=audio)

    async def say(self, text: str, **more: Any) -> str:
        """A user message of text; returns its item id."""
        item: Any = {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": text}],
            **more,
        }
        await self.connection.conversation.item.create(item=item)
        added = await self.until("conversation.item.added")
        await self.until("conversation.item.done")
        item_id: str = added["item"]["id"]
        return item_id

    async def reply(self, **response: Any) -> Event:
        """Ask for a reply and wait for its end; returns the response."""
        await self.connection.response.create(response=response)
        return await self.done()

    async def done(self, response_id: str | None = None) -> Event:
        """The end of this response, or of the next to end."""
        while True:
            response: Event = (await self.until("response.done"))["response"]
            if response_id in (None, response["id"]):
                return response

    async def retrieve(self, item_id: str) -> Event:
        await self.connection.conversation.item.retrieve(item_id=item_id)
        item: Event = (await self.until("conversation.item.retrieved"))["item"]
        return item

    async def error(self) -> Event:
        """The next event, which is an error; returns what it says."""
        event = await self.next()
        assert event["type"] == "error", event
        error: Event = event["error"]
        assert error["message"]
        assert None not in error.values()
        return error


@asynccontextmanager
async def caller(
    url: str, *, key: str = "none", path: str = "/v1", **connect: Any
) -> AsyncIterator[Caller]:
    """A stock client, connected to the server at `url` (http://host:port)."""
    connect.setdefault("model", "ivas")
    async with (
        AsyncOpenAI(api_key=key, base_url=url + path) as client,
        client.realtime.connect(**connect) as connection,
    ):
        one = Caller(connection)
        await one.until("session.created")
        yield one


# --- orders ----------------------------------------------------------------------


def some(*kinds: str) -> str:
    """Any number of events of these types, in any order."""
    return f"(?:(?:{'|'.join(map(re.escape, kinds))}) )*"


def in_order(types: Sequence[str], *steps: str) -> None:
    """Fails unless `types` are these steps: each a type, or what `some` gave."""
    pattern = "".join(step if step.startswith("(") else re.escape(step) + " " for step in steps)
    shown = "\n".join(types)
    assert re.fullmatch(pattern, "".join(f"{kind} " for kind in types)), shown


COMMITTED = (
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
)
HEARD = ("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped", *COMMITTED)
BEGUN = (
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
)
SPEAKING = some("response.output_audio_transcript.delta", "response.output_audio.delta")
SPOKEN = (
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
)
REPLY = (*BEGUN, SPEAKING, *SPOKEN)
CALL = (
    "response.output_item.added",
    "conversation.item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "conversation.item.done",
    "response.output_item.done",
)
WRITTEN_REPLY = (
    *BEGUN,
    some("response.output_text.delta"),
    "response.output_text.done",
    *SPOKEN[2:],
)


# --- sounds ----------------------------------------------------------------------


def tone(ms: int) -> bytes:
    """What the fake VAD takes for speech; PCM16 at 24 kHz."""
    at = np.arange(RATE_HZ * ms // 1000) / RATE_HZ
    return np.round(np.sin(2 * np.pi * 440 * at) * 6000).astype("<i2").tobytes()


def clip(name: str, source_hz: int = 16_000) -> bytes:
    """A recording of tests/clips by a microphone of this rate, resampled by its client."""
    recording = read_wav(CLIPS / f"{name}.wav", source_hz)
    return resample_pcm(recording, source_hz, RATE_HZ)


def silence(ms: int) -> bytes:
    return bytes(RATE_HZ * ms // 1000 * 2)
