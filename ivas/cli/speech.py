"""`ivas say` and `ivas transcribe`: the engines of the settings, without a server."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ivas.errors import ClientError, IvasError, SettingsError

from .options import ConfigOption

if TYPE_CHECKING:
    from ivas.engines import ASR, VAD
    from ivas.server.subtitles import Segment
    from ivas.settings import Settings

Format = Literal["text", "srt", "vtt", "json"]

MOST_S = 24 * 3600.0
"""Longest recording that is transcribed; a second takes 64 kB of memory."""
PATIENCE_S = 120.0
"""Longest wait for the text of a stretch: a large model may be slow here."""

EngineOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Engine; else the one in the settings.")
]
LanguageOption = Annotated[
    str | None, typer.Option(metavar="CODE", help="Language, such as en or pt-BR.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def say(
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="What to say; - reads it from stdin.")
    ] = None,
    voice: Annotated[str | None, typer.Option(metavar="ID", help="Voice to speak with.")] = None,
    language: LanguageOption = None,
    speed: Annotated[
        float | None, typer.Option(help="Speaking rate, 0.25 to 4; 1 is natural.")
    ] = None,
    engine: EngineOption = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write wav, mp3, opus, aac, flac or pcm; play nothing."),
    ] = None,
    smoke: Annotated[
        bool,
        typer.Option("--smoke", help="Try every engine; --out then names a folder for the sound."),
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Speak a text through the loudspeaker or into a file."""
    import asyncio

    flags = {"tts.voice": voice, "tts.language": language, "tts.speed": speed}
    if smoke:
        if text is not None:
            raise SettingsError("--smoke says sentences of its own; leave the text out.")
        from .speaking import smoke as try_each

        def settings_of(name: str) -> Settings:
            return _settings(config, flags | {"tts.engine": name})

        names = [engine] if engine is not None else _known_engines()
        if not asyncio.run(try_each(settings_of, names, out, as_json=as_json)):
            raise typer.Exit(1)
        return
    said = sys.stdin.read() if text == "-" else text
    if said is None or not said.strip():
        raise SettingsError('There is nothing to say; type for example: ivas say "Hello there"')
    settings = _settings(config, flags | {"tts.engine": engine})
    from .speaking import say as speak

    asyncio.run(speak(said, settings, out, as_json=as_json))


def transcribe(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Audio files; - reads one from stdin.")
    ],
    language: LanguageOption = None,
    engine: EngineOption = None,
    format_: Annotated[
        Format, typer.Option("--format", help="How to print what was said.")
    ] = "text",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Write down what is said in recordings of any audio format."""
    import asyncio

    wanted: Format = "json" if as_json else format_
    if wanted in ("srt", "vtt") and len(files) > 1:
        raise SettingsError(f"Subtitles are of one recording; give --format {wanted} one file.")
    settings = _settings(config, {"asr.engine": engine, "asr.language": language})
    asyncio.run(_transcribe(files, settings, wanted))


def _settings(config: Path | None, flags: Mapping[str, object]) -> Settings:
    """The settings with what was typed, every device decided."""
    from ivas.devices import settled
    from ivas.settings_sources import resolve

    given = {path: value for path, value in flags.items() if value is not None}
    settings = resolve(config, flags=given).settings
    return settled(settings, lambda warning: print(f"ivas: {warning}", file=sys.stderr))


def _known_engines() -> list[str]:
    """Every voice engine of IVAS that is real, in the order of the settings."""
    from ivas.settings import TtsSettings
    from ivas.settings_types import EngineName

    marks = TtsSettings.model_fields["engine"].metadata
    known = next(mark.known for mark in marks if isinstance(mark, EngineName))
    return [name for name in known if name not in ("auto", "fake")]


async def _transcribe(files: list[Path], settings: Settings, format_: Format) -> None:
    from ivas.composition import choose_asr, choose_vad

    from .speaking import closed, started

    ears, detectors = choose_asr(settings), choose_vad(settings)
    try:
        asr, vad = await started(ears), await started(detectors)
        bodies = []
        for file in files:
            if format_ == "text" and len(files) > 1:
                print(f"{file}:", flush=True)
            bodies.append(await _one(file, asr, vad, settings, format_))
    finally:
        await closed(ears)
        await closed(detectors)
    if format_ == "json":
        import json

        print(json.dumps({"files": bodies}, indent=2, ensure_ascii=False))


async def _one(
    file: Path, asr: ASR, vad: VAD, settings: Settings, format_: Format
) -> dict[str, Any]:
    """Transcribe one recording, print it unless it is to be JSON, and return that."""
    import asyncio

    from ivas.audio.decode import decode
    from ivas.engines import SAMPLE_RATE_HZ
    from ivas.recordings import find_speech, transcribe
    from ivas.server import subtitles

    data = await asyncio.to_thread(_read, file)
    try:
        recording = await asyncio.to_thread(decode, BytesIO(data), most_s=MOST_S)
    except ClientError as error:
        raise IvasError(f"{file}: {error}") from error
    speech = await asyncio.to_thread(find_speech, recording, vad, threshold=settings.vad.threshold)
    language = settings.asr.language
    segments: list[Segment] = []
    how = {"language": language, "prompt": None}
    async for said in transcribe(recording, speech, asr, timeout_s=PATIENCE_S, how=how):
        segment = subtitles.Segment(
            said.stretch.start_sample / SAMPLE_RATE_HZ,
            said.stretch.end_sample / SAMPLE_RATE_HZ,
            said.transcript.text.strip(),
            said.transcript.language,
        )
        segments.append(segment)
        if format_ == "text":
            print(segment.text, flush=True)
    if not segments:
        print(f"ivas: No speech was heard in {file}.", file=sys.stderr)
    if format_ == "srt":
        print(subtitles.srt(segments), end="")
    elif format_ == "vtt":
        print(subtitles.vtt(segments), end="")
    body = subtitles.verbose(
        segments,
        task="transcribe",
        duration_s=len(recording) / SAMPLE_RATE_HZ,
        language=language,
        words=False,
    )
    return {"file": str(file), "engine": asr.name, **body}


def _read(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise IvasError(
            f"{file} cannot be read ({error.strerror}); check its name and permissions."
        ) from None
