"""One spoken question and its answer, as the wire shows them, with the times.

`Exchange` is pure: it is fed events. `ask` plays a question into a microphone and
feeds one until the answer is complete. All times run from the question's last
speech sample, so nothing a server claims goes into them; what an IVAS server says
about its own stages (`ivas.latency`) is kept apart.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from ivas.audio.pcm import to_samples
from ivas.errors import IvasError

from .microphone import Microphone, Question
from .wire import RATE_HZ, Connection, Event, error_message

Moment = Literal[
    "speech_started",
    "speech_stopped",
    "transcript",
    "response",
    "first_text",
    "first_audio",
    "first_audible",
    "done",
]

AUDIBLE = 10 ** (-45 / 20)
"""Amplitude of a sample from which it counts as sound: -45 dBFS, a quiet room."""
LATE_TRANSCRIPT_S = 3.0
"""How long after the reply its question's transcript may still come."""
_OPT_IN = "ivas_opt_in"


async def prepare(connection: Connection, *, voice: str | None = None) -> None:
    """Configure a session for speaking with: transcripts, and an IVAS server's own times.

    The end of a turn is left as the server has it.
    """
    audio: dict[str, object] = {
        "input": {"transcription": {"model": "gpt-4o-mini-transcribe"}},
        "output": {} if voice is None else {"voice": voice},
    }
    await connection.configure({"output_modalities": ["audio"], "audio": audio})
    # Apart, because a foreign server may refuse the whole of an update it does not know.
    await connection.configure({"ivas": {"events": ["latency"]}}, event_id=_OPT_IN)


class Exchange:
    """See the module. Feed it until `over`; then `failure` is None or says why."""

    def __init__(self, speech_end_s: float) -> None:
        """`speech_end_s`: when the question's last speech sample is spoken (loop clock)."""
        self.speech_end_s = speech_end_s
        self.reply = ""
        self.pcm = bytearray()
        self.spans_ms: Mapping[str, float] = {}
        self.playing_until_s = 0.0
        """When a speaker that plays at once has played all that came."""
        self.failure: str | None = None
        self._said: list[str] = []
        self._heard = False
        self._response_id: str | None = None
        self._at_s: dict[Moment, float] = {}

    @property
    def transcript(self) -> str:
        """What the server heard."""
        return " ".join(self._said)

    @property
    def over(self) -> bool:
        """Nothing more will come."""
        return self.failure is not None or ("done" in self._at_s and self._heard)

    @property
    def answered(self) -> bool:
        """The reply is complete; its question's transcript may still be on its way."""
        return "done" in self._at_s

    @property
    def audible(self) -> bool:
        return "first_audible" in self._at_s

    def times_ms(self) -> dict[Moment, float]:
        """Each moment that came, from the last speech sample on, in order of time."""
        ordered = sorted(self._at_s.items(), key=lambda moment: moment[1])
        return {name: round((at_s - self.speech_end_s) * 1000, 1) for name, at_s in ordered}

    def awaited(self) -> str:
        """What has not come yet, in words."""
        at_s = self._at_s
        if "speech_started" not in at_s:
            return "the server to hear speech"
        if "speech_stopped" not in at_s:
            return "the server to notice the end of the speech"
        if "response" not in at_s:
            return "a reply" if self._heard else "the transcript"
        if not self.answered:
            return "the rest of the reply" if self.pcm else "the audio of the reply"
        return "the transcript"

    def feed(self, event: Event) -> None:
        """Take the next event of the server."""
        body = event.body
        match event.type:
            case "input_audio_buffer.speech_started":
                self._begin_again()
                self._mark("speech_started", event.at_s)
            case "input_audio_buffer.speech_stopped":
                self._mark("speech_stopped", event.at_s)
            case "conversation.item.input_audio_transcription.completed":
                self._heard = True
                self._said.append(str(body.get("transcript", "")).strip())
                self._mark("transcript", event.at_s)
            case "conversation.item.input_audio_transcription.failed":
                why = error_message(event)
                self.failure = f"The server could not make out what was said: {why}"
            case "response.created":
                self._response_id = body["response"]["id"]
                self._mark("response", event.at_s)
            case "error":
                error = body.get("error")
                if not (isinstance(error, dict) and error.get("event_id") == _OPT_IN):
                    self.failure = f"The server reported an error: {error_message(event)}"
            case _:
                self._feed_reply(event)

    def _feed_reply(self, event: Event) -> None:
        body = event.body
        if event.type == "response.done":
            if body["response"]["id"] == self._response_id:
                self._end(body["response"], event.at_s)
            return
        if body.get("response_id") != self._response_id:
            return
        match event.type:
            case "response.output_audio_transcript.delta" | "response.output_text.delta":
                self.reply += body["delta"]
                self._mark("first_text", event.at_s)
            case "response.output_audio.delta":
                self._play(base64.b64decode(body["delta"]), event.at_s)
            case "ivas.latency":
                self.spans_ms = body["spans_ms"]

    def _play(self, pcm: bytes, at_s: float) -> None:
        self._mark("first_audio", at_s)
        starts_s = max(at_s, self.playing_until_s)
        if not self.audible:
            loud = np.flatnonzero(np.abs(to_samples(pcm)) >= AUDIBLE)
            if len(loud):
                self._mark("first_audible", starts_s + int(loud[0]) / RATE_HZ)
        self.playing_until_s = starts_s + len(pcm) / 2 / RATE_HZ
        self.pcm += pcm

    def _end(self, response: Mapping[str, object], at_s: float) -> None:
        details = response.get("status_details")
        details = details if isinstance(details, dict) else {}
        match response.get("status"):
            case "cancelled" if details.get("reason") == "turn_detected":
                return  # the question went on after a pause; another reply will come
            case "failed":
                error = details.get("error")
                why = error.get("message") if isinstance(error, dict) else None
                self.failure = f"The reply failed: {why or 'the server does not say why.'}"
            case "cancelled":
                self.failure = "The reply was cancelled before it was complete."
        self._mark("done", at_s)

    def _begin_again(self) -> None:
        """The question goes on: what was measured at a pause in it does not count."""
        self._at_s.clear()
        self._response_id = None
        self.reply = ""
        self.pcm.clear()
        self.spans_ms = {}

    def _mark(self, moment: Moment, at_s: float) -> None:
        self._at_s.setdefault(moment, at_s)


