"""Text to speech with Piper: small, quick voices in some forty languages.

Each installed voice is a directory `piper-<voice id>/` with `<voice id>.onnx` and
`<voice id>.onnx.json` (the files of https://huggingface.co/rhasspy/piper-voices, 20 to
110 MB; every voice has a licence of its own). They run in onnxruntime through the
package piper-tts, which is GPL-3.0: optional, loaded at run time, not a part of IVAS.

A sentence is made in one call. Voices load at their first use; a few stay loaded. The
first text of a language makes espeak-ng read its dictionary, 20 ms with the GIL: `start`
has that behind it for the first voice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ivas.engines import AudioChunk, Priority, Status, Voice
from ivas.engines.requirements import need_files, need_package
from ivas.engines.threads import Emit, Slots
from ivas.engines.tts import onnx
from ivas.engines.tts.pieces import pieces
from ivas.engines.voices import fitting
from ivas.errors import EngineError, EngineUnavailable

PREFIX = "piper-"
"""How the directory of a voice begins."""
MOST_LOADED = 3
"""Voices that stay loaded, about 100 MB each."""
LOOK_EVERY_S = 3.0
"""While it is used, it is looked so often at most whether voices were added or removed."""
FIRST_CHARACTERS = 100
MOST_CHARACTERS = 300
"""Longest text of one call: espeak-ng keeps the GIL meanwhile, measured 1 ms for this."""
SILENCE = 10 ** (-45 / 20)
"""What stays below -45 dBFS before the first sound is not sent,"""
LEAD_MS = 20
"""but for this much."""

_DEFAULT = "en_US-kristin-medium"
"""Of the good ones one that is in the public domain."""
_NOT_STARTED = "Piper is not loaded; start() loads it."
_INPUTS = {"input", "input_lengths", "scales"}

_log = logging.getLogger(__name__)


class PiperTTS:
    """The voices installed in a directory, shared by all sessions: one sentence at a time."""

    name = "piper"

    def __init__(self, *, models_dir: Path, voice: str | None = None, threads: int = 0) -> None:
        """`voice` is listed first and loaded by `start`; None: English before others.

        `threads` for one call, 0 = one a physical core.
        """
        self._models_dir = models_dir
        self._told: set[str] = set()
        self._preferred = voice or "en_US"
        self._threads = threads
        self._slots = Slots(1)
        self._starting = asyncio.Lock()
        self._installed: Mapping[str, _Installed] = {}  # by the id of the Voice
        self._seen: object = None  # of the directory, when it was last read
        self._looked_s = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._loaded: OrderedDict[Path, Any] = OrderedDict()
        self._loading = threading.Lock()
        self._broken = onnx.Broken()
        self._reason = _NOT_STARTED

    @property
    def voices(self) -> Sequence[Voice]:
        """Every installed voice; one a speaker where a model has many."""
        self._look()
        found = tuple(each.voice for each in self._installed.values())
        return found or (Voice(_DEFAULT, "Kristin (English)", "en-US"),)

    def status(self) -> Status:
        return Status(ready=bool(self._installed), reason="" if self._installed else self._reason)

    async def start(self) -> None:
        """Find the voices and load the first. Called again, it finds what was added since."""
        async with self._starting:
            self._looked_s = time.monotonic()
            try:
                self._installed = await asyncio.to_thread(self._find)
            except EngineUnavailable as error:
                self._reason = str(error)
                raise

    def _look(self) -> None:
        """Find in the background what was added or removed since."""
        now_s = time.monotonic()
        if self._installed and now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            with suppress(RuntimeError):  # no loop runs: nobody speaks with it yet
                self._looking = asyncio.get_running_loop().create_task(self._find_changes())

    async def _find_changes(self) -> None:
        if await asyncio.to_thread(self._stamp) != self._seen:
            try:
                await self.start()
            except EngineUnavailable:
                self._installed = {}

    async def stream(
        self,
        text: str,
        *,
        voice: str,
        language: str | None = None,
        speed: float = 1.0,
        priority: Priority = "later",
    ) -> AsyncGenerator[AudioChunk, None]:
        """Speak `text` at the voice's own rate, sentence by sentence.

        `voice` yields to `language` when it speaks another one.
        """
        installed = self._installed
        if not installed:
            raise EngineUnavailable(self._reason)
        chosen = installed[fitting(voice, self.voices, language).id]
        first = FIRST_CHARACTERS if priority == "first" else MOST_CHARACTERS

        def speak(emit: Emit[AudioChunk], options: Any) -> None:
            model = self._load(chosen)
            model.session.options = options
            trimmed = False
            for piece in pieces(text, first=first, most=MOST_CHARACTERS):
                for samples in _sentences(model, piece, chosen, speed):
                    sound = samples if trimmed else _without_lead(samples, chosen.rate_hz)
                    trimmed = True
                    if not all(emit(c) for c in onnx.chunks_of(sound, chosen.rate_hz)):
                        return

        speech = onnx.stream_speech(
            speak, rate_hz=chosen.rate_hz, name=self.name, slots=self._slots, priority=priority
        )
        async with aclosing(speech):
            async for chunk in speech:
                yield chunk

    async def aclose(self) -> None:
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        self._installed = {}
        self._loaded.clear()
        self._reason = _NOT_STARTED

    def _find(self) -> Mapping[str, _Installed]:
        """The installed voices of which the first can speak. Blocks."""
        need_package("piper", extra="piper")
        self._seen = self._stamp()
        directories = sorted(self._models_dir.glob(f"{PREFIX}*/"))
        if not directories:
            raise EngineUnavailable(
                f"No Piper voice is installed in {self._models_dir}; "
                f"run: ivas models download {PREFIX}{_DEFAULT}.",
                code="model_missing",
            )
        errors: list[EngineUnavailable] = []
        found: list[_Installed] = []
        for directory in directories:
            try:
                found += _read(directory)
            except EngineUnavailable as error:
                errors.append(error)
        found.sort(key=lambda each: (not each.voice.id.startswith(self._preferred), each.voice.id))
        while found:
            try:
                self._load(found[0])
                self._tell(errors)
                return {each.voice.id: each for each in found}
            except EngineUnavailable as error:
                errors.append(error)
                found = [each for each in found if each.path != found[0].path]
        raise errors[0]

    def _stamp(self) -> object:
        """Changes when a whole voice is added or removed. Blocks."""
        with suppress(OSError):  # removed while it is looked at
            models = sorted(self._models_dir.glob(f"{PREFIX}*/*.onnx"))
            voices = [onnx.fingerprint([m, m.with_name(f"{m.name}.json")]) for m in models]
            return [voice for voice in voices if len(voice) == 2]
        return None

    def _tell(self, errors: Sequence[EngineUnavailable]) -> None:
        """Of voices that are damaged while others can speak; of each once."""
        for error in errors:
            if str(error) not in self._told:
                self._told.add(str(error))
                _log.warning("%s", error)

    def _load(self, installed: _Installed) -> Any:
        """The PiperVoice of an installed one. Raises EngineUnavailable. Blocks."""
        path = installed.path
        with self._loading:
            if path in self._loaded:
                self._loaded.move_to_end(path)
                return self._loaded[path]
            model = self._broken.load([path], lambda: _open(installed, self._threads))
            self._loaded[path] = model
            while len(self._loaded) > MOST_LOADED:
                self._loaded.popitem(last=False)
            return model


@dataclass(frozen=True, slots=True)
class _Installed:
    """A voice on disk: a model, and one of its speakers if it has many."""

    voice: Voice
    path: Path
    config: Any
    """A piper.PiperConfig."""
    speaker: int | None

    @property
    def rate_hz(self) -> int:
        return int(self.config.sample_rate)


def _fix(path: Path) -> str:
    return f"run: ivas models download {path.parent.name}"


def _read(directory: Path) -> list[_Installed]:
    """The voices of one directory. Raises EngineUnavailable."""
    from piper.config import PhonemeType, PiperConfig

    id_ = directory.name.removeprefix(PREFIX)
    path, config_path = directory / f"{id_}.onnx", directory / f"{id_}.onnx.json"
    need_files(directory, (path.name, config_path.name), fix=_fix(path))
    try:
        described = json.loads(config_path.read_text(encoding="utf-8"))
        config = PiperConfig.from_dict(described)
        if not 8000 <= config.sample_rate <= 48_000:
            raise ValueError(f"a sample rate of {config.sample_rate} Hz")
        speakers = dict(config.speaker_id_map)
        language = described.get("language", {})
        code = str(language.get("code") or id_.partition("-")[0]).replace("_", "-")
        spoken = ", ".join(
            str(language[key]) for key in ("name_english", "country_english") if language.get(key)
        )
        name = str(described.get("dataset") or id_).replace("_", " ").title()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineUnavailable(
            f"The voice description {config_path} is damaged ({onnx.reason(error)}); {_fix(path)}.",
            code="model_broken",
        ) from error
    if config.phoneme_type not in (PhonemeType.ESPEAK, PhonemeType.TEXT):
        raise EngineUnavailable(
            f"The Piper voice {id_} needs a {config.phoneme_type.value} phonemizer, which IVAS "
            "does not have; choose another voice of the language.",
            code="model_unsupported",
        )
    title = f"{name} ({spoken or code})"
    if config.num_speakers <= 1:
        return [_Installed(Voice(id_, title, code), path, config, None)]
    speakers = speakers or {str(number): number for number in range(config.num_speakers)}
    return [
        _Installed(Voice(f"{id_}#{speaker}", f"{speaker}, {title}", code), path, config, number)
        for speaker, number in sorted(speakers.items(), key=lambda item: int(item[1]))
    ]


def _open(installed: _Installed, threads: int) -> Any:
    """Load a voice and try it out."""
    try:
        from piper import PiperVoice
    except (ImportError, OSError) as error:
        raise onnx.cannot_import("piper-tts", error, extra="piper") from error
    many = {"sid"} if installed.speaker is not None else set()
    fix = _fix(installed.path)
    session = onnx.open_session(installed.path, threads=threads, inputs=(_INPUTS | many,), fix=fix)
    model = PiperVoice(
        session=onnx.SpeakingSession(session, name=f"The voice {installed.voice.id}", fix=fix),
        config=installed.config,
        download_dir=installed.path.parent,
    )
    try:
        for _ in _sentences(model, "1.", installed, 1.0):
            pass
    except EngineError as error:
        raise EngineUnavailable(str(error), code="model_broken") from error
    except Exception as error:
        raise onnx.cannot_load(installed.path, error, fix) from error
    return model


def _sentences(
    model: Any, piece: str, installed: _Installed, speed: float
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the samples, float32 of shape (n,), of each sentence of `piece`."""
    from piper import SynthesisConfig

    if not any(map(str.isalnum, piece)):
        return
    # [[...]] would be taken for phonemes.
    clean = piece.replace("\0", " ").replace("[[", "[ [").encode(errors="replace").decode()
    wish = SynthesisConfig(
        speaker_id=installed.speaker, length_scale=installed.config.length_scale / speed
    )
    for sentence in model.synthesize(clean, wish):
        yield np.atleast_1d(sentence.audio_float_array)


def _without_lead(samples: npt.NDArray[np.float32], rate_hz: int) -> npt.NDArray[np.float32]:
    """`samples` from `LEAD_MS` before the first sound."""
    loud = np.abs(samples) > SILENCE
    lead = int(loud.argmax()) - rate_hz * LEAD_MS // 1000
    return samples[max(0, lead) :]
