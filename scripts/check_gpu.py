#!/usr/bin/env python3
"""Does every engine that can use an NVIDIA card use it, and how fast is it there?

Prints the card and its driver; then loads faster-whisper (float16) and XTTS, speaks,
transcribes what was spoken, and prints for each the time to load, the first result, the
real time factor (seconds of work for a second of audio) and the VRAM it takes. Ends with 1
and a sentence if an engine does not work or its model is not on the card.

    .venv/bin/python scripts/check_gpu.py --accept-xtts-licence     installed models
    .venv/bin/python scripts/check_gpu.py --random                  no models: full size, random
    .venv/bin/python scripts/check_gpu.py --device cpu --tiny       where there is no card

Random weights speak noise, as long as the model can (28 s), and transcribe it to anything;
time and memory are those of the real ones. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import random_whisper
import random_xtts

from ivas import client, hardware
from ivas.audio.wav import read_wav, wav_bytes
from ivas.engines import ASR, SAMPLE_RATE_HZ, TTS, Samples
from ivas.errors import EngineError

SENTENCES = (
    "Hello, I am the voice of this machine.",
    "What you hear now was made on its graphics card.",
    "If it sounds as it should, all is well.",
)
MOST_HEARD_S = 28
"""Whisper hears 30 s at once."""
MODELS_DIR = Path("~/.cache/ivas/models")
XTTS = "xtts-v2"
MB = 1e6
LEAST_SHARE = 0.3
"""Of the weights' size on disk that must be found on the card; float16 is half of float32."""


@dataclass(slots=True)
class Row:
    """What was found about one engine."""

    engine: str
    model: str
    device: str
    problem: str = ""
    load_s: float | None = None
    first_ms: float | None = None
    """Median: first chunk of speech, or the whole transcript."""
    audio_s: float = 0.0
    rtf: float | None = None
    vram_mb: float | None = None
    """How much more is taken on the card than before; None without a card."""
    said: str = ""


def used_vram() -> float | None:
    """Bytes taken on the first card, by whomever; None if there is no card that tells."""
    gpus = hardware.nvidia().gpus
    return float(gpus[0].total_bytes - gpus[0].free_bytes) if gpus else None


def weigh(directory: Path) -> int:
    """Bytes of the largest file: the weights."""
    return max((path.stat().st_size for path in directory.glob("*")), default=0)


async def speak(tts: TTS, row: Row) -> Samples:
    """Speak all sentences; what was spoken first, for an ASR."""
    work_s, first_ms, heard = 0.0, [], b""
    for sentence in SENTENCES:
        start, spoken = time.perf_counter(), b""
        rate_hz = 0
        async for chunk in tts.stream(sentence, voice=tts.voices[0].id):
            if chunk.pcm and not spoken:
                first_ms.append((time.perf_counter() - start) * 1000)
            spoken, rate_hz = spoken + chunk.pcm, chunk.rate_hz
        work_s += time.perf_counter() - start
        row.audio_s += len(spoken) / 2 / rate_hz
        heard = heard or wav_bytes(spoken, rate_hz)
    row.first_ms, row.rtf = statistics.median(first_ms), work_s / row.audio_s
    row.said = f"{len(SENTENCES)} sentences"
    return read_wav(heard, SAMPLE_RATE_HZ)[: MOST_HEARD_S * SAMPLE_RATE_HZ]


async def hear(asr: ASR, samples: Samples, row: Row) -> None:
    """Transcribe the same audio as often as a sentence was spoken."""
    took_ms = []
    for _ in SENTENCES:
        utterance = asr.open(language="en")
        utterance.push(samples)
        start = time.perf_counter()
        row.said = (await utterance.transcript()).text
        took_ms.append((time.perf_counter() - start) * 1000)
        utterance.close()
        row.audio_s += len(samples) / SAMPLE_RATE_HZ
    row.first_ms, row.rtf = statistics.median(took_ms), sum(took_ms) / 1000 / row.audio_s


async def measured(row: Row, engine: Any, weights: int, work: Any) -> Any:
    """Start the engine, do `work(engine, row)`, fill the row; a failure is its `problem`."""
    before = used_vram()
    try:
        start = time.perf_counter()
        await engine.start()
        row.load_s = time.perf_counter() - start
        result = await work(engine, row)
        after = used_vram()
        if before is not None and after is not None:
            row.vram_mb = (after - before) / MB
        if row.device != "cpu" and (row.vram_mb or 0) * MB < LEAST_SHARE * weights:
            row.problem = (
                f"{row.engine} works, but its model is not on the GPU: {row.vram_mb or 0:.0f} MB "
                f"more are taken there for {weights / MB:.0f} MB of weights; see what else runs "
                "with nvidia-smi, and try again while it is idle."
            )
        return result
    except EngineError as error:
        row.problem = str(error)
        return None
    finally:
        await engine.aclose()


