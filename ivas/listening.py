"""The ears of one session: microphone audio in, VAD frames and transcripts out.

Audio is taken in slices of at most one frame, so that a transcript asked for at a
frame covers the audio up to it and nothing of a later one, however large a piece
the client sent. VAD runs inline: at 0.1 ms a frame it costs less than the hop to a
thread. Overload is the sender's to feel: nothing is dropped here, the session
takes no more from the socket than it has worked off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from .audio.framing import Framer
from .audio.pcm import Pcm16Decoder
from .audio.resample import Downsampler24to16
from .conversation.captions import Captions
from .conversation.events import AudioFrame, Event, Failure, Transcribed, TranscriptionFailed
from .engines import ASR, SAMPLE_RATE_HZ, VAD, Samples, SpeechDetector, Transcript, Utterance
from .errors import EngineError

log = logging.getLogger(__name__)

SLICE_BYTES = 768 * 2
"""One frame of 512 samples at 16 kHz is 768 samples at 24 kHz."""
PARTIAL_EVERY_SAMPLES = SAMPLE_RATE_HZ * 2 // 5
"""A partial transcript for every 400 ms of audio."""
CATCH_UP = 0.5
"""Seconds granted for each second of audio sent ahead of time; pocketsphinx needs 0.14."""
DEAF_EVERY_SAMPLES = SAMPLE_RATE_HZ * 10
"""A detector that fails may fail at every frame: the client is told every 10 s."""


@dataclass(slots=True)
class _Open:
    """An utterance that is being listened to."""

    utterance: Utterance
    opened_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    samples: int = 0
    partial_at: int = PARTIAL_EVERY_SAMPLES
    captions: Captions = field(default_factory=Captions)
    task: asyncio.Task[None] | None = None  # the newest question put to the ASR

    @property
    def catching_up_s(self) -> float:
        """What the ASR is granted for audio that came faster than it was spoken."""
        spoken_s = asyncio.get_running_loop().time() - self.opened_s
        return max(0.0, self.samples / SAMPLE_RATE_HZ - spoken_s) * CATCH_UP

    def push(self, samples: Samples) -> None:
        self.samples += len(samples)
        try:
            self.utterance.push(samples)
        except Exception as error:  # no engine should; a session must not fall with it
            self.close()
            self.utterance = _Broken(_failure(error))

    def close(self) -> None:
        try:
            self.utterance.close()
        except Exception:
            log.exception("the speech recogniser could not close an utterance")


class Ears:
    """See the module. `spawn` starts a task that lives no longer than the session."""

    def __init__(
        self,
        *,
        vad: VAD,
        post: Callable[[Event], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        on_caption: Callable[[int, str], None],
        on_deaf: Callable[[Failure], None],
        timeout_s: float,
        preroll_ms: int,
    ) -> None:
        self._vad = vad
        self._detector: SpeechDetector | None = None  # opened by the first frame
        self._tell_deaf_at = 0
        self._decoder = Pcm16Decoder()
        self._downsampler = Downsampler24to16()
        self._framer = Framer(vad.frame_samples, keep_ms=preroll_ms)
        self._post = post
        self._spawn = spawn
        self._on_caption = on_caption
        self._on_deaf = on_deaf
        self._timeout_s = timeout_s
        self._open: dict[int, _Open] = {}
        self.captions = False
        """Whether anybody wants partial transcripts."""

    @property
    def position(self) -> int:
        """Samples heard so far, at 16 kHz."""
        return self._framer.received

    def hear(self, pcm: bytes, *, detect: bool) -> Iterator[AudioFrame]:
        """Take 24 kHz PCM16; yields each frame as it is complete.

        `detect` False spares the VAD (push-to-talk).
        """
        for at in range(0, len(pcm), SLICE_BYTES):
            samples = self._downsampler.push(self._decoder.feed(pcm[at : at + SLICE_BYTES]))
            for number, heard in self._open.items():
                heard.push(samples)
                if self.captions:
                    self._ask_partial(number, heard)
            for frame, end_sample in self._framer.push(samples):
                yield AudioFrame(self._probability(frame) if detect else 0.0, end_sample)

    def listen(self, number: int, asr: ASR, start_sample: int, **how: str | None) -> None:
        """Open utterance `number` with the audio from `start_sample` on."""
        try:
            utterance = asr.open(**how)
        except Exception as error:
            utterance = _Broken(_failure(error))
        heard = self._open[number] = _Open(utterance)
        heard.push(self._framer.since(start_sample))

    def transcribe(self, number: int, request: int) -> None:
        """Ask for the words so far; the answer is posted."""
        heard = self._open.get(number)
        if heard is None:
            return
        if heard.task is not None:
            heard.task.cancel()  # a partial nobody needs any more
        heard.task = self._spawn(self._transcribe(number, request, heard))

    def close(self, number: int) -> float:
        """Forget utterance `number`; returns how many seconds of audio it had."""
        heard = self._open.pop(number, None)
        if heard is None:
            return 0.0
        if heard.task is not None:
            heard.task.cancel()
        heard.close()
        return heard.samples / SAMPLE_RATE_HZ

    def close_all(self) -> None:
        """The session is over: hear no more."""
        for number in list(self._open):
            self.close(number)
        # A quarter of a megabyte that would else wait for the garbage collector: with
        # many short sessions that made half of the server's memory.
        del self._framer

    def _probability(self, frame: Samples) -> float:
        try:
            if self._detector is None:
                self._detector = self._vad.open()
            probability = self._detector.probability(frame)
            if not 0.0 <= probability <= 1.0:  # NaN would pass for speech further on
                raise ValueError(f"{probability} is no probability")
        except Exception:
            self._detector = None
            if self.position >= self._tell_deaf_at:
                self._tell_deaf_at = self.position + DEAF_EVERY_SAMPLES
                log.exception("the voice activity detector failed")
                self._on_deaf(_DEAF)
            return 0.0
        return probability

    def _ask_partial(self, number: int, heard: _Open) -> None:
        busy = heard.task is not None and not heard.task.done()
        if heard.samples >= heard.partial_at and not busy:
            heard.partial_at = heard.samples + PARTIAL_EVERY_SAMPLES
            heard.task = self._spawn(self._caption(number, heard))

    async def _caption(self, number: int, heard: _Open) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                text = _plain(await heard.utterance.transcript(urgent=False))
        except Exception as error:
            # Only a caption is missing; the final transcript will say what is wrong.
            log.debug("no partial transcript: %s", error)
            return
        if delta := heard.captions.confirm(text):
            self._on_caption(number, delta)

    async def _transcribe(self, number: int, request: int, heard: _Open) -> None:
        try:
            async with asyncio.timeout(self._timeout_s + heard.catching_up_s):
                text = _plain(await heard.utterance.transcript())
        except Exception as error:
            self._post(TranscriptionFailed(number, request, _failure(error)))
        else:
            self._post(Transcribed(number, request, text))


class _Broken:
    """Stands for an utterance the ASR would not open."""

    def __init__(self, failure: Failure) -> None:
        self._failure = failure

    def push(self, samples: object) -> None:
        pass

    async def transcript(self, *, urgent: bool = True) -> Any:
        raise EngineError(self._failure.message, code=self._failure.code)

    def close(self) -> None:
        pass


_DEAF = Failure(
    "vad_failed",
    "The voice activity detector failed and was restarted; if you are not heard, say it again.",
)


def _plain(transcript: Transcript) -> str:
    """Its text, fit for the wire: half a surrogate pair cannot be sent."""
    return transcript.text.encode(errors="replace").decode()


def _failure(error: Exception) -> Failure:
    if isinstance(error, EngineError):
        return Failure(error.code, str(error))
    if isinstance(error, TimeoutError):
        return Failure(
            "asr_timeout", "The speech recogniser did not answer in time; please say it again."
        )
    log.exception("the speech recogniser failed unexpectedly", exc_info=error)
    return Failure(
        "asr_failed",
        "The speech recogniser failed unexpectedly; please say it again "
        "(the server's log has more).",
    )
