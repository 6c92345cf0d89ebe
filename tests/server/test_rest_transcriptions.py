"""/v1/audio/transcriptions and translations: every form, every format, every mistake."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
import rest_app
from hypothesis import given
from hypothesis import strategies as st

from ivas.audio.encode import AudioFormat, Encoder
from ivas.audio.pcm import to_pcm16
from ivas.audio.wav import wav_bytes
from ivas.engines import Transcript
from ivas.engines.fake import FakeASR, FakeUtterance, FakeVAD, Fault
from ivas.errors import EngineError
from ivas.server.limits import Places
from ivas.server.rest_transcriptions import (
    TRANSCRIPTIONS,
    TRANSLATIONS,
    TranscriptionOptions,
    transcriptions_router,
)


def two_sentences(rate_hz: int = 24_000) -> bytes:
    """0.5 s of silence, 1 s of speech, 1 s of silence, 1 s of speech, 0.5 s of silence."""
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz)
    half, one = np.zeros(rate_hz // 2), np.zeros(rate_hz)
    return to_pcm16(np.concatenate([half, wave, one, wave, half]).astype(np.float32))


WAV = wav_bytes(two_sentences(), 24_000)
SILENCE = wav_bytes(bytes(48_000), 24_000)


class Scripted(FakeASR):
    """Says one thing after the other, and notes how it was opened."""

    def __init__(self, *texts: str, **how: Any) -> None:
        super().__init__(**{"ms": 0} | how)
        self.texts = list(texts)
        self.how: list[dict[str, Any]] = []

    def open(self, **how: Any) -> Any:
        self.how.append(how)
        return _Scripted(self, how.get("language"))


class _Scripted(FakeUtterance):
    async def transcript(self, *, urgent: bool = True) -> Transcript:
        transcript = await super().transcript(urgent=urgent)
        assert isinstance(self._engine, Scripted)
        return replace(transcript, text=self._engine.texts.pop(0))


class Translator(Scripted):
    translates = True


def options_of(asr: FakeASR, vad: FakeVAD, **changes: Any) -> TranscriptionOptions:
    options = TranscriptionOptions(
        vad=lambda: vad, asr=lambda: asr, admit=rest_app.everybody, places=Places(2)
    )
    return replace(options, **changes)


async def exchange(asr: FakeASR, data: dict[str, str], **changes: Any) -> rest_app.Exchange:
    vad = FakeVAD()
    await vad.start()
    await asr.start()
    app = rest_app.app_of(transcriptions_router(options_of(asr, vad, **changes)))
    form = httpx.Request("POST", "http://x", data=data, files={"file": ("a.wav", WAV)})
    return rest_app.Exchange(app, TRANSCRIPTIONS, form.read(), form.headers["content-type"])


@asynccontextmanager
async def server(asr: FakeASR, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    vad = changes.pop("engine", FakeVAD())
    if not changes.pop("cold", False):
        await vad.start()
        await asr.start()
    router = transcriptions_router(options_of(asr, vad, **changes))
    async with rest_app.client(router) as http:
        yield http


async def post(
    asr: FakeASR,
    data: dict[str, Any] | None = None,
    *,
    file: bytes = WAV,
    path: str = TRANSCRIPTIONS,
    **changes: Any,
) -> httpx.Response:
    async with server(asr, **changes) as http:
        files = {"file": ("speech.wav", file, "audio/wav")}
        return await http.post(path, files=files, data={"model": "whisper-1"} | (data or {}))


# --- the formats -------------------------------------------------------------------------


async def test_json_is_the_default() -> None:
    answer = await post(Scripted("Hello there.", "How are you?"))
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "text": "Hello there. How are you?",
        "usage": {"type": "duration", "seconds": 4.0},
    }


async def test_text() -> None:
    answer = await post(Scripted("Hello.", "You?"), {"response_format": "text"})
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == "Hello. You?\n"


async def test_subtitles() -> None:
    answer = await post(Scripted("Hello.", "You?"), {"response_format": "srt"})
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    first, second = answer.text.strip().split("\n\n")
    assert first.startswith("1\n00:00:00,")
    assert second.startswith("2\n00:00:02,")
    answer = await post(Scripted("Hello.", "You?"), {"response_format": "vtt"})
    assert answer.text.startswith("WEBVTT\n\n00:00:00.")


@pytest.mark.parametrize("name", ["timestamp_granularities[]", "timestamp_granularities"])
async def test_verbose_json_has_the_times_of_the_speech(name: str) -> None:
    asked = {"response_format": "verbose_json", name: ["word", "segment"], "language": "en"}
    body = (await post(Scripted("Hello there.", "You?"), asked)).json()
    assert (body["task"], body["language"], body["duration"]) == ("transcribe", "en", 4.0)
    first, second = body["segments"]
    for segment, start, end in ((first, 0.5, 1.5), (second, 2.5, 3.5)):
        assert segment["start"] == pytest.approx(start, abs=0.033)
        assert segment["end"] == pytest.approx(end, abs=0.033)
    words = body["words"]
    assert [word["word"] for word in words] == ["Hello", "there.", "You?"]
    assert (words[0]["start"], words[1]["end"]) == (first["start"], first["end"])


async def test_words_only_where_they_are_asked_for() -> None:
    asked = {"response_format": "verbose_json", "timestamp_granularities[]": "segment"}
    assert "words" not in (await post(Scripted("a", "b"), asked)).json()
    assert "words" not in (await post(Scripted("a", "b"), {**asked})).json()


async def test_events_come_sentence_by_sentence() -> None:
    answer = await post(Scripted("Hello there.", "You?"), {"stream": "true"})
    assert answer.headers["content-type"] == "text/event-stream"
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n")[:-1]]
    assert events == [
        {"type": "transcript.text.delta", "delta": "Hello there."},
        {"type": "transcript.text.delta", "delta": " You?"},
        {"type": "transcript.text.done", "text": "Hello there. You?"},
    ]


@pytest.mark.parametrize(("format_", "body"), [("text", "\n"), ("srt", ""), ("vtt", "WEBVTT\n\n")])
async def test_nobody_speaks(format_: str, body: str) -> None:
    answer = await post(Scripted(), {"response_format": format_}, file=SILENCE)
    assert (answer.status_code, answer.text) == (200, body)
    answer = await post(Scripted(), {"stream": "true"}, file=SILENCE)
    assert answer.text == 'data: {"type":"transcript.text.done","text":""}\n\n'


@pytest.mark.parametrize("format_", ["mp3", "opus", "aac", "flac", "wav"])
async def test_whatever_is_uploaded(format_: AudioFormat) -> None:
    encoder = Encoder(format_)
    file = encoder.push(two_sentences()) + encoder.finish()
    answer = await post(Scripted("Hello.", "You?"), file=file)
    assert answer.json()["text"] == "Hello. You?"


# --- how it is heard ----------------------------------------------------------------------


async def test_language_and_prompt_reach_the_engine() -> None:
    asr = Scripted("a", "b")
    await post(asr, {"language": "de", "prompt": " Ada "}, language="en")
    assert asr.how == [{"language": "de", "prompt": "Ada"}] * 2


@pytest.mark.parametrize(
    ("asked", "language"),
    [
        ({}, "fr"),
        ({"language": ""}, "fr"),
        ({"language": "auto"}, "fr"),
        ({"languages[]": "de"}, "de"),
        ({"languages[]": ["de", "en"]}, None),
    ],
)
async def test_which_language(asked: dict[str, Any], language: str | None) -> None:
    asr = Scripted("a", "b")
    await post(asr, asked, language="fr")
    assert asr.how[0]["language"] == language


async def test_what_is_of_no_use_here_is_no_mistake() -> None:
    ignored = {
        "temperature": "0.4",
        "include[]": "logprobs",
        "chunking_strategy": "auto",
        "chunking_strategy[type]": "server_vad",
        "keywords[]": ["Ada", "Grace"],
        "anything_new": "1",
    }
    assert (await post(Scripted("a", "b"), ignored)).json()["text"] == "a b"


async def test_half_a_surrogate_pair_is_not_sent() -> None:
    answer = await post(Scripted("a\ud800", "b"))
    assert answer.json()["text"] == "a? b"


# --- translations -----------------------------------------------------------------------------


async def test_who_can_translates() -> None:
    asr = Translator("Good day.", "And you?")
    asked = {"response_format": "verbose_json"}
    body = (await post(asr, asked, path=TRANSLATIONS)).json()
    assert (body["task"], body["language"]) == ("translate", "en")
    assert body["text"] == "Good day. And you?"
    assert asr.how[0]["translate"] is True


async def test_who_cannot_says_so() -> None:
    answer = await post(Scripted("a", "b"), path=TRANSLATIONS)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "unsupported_task")
    assert "cannot translate" in error["message"]


# --- what is wrong with the request ---------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "param"),
    [
        ({"response_format": "xml"}, "response_format"),
        ({"response_format": "diarized_json"}, "response_format"),
        ({"stream": "perhaps"}, "stream"),
        ({"stream": "true", "response_format": "srt"}, "stream"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities"),
        (
            {"response_format": "verbose_json", "timestamp_granularities[]": "letter"},
            "timestamp_granularities",
        ),
        ({"language": "klingon!"}, "language"),
        ({"language": "a" * 40}, "language"),
        ({"temperature": "2"}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": "nan"}, "temperature"),
    ],
)
async def test_is_said_in_the_envelope(data: dict[str, str], param: str) -> None:
    asr = Scripted()
    answer = await post(asr, data)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, "invalid_value")
    assert error["message"].endswith(".")
    assert asr.how == []


@pytest.mark.parametrize(
    ("file", "why"),
    [(b"", "is empty"), (b"hello", "could not be read"), (wav_bytes(b"", 16_000), "no sound")],
)
async def test_what_is_no_recording(file: bytes, why: str) -> None:
    answer = await post(Scripted(), file=file)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "file")
    assert why in error["message"]


async def test_too_long_a_recording() -> None:
    answer = await post(Scripted(), most_audio_s=3.0)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "audio_too_long")


@pytest.mark.parametrize("declared", [True, False])
async def test_too_large_a_file(declared: bool) -> None:
    file, asr = bytes(2 * 2**20), Scripted()
    if declared:
        answer = await post(asr, file=file, most_upload_mib=0)
    else:
        form = httpx.Request("POST", "http://x", files={"file": ("a.wav", file)})

        async def parts() -> AsyncIterator[bytes]:  # without a Content-Length
            for at in range(0, len(form.read()), 65_536):
                yield form.content[at : at + 65_536]

        async with server(asr, most_upload_mib=0) as http:
            kind = {"content-type": form.headers["content-type"]}
            answer = await http.post(TRANSCRIPTIONS, content=parts(), headers=kind)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (413, "request_too_large")
    assert "0 MiB" in error["message"]


@pytest.mark.parametrize(
    "how",
    [
        {"json": {"file": "x"}},
        {"data": {"model": "x"}},
        {"data": {"file": "not a file"}},
        {"content": b"--x\r\ngarbage", "headers": {"content-type": "multipart/form-data"}},
        {
            "content": b"garbage",
            "headers": {"content-type": "multipart/form-data; boundary=x"},
        },
        {"files": {"file": ("a", WAV), "language": ("b", b"en")}},
        {"files": [("file", ("a", WAV)), ("file", ("b", WAV))]},
        {"files": {"file": ("a", WAV)}, "data": {"prompt": "x" * 100_000}},
        {"files": {"file": ("a", WAV)}, "data": {f"field{n}": "x" for n in range(200)}},
    ],
    ids=["json", "no-file", "string", "no-boundary", "no-form", "files", "two", "long", "many"],
)
async def test_what_is_no_form_of_ours(how: dict[str, Any]) -> None:
    async with server(Scripted()) as http:
        answer = await http.post(TRANSCRIPTIONS, **how)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].endswith(".")


async def test_who_is_not_admitted_is_not_even_heard() -> None:
    for path in (TRANSCRIPTIONS, TRANSLATIONS):
        answer = await post(Scripted(), path=path, file=b"", admit=rest_app.nobody)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "not_for_speech")


@given(st.dictionaries(st.sampled_from(
    ["response_format", "stream", "language", "temperature", "timestamp_granularities[]", "prompt"]
), st.text(st.characters(exclude_categories=["Cs"]), max_size=20)))  # fmt: skip
def test_no_form_breaks_it(data: dict[str, str]) -> None:
    async def ask() -> None:
        answer = await post(Scripted("a", "b"), data)
        assert answer.status_code in (200, 400)

    asyncio.run(ask())


# --- what is wrong with the engines ------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Fault("raise"), 503, "engine_failed"),
        (Fault("hang"), 503, "asr_timeout"),
        (Fault("crash"), 500, "internal_error"),
    ],
)
@pytest.mark.parametrize("stream", ["true", "false"])
async def test_a_recogniser_that_fails(fault: Fault, status: int, code: str, stream: str) -> None:
    asr, places = FakeASR(ms=0, fault=replace(fault, times=1)), Places(1)
    # The deadline adds half of the stretch, so this leaves it 5 ms.
    how: dict[str, Any] = {"places": places, "timeout_s": -0.75}
    answer = await post(asr, {"stream": stream}, **how)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (status, "server_error", code)
    assert (asr.open_utterances, places.taken) == (0, 0)
    assert (await post(asr, places=places)).status_code == 200  # and works again


async def test_a_stream_that_breaks_off_says_why(caplog: pytest.LogCaptureFixture) -> None:
    class OnceOnly(Scripted):
        def open(self, **how: Any) -> Any:
            if self.how:
                raise EngineError("It is gone; start it again.")
            return super().open(**how)

    one = await exchange(OnceOnly("Hello."), {"stream": "true"})
    await one.ends()
    assert not one.complete
    error = json.loads(one.pieces[-1].removeprefix(b"data: "))["error"]
    assert error["message"] == "It is gone; start it again."
    assert "transcript was cut off" in caplog.text


@pytest.mark.parametrize("stream", ["true", "false"])
async def test_when_the_client_leaves_the_work_ends(stream: str) -> None:
    class Hanging(FakeASR):
        asked = asyncio.Event()

        def open(self, **how: Any) -> Any:
            self.asked.set()
            return super().open(**how)

    asr, places = Hanging(ms=0, fault=Fault("hang")), Places(1)
    one = await exchange(asr, {"stream": stream}, places=places, timeout_s=1000)
    await asr.asked.wait()
    assert places.taken == 1
    await one.leave()
    assert (asr.open_utterances, places.taken, one.status) == (0, 0, 0)


async def test_events_leave_as_they_are_known() -> None:
    class Waiting(Scripted):
        more = asyncio.Event()

        def open(self, **how: Any) -> Any:
            utterance = super().open(**how)
            transcript, first = utterance.transcript, len(self.how) == 1

            async def when_told(**how: Any) -> Transcript:
                if not first:
                    await self.more.wait()
                return await transcript(**how)  # type: ignore[no-any-return]

            utterance.transcript = when_told
            return utterance

    asr = Waiting("Hello.", "You?")
    one = await exchange(asr, {"stream": "true"})
    await one.until(1)
    assert b"Hello." in one.body
    assert not one.complete
    asr.more.set()
    await one.ends()
    assert one.complete


async def test_a_detector_that_fails() -> None:
    answer = await post(Scripted(), engine=FakeVAD(fault=Fault("crash")))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "vad_failed")


async def test_engines_that_are_not_ready() -> None:
    asr = Scripted()
    answer = await post(asr, cold=True)
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == asr.status().reason
    answer = await post(asr, unready=lambda: "It is loading; wait.")
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "It is loading; wait.")


async def test_a_language_the_engine_does_not_know() -> None:
    class English(Scripted):
        def open(self, **how: Any) -> Any:
            raise EngineError("It only knows English; ask for en.", code="unsupported_language")

    answer = await post(English(), {"language": "de"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "language")
