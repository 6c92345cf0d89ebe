"""Speech to text with Whisper (faster-whisper): a hundred languages, on the CPU or on CUDA.

One model, shared by every session; it hears one window of audio at a time. Who waits
for a reply goes first: a final transcript waits for at most one half of a partial
(its encoding or its decoding), partials take turns, and a partial nobody needs any
more is dropped before it starts.

An utterance of up to 30 s is decoded whole at every question. In a longer one what lies
30 s back is decoded once, cut at a pause, and stands.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from ivas.engines import SAMPLE_RATE_HZ, Samples, Status, Transcript
from ivas.engines.asr.whisper_audio import Recording, is_silent, quietest_cut, voiced_s
from ivas.engines.asr.whisper_guard import Decoding, doubtful, made_up
from ivas.engines.asr.whisper_model import (
    MODEL_FILES,
    WINDOW_S,
    Device,
    Encoded,
    Task,
    WhisperModel,
    load,
)
from ivas.engines.asr.whisper_queue import Dropped, WhisperQueue
from ivas.engines.requirements import need_files, need_package
from ivas.errors import EngineError, EngineUnavailable

CONFIDENT = 0.5
"""From this probability on a detected language is told: faster-whisper's own threshold."""
WINDOW_SAMPLES = WINDOW_S * SAMPLE_RATE_HZ
CUT_SAMPLES = 6 * SAMPLE_RATE_HZ
"""A long utterance is cut at the quietest place of the last 6 s of a window."""
MOST_SAMPLES = 600 * SAMPLE_RATE_HZ
"""The longest utterance, 10 minutes (38 MB); what comes after it is not heard."""
STUCK_S = 60
"""No window takes so long on a machine that could hold a conversation."""
RETRY_S = 60
"""Files that did not load are not loaded again before, unless they change."""

_NOT_STARTED = "Whisper is not loaded; start() loads it."
_LOADING = "Whisper is being loaded; wait a moment."
_OTHER_CODES = {"cmn": "zh", "fil": "tl", "in": "id", "iw": "he", "jv": "jw", "nb": "no"}
"""Codes in use for what Whisper calls otherwise."""


class WhisperASR:
    """The shared model and its queue."""

    name = "whisper"

    def __init__(
        self,
        *,
        model_dir: Path,
        device: Device = "cpu",
        compute_type: str | None = None,
        threads: int = 0,
        language: str | None = None,
        whole_window: bool = False,
    ) -> None:
        """`model_dir` holds a Whisper converted for CTranslate2; its name is the model's id.

        `compute_type`: int8, int8_float16, float16 or float32; None is int8 on the CPU and
        float16 on CUDA. `threads`: of the CPU, 0 is one for each physical core but one.
        `language`: what is spoken if an utterance does not say; None detects it.
        `whole_window` never cuts the window of 30 s down to the audio: several times slower
        on a CPU.
        """
        self._directory = model_dir
        self._device: Device = device
        self._compute_type = compute_type
        self._threads = threads
        self._language = language
        self._whole_window = whole_window
        self._starting = asyncio.Lock()
        self._failed: tuple[object, float, str, str] | None = None  # files, until, why, code
        self._reason = _NOT_STARTED
        self._model: WhisperModel | None = None
        self._queue = WhisperQueue()

    def status(self) -> Status:
        if self._model is None:
            return Status(ready=False, reason=self._reason)
        if self._queue.busy_s > STUCK_S:
            return Status(
                ready=False,
                reason=f"Whisper has been at one utterance for more than {STUCK_S} s; "
                "restart the server, and if it stays so choose a smaller model.",
            )
        return Status(ready=True)

    async def start(self) -> None:
        async with self._starting:
            if self._model is not None:
                if not (status := self.status()).ready:
                    raise EngineUnavailable(status.reason)
                return
            try:
                need_package("faster_whisper", extra="whisper")
                fix = f"run: ivas models download {self._directory.name}"
                need_files(self._directory, MODEL_FILES, fix=fix)
                self._reason = _LOADING
                self._model = await self._load()
            except EngineUnavailable as error:
                self._queue.close()
                self._reason = str(error)
                raise

    @property
    def translates(self) -> bool:
        """Whether `open(translate=True)` works: not with a model that knows only English."""
        return self._model is None or self._model.languages != {"en"}

    def open(
        self,
        *,
        language: str | None = None,
        prompt: str | None = None,
        translate: bool = False,
    ) -> WhisperUtterance:
        """Never raises: a `language` it does not know is what `transcript` raises.

        `prompt`: names and words to expect, or what was said before; its end counts.
        `translate`: the text comes in English, whatever is spoken.
        """
        return WhisperUtterance(
            self,
            self._queue,
            language or self._language,
            prompt,
            whole_window=self._whole_window,
            task="translate" if translate else "transcribe",
        )

    def model(self) -> WhisperModel:
        """Raises EngineUnavailable if it is not loaded."""
        if self._model is None:
            raise EngineUnavailable(self._reason)
        return self._model

    def lose(self, reason: str) -> None:
        """The device is gone: not ready until `start` has loaded the model again."""
        self._model = None
        self._reason = reason

    async def aclose(self) -> None:
        """A call that still runs keeps the model until it ends."""
        self._queue.close()
        self._model = None
        self._reason = _NOT_STARTED

    async def _load(self) -> WhisperModel:
        files = tuple((self._directory / name).stat().st_mtime_ns for name in MODEL_FILES)
        if self._failed is not None:
            failed_files, until, why, code = self._failed
            if failed_files == files and time.monotonic() < until:
                raise EngineUnavailable(why, code=code)
        try:
            return await self._queue.run(
                lambda: load(
                    self._directory,
                    device=self._device,
                    compute_type=self._compute_type,
                    threads=self._threads,
                ),
                urgent=False,
            )
        except EngineUnavailable as error:
            self._failed = (files, time.monotonic() + RETRY_S, str(error), error.code)
            raise


