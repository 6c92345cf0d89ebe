from __future__ import annotations

import pytest
from rich.console import Console

from ivas.client.demo_view import View, stages
from ivas.client.exchange import Exchange
from ivas.client.wire import Event


def exchange(*, spans_ms: dict[str, float] | None = None) -> Exchange:
    heard = "conversation.item.input_audio_transcription.completed"
    loud = "/38="  # one sample of full scale
    found = Exchange(speech_end_s=1.0)
    for kind, at_s, body in (
        ("input_audio_buffer.speech_stopped", 1.5, {}),
        (heard, 1.51, {"transcript": "[b]what[/b] time"}),
        ("response.created", 1.52, {"response": {"id": "r"}}),
        ("response.output_audio_transcript.delta", 1.53, {"response_id": "r", "delta": "Noon."}),
        ("response.output_audio.delta", 1.6, {"response_id": "r", "delta": loud}),
    ):
        found.feed(Event(kind, {"type": kind, **body}, at_s))
    found.spans_ms = spans_ms or {}
    return found


def shown(table: object) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_an_ivas_server_tells_where_its_time_went() -> None:
    text = shown(stages(exchange(spans_ms={"endpoint": 501.2, "asr": 9.0, "total": 600.0})))
    assert "501 ms  waited to be sure you had finished" in text
    assert "  9 ms  until the transcript" in text
    assert "the reply began" not in text
    assert "600 ms  from the last speech sample to first audio" in text


def test_a_foreign_server_shows_it_on_the_wire() -> None:
    lines = shown(stages(exchange())).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "500 ms the server noticed the end of the speech",
        "510 ms the transcript came",
        "520 ms the reply began",
        "530 ms its first words came",
        "600 ms from the last speech sample to first audio",
        "600 ms from the last speech sample to the first audible sample",
    ]


def test_what_was_said_is_never_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    with View("what time is it", shown=True) as view:
        view.say("Asking")
        view.show(exchange())
        view.summary(exchange(), None)
    out = capsys.readouterr().out
    assert "Asking ..." in out
    assert "heard     [b]what[/b] time" in out
    assert "You have heard the reply" in out


def test_nothing_is_shown_unless_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with View("what time is it", shown=False) as view:
        view.say("Asking")
        view.summary(exchange(), None)
    assert capsys.readouterr().out == ""
