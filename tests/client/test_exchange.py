from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from virtual_time import virtual_time

from ivas.audio.pcm import to_pcm16
from ivas.client.exchange import Exchange, ask, prepare
from ivas.client.microphone import Microphone, Question
from ivas.client.wire import Event
from ivas.errors import IvasError

SILENCE = np.zeros(2_400, np.float32)
TONE = np.full(2_400, 0.5, np.float32)


def event(kind: str, at_s: float, **body: Any) -> Event:
    return Event(kind, {"type": kind, **body}, at_s)


def sound(at_s: float, samples: Any, response_id: str = "r1") -> Event:
    delta = base64.b64encode(to_pcm16(samples)).decode()
    return event("response.output_audio.delta", at_s, response_id=response_id, delta=delta)


def words(at_s: float, delta: str, response_id: str = "r1") -> Event:
    kind = "response.output_audio_transcript.delta"
    return event(kind, at_s, response_id=response_id, delta=delta)


def transcript(at_s: float, text: str = "what time is it") -> Event:
    kind = "conversation.item.input_audio_transcription.completed"
    return event(kind, at_s, transcript=text)


def begins(at_s: float, response_id: str = "r1") -> Event:
    return event("response.created", at_s, response={"id": response_id})


def done(
    at_s: float, status: str = "completed", details: Any = None, response_id: str = "r1"
) -> Event:
    response = {"id": response_id, "status": status, "status_details": details}
    return event("response.done", at_s, response=response)


STARTED = event("input_audio_buffer.speech_started", 9.0)
STOPPED = event("input_audio_buffer.speech_stopped", 10.5)
TURN = [
    STARTED,
    STOPPED,
    transcript(10.51),
    begins(10.52),
    words(10.53, "It is "),
    sound(10.6, SILENCE),
    event("ivas.latency", 10.6, response_id="r1", spans_ms={"asr": 9.0}),
    words(10.61, "noon."),
    sound(10.62, TONE),
    done(10.7),
]


def fed(events: Iterable[Event]) -> Exchange:
    exchange = Exchange(speech_end_s=10.0)
    for each in events:
        assert not exchange.over
        exchange.feed(each)
    return exchange


def test_follows_a_turn() -> None:
    exchange = fed(TURN)
    assert exchange.over
    assert exchange.failure is None
    assert exchange.transcript == "what time is it"
    assert exchange.reply == "It is noon."
    assert bytes(exchange.pcm) == to_pcm16(SILENCE) + to_pcm16(TONE)
    assert exchange.spans_ms == {"asr": 9.0}
    assert exchange.times_ms() == {
        "speech_started": -1000.0,
        "speech_stopped": 500.0,
        "transcript": 510.0,
        "response": 520.0,
        "first_text": 530.0,
        "first_audio": 600.0,
        "done": 700.0,
        "first_audible": 700.0,  # the silence before it is played first
    }
    assert exchange.playing_until_s == pytest.approx(10.8)


def test_sound_that_comes_late_is_heard_late() -> None:
    exchange = fed([STARTED, begins(10.5), sound(10.6, SILENCE), sound(11.0, TONE)])
    assert exchange.times_ms()["first_audible"] == 1000.0


def test_the_transcript_may_come_last() -> None:
    late = [each for each in TURN if "transcription" not in each.type]
    exchange = fed(late)
    assert exchange.answered
    assert not exchange.over
    exchange.feed(transcript(11.0))
    assert exchange.over


def test_a_pause_in_the_question_begins_the_measurement_anew() -> None:
    cancelled = done(10.3, "cancelled", {"reason": "turn_detected"})
    pause = [STARTED, transcript(10.1, "what time"), begins(10.2), sound(10.25, TONE), cancelled]
    again = [event("input_audio_buffer.speech_started", 10.4), transcript(11.0, "is it")]
    exchange = fed([*pause, *again, begins(11.1, "r2"), sound(11.2, TONE, "r2")])
    exchange.feed(sound(11.3, TONE, "r1"))  # of the reply that was withdrawn
    exchange.feed(done(11.4, response_id="r1"))
    assert not exchange.over
    exchange.feed(done(11.5, response_id="r2"))
    assert exchange.over
    assert exchange.transcript == "what time is it"
    assert bytes(exchange.pcm) == to_pcm16(TONE)
    assert exchange.times_ms()["first_audio"] == 1200.0