@dataclass(slots=True)
class _Question:
    """One call of `transcript`."""

    urgent: bool
    given_up: bool = False
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, slots=True)
class _Spoken:
    """The language of an utterance, in Whisper's code, and how certain that is, 0..1."""

    language: str
    probability: float


class WhisperUtterance:
    """The audio of one stretch of speech, and what of it is decoded for good."""

    def __init__(
        self,
        engine: WhisperASR,
        queue: WhisperQueue,
        language: str | None,
        prompt: str | None,
        *,
        whole_window: bool,
        task: Task = "transcribe",
    ) -> None:
        self._engine = engine
        self._queue = queue
        self._language = language
        self._prompt = prompt
        self._whole_window = whole_window
        self._task: Task = task
        self._recording = Recording()
        self._frozen_text = ""  # of the recording up to its `begin`
        self._frozen_spoken: _Spoken | None = None
        self._revision = 0
        self._newest: _Question | None = None
        self._closed = False

    def push(self, samples: Samples) -> None:
        if not self._closed and self._recording.end < MOST_SAMPLES:
            self._recording.push(samples)

    async def transcript(self, *, urgent: bool = True) -> Transcript:
        """See `Utterance`. A partial for which a newer question is asked before its turn
        comes is dropped: EngineError with the code `superseded`.
        """
        question = self._newest = _Question(urgent)
        end = self._recording.end
        try:
            if self._closed:
                raise Dropped
            text, spoken = await self._answer(question, end)
            if self._closed:
                raise Dropped
        except EngineError as error:
            if error.code == "device_lost":
                self._engine.lose(str(error))
            if self._closed:
                raise EngineError(
                    "This utterance is closed; open a new one to hear more."
                ) from None
            raise
        finally:
            question.given_up = True
        self._revision += 1
        certain = spoken is not None and spoken.probability >= CONFIDENT
        language = _bcp47(spoken.language) if spoken and certain else None
        return Transcript(text.strip(), self._revision, end, language)

    def close(self) -> None:
        self._closed = True
        self._recording = Recording()

    async def _answer(self, question: _Question, end: int) -> tuple[str, _Spoken | None]:
        """What is said up to sample `end`."""
        model = self._engine.model()
        recording, known = self._recording, None
        if self._language is not None:
            known = _Spoken(_whispers_code(self._language, model), 1.0)
        while end - (begin := recording.begin) > WINDOW_SAMPLES:
            window = recording.read(begin, begin + WINDOW_SAMPLES)
            cut = quietest_cut(window, WINDOW_SAMPLES - CUT_SAMPLES)
            spoken = known or self._frozen_spoken
            said, spoken = await self._hear(question, model, window[:cut], spoken)
            if recording.begin == begin:  # no other question of this utterance was faster
                recording.forget(begin + cut)
                self._frozen_text += said
                self._frozen_spoken = spoken
        text, spoken = self._frozen_text, known or self._frozen_spoken
        said, spoken = await self._hear(question, model, recording.read(begin, end), spoken)
        return text + said, spoken

    async def _hear(
        self, question: _Question, model: WhisperModel, audio: Samples, spoken: _Spoken | None
    ) -> tuple[str, _Spoken | None]:
        """What is said in one window; `spoken` None finds out in which language."""
        if is_silent(audio):
            return "", spoken

        def wanted() -> bool:
            stale = not question.urgent and question is not self._newest
            return not (stale or question.given_up or self._closed)

        def encode() -> tuple[Encoded, _Spoken]:
            encoded = model.encode(audio, whole=self._whole_window)
            return encoded, spoken or _Spoken(*model.detect(encoded))

        def decode(encoded: Encoded, language: str) -> str:
            def read(encoded: Encoded) -> Decoding:
                return model.decode(
                    encoded, language=language, prompt=self._prompt, task=self._task
                )

            decoding = read(encoded)
            if question.urgent and not encoded.whole and doubtful(decoding) and wanted():
                encoded = model.encode(audio, whole=True)
                decoding = read(encoded)
            dropped = made_up(decoding, audio_s=encoded.audio_s, voiced_s=voiced_s(audio))
            return "" if dropped else decoding.text

        def both() -> tuple[str, _Spoken]:
            encoded, found = encode()
            if not wanted():
                raise Dropped
            return decode(encoded, found.language), found

        run = self._queue.run
        if question.urgent:
            return await run(both, urgent=True, wanted=wanted)
        encoded, found = await run(encode, urgent=False, wanted=wanted)
        # Between the halves goes whoever waits for a reply.
        said = await run(lambda: decode(encoded, found.language), urgent=False, wanted=wanted)
        return said, found


def _whispers_code(language: str, model: WhisperModel) -> str:
    """`en-GB` -> `en`. Raises EngineError for one this model does not know."""
    code = language.lower().replace("_", "-").split("-")[0]
    code = _OTHER_CODES.get(code, code)
    if code == "yue" and code not in model.languages:
        code = "zh"  # Cantonese has its own code since large-v3 only
    if code in model.languages:
        return code
    if model.languages == {"en"}:
        why, fix = "this Whisper model knows only English", "choose a model without .en"
    else:
        why, fix = "Whisper does not know this language", "name another one, or none to detect it"
    raise EngineError(
        f"Whisper cannot transcribe {language!r} because {why}; {fix}.",
        code="unsupported_language",
    )


def _bcp47(code: str) -> str:
    return "jv" if code == "jw" else code
