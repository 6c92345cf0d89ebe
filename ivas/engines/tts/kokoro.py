"""Text to speech with Kokoro: a natural voice on the processor of a laptop.

The model (82 million parameters, Apache-2.0) runs in onnxruntime through the package
kokoro-onnx (MIT). That package turns text into phonemes with phonemizer and espeak-ng,
which are GPL-3.0: an optional package, loaded at run time and not a part of IVAS.

Kokoro makes a piece of speech in one call, so a long text is spoken in pieces of which
the first is short. Its phonemes are made by espeak-ng for every language: that is good
for European ones and Hindi; Japanese is read only in kana, and Chinese without tones.
"""

from __future__ import annotations

import asyncio
import logging
import zipfile
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from ivas.engines import AudioChunk, Priority, Status, Voice
from ivas.engines.requirements import need_files, need_package
from ivas.engines.threads import Emit, Slots
from ivas.engines.tts import onnx
from ivas.engines.tts.pieces import pause_after_s, pieces
from ivas.engines.voices import fitting
from ivas.errors import EngineError, EngineUnavailable

RATE_HZ = 24_000
MODELS = ("kokoro-v1.0.onnx", "kokoro-v1.0.fp16.onnx", "kokoro-v1.0.int8.onnx")
"""The files of https://github.com/thewh1teagle/kokoro-onnx, the best sounding first."""
VOICES = "voices-v1.0.bin"

FIRST_CHARACTERS = 60
"""Length of the first piece when somebody waits for it: about 4 s of speech."""
MOST_CHARACTERS = 200
"""About 13 s of speech: more in one call sounds no better and is heard later."""
SLOWEST, FASTEST = 0.5, 2.0
"""The speeds kokoro-onnx accepts."""

_DEFAULT = "af_heart"
_LANGUAGES = {  # first letter of a voice: BCP 47 code, espeak-ng's code, name
    "a": ("en-US", "en-us", "American English"),
    "b": ("en-GB", "en-gb", "British English"),
    "e": ("es", "es", "Spanish"),
    "f": ("fr-FR", "fr-fr", "French"),
    "h": ("hi", "hi", "Hindi"),
    "i": ("it", "it", "Italian"),
    "p": ("pt-BR", "pt-br", "Brazilian Portuguese"),
    "j": ("ja", "ja", "Japanese"),
    "z": ("zh", "cmn", "Chinese"),
}
_NOT_STARTED = "Kokoro is not loaded; start() loads it."


class KokoroTTS:
    """The model, shared by all sessions: one piece of speech at a time, on all cores."""

    name = "kokoro"

    def __init__(self, *, model_dir: Path | Callable[[], Path], threads: int = 0) -> None:
        """`model_dir` bears the id of the model: `kokoro`, `kokoro-int8`. If that can change,
        each `start` asks for it.

        `threads` for one call, 0 = one a physical core.
        """
        self._model_dir = model_dir if callable(model_dir) else lambda: model_dir
        self._threads = threads
        self._slots = Slots(1)
        self._starting = asyncio.Lock()
        self._model: _Model | None = None
        self._reason = _NOT_STARTED
        self._broken = onnx.Broken()

    @property
    def voices(self) -> Sequence[Voice]:
        """Those of the voices file, by language. Before `start` only the default one."""
        return self._model.voices if self._model else (_voice(_DEFAULT),)

    def status(self) -> Status:
        return Status(ready=True) if self._model else Status(ready=False, reason=self._reason)

    async def start(self) -> None:
        """Load and warm up: some seconds. Fails within a millisecond when files are missing."""
        async with self._starting:
            if self._model is None:
                try:
                    self._model = await asyncio.to_thread(self._load)
                except EngineUnavailable as error:
                    self._reason = str(error)
                    raise

    async def stream(
        self,
        text: str,
        *,
        voice: str,
        language: str | None = None,
        speed: float = 1.0,
        priority: Priority = "later",
    ) -> AsyncGenerator[AudioChunk, None]:
        """Speak `text` at 24 kHz, piece by piece.

        `voice` yields to `language` when it speaks another one. `speed` beyond 0.5..2.0
        is as slow or fast as Kokoro can.
        """
        model = self._model
        if model is None:
            raise EngineUnavailable(self._reason)
        chosen = fitting(voice, model.voices, language)
        able = min(FASTEST, max(SLOWEST, speed))
        first = FIRST_CHARACTERS if priority == "first" else MOST_CHARACTERS

        def speak(emit: Emit[AudioChunk], options: Any) -> None:
            model.session.options = options
            for piece in pieces(text, first=first, most=MOST_CHARACTERS):
                samples = model.speak(piece, chosen.id, able)
                pause_s = pause_after_s(piece) / able
                if samples is not None and not all(
                    emit(chunk) for chunk in onnx.chunks_of(samples, RATE_HZ, pause_s=pause_s)
                ):
                    return

        speech = onnx.stream_speech(
            speak, rate_hz=RATE_HZ, name=self.name, slots=self._slots, priority=priority
        )
        async with aclosing(speech):
            async for chunk in speech:
                yield chunk

    async def aclose(self) -> None:
        model, self._model = self._model, None
        self._reason = _NOT_STARTED
        if model:
            model.close()

    def _load(self) -> _Model:
        need_package("kokoro_onnx", extra="kokoro")
        directory = self._model_dir()
        model = next((name for name in MODELS if (directory / name).exists()), MODELS[0])
        need_files(directory, (model, VOICES), fix=_fix(directory))
        paths = (directory / model, directory / VOICES)
        return self._broken.load(paths, lambda: _Model(*paths, self._threads))


