"""Text to speech with XTTS v2 (coqui-tts): natural, 17 languages, clones a voice from 6 s.

It needs a GPU to speak in real time (on a CPU it is 6 to 20 times slower). Its weights are
for non-commercial use only, so the operator is asked once: `licence.py`.

The model lives in a process of its own (`engines/model_process.py`): torch burns whole
cores, and one XTTS keeps the state of one request at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path

from ivas.engines import AudioChunk, Priority, Status, Voice
from ivas.engines.model_process import ModelProcess
from ivas.errors import EngineError, EngineUnavailable

from .files import need_model, stamps
from .install import need_packages
from .licence import NOT_ACCEPTED
from .text import language_code
from .voices import BEFORE_START, catalogue, choose, recordings

RATE_HZ = 24_000
WORKER = "ivas.engines.tts.xtts.worker:load"

_log = logging.getLogger(__name__)


WAIT_S = 4.0
"""How long a clause waits for a model that is being loaded again: less than a reply waits
for its first sound, so that the user is told the reason."""


class XttsTTS:
    """One XTTS model and the voices it can speak with."""

    name = "xtts"

    def __init__(
        self,
        *,
        model_dir: Path,
        device: str = "cpu",
        voices_dir: Path | None = None,
        licence_accepted: bool | Callable[[], bool] = False,
        language: str | None = None,
        threads: int = 0,
        hang_s: float = 30.0,
        worker: str = WORKER,
    ) -> None:
        """Nothing is loaded yet.

        `model_dir` holds config.json, model.pth, vocab.json and speakers_xtts.pth.
        `device` is `cpu` or `cuda` (or `cuda:1` ...). `voices_dir` holds recordings to
        clone voices from (`voices.py`). `licence_accepted`: asked by each `start`, on a
        thread, if the answer can change. `language` (None: `en`) is what a voice speaks
        when nothing else is said. `threads` of the CPU, 0: all but one. After `hang_s`
        without a token the model is started anew. `worker` is the worker's factory.
        """
        self._model_dir = model_dir
        self._device = device
        self._voices_dir = voices_dir
        self._licence_accepted = (
            licence_accepted if callable(licence_accepted) else lambda: licence_accepted
        )
        self._language = language or "en"
        self._threads = threads
        self._hang_s = hang_s
        self._worker = worker
        self._starting = asyncio.Lock()
        self._model: ModelProcess | None = None
        self._files: tuple[tuple[int, int], ...] = ()
        self._voices: tuple[Voice, ...] = (BEFORE_START,)
        self._reason = "xtts is not loaded; start() loads it."

    @property
    def voices(self) -> Sequence[Voice]:
        """The cloned voices, then the speakers of the model. Before `start` a stand-in."""
        return self._voices

    def status(self) -> Status:
        if self._model is None:
            return Status(ready=False, reason=self._reason)
        return self._model.status()

    async def start(self) -> None:
        """Load and warm up; a minute on a slow disk. Raises EngineUnavailable at once if a
        package, a file or the licence is missing."""
        async with self._starting:
            if self.status().ready:
                return
            try:
                await self._start()
            except EngineUnavailable as error:
                self._reason = str(error)
                raise

    async def _start(self) -> None:
        if not await asyncio.to_thread(self._licence_accepted):
            raise EngineUnavailable(NOT_ACCEPTED, code="licence_not_accepted")
        if self._device != "cpu" and self._device.partition(":")[0] != "cuda":
            raise EngineUnavailable(
                f"xtts cannot run on {self._device!r}; it runs on cpu or cuda, and on Apple "
                "silicon on the CPU: set TTS_USE_GPU=false."
            )
        try:
            self._language = language_code(self._language)
        except EngineError as error:
            raise EngineUnavailable(str(error), code=error.code) from None
        need_packages()
        recorded, complaints = await asyncio.to_thread(recordings, self._voices_dir)
        await asyncio.to_thread(need_model, self._model_dir, speakers=not recorded)
        files = stamps(self._model_dir)
        if self._model is None or (files != self._files and not self._model.status().ready):
            await self.aclose()
            self._files = files
            self._model = ModelProcess(
                self._worker,
                {
                    "model_dir": str(self._model_dir),
                    "device": self._device,
                    "recordings": {id_: str(path) for id_, path in recorded.items()},
                    "threads": self._threads,
                },
                name=self.name,
                wait_s=WAIT_S,
                hang_s=self._hang_s,
            )
        said = await self._model.start()
        self._voices = catalogue(recorded, said["speakers"], language=self._language)
        for complaint in complaints:
            _log.warning("%s", complaint)
        if self._device != "cpu":
            _log.info("🚀 Using NVIDIA CUDA GPU for TTS (%s)", said["device"])

    async def stream(
        self,
        text: str,
        *,
        voice: str,
        language: str | None = None,
        speed: float = 1.0,
        priority: Priority = "later",
    ) -> AsyncGenerator[AudioChunk, None]:
        """Speak `text` at 24 kHz, a first chunk after 8 tokens (0.15 s of speech).

        `language` is a code of the 17 XTTS speaks, else the voice's is taken.
        """
        model = self._model
        if model is None:
            raise EngineUnavailable(self._reason)
        spoken_by = choose(self._voices, voice)
        code = language_code(language or spoken_by.language)
        if not any(map(str.isalnum, text)):
            return
        request = {
            "text": text,
            "voice": spoken_by.id,
            "language": code,
            "speed": min(4.0, max(0.25, speed)),
        }
        heard = False
        async with aclosing(model.stream(request, priority=priority)) as said:
            async for pcm in said:
                heard = heard or bool(pcm)
                yield AudioChunk(pcm, RATE_HZ)
        if not heard:
            raise EngineError(
                "xtts said nothing for this text; say it in other words, or choose another voice."
            )

    async def aclose(self) -> None:
        """End the worker process."""
        model, self._model = self._model, None
        if model is not None:
            await model.aclose()