@pytest.mark.parametrize(
    ("last", "failure"),
    [
        (
            done(11.0, "failed", {"error": {"message": "No model."}}),
            "The reply failed: No model.",
        ),
        (done(11.0, "failed"), "The reply failed: the server does not say why."),
        (done(11.0, "cancelled"), "The reply was cancelled before it was complete."),
        (
            event("error", 11.0, error={"message": "No more."}),
            "The server reported an error: No more.",
        ),
        (
            event(
                "conversation.item.input_audio_transcription.failed",
                11.0,
                error={"message": "Too quiet."},
            ),
            "The server could not make out what was said: Too quiet.",
        ),
    ],
)
def test_failures_are_one_sentence(last: Event, failure: str) -> None:
    exchange = fed([STARTED, STOPPED, begins(10.6), last])
    assert exchange.over
    assert exchange.failure == failure


def test_a_foreign_server_may_refuse_our_extension() -> None:
    refused = event("error", 9.0, error={"message": "Unknown.", "event_id": "ivas_opt_in"})
    assert fed([refused, *TURN]).failure is None


class Script:
    """In place of a Connection: says what it is given, then nothing."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._events = iter(events)
        self.sent: list[Any] = []

    async def receive(self) -> Event:
        for each in self._events:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(0.0, each.at_s - loop.time()))
            return each
        return await asyncio.get_running_loop().create_future()

    async def configure(self, session: Any, *, event_id: str | None = None) -> None:
        self.sent.append((event_id, session))


async def asked(events: Iterable[Event], on_change: Any = lambda exchange: None) -> Exchange:
    """Ask a question whose speech ends at 10 s on the virtual clock."""
    microphone = Microphone(start_s=9.02)
    question = Question("q", bytes(2), speech_end_sample=24_000)
    script: Any = Script(events)
    return await ask(script, microphone, question, timeout_s=5, on_change=on_change)


@virtual_time
async def test_ask_returns_the_whole_answer() -> None:
    seen = []
    exchange = await asked(TURN, lambda each: seen.append(each.reply))
    assert exchange.speech_end_s == pytest.approx(10.0)
    assert exchange.times_ms()["first_audio"] == 600.0
    assert len(seen) == len(TURN)


@virtual_time
async def test_a_reply_may_last_longer_than_any_wait() -> None:
    pieces = [sound(11.0 + second, TONE) for second in range(20)]
    exchange = await asked([*TURN[:5], *pieces, done(31.0)])
    assert len(exchange.pcm) == 20 * len(TONE) * 2


@pytest.mark.parametrize(
    ("events", "awaited", "until_s"),
    [
        ([], "the server to hear speech", 15.0),
        ([STARTED], "the server to notice the end of the speech", 15.0),
        ([STARTED, STOPPED], "the transcript", 15.5),
        ([STARTED, STOPPED, transcript(11.0)], "a reply", 16.0),
        ([STARTED, STOPPED, transcript(11.0), begins(12.0)], "the audio of the reply", 17.0),
        ([*TURN[:4], sound(13.0, TONE)], "the rest of the reply", 18.0),
        ([STARTED, STOPPED, begins(11.0), sound(11.0, TONE), done(12.0)], "the transcript", 15.0),
    ],
)
def test_ask_waits_a_bounded_time_and_says_for_what(
    events: list[Event], awaited: str, until_s: float
) -> None:
    @virtual_time
    async def run() -> float:
        with pytest.raises(IvasError, match=f"while waiting for {awaited}; see the server's log"):
            await asked(events)
        return asyncio.get_running_loop().time()

    assert run() == pytest.approx(until_s)


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([*TURN[:2], transcript(10.5, " "), *TURN[3:]], "transcript is empty"),
        ([*TURN[:4], done(11.0)], "reply is empty"),
        ([*TURN[:5], done(11.0)], "text without audio"),
        ([*TURN[:6], done(11.0)], "audio of the reply is silence"),
        ([STARTED, done(11.0), event("error", 11.0)], "error without saying which"),
    ],
)
def test_ask_fails_when_a_stage_failed(events: list[Event], why: str) -> None:
    @virtual_time
    async def run() -> None:
        with pytest.raises(IvasError, match=why):
            await asked(events)

    run()


@virtual_time
async def test_prepare_opts_in_apart_from_what_every_server_knows() -> None:
    script: Any = Script([])
    await prepare(script, voice="alloy")
    (_, standard), (event_id, ours) = script.sent
    assert standard["audio"]["output"] == {"voice": "alloy"}
    assert "ivas" not in standard
    assert (event_id, ours) == ("ivas_opt_in", {"ivas": {"events": ["latency"]}})
