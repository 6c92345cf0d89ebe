"""Text to speech with espeak-ng: a robot, but it speaks at once and in 140 languages.

The library of the espeakng-loader package is loaded into this process with
ctypes: first audio after 2-4 ms. espeak-ng is GPL-3.0, so it is an optional
package that is loaded at run time and not a part of IVAS.

Its state is global to the process, so one lock covers every call. It speaks some
hundred times faster than real time: a sentence holds the lock for about 10 ms.
"""

from __future__ import annotations

import asyncio
import ctypes
import re
import threading
from collections.abc import AsyncGenerator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ivas.engines import AudioChunk, Priority, Status, Voice
from ivas.engines.threads import Emit, Slots, stream_from_thread
from ivas.errors import EngineError, EngineUnavailable

CHUNK_MS = 50
MOST_CHUNKS = 60_000 // CHUNK_MS
"""A minute of speech may wait for its listener; only a longer one keeps the lock meanwhile."""
SILENCE_PEAK = round(32768 * 10 ** (-45 / 20))
"""What stays below -45 dBFS before the first sound is not sent."""
NATURAL_WORDS_PER_MINUTE = 175
"""espeak-ng's own default rate; it accepts 80..450."""

# From espeak-ng's speak_lib.h
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_PARAMETER_RATE = 1
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)

_DEFAULT = Voice(id="en-us", name="English (America)", language="en-US")
_FIRST = ("en-us", "en-gb", "es", "es-419", "fr-fr", "de", "it", "pt-br", "pt", "hi", "bn", "vi")
"""Ids shown before the others, which follow in alphabetical order."""
_OTHER_CODES = {"zh": "cmn", "no": "nb"}
"""Codes in common use for a language espeak-ng calls otherwise."""

_MISSING = (
    "espeak cannot speak because the Python package espeakng-loader is missing; install it "
    'with: pip install "ivas[embedded]"'
)
_NOT_STARTED = "espeak is not loaded; start() loads it."


class EspeakTTS:
    """The espeak-ng library of this process."""

    name = "espeak"

    def __init__(self) -> None:
        self._library: _Library | None = None
        self._slots = Slots(1)
        self._reason = _NOT_STARTED if find_spec("espeakng_loader") else _MISSING

    @property
    def voices(self) -> Sequence[Voice]:
        """One voice a language or region. Before `start` only the default one."""
        return self._library.voices if self._library else (_DEFAULT,)

    def status(self) -> Status:
        return Status(ready=True) if self._library else Status(ready=False, reason=self._reason)

    async def start(self) -> None:
        if self._library is None:
            self._library = await asyncio.to_thread(_load)

    async def stream(
        self,
        text: str,
        *,
        voice: str,
        language: str | None = None,
        speed: float = 1.0,
        priority: Priority = "later",
    ) -> AsyncGenerator[AudioChunk, None]:
        """Speak `text` in chunks of 50 ms at 22.05 kHz.

        `voice` yields to `language` when it speaks another one. `speed` beyond
        0.46..2.57 (80..450 words a minute) is as slow or fast as espeak-ng can.
        """
        library = self._library
        if library is None:
            raise EngineUnavailable(self._reason)
        if not text.strip():
            return
        identifier = library.identifiers[choose_voice(library.voices, voice, language).id]
        words_per_minute = min(450, max(80, round(NATURAL_WORDS_PER_MINUTE * speed)))

        def speak(emit: Emit[bytes]) -> None:
            if emit(b""):  # it is this text's turn
                library.speak(text, identifier, words_per_minute, emit)

        chunks = stream_from_thread(
            speak, name=self.name, slots=self._slots, priority=priority, most_chunks=MOST_CHUNKS
        )
        try:
            async for pcm in chunks:
                yield AudioChunk(pcm, library.rate_hz)
        finally:
            await chunks.aclose()

    async def aclose(self) -> None:
        """Speak no more. The library itself (5 MB) stays in the process: it is shared."""
        self._library = None


def choose_voice(voices: Sequence[Voice], wanted: str, language: str | None) -> Voice:
    """The voice `wanted` if it speaks `language`, else the first one that does, else the default.

    `language` is a BCP 47 code; a voice of another region is better than none.
    """
    by_id = {voice.id: voice for voice in voices}
    chosen = by_id.get(wanted.lower())
    if language is None:
        return chosen or voices[0]
    code = language.lower().replace("_", "-")
    primary = _OTHER_CODES.get(code.split("-")[0], code.split("-")[0])
    if chosen is not None and _primary(chosen) == primary:
        return chosen
    if code in by_id:
        return by_id[code]
    return next((voice for voice in voices if _primary(voice) == primary), chosen or voices[0])


def _primary(voice: Voice) -> str:
    return voice.language.split("-")[0]