async def check(asked: argparse.Namespace, models_dir: Path) -> list[Row]:
    """One row an engine: the TTS first, because its speech is what the ASR hears."""
    from ivas.engines.asr.whisper import WhisperASR
    from ivas.engines.tts.xtts import WORKER, XttsTTS

    random = asked.random or asked.tiny
    tts = XttsTTS(
        model_dir=models_dir / XTTS,
        device=asked.device,
        licence_accepted=asked.accept_xtts_licence or random,
        worker="random_xtts:load" if random else WORKER,
    )
    row = Row("xtts", XTTS, asked.device)
    samples = await measured(row, tts, weigh(models_dir / XTTS), speak)
    if samples is None or random:  # the ASR is to hear speech, for as long as people speak
        samples = read_wav(Path(asked.question), SAMPLE_RATE_HZ)
    asr = WhisperASR(model_dir=models_dir / asked.whisper, device=asked.device)
    heard = Row("whisper", asked.whisper, asked.device)

    async def hear_it(engine: Any, into: Row) -> None:
        await hear(engine, samples, into)

    await measured(heard, asr, weigh(models_dir / asked.whisper), hear_it)
    return [row, heard]


def build(directory: Path, *, whisper: str, tiny: bool) -> None:
    """Random models of both kinds, in a models directory."""
    size = "tiny" if tiny else "full"
    say(f"Building a random XTTS ({size}) and {whisper} ...")
    # Each in a process of its own: what building imports would be counted here.
    random_xtts.build_apart(directory / XTTS, size)
    random_whisper.build(directory / whisper, size=whisper.removeprefix("whisper-"))


def table(rows: Sequence[Row]) -> str:
    def cell(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    lines = [("engine", "model", "device", "load s", "first ms", "audio s", "RTF", "VRAM MB", "")]
    for row in rows:
        lines.append(
            (
                row.engine,
                row.model,
                row.device,
                cell(row.load_s, ".1f"),
                cell(row.first_ms, ".0f"),
                cell(row.audio_s or None, ".1f"),
                cell(row.rtf, ".3f"),
                cell(row.vram_mb, ".0f"),
                "FAILED" if row.problem else row.said[:40],
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def card() -> dict[str, Any]:
    """The first card as its driver tells it, or why there is none."""
    found = hardware.nvidia()
    if not found.gpus:
        return {"problem": found.problem}
    gpu = found.gpus[0]
    return {
        "name": gpu.name,
        "driver": gpu.driver,
        "cuda": ".".join(map(str, gpu.cuda_version)),
        "compute_capability": ".".join(map(str, gpu.compute_capability)),
        "vram_mb": round(gpu.total_bytes / MB),
        "free_mb": round(gpu.free_bytes / MB),
    }


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--models-dir", type=Path, default=MODELS_DIR, metavar="DIRECTORY")
    parser.add_argument("--whisper", default="whisper-large-v3-turbo", metavar="MODEL")
    parser.add_argument("--random", action="store_true", help="full-size models, random weights")
    parser.add_argument("--tiny", action="store_true", help="tiny ones, to try this script")
    parser.add_argument(
        "--accept-xtts-licence",
        action="store_true",
        help="you accept the licence of the XTTS weights (CPML): no commercial use",
    )
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    question = Path(client.__file__).parent / "question.wav"
    parser.add_argument("--question", type=Path, default=question, metavar="WAV")
    asked = parser.parse_args()
    if asked.tiny:
        asked.whisper = "whisper-tiny"
    return asked


def main() -> int:
    asked = arguments()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("ivas").setLevel(logging.INFO)
    found = card()
    say(", ".join(f"{name} {value}" for name, value in found.items()))
    problem = hardware.cuda_problem(torch=True, ctranslate2=True) if asked.device != "cpu" else None
    rows: list[Row] = []
    if problem is None:
        with ExitStack() as at_end:
            models_dir = asked.models_dir.expanduser()
            if asked.random or asked.tiny:
                models_dir = Path(at_end.enter_context(tempfile.TemporaryDirectory()))
                build(models_dir, whisper=asked.whisper, tiny=asked.tiny)
            rows = asyncio.run(check(asked, models_dir))
    problems = [problem] if problem else [row.problem for row in rows if row.problem]
    if asked.json:
        result = {"card": found, "engines": list(map(asdict, rows)), "problems": problems}
        print(json.dumps(result, indent=2))
    elif rows:
        print(table(rows))
    for sentence in problems:
        say(sentence)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
