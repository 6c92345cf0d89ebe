"""POST /v1/audio/transcriptions and /v1/audio/translations: a recording becomes text.

The recording is decoded and cut at its pauses on a thread, then transcribed stretch by
stretch. With `stream` each stretch is sent as soon as it is known.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Literal, get_args

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.datastructures import FormData, UploadFile
from starlette.types import Send

from ivas.audio.decode import decode
from ivas.engines import ASR, SAMPLE_RATE_HZ, VAD, Samples
from ivas.errors import ClientError
from ivas.recordings import Said, Stretch, find_speech, transcribe

from .limits import Places
from .rest_requests import Admit, Served, arriving, attended, limited, need_ready, off_loop
from .rest_streaming import EVENTS, event, stream_to
from .subtitles import Segment, Task, plain, srt, usage, verbose, vtt

TRANSCRIPTIONS = "/v1/audio/transcriptions"
TRANSLATIONS = "/v1/audio/translations"

Format = Literal["json", "text", "srt", "verbose_json", "vtt"]
FORMATS: tuple[Format, ...] = get_args(Format)

BYTES_BESIDE = 1024 * 1024
"""For the fields beside the file."""
MOST_FIELDS = 100
MOST_FIELD_BYTES = 64 * 1024
DECODED_AT_ONCE = 2
"""Recordings being decoded and cut: both are work for a core."""
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*")


@dataclass(frozen=True, slots=True)
class TranscriptionOptions:
    """What the composition root decides for every request."""

    vad: Callable[[], VAD]
    """The engine that serves now; asked anew for every request, like `asr`."""
    asr: Callable[[], ASR]
    admit: Admit
    places: Places
    language: str | None = None
    """What is spoken where the client does not say; None: the engine finds out."""
    threshold: float = 0.5
    """P(speech) from which a frame is voiced."""
    timeout_s: float = 5.0
    """How long the engine may take for a stretch, beside half of its length."""
    most_upload_mib: int = 25
    most_audio_s: float = 1800.0
    """Longest recording; 64 KB of memory a second while it is transcribed."""
    unready: Callable[[], str | None] = lambda: None
    """One sentence while the engines are loading, else None."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """What one client wants."""

    file: BinaryIO
    format: Format
    stream: bool
    words: bool
    language: str | None
    prompt: str | None
    task: Task


def transcriptions_router(options: TranscriptionOptions) -> APIRouter:
    """Wants the handlers of `rest_errors`, as all of this API."""
    router = APIRouter()
    slots = asyncio.Semaphore(DECODED_AT_ONCE)

    @router.post(TRANSCRIPTIONS)
    async def transcriptions(request: Request) -> Response:
        refusal = options.admit(request, "speech")
        return refusal or Served(options.places, partial(_serve, options, slots, "transcribe"))

    @router.post(TRANSLATIONS)
    async def translations(request: Request) -> Response:
        refusal = options.admit(request, "speech")
        return refusal or Served(options.places, partial(_serve, options, slots, "translate"))

    return router


async def _serve(
    options: TranscriptionOptions,
    slots: asyncio.Semaphore,
    task: Task,
    request: Request,
    send: Send,
) -> None:
    mib = options.most_upload_mib
    upload = limited(request, most_bytes=mib * 2**20 + BYTES_BESIDE, most=f"{mib} MiB")
    form = await arriving(
        upload.form(max_files=1, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES)
    )
    try:
        wish = _parse(form, options, task)
        await attended(request.receive, _answer(options, slots, wish, send))
    finally:
        await form.close()


async def _answer(
    options: TranscriptionOptions, slots: asyncio.Semaphore, wish: _Wish, send: Send
) -> None:
    vad, asr = options.vad(), options.asr()
    need_ready(options.unready(), vad, asr)
    how: dict[str, Any] = {"language": wish.language, "prompt": wish.prompt}
    if wish.task == "translate":
        if not getattr(asr, "translates", False):
            raise ClientError(
                f"The speech recogniser {asr.name} cannot translate; choose whisper with "
                f"IVAS_ASR__ENGINE, or ask for a transcript at {TRANSCRIPTIONS}.",
                code="unsupported_task",
            )
        how["translate"] = True

    def prepare(wanted: Callable[[], bool]) -> tuple[Samples, list[Stretch]]:
        samples = decode(wish.file, most_s=options.most_audio_s, wanted=wanted)
        return samples, find_speech(samples, vad, threshold=options.threshold, wanted=wanted)

    recording, speech = await off_loop(slots, prepare)
    said = transcribe(recording, speech, asr, timeout_s=options.timeout_s, how=how)
    if wish.stream:
        await stream_to(send, _events(said), media_type=EVENTS, what="a transcript")
        return
    async with aclosing(said):
        segments = [_segment(one) async for one in said]
    answer = _formatted(wish, segments, len(recording) / SAMPLE_RATE_HZ)
    start = {"type": "http.response.start", "status": 200, "headers": answer.raw_headers}
    await send(start)
    await send({"type": "http.response.body", "body": answer.body})


def _segment(said: Said) -> Segment:
    stretch, transcript = said.stretch, said.transcript
    return Segment(
        start_s=stretch.start_sample / SAMPLE_RATE_HZ,
        end_s=stretch.end_sample / SAMPLE_RATE_HZ,
        # Half a surrogate pair cannot be sent to anybody.
        text=transcript.text.strip().encode(errors="replace").decode(),
        language=transcript.language,
    )


def _formatted(wish: _Wish, segments: list[Segment], duration_s: float) -> Response:
    match wish.format:
        case "json":
            return JSONResponse({"text": plain(segments), "usage": usage(duration_s)})
        case "text":
            return PlainTextResponse(plain(segments) + "\n")
        case "srt":
            return PlainTextResponse(srt(segments))
        case "vtt":
            return PlainTextResponse(vtt(segments))
        case "verbose_json":
            return JSONResponse(
                verbose(
                    segments,
                    task=wish.task,
                    duration_s=duration_s,
                    language="en" if wish.task == "translate" else wish.language,
                    words=wish.words,
                )
            )


async def _events(said: AsyncGenerator[Said, None]) -> AsyncGenerator[bytes, None]:
    """The deltas joined are the text. Its `usage` would have to count tokens: left out."""
    text = ""
    async with aclosing(said):
        async for one in said:
            delta = _segment(one).text
            if text:
                delta = f" {delta}"
            text += delta
            yield event({"type": "transcript.text.delta", "delta": delta})
    yield event({"type": "transcript.text.done", "text": text})


# --- what is asked for -------------------------------------------------------------


def _parse(form: FormData, options: TranscriptionOptions, task: Task) -> _Wish:
    """Names of lists may end with `[]` or not. What no engine here can use is not looked at:
    `model`, `temperature` beyond its range, `include`, `chunking_strategy`, `keywords`.

    Raises ClientError.
    """
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise ClientError(
            "The form has no file in its field 'file'; send the recording there, as "
            "multipart/form-data.",
            code="missing_required_parameter",
            param="file",
        )
    format_ = _text(form, "response_format") or "json"
    if format_ == "diarized_json":
        raise _wrong(
            "response_format",
            f"one of {', '.join(FORMATS)}: nobody here can tell the speakers apart",
        )
    if format_ not in FORMATS:
        raise _wrong("response_format", f"one of {', '.join(FORMATS)}")
    stream = (_text(form, "stream") or "false").lower()
    if stream not in ("true", "false", "1", "0"):
        raise _wrong("stream", "true or false")
    streams = stream in ("true", "1")
    if streams and format_ not in ("json", "text"):
        raise ClientError(
            f"'{format_}' cannot be streamed; ask for json or text, or leave 'stream' out.",
            code="invalid_value",
            param="stream",
        )
    details = _texts(form, "timestamp_granularities")
    if not {"word", "segment"}.issuperset(details):
        raise _wrong("timestamp_granularities", "word, segment or both")
    if details and format_ != "verbose_json":
        raise ClientError(
            "'timestamp_granularities' needs the response_format verbose_json.",
            code="invalid_value",
            param="timestamp_granularities",
        )
    temperature = _text(form, "temperature")
    if temperature is not None and not _within(temperature, 0, 1):
        raise _wrong("temperature", "a number from 0 to 1")
    return _Wish(
        file=file.file,
        format=format_,
        stream=streams,
        words="word" in details,
        language=_language(form, options.language),
        prompt=_text(form, "prompt"),
        task=task,
    )


def _language(form: FormData, default: str | None) -> str | None:
    """A single one of `languages` counts as `language`; of several the engine finds out."""
    named = _text(form, "language")
    if named is None:
        several = _texts(form, "languages")
        if len(several) > 1:
            return None
        named = several[0] if several else None
    if named is None or named == "auto":
        return default
    if len(named) > 35 or not _LANGUAGE.fullmatch(named):  # BCP 47's own limit: RFC 5646, 4.4.1
        raise _wrong("language", "a language code such as en")
    return named


def _text(form: FormData, name: str) -> str | None:
    """The field, None where it is absent or blank. Raises ClientError for a file."""
    texts = _texts(form, name)
    return texts[-1] if texts else None


def _texts(form: FormData, name: str) -> list[str]:
    found = []
    for value in form.getlist(name) + form.getlist(f"{name}[]"):
        if not isinstance(value, str):
            raise _wrong(name, "text, not a file")
        if value := value.strip():
            found.append(value)
    return found


def _within(text: str, low: float, high: float) -> bool:
    try:
        return low <= float(text) <= high
    except ValueError:
        return False


def _wrong(param: str, wanted: str) -> ClientError:
    return ClientError(f"'{param}' has to be {wanted}.", code="invalid_value", param=param)
