"""`ivas demo`: ask a spoken question, hear the answer, see where the time went.

The question is `question.wav` beside this file, 16 kHz mono, spoken by flite 2.2
(free for any use) and converted by sox:

    flite -voice rms -t "what is seven times six" -o 16k.wav
    sox -D 16k.wav -r 16000 -b 16 -c 1 question.wav
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from ivas.audio.wav import wav_bytes
from ivas.errors import IvasError

from .demo_view import View
from .exchange import Exchange, ask, prepare
from .launch import own_server
from .microphone import Question, open_microphone, read_question
from .speaker import Speaker, open_speaker
from .wire import RATE_HZ, connect, realtime_url

QUESTION = Path(__file__).with_name("question.wav")
REPLY = Path("ivas-demo-reply.wav")
"""Where the reply goes when nobody can hear it: the working directory."""


@dataclass(frozen=True, slots=True)
class Demo:
    """What the user asked for."""

    url: str | None = None
    """A server to ask; None starts one for as long as the demo lasts."""
    key: str | None = None
    wav: Path | None = None
    """Another question to ask."""
    out: Path | None = None
    """Write the reply there and play nothing."""
    as_json: bool = False
    """Print one JSON object: nothing else, and nothing is played."""
    timeout_s: float = 30.0


def run(demo: Demo) -> None:
    """Run it. Raises IvasError with the one sentence why there was no answer."""
    try:
        asyncio.run(_run(demo))
    except asyncio.CancelledError:
        raise IvasError("The demo was ended before it was over; run it again.") from None


async def _run(demo: Demo) -> None:
    # Ended from outside, the server we started ends with us.
    task = asyncio.current_task()
    assert task is not None
    with suppress(NotImplementedError):  # Windows has no signals
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    question = read_question(demo.wav or QUESTION)
    if not question.speech_end_sample:
        raise IvasError(f"{question.name} is silent; give a recording of a question with --wav.")
    view = View(question.name if demo.wav else "what is seven times six", shown=not demo.as_json)
    speaker = None if demo.as_json or demo.out else open_speaker()
    try:
        with view:
            async with _server(demo, view) as url:
                exchange = await _converse(url, demo, question, view, speaker)
    finally:
        if speaker is not None:
            speaker.close()
    out = demo.out or (REPLY if speaker is None and not demo.as_json else None)
    if out is not None:
        _write(out, bytes(exchange.pcm))
    if demo.as_json:
        print(orjson.dumps(_as_object(question, url, exchange, out)).decode())
    else:
        view.summary(exchange, out)


@asynccontextmanager
async def _server(demo: Demo, view: View) -> AsyncIterator[str]:
    """The URL of the server to ask."""
    if demo.url is not None:
        yield realtime_url(demo.url)
        return
    async with own_server(on_wait=lambda state: view.say(f"Starting a server: {state}")) as server:
        yield realtime_url(server.url)


async def _converse(
    url: str, demo: Demo, question: Question, view: View, speaker: Speaker | None
) -> Exchange:
    played = 0

    def on_change(exchange: Exchange) -> None:
        nonlocal played
        if speaker is not None:
            if played > len(exchange.pcm):  # that reply was withdrawn
                speaker.flush()
                played = 0
            speaker.play(bytes(exchange.pcm[played:]))
            played = len(exchange.pcm)
        view.show(exchange)

    view.say("Connecting")
    async with connect(url, key=demo.key) as connection:
        await prepare(connection)
        async with open_microphone(connection) as microphone:
            view.say("Asking")
            exchange = await ask(
                connection, microphone, question, timeout_s=demo.timeout_s, on_change=on_change
            )
    if speaker is not None:
        await asyncio.sleep(exchange.playing_until_s - asyncio.get_running_loop().time())
    return exchange


def _write(path: Path, pcm: bytes) -> None:
    try:
        path.write_bytes(wav_bytes(pcm, RATE_HZ))
    except OSError as error:
        raise IvasError(
            f"The reply cannot be written to {path} ({error.strerror}); choose another "
            "place with --out."
        ) from error


def _as_object(
    question: Question, url: str, exchange: Exchange, out: Path | None
) -> dict[str, object]:
    """What `--json` prints. Times in milliseconds after the last speech sample."""
    times = exchange.times_ms()
    return {
        "url": url,
        "question": question.name,
        "transcript": exchange.transcript,
        "reply": exchange.reply.strip(),
        "audio_ms": round(len(exchange.pcm) / 2 / RATE_HZ * 1000),
        "first_audio_ms": times["first_audio"],
        "first_audible_ms": times["first_audible"],
        "client_ms": times,
        "server_spans_ms": dict(exchange.spans_ms),
        "wav": None if out is None else str(out),
    }