async def ask(
    connection: Connection,
    microphone: Microphone,
    question: Question,
    *,
    timeout_s: float = 30.0,
    on_change: Callable[[Exchange], None] = lambda exchange: None,
) -> Exchange:
    """Speak the question and take in the answer until it is complete.

    `timeout_s` runs from the end of the speech and is renewed by every sign of progress,
    so that a reply may be of any length. Raises IvasError naming what failed or was
    awaited in vain.
    """
    speech_end = microphone.position + question.speech_end_sample
    exchange = Exchange(microphone.captured_s(speech_end))
    microphone.say(question.pcm)
    deadline_s = exchange.speech_end_s + timeout_s
    while not exchange.over:
        awaited, sound = exchange.awaited(), len(exchange.pcm)
        try:
            async with asyncio.timeout_at(deadline_s):
                exchange.feed(await connection.receive())
        except TimeoutError:
            raise IvasError(
                f"Nothing came within {timeout_s:g} s while waiting for {awaited}; "
                "see the server's log."
            ) from None
        on_change(exchange)
        if exchange.awaited() != awaited or len(exchange.pcm) > sound:
            wait_s = LATE_TRANSCRIPT_S if exchange.answered else timeout_s
            now_s = asyncio.get_running_loop().time()
            deadline_s = max(now_s, exchange.speech_end_s) + wait_s
    _judge(exchange)
    return exchange


def _judge(exchange: Exchange) -> None:
    """Raises IvasError if any stage of the answer is missing."""
    if exchange.failure is not None:
        raise IvasError(exchange.failure)
    if not exchange.transcript:
        raise IvasError(
            "The transcript is empty: the server heard speech but no words; "
            "try a clearer recording with --wav."
        )
    if not exchange.reply.strip() and not exchange.pcm:
        raise IvasError("The reply is empty; see the server's log for the reason.")
    if not exchange.pcm:
        raise IvasError("The reply came as text without audio; see the server's log.")
    if not exchange.audible:
        raise IvasError("The audio of the reply is silence; try another voice or TTS engine.")