class _Model:
    """kokoro-onnx, loaded and tried out. Used by one thread at a time."""

    def __init__(self, path: Path, voices_path: Path, threads: int) -> None:
        try:
            from kokoro_onnx import Kokoro
            from phonemizer.backend import EspeakBackend
        except (ImportError, OSError) as error:
            raise onnx.cannot_import("kokoro-onnx", error, extra="kokoro") from error
        self._fix = fix = _fix(path.parent)
        self._backend = EspeakBackend
        self._phonemizers: dict[str, Any] = {}
        self._styles: dict[str, Any] = {}
        self._voices_path = voices_path
        session = onnx.open_session(path, threads=threads, inputs=_INPUTS, fix=fix)
        try:
            zipfile.ZipFile(voices_path).close()  # numpy would leave it open if it is damaged
            self._kokoro: Any = Kokoro.from_session(session, str(voices_path))
            ids = list(self._kokoro.voices.files)
        except RuntimeError as error:  # only espeak-ng's library raises this
            raise EngineUnavailable(
                f"Kokoro cannot load espeak-ng ({onnx.reason(error)}); install it anew with: "
                "pip install --force-reinstall espeakng-loader, then start IVAS again.",
                code="package_broken",
            ) from error
        except Exception as error:
            raise onnx.cannot_load(voices_path, error, fix) from error
        self.session = onnx.SpeakingSession(session, name="Kokoro", fix=fix)
        self._kokoro.sess = self.session
        if not ids:
            self.close()
            raise EngineUnavailable(f"{voices_path} holds no voice; {fix}.", code="model_broken")
        self.voices = tuple(_voice(id_) for id_ in sorted(ids, key=_order))
        try:
            self.speak("Hello.", self.voices[0].id, 1.0)
        except Exception as error:
            self.close()
            if isinstance(error, EngineError):
                raise EngineUnavailable(str(error), code="model_broken") from error
            raise onnx.cannot_load(path, error, fix) from error

    def speak(self, piece: str, voice: str, speed: float) -> Any:
        """Samples of shape (n,) at `RATE_HZ`; None if there is nothing to say. Blocks."""
        phonemes = self._phonemes(piece, voice)
        if not any(map(str.isalpha, phonemes)):
            return None
        samples, _ = self._kokoro.create(
            phonemes, self._style(voice), speed=speed, is_phonemes=True
        )
        return samples

    def close(self) -> None:
        """Give the voices file back."""
        self._kokoro.voices.close()

    def _phonemes(self, piece: str, voice: str) -> str:
        """As kokoro-onnx makes them, but without the flags of foreign words.

        `(en)` around an English word in French would be spoken, and a phonemizer that
        is kept costs 0.2 ms a clause.
        """
        code = _LANGUAGES.get(voice[0], _LANGUAGES["a"])[1]
        phonemizer = self._phonemizers.get(code)
        if phonemizer is None:
            phonemizer = self._phonemizers[code] = self._backend(
                code,
                preserve_punctuation=True,
                with_stress=True,
                language_switch="remove-flags",
                words_mismatch="ignore",
                logger=_silent,
            )
        clean = piece.replace("\0", " ").encode(errors="replace").decode()
        vocabulary = self._kokoro.tokenizer.vocab
        return "".join(p for p in "".join(phonemizer.phonemize([clean])) if p in vocabulary)

    def _style(self, voice: str) -> Any:
        style = self._styles.get(voice)
        if style is None:
            try:
                style = self._kokoro.voices[voice]
                if style.ndim != 3 or style.shape[1:] != _STYLE or not len(style):
                    raise ValueError(f"its shape is {style.shape}")
            except Exception as error:  # zip, zlib, numpy: each has its own
                raise EngineError(
                    f"The voice {voice} of {self._voices_path} is damaged "
                    f"({onnx.reason(error)}); choose another one, or {self._fix}."
                ) from error
            self._styles[voice] = style
        return style


_INPUTS = ({"tokens", "style", "speed"}, {"input_ids", "style", "speed"})
"""Of the exports there are: older ones name the first input `tokens`."""
_STYLE = (1, 256)
"""Shape of the style for one number of tokens."""

_silent = logging.getLogger("ivas.kokoro.phonemizer")
_silent.setLevel(logging.CRITICAL)


def _fix(model_dir: Path) -> str:
    return f"run: ivas models download {model_dir.name}"


def _voice(id_: str) -> Voice:
    """`bf_emma` -> Emma, female, British English."""
    prefix, _, name = id_.partition("_")
    if len(prefix) != 2 or prefix[0] not in _LANGUAGES or not name:
        return Voice(id_, id_, "en-US")
    language, _, spoken = _LANGUAGES[prefix[0]]
    gender = {"f": ", female", "m": ", male"}.get(prefix[1], "")
    return Voice(id_, f"{name.replace('_', ' ').title()} ({spoken}{gender})", language)


def _order(id_: str) -> tuple[bool, int, str]:
    """The default voice first, then by language as in `_LANGUAGES`."""
    known = list(_LANGUAGES)
    return id_ != _DEFAULT, known.index(id_[0]) if id_[:1] in known else len(known), id_
