"""What `ivas say` does: one text or, with --smoke, samples by every engine that is ready."""

# ruff: noqa: RUF001 - Chinese has commas of its own

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from ivas.audio.encode import FORMATS, AudioFormat, Encoder
from ivas.audio.resample import Resampler
from ivas.audio.wav import wav_bytes
from ivas.choice import Choice
from ivas.client.speaker import open_speaker
from ivas.client.wire import RATE_HZ
from ivas.composition import choose_tts
from ivas.conversation.sentences import ClauseSplitter
from ivas.engines import TTS, Engine, Priority, Voice
from ivas.engines.voices import OPENAI_VOICES, choose
from ivas.errors import EngineError, EngineTimeout, IvasError, SettingsError
from ivas.settings import Settings
from ivas.text.spoken import speakable

E = TypeVar("E", bound=Engine)

PATIENCE_S = 120.0
"""Longest wait for a piece of sound: nobody is talking to it, and a model may be slow here."""
BYTES_PER_S = RATE_HZ * 2

ENGLISH = (
    "Hello, I am the voice of this machine.",
    "It is a quarter past three, and outside it is nineteen degrees.",
    "Shall I read you the news, or would you rather have some music?",
)
SAMPLES = {
    "en": ENGLISH,
    "de": ("Hallo, ich bin die Stimme dieses Rechners.", "Es ist Viertel nach drei."),
    "es": ("Hola, soy la voz de esta máquina.", "Son las tres y cuarto."),
    "fr": ("Bonjour, je suis la voix de cette machine.", "Il est trois heures et quart."),
    "hi": ("नमस्ते, मैं इस मशीन की आवाज़ हूँ।", "सवा तीन बजे हैं।"),
    "it": ("Ciao, sono la voce di questa macchina.", "Sono le tre e un quarto."),
    "pt": ("Olá, sou a voz desta máquina.", "São três e um quarto."),
    "vi": ("Xin chào, tôi là giọng nói của chiếc máy này.", "Bây giờ là ba giờ mười lăm."),
    "zh": ("你好，我是这台机器的声音。", "现在是三点一刻。"),
}
"""By the language of the voice; others say the English ones, badly but audibly."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """One text, spoken, and how long it took."""

    engine: str
    voice: str
    device: str
    """`cpu`, `cuda`, or the address of a server."""
    load_s: float
    """From nothing to ready."""
    first_audio_s: float
    """From the text to the first sound; of several texts the median."""
    total_s: float
    """From the text to the last sound."""
    audio_s: float
    """Length of the sound."""
    pcm: bytes
    """PCM16 mono at 24 kHz."""

    @property
    def rtf(self) -> float:
        """Seconds of work for a second of sound."""
        return self.total_s / self.audio_s


@dataclass(frozen=True, slots=True)
class Silent:
    """An engine that did not speak, and the sentence why."""

    engine: str
    reason: str
    broken: bool
    """It was ready and failed at its work."""


async def started(choice: Choice[E]) -> E:
    """The best engine of a kind that starts. Raises EngineError: what the surest one said."""
    for candidate in choice.candidates[:-1]:
        try:
            await candidate.start()
        except EngineError:
            continue
        return candidate
    last = choice.candidates[-1]
    await last.start()
    return last


async def closed(choice: Choice[Any]) -> None:
    """Give back what the candidates took."""
    for candidate in choice.candidates:
        await candidate.aclose()


def device_of(name: str, settings: Settings) -> str:
    """Where an engine works, by the settled settings."""
    match name:
        case "xtts":
            return "cuda" if settings.tts.use_gpu else "cpu"
        case "openai":
            return settings.tts.url or "remote"
    return "cpu"


# --- one text --------------------------------------------------------------------


async def say(text: str, settings: Settings, out: Path | None, *, as_json: bool) -> None:
    """Speak `text` into `out`, or through the loudspeaker as it is made. Raises IvasError."""
    format_ = _format(out) if out is not None else None
    speaker = None
    if out is None:
        speaker = open_speaker()
        if speaker is None:
            raise IvasError(
                "No loudspeaker can be used here (none is there, or the package sounddevice or "
                'its PortAudio library is missing); write a file: ivas say "..." --out speech.wav'
            )
    choice = choose_tts(settings)
    clock = asyncio.get_running_loop().time
    ends_s = 0.0

    def play(pcm: bytes) -> None:
        nonlocal ends_s
        if speaker is not None:
            speaker.play(pcm)
            ends_s = max(ends_s, clock()) + len(pcm) / BYTES_PER_S

    try:
        begin = time.perf_counter()
        tts = await started(choice)
        load_s = time.perf_counter() - begin
        voice = known_voice(settings.tts.voice, tts.voices, settings.tts.language)
        spoken = await speak(tts, text, settings, voice=voice, on_sound=play)
        spoken = replace(spoken, load_s=load_s)
        if out is not None and format_ is not None:
            await asyncio.to_thread(_write, out, spoken.pcm, format_)
        await asyncio.sleep(max(0.0, ends_s - clock()))
    finally:
        if speaker is not None:
            speaker.close()
        await closed(choice)
    if as_json:
        print(json.dumps(_row(spoken) | {"file": None if out is None else str(out)}))
    else:
        where = f", in {out}" if out is not None else ""
        print(f"{spoken.audio_s:.1f} s by {spoken.engine}, voice {spoken.voice}{where}")


async def speak(
    tts: TTS,
    text: str,
    settings: Settings,
    *,
    voice: str,
    on_sound: Callable[[bytes], None] = lambda pcm: None,
) -> Spoken:
    """Speak `text` clause by clause, as a reply is spoken, and measure it. Raises EngineError."""
    splitter = ClauseSplitter()
    clauses = [*splitter.push(text), *splitter.finish()]
    sound = bytearray()
    first_s = None
    begin = time.perf_counter()
    priority: Priority = "first"
    for clause in filter(None, map(speakable, clauses)):
        stream = tts.stream(
            clause,
            voice=voice,
            language=settings.tts.language,
            speed=settings.tts.speed,
            priority=priority,
        )
        priority = "later"
        resampler: Resampler | None = None
        async with aclosing(stream):
            while True:
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        chunk = await anext(stream, None)
                except TimeoutError:
                    raise EngineTimeout(
                        f"{tts.name} made no sound for {PATIENCE_S:g} s; choose a quicker engine "
                        "with --engine, or a shorter text."
                    ) from None
                if chunk is None:
                    break
                if not chunk.pcm:  # it is this text's turn
                    continue
                if len(chunk.pcm) % 2:
                    raise EngineError(f"{tts.name} sent broken audio (half a sample).")
                resampler = resampler or Resampler(chunk.rate_hz, RATE_HZ)
                if first_s is None:
                    first_s = time.perf_counter() - begin
                pcm = resampler.push(chunk.pcm)
                sound += pcm
                on_sound(pcm)
        if resampler is not None:
            pcm = resampler.finish()
            sound += pcm
            on_sound(pcm)
    if first_s is None or not sound:
        raise EngineError(
            f"{tts.name} made no sound of this text; give it words, or another voice with --voice.",
            code="tts_silent",
        )
    return Spoken(
        engine=tts.name,
        voice=voice,
        device=device_of(tts.name, settings),
        load_s=0.0,
        first_audio_s=first_s,
        total_s=time.perf_counter() - begin,
        audio_s=len(sound) / BYTES_PER_S,
        pcm=bytes(sound),
    )


def known_voice(wanted: str | None, voices: Sequence[Voice], language: str | None) -> str:
    """The id of the voice to speak with. Raises SettingsError for a name nobody has."""
    chosen = choose(wanted or "", voices, language=language)
    if wanted is None or wanted.casefold() in OPENAI_VOICES or not voices:
        return chosen
    name = wanted.strip().casefold()
    if name not in (chosen.casefold(), chosen.casefold().partition("#")[0]):
        ids = [voice.id for voice in voices]
        raise SettingsError(
            f"There is no voice {wanted}; take one of {', '.join(ids[:12])}"
            f"{' and more' if len(ids) > 12 else ''}."
        )
    return chosen


def _format(out: Path) -> AudioFormat:
    suffix = out.suffix.lower().lstrip(".")
    name = {"ogg": "opus", "oga": "opus", "raw": "pcm"}.get(suffix, suffix)
    if name not in FORMATS:
        raise SettingsError(
            f"{out} does not end like an audio file; let it end in .{', .'.join(FORMATS)}."
        )
    return name


def _write(path: Path, pcm: bytes, format_: AudioFormat) -> None:
    if format_ == "wav":
        data = wav_bytes(pcm, RATE_HZ)  # its length is known here, so its header tells it
    else:
        encoder = Encoder(format_)
        data = encoder.push(pcm) + encoder.finish()
    try:
        path.write_bytes(data)
    except OSError as error:
        raise IvasError(
            f"The speech cannot be written to {path} ({error.strerror}); choose another place "
            "with --out."
        ) from error


# --- every engine ----------------------------------------------------------------


async def smoke(
    settings_of: Callable[[str], Settings],
    names: Sequence[str],
    folder: Path | None,
    *,
    as_json: bool,
) -> bool:
    """Let each engine that is ready speak, and print how it did; False if one is broken or none
    spoke. `settings_of` gives the settings with that engine named; it may raise SettingsError."""
    if folder is not None:
        await asyncio.to_thread(_make_folder, folder)
    results: list[Spoken | Silent] = []
    files: dict[str, str] = {}
    for name in names:
        result = await _smoke_one(settings_of, name)
        results.append(result)
        if folder is not None and isinstance(result, Spoken):
            path = folder / f"{result.engine}.wav"
            await asyncio.to_thread(_write, path, result.pcm, "wav")
            files[name] = str(path)
    if as_json:
        rows = [_row(one) | {"file": files.get(one.engine)} for one in results]
        print(json.dumps({"engines": rows}, indent=2, ensure_ascii=False))
    else:
        _print_table(results, files)
    broken = any(isinstance(one, Silent) and one.broken for one in results)
    return not broken and any(isinstance(one, Spoken) for one in results)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IvasError(
            f"The folder {folder} cannot be made ({error.strerror}); choose another place "
            "with --out."
        ) from error


async def _smoke_one(settings_of: Callable[[str], Settings], name: str) -> Spoken | Silent:
    try:
        settings = settings_of(name)
        choice = choose_tts(settings)
    except SettingsError as error:
        return Silent(name, str(error), broken=False)
    try:
        begin = time.perf_counter()
        try:
            tts = await started(choice)
        except EngineError as error:
            return Silent(name, str(error), broken=False)
        load_s = time.perf_counter() - begin
        voice = tts.voices[0]
        texts = SAMPLES.get(voice.language.partition("-")[0], ENGLISH)
        try:
            spoken = [await speak(tts, text, settings, voice=voice.id) for text in texts]
        except EngineError as error:
            return Silent(name, str(error), broken=True)
    except Exception as error:  # a third party's, or one of ours that should not
        return Silent(name, f"{name} failed ({type(error).__name__}: {error}).", broken=True)
    finally:
        await closed(choice)
    return replace(
        spoken[0],
        load_s=load_s,
        first_audio_s=median(one.first_audio_s for one in spoken),
        total_s=sum(one.total_s for one in spoken),
        audio_s=sum(one.audio_s for one in spoken),
        pcm=b"".join(one.pcm for one in spoken),
    )


def _row(one: Spoken | Silent) -> dict[str, Any]:
    if isinstance(one, Silent):
        return {"engine": one.engine, "ok": False, "broken": one.broken, "reason": one.reason}
    return {
        "engine": one.engine,
        "ok": True,
        "voice": one.voice,
        "device": one.device,
        "load_s": round(one.load_s, 3),
        "first_audio_s": round(one.first_audio_s, 4),
        "total_s": round(one.total_s, 3),
        "audio_s": round(one.audio_s, 3),
        "rtf": round(one.rtf, 4),
    }


def _print_table(results: Sequence[Spoken | Silent], files: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("engine", "voice", "device", "load s", "first audio s", "total s", "RTF"):
        table.add_column(heading, justify="right" if heading.endswith(("s", "RTF")) else "left")
    console = Console(soft_wrap=True, highlight=False)
    for one in results:
        if isinstance(one, Spoken):
            numbers = (one.load_s, one.first_audio_s, one.total_s, one.rtf)
            shown = [f"{number:.3f}" for number in numbers]
            table.add_row(*map(Text, (one.engine, one.voice, one.device, *shown)))
    if table.row_count:
        console.print(table)
    for file in files.values():
        console.print(Text(f"written: {file}"))
    for one in results:
        if isinstance(one, Silent):
            kind = "broken" if one.broken else "not ready"
            console.print(Text(f"{one.engine} {kind}: {one.reason}"))