class _Library:
    """espeak-ng, initialised. One in a process; every call holds its lock."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise EngineUnavailable(_MISSING) from error
        try:
            self._lib: Any = ctypes.CDLL(espeakng_loader.get_library_path())
            data = Path(espeakng_loader.get_data_path())
        except (OSError, RuntimeError) as error:
            raise EngineUnavailable(
                f"espeak cannot speak because its library does not load ({error}); install it "
                "anew with: pip install --force-reinstall espeakng-loader"
            ) from error
        self._lock = threading.Lock()
        self.rate_hz: int = self._lib.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, CHUNK_MS, str(data).encode(), _INITIALIZE_DONT_EXIT
        )
        if self.rate_hz <= 0:
            raise EngineUnavailable(
                "espeak cannot speak because its voice data does not load; install it anew "
                "with: pip install --force-reinstall espeakng-loader"
            )
        self._lib.espeak_Synth.argtypes = [
            *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint),
            *(ctypes.c_uint, ctypes.POINTER(ctypes.c_uint), ctypes.c_void_p),
        ]
        self._emit: Emit[bytes] = _refuse
        self._heard = False
        self._callback = _CALLBACK(self._on_audio)  # kept: the library holds only a pointer
        self._lib.espeak_SetSynthCallback(self._callback)
        self.voices, self.identifiers = self._list_voices(data)

    def speak(self, text: str, identifier: str, words_per_minute: int, emit: Emit[bytes]) -> None:
        """Speak `text` until the end or until `emit` returns False. Blocks."""
        utf8 = text.replace("\0", " ").encode(errors="replace") + b"\0"
        with self._lock:
            self._emit, self._heard = emit, False
            failed = (
                self._lib.espeak_SetVoiceByName(identifier.encode())
                or self._lib.espeak_SetParameter(_PARAMETER_RATE, words_per_minute, 0)
                or self._lib.espeak_Synth(utf8, len(utf8), 0, 1, 0, _CHARS_UTF8, None, None)
            )
            self._emit = _refuse
        if failed:
            raise EngineError(
                f"espeak could not speak with the voice {identifier!r} (its error {failed}); "
                "choose another voice."
            )

    def _on_audio(self, samples: Any, count: int, _events: Any) -> int:
        """Called by the library with each chunk; non-zero ends the synthesis."""
        if not samples or count <= 0:
            return 0
        pcm = ctypes.string_at(samples, count * 2)
        if not self._heard:
            loud = np.abs(np.frombuffer(pcm, np.int16).astype(np.int32)) > SILENCE_PEAK
            if not loud.any():
                return 0
            self._heard = True
            pcm = pcm[2 * int(loud.argmax()) :]
        return 0 if self._emit(pcm) else 1

    def _list_voices(self, data: Path) -> tuple[tuple[Voice, ...], dict[str, str]]:
        """Every voice in the order shown, and espeak-ng's identifier of each id."""
        self._lib.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_VoiceRecord))
        records = self._lib.espeak_ListVoices(None)
        voices: dict[str, Voice] = {}
        identifiers: dict[str, str] = {}
        position = 0
        while records[position]:
            record = records[position].contents
            position += 1
            identifier = record.identifier.decode()
            # One priority byte, then the language; further languages are of no use here.
            code = ctypes.string_at(record.languages + 1).decode()
            if not _has_dictionary(data, identifier, code):
                continue
            id_ = code if code not in voices else identifier.rpartition("/")[2].lower()
            voices[id_] = Voice(id_, record.name.decode().strip(), _bcp47(code))
            identifiers[id_] = identifier
        first = [voices.pop(id_) for id_ in _FIRST if id_ in voices]
        return (*first, *(voices[id_] for id_ in sorted(voices))), identifiers


class _VoiceRecord(ctypes.Structure):
    """The beginning of espeak_VOICE (speak_lib.h)."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
    )


def _has_dictionary(data: Path, identifier: str, code: str) -> bool:
    """Whether a voice can speak: the package lists some whose dictionary it does not carry."""
    description = (data / "lang" / identifier).read_text(encoding="utf-8")
    named = re.search(r"^dictionary\s+(\S+)", description, re.MULTILINE)
    name = named[1] if named else code.split("-")[0]
    return (data / f"{name}_dict").exists()


def _bcp47(code: str) -> str:
    """`en-us` -> `en-US`, `cmn-latn-pinyin` -> `cmn-Latn-pinyin`."""
    primary, *rest = code.split("-")
    cased = {2: str.upper, 4: str.title}
    return "-".join([primary, *(cased.get(len(part), str)(part) for part in rest)])


def _refuse(_pcm: bytes) -> bool:
    return False


_loading = threading.Lock()
_loaded: _Library | None = None


def _load() -> _Library:
    """The library of this process, initialised at the first call (7 ms)."""
    global _loaded
    with _loading:
        _loaded = _loaded or _Library()
        return _loaded
