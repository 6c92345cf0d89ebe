"""POST /v1/audio/speech: a text is spoken, and sent while it is spoken.

The text is cut into clauses as a reply is, so the first sound waits for the first
clause only. The engine works ahead of the client's network, and is free for others
as soon as it has spoken the last clause, however slowly the client reads.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, cast

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.types import Send

from ivas.audio.encode import FORMATS, MEDIA_TYPES, RATE_HZ, AudioFormat, Encoder
from ivas.conversation.sentences import ClauseSplitter
from ivas.engines import TTS
from ivas.engines.voices import choose
from ivas.errors import ClientError, EngineError
from ivas.reply import ReplyLimits, sound_of
from ivas.text.spoken import speakable

from .limits import Places
from .rest_requests import Admit, Served, arriving, attended, limited, need_ready
from .rest_streaming import EVENTS, event, stream_to

PATH = "/v1/audio/speech"
BODY_BYTES_A_CHARACTER = 12
"""Of JSON: what is not in the Basic Multilingual Plane may be escaped as a pair of \\uXXXX."""
BODY_BYTES_BESIDE = 64 * 1024
"""For all fields but the text; `instructions` may be long."""
SPLIT_AT_ONCE = 512
"""Characters."""
ENCODED_AT_ONCE = RATE_HZ // 4 * 2
"""Bytes, 250 ms: an engine that gives out whole sentences waits for 4 ms of encoding."""
MOST_AHEAD = 1024
"""Pieces of sound that may wait for the client: 50 s of espeak's, 4 minutes of others'."""
NOTHING_TO_SAY = bytes(RATE_HZ // 10 * 2)
"""100 ms of silence for a text that is all emoji or dashes: players dislike empty files."""
CHARACTERS_A_TOKEN = 4
AUDIO_TOKENS_A_S = 20
"""Both are what OpenAI says of its own models, as a rule of thumb. Engines here count no
tokens, but clients insist on a `usage` with the SSE form: it holds these estimates."""

StreamFormat = Literal["audio", "sse"]


@dataclass(frozen=True, slots=True)
class SpeechOptions:
    """What the composition root decides for every request."""

    tts: Callable[[], TTS]
    """The engine that serves now; asked anew for every request."""
    admit: Admit
    places: Places
    voice: str = ""
    """Who speaks where the client names nobody; "" is the engine's first voice."""
    language: str | None = None
    """BCP 47; None: that of the voice."""
    speed: float = 1.0
    longest_input: int = 4096
    """Characters, as in the OpenAI API."""
    limits: ReplyLimits = field(default_factory=ReplyLimits)
    """How long the engine may keep a client waiting,"""
    queue_s: float = 60.0
    """but for its turn this long: conversations go before it."""
    unready: Callable[[], str | None] = lambda: None
    """One sentence while the engines are loading, else None."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """What one client wants."""

    text: str
    voice: str
    format: AudioFormat
    stream_format: StreamFormat
    speed: float
    language: str | None


def speech_router(options: SpeechOptions) -> APIRouter:
    """Wants the handlers of `rest_errors`, as all of this API."""
    router = APIRouter()

    @router.post(PATH)
    async def speech(request: Request) -> Response:
        refusal = options.admit(request, "speech")
        return refusal or Served(options.places, partial(_serve, options))

    return router


async def _serve(options: SpeechOptions, request: Request, send: Send) -> None:
    most = BODY_BYTES_BESIDE + BODY_BYTES_A_CHARACTER * options.longest_input
    body = await arriving(limited(request, most_bytes=most, most=f"{most // 1024} KiB").body())
    wish = _parse(body, options)
    tts = options.tts()
    need_ready(options.unready(), tts)
    speaking = _Speaking(tts, wish, replace(options.limits, queue_s=options.queue_s))
    await attended(request.receive, speaking.send_to(send))


# --- what is asked for -------------------------------------------------------------


def _parse(body: bytes, options: SpeechOptions) -> _Wish:
    """`model` and `instructions` may be anything: there is one engine, and it has no moods.

    Beyond the OpenAI API: `voice` may be missing, and `language` (BCP 47) may be given.
    Raises ClientError.
    """
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ClientError(
            f"The body is not JSON ({error}); send a JSON object.", code="invalid_json"
        ) from None
    if not isinstance(fields, dict):
        raise ClientError("The body is JSON but not an object; send one.", code="invalid_value")
    text = fields.get("input")
    if not isinstance(text, str) or not text.strip():
        raise ClientError(
            "'input' holds no text; put there what is to be spoken.",
            code="missing_required_parameter" if text is None else "invalid_value",
            param="input",
        )
    if len(text) > options.longest_input:
        raise ClientError(
            f"'input' has {len(text)} characters, and at most {options.longest_input} are spoken "
            "at once; send it in parts.",
            code="string_above_max_length",
            param="input",
        )
    voice = fields.get("voice")
    if isinstance(voice, dict):
        voice = voice.get("id")
    if voice is not None and not isinstance(voice, str):
        raise _wrong("voice", "the name of a voice, or an object with its id")
    language = fields.get("language")
    if language is not None and not isinstance(language, str):
        raise _wrong("language", "a language code such as en")
    speed = fields.get("speed")
    if speed is None:
        speed = options.speed
    elif isinstance(speed, bool) or not isinstance(speed, int | float) or not 0.25 <= speed <= 4:
        raise _wrong("speed", "a number from 0.25 to 4")
    return _Wish(
        text=text,
        voice=voice or options.voice,
        format=cast(AudioFormat, _one_of(fields, "response_format", FORMATS)),
        stream_format=cast(StreamFormat, _one_of(fields, "stream_format", ("audio", "sse"))),
        speed=float(speed),
        language=language or options.language,
    )


def _one_of(fields: dict[str, Any], name: str, words: tuple[str, ...]) -> str:
    """The first of `words` where nothing is given."""
    given = fields.get(name)
    if given is None:
        return words[0]
    if given not in words:
        raise _wrong(name, f"one of {', '.join(words)}")
    return cast(str, given)


def _wrong(param: str, wanted: str) -> ClientError:
    return ClientError(f"'{param}' has to be {wanted}.", code="invalid_value", param=param)


# --- its sound ---------------------------------------------------------------------


class _Speaking:
    """One text being spoken: a task makes the sound, another sends it."""

    def __init__(self, tts: TTS, wish: _Wish, limits: ReplyLimits) -> None:
        self._tts = tts
        self._wish = wish
        self._limits = limits
        self._ready: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(MOST_AHEAD)
        self._samples = 0

    async def send_to(self, send: Send) -> None:
        """The whole answer. Raises what went wrong, if that was before the first byte."""
        making = asyncio.create_task(self._make())
        try:
            media_type = MEDIA_TYPES[self._wish.format]
            await stream_to(
                send,
                self._answer(),
                media_type=EVENTS if self._wish.stream_format == "sse" else media_type,
                what="speech",
            )
        finally:
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)

    async def _make(self) -> None:
        # The encoder is made while the engine thinks: it takes milliseconds, at first 200.
        opening = asyncio.create_task(asyncio.to_thread(Encoder, self._wish.format))
        end: Exception | None = None
        try:
            async with aclosing(self._sound()) as sound:
                async for pcm in sound:
                    self._samples += len(pcm) // 2
                    encoder = await opening
                    for at in range(0, len(pcm), ENCODED_AT_ONCE):
                        piece = pcm[at : at + ENCODED_AT_ONCE]
                        await self._ready.put(await asyncio.to_thread(encoder.push, piece))
            encoder = await opening
            await self._ready.put(await asyncio.to_thread(encoder.finish))
        except Exception as error:
            end = error
        finally:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        await self._ready.put(end)

    async def _sound(self) -> AsyncGenerator[bytes, None]:
        """PCM16 at `RATE_HZ`."""
        speaks = False
        for clause in _clauses(self._wish.text):
            if text := speakable(clause):
                speaks = True
                async with aclosing(self._clause(text)) as sound:
                    async for pcm in sound:
                        if pcm:
                            yield pcm
        if not speaks:
            yield NOTHING_TO_SAY
        elif not self._samples:
            raise EngineError(
                f"The voice {self._tts.name} made no sound of this text; try another voice.",
                code="tts_silent",
            )

    def _clause(self, text: str) -> AsyncGenerator[bytes, None]:
        wish, tts = self._wish, self._tts
        stream = tts.stream(
            text,
            voice=choose(wish.voice, tts.voices, language=wish.language),
            language=wish.language,
            speed=wish.speed,
            priority="later",  # who talks with the assistant hears every pause, a file has none
        )
        return sound_of(stream, self._limits)

    async def _answer(self) -> AsyncGenerator[bytes, None]:
        """What is ready, in order. Raises what went wrong in making it."""
        sse = self._wish.stream_format == "sse"
        while (piece := await self._ready.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            if piece:  # an encoder may have kept everything for the time being
                yield _delta(piece) if sse else piece
        if sse:
            yield self._done()

    def _done(self) -> bytes:
        read = -(-len(self._wish.text) // CHARACTERS_A_TOKEN)
        spoken = -(-self._samples * AUDIO_TOKENS_A_S // RATE_HZ)
        usage = {"input_tokens": read, "output_tokens": spoken, "total_tokens": read + spoken}
        return event({"type": "speech.audio.done", "usage": usage})


def _delta(piece: bytes) -> bytes:
    return event({"type": "speech.audio.delta", "audio": b64encode(piece).decode()})


def _clauses(text: str) -> Iterator[str]:
    """One after the other: a long text at once would hold up everybody for 10 ms."""
    splitter = ClauseSplitter()
    for at in range(0, len(text), SPLIT_AT_ONCE):
        yield from splitter.push(text[at : at + SPLIT_AT_ONCE])
    yield from splitter.finish()
