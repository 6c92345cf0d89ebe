"""One engine, driven and timed alone: the process that bench_engines.py starts for each.

It tells its parent, in lines of JSON, which moment it has come to (`mark`) and waits for
an empty line, so that the parent can look at its memory; the last line is the row. Not a
program to start by hand: see bench_engines.py for what the figures mean.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ivas.audio.wav import read_wav
from ivas.engines import ASR, LLM, SAMPLE_RATE_HZ, TTS, VAD, AudioChunk, Message, Samples
from ivas.errors import EngineError

QUESTION = Path(__file__).parents[1] / "ivas" / "client" / "question.wav"
PROMPT = (
    Message("system", "Answer in one short sentence."),
    Message("user", "What is seven times six?"),
)
SENTENCES = (
    "Hello, I am the voice of this machine.",
    "It is a quarter past three, and outside it is nineteen degrees.",
    "Shall I read you the news, or would you rather have some music?",
)
PIECE_SAMPLES = 320
"""20 ms, as clients send audio."""
MOST_RANDOM_S = 3.0
"""Random weights never want to stop speaking; so much of each sentence is enough."""

LEAST_PACE_S = 0.01
"""An answer that comes all at once has no pace."""
Memory = dict[str, float]
"""MB by `rss`, `uss` and, on Linux, `pss`."""
Figures = dict[str, float]
Mark = Callable[[str], None]


@dataclass(slots=True)
class Row:
    """One engine with one model."""

    engine: str
    kind: str
    model: str = ""
    device: str = "cpu"
    random: bool = False
    """Its weights are random."""
    skipped: str = ""
    """Why nothing was measured: one sentence."""
    ready_s: float | None = None
    figures: Figures = field(default_factory=dict)
    memory_mb: dict[str, Memory] = field(default_factory=dict)
    """`before`, `ready` and `working`."""

    def more_mb(self, moment: str) -> float | None:
        """How much more is taken then than before."""
        if moment not in self.memory_mb:
            return None
        key = "pss" if "pss" in self.memory_mb["before"] else "rss"
        return self.memory_mb[moment][key] - self.memory_mb["before"][key]


@dataclass(frozen=True, slots=True)
class Order:
    """What to measure, and how; given as JSON."""

    row: Row
    models_dir: str
    ollama_host: str
    openai_url: str
    rounds: int
    only_start: bool


def make(order: Order) -> Any:
    """The engine of an order, not yet started; what it needs is imported here and by `start`."""
    row, models_dir = order.row, Path(order.models_dir)
    match row.engine:
        case "silero":
            from ivas.engines.vad.silero import SileroVAD

            return SileroVAD()
        case "webrtc":
            from ivas.engines.vad.webrtc import WebrtcVAD

            return WebrtcVAD()
        case "whisper":
            return _whisper(row, models_dir, whole_window=False)
        case "pocketsphinx":
            from ivas.engines.asr.pocketsphinx import PocketsphinxASR

            return PocketsphinxASR()
        case "builtin":
            from ivas.engines.llm.builtin import BuiltinLLM

            return BuiltinLLM()
        case "ollama":
            from ivas.engines.llm.ollama import OllamaLLM

            return OllamaLLM(host=order.ollama_host)
        case "openai":
            from ivas.engines.llm.openai import OpenaiLLM

            return OpenaiLLM(base_url=order.openai_url)
        case "espeak":
            from ivas.engines.tts.espeak import EspeakTTS

            return EspeakTTS()
        case "piper":
            from ivas.engines.tts.piper import PiperTTS

            return PiperTTS(models_dir=models_dir)
        case "kokoro":
            from ivas.engines.tts.kokoro import KokoroTTS

            return KokoroTTS(model_dir=models_dir / row.model)
        case _:
            from ivas.engines.tts.xtts import WORKER, XttsTTS

            return XttsTTS(
                model_dir=models_dir / row.model,
                device=row.device,
                licence_accepted=True,  # bench_engines.py has asked for it
                worker="random_xtts:load" if row.random else WORKER,
            )


def _whisper(row: Row, models_dir: Path, *, whole_window: bool) -> ASR:
    from ivas.engines.asr.whisper import WhisperASR

    device: Any = row.device
    return WhisperASR(
        model_dir=models_dir / row.model, device=device, language="en", whole_window=whole_window
    )


async def vad_figures(vad: VAD, samples: Samples, rounds: int) -> Figures:
    size = vad.frame_samples
    frames = [samples[at : at + size] for at in range(0, len(samples) - size + 1, size)]
    took_us = []
    for _ in range(rounds):
        detector = vad.open()
        for frame in frames:
            begin = time.perf_counter()
            detector.probability(frame)
            took_us.append((time.perf_counter() - begin) * 1e6)
    return {
        "frame_us": statistics.median(took_us),
        "frame_ms_of_audio": size * 1000 / SAMPLE_RATE_HZ,
        "n": len(took_us),
    }


async def transcribed(asr: ASR, samples: Samples, *, as_spoken: bool) -> float:
    """Seconds from the last sample to the text."""
    clock = asyncio.get_running_loop().time
    utterance = asr.open(language="en")
    begin_s = clock()
    for at in range(0, len(samples), PIECE_SAMPLES):
        if as_spoken:
            ready_s = begin_s + (at + PIECE_SAMPLES) / SAMPLE_RATE_HZ
            await asyncio.sleep(max(0.0, ready_s - clock()))
        utterance.push(samples[at : at + PIECE_SAMPLES])
    end_s = clock()
    await utterance.transcript()
    took_s = clock() - end_s
    utterance.close()
    return took_s


async def asr_figures(asr: ASR, samples: Samples, rounds: int) -> Figures:
    first_s = [await transcribed(asr, samples, as_spoken=True) for _ in range(rounds)]
    whole_s = [await transcribed(asr, samples, as_spoken=False) for _ in range(rounds)]
    audio_s = len(samples) / SAMPLE_RATE_HZ
    return {
        "first_ms": statistics.median(first_s) * 1000,
        "rtf": statistics.median(whole_s) / audio_s,
        "audio_s": audio_s,
        "n": rounds,
    }


async def whole_window_ratio(short: ASR, row: Row, models_dir: Path, samples: Samples) -> float:
    """How many times longer Whisper takes for a window of 30 s than for one cut to the audio."""
    whole = _whisper(row, models_dir, whole_window=True)
    await whole.start()
    took_s: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(3):  # in turn, so that both see the same machine
        took_s[True].append(await transcribed(whole, samples, as_spoken=False))
        took_s[False].append(await transcribed(short, samples, as_spoken=False))
    await whole.aclose()
    return statistics.median(took_s[True]) / statistics.median(took_s[False])


async def llm_figures(llm: LLM, rounds: int) -> Figures:
    clock = asyncio.get_running_loop().time
    first_ms, pace = [], []
    for _ in range(rounds):
        begin, times = clock(), []
        async with aclosing(llm.stream(PROMPT, max_tokens=100)) as tokens:
            async for _token in tokens:
                times.append(clock())
        if not times:
            raise EngineError(f"{llm.name} answered nothing; ask it something with: ivas demo")
        first_ms.append((times[0] - begin) * 1000)
        if times[-1] - times[0] > LEAST_PACE_S:
            pace.append((len(times) - 1) / (times[-1] - times[0]))
    figures = {"first_ms": statistics.median(first_ms), "n": rounds}
    return figures | ({"tokens_per_s": statistics.median(pace)} if pace else {})


async def tts_figures(tts: TTS, rounds: int, most_audio_s: float) -> Figures:
    clock = asyncio.get_running_loop().time
    first_ms, work_s, audio_s = [], 0.0, 0.0
    for _ in range(rounds):
        for sentence in SENTENCES:
            begin, spoken_s = clock(), 0.0
            speech: AsyncGenerator[AudioChunk, None] = tts.stream(
                sentence, voice=tts.voices[0].id, priority="first"
            )
            async with aclosing(speech):
                async for chunk in speech:
                    if chunk.pcm and not spoken_s:
                        first_ms.append((clock() - begin) * 1000)
                    spoken_s += len(chunk.pcm) / 2 / chunk.rate_hz
                    if spoken_s >= most_audio_s:
                        break
                work_s += clock() - begin
            audio_s += spoken_s
    if not audio_s:
        raise EngineError(f"{tts.name} made no sound; listen to it with: ivas say --smoke")
    return {
        "first_ms": statistics.median(first_ms),
        "rtf": work_s / audio_s,
        "audio_s": audio_s / rounds,
        "n": len(first_ms),
    }


async def one_engine(order: Order, mark: Mark) -> None:
    """Fill the row. `mark` tells the parent a moment and waits until it has looked."""
    row = order.row
    samples = read_wav(QUESTION, SAMPLE_RATE_HZ)
    mark("before")
    begin = time.perf_counter()
    engine = make(order)
    await engine.start()
    row.ready_s = time.perf_counter() - begin
    try:
        mark("ready")
        if order.only_start:
            return

        async def work(rounds: int) -> Figures:
            match row.kind:
                case "vad":
                    return await vad_figures(engine, samples, rounds)
                case "asr":
                    return await asr_figures(engine, samples, rounds)
                case "llm":
                    return await llm_figures(engine, rounds)
                case _:
                    most_s = MOST_RANDOM_S if row.random else float("inf")
                    return await tts_figures(engine, rounds, most_s)

        row.figures = await work(order.rounds)
        mark("working")  # nothing of this pass is timed: it is watched
        await work(1)
        mark("done")
        if row.engine == "whisper":
            ratio = await whole_window_ratio(engine, row, Path(order.models_dir), samples)
            row.figures["whole_window_ratio"] = ratio
    finally:
        await engine.aclose()


def main() -> None:
    given = json.loads(sys.argv[1])
    order = Order(**given | {"row": Row(**given["row"])})
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print what they like

    def tell(what: dict[str, Any]) -> None:
        print(json.dumps(what), file=out, flush=True)

    def mark(moment: str) -> None:
        tell({"mark": moment})
        sys.stdin.readline()

    try:
        asyncio.run(one_engine(order, mark))
    except EngineError as error:
        order.row.skipped = str(error)
    tell({"row": asdict(order.row)})


if __name__ == "__main__":
    main()
