#!/usr/bin/env python3
"""What each engine costs on this machine: time to be ready, time to answer, memory.

Every engine runs alone in a process of its own, one after the other, and is driven like
a conversation drives it:

* ready: from nothing of it imported to `start()` done; the median of several processes.
* VAD: microseconds a frame.
* ASR: "first" is from the last sample of a question, pushed as it is spoken, to its text;
  RTF is for the same question pushed at once.
* LLM: "first" is the first token of an answer.
* TTS: "first" is the first chunk of a sentence; RTF is over all of its chunks.
* memory, with all its processes: how much more than before it was imported, when ready and
  the highest while it works. PSS counts a shared page in parts, USS only private ones, RSS
  counts a shared page in every process again (PSS on Linux only; elsewhere RSS is shown).

RTF = seconds of work for a second of audio. Figures are medians.

    .venv/bin/python scripts/bench_engines.py
    .venv/bin/python scripts/bench_engines.py silero espeak --json
    .venv/bin/python scripts/bench_engines.py xtts --random-xtts      5 GB, minutes

Models are those of --models-dir. A Whisper that is not there is made of random weights of
the same size: its text is nonsense, its time and memory are real. What cannot start is
left out, with the reason. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path

import bench_one_engine
from bench_one_engine import Memory, Order, Row

KINDS = {
    **dict.fromkeys(("silero", "webrtc"), "vad"),
    **dict.fromkeys(("whisper", "pocketsphinx"), "asr"),
    **dict.fromkeys(("builtin", "ollama", "openai"), "llm"),
    **dict.fromkeys(("espeak", "piper", "kokoro", "xtts"), "tts"),
}
"""Every engine that runs here, and `openai` as an LLM; for a server of speech: bench_rest.py."""
MODELS_DIR = Path("~/.cache/ivas/models")
SAMPLE_S = 0.05
MB = 1e6


def memory_mb(pid: int) -> Memory:
    """Of the process and all below it."""
    import psutil

    total: Memory = {}
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                found = each.memory_full_info()
                for name in ("rss", "uss", "pss"):
                    if hasattr(found, name):
                        total[name] = total.get(name, 0.0) + getattr(found, name) / MB
    return total


async def measured(order: Order, *, patience_s: float) -> Row:
    """The row as the engine's own process fills it, with the memory seen from here."""
    with tempfile.TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, bench_one_engine.__file__, json.dumps(asdict(order))),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=said,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(patience_s):
                found = await listen(process)
                await process.wait()
        except TimeoutError:
            return replace(order.row, skipped=f"It was not done after {patience_s:g} s.")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if found is None:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
            why = f"Its process ended with {process.returncode}: {last[0][:200]}"
            return replace(order.row, skipped=why)
        return found


async def listen(process: asyncio.subprocess.Process) -> Row | None:
    """The row of a child that works; None if it ends without one."""
    assert process.stdout is not None
    assert process.stdin is not None
    memory: dict[str, Memory] = {}
    watching = False
    while True:
        line = asyncio.ensure_future(process.stdout.readline())
        while watching and not (await asyncio.wait({line}, timeout=SAMPLE_S))[0]:
            for name, value in memory_mb(process.pid).items():
                memory["working"][name] = max(memory["working"].get(name, 0.0), value)
        if not (text := await line):
            return None
        told = json.loads(text)
        if "row" in told:
            return Row(**told["row"] | {"memory_mb": memory})
        watching = told["mark"] == "working"
        if told["mark"] != "done":
            memory[told["mark"]] = memory_mb(process.pid)
        with suppress(ConnectionError):
            process.stdin.write(b"\n")
            await process.stdin.drain()


def plan(asked: argparse.Namespace) -> list[Row]:
    """What to measure: a row for each engine and model."""
    rows = []
    for name in asked.engines or KINDS:
        row = Row(name, KINDS[name])
        match name:
            case "whisper":
                rows += [whisper_row(size, asked) for size in asked.whisper]
                continue
            case "xtts":
                row.model, row.device = "xtts-v2", asked.device
                row.random = bool(asked.random_xtts)
                if not row.random and not asked.accept_xtts_licence:
                    row.skipped = (
                        "Its weights are for non-commercial use only: add --accept-xtts-licence, "
                        "or --random-xtts for random ones."
                    )
            case "kokoro":
                small = asked.models_dir / "kokoro-int8"
                whole = asked.models_dir / "kokoro"
                row.model = "kokoro-int8" if small.exists() and not whole.exists() else "kokoro"
            case "openai" if not asked.openai_url:
                row.skipped = "No server is named: add --openai-url."
        rows.append(row)
    return rows


def whisper_row(size: str, asked: argparse.Namespace) -> Row:
    row = Row("whisper", "asr", f"whisper-{size}", asked.device)
    row.random = not (asked.models_dir / row.model / "model.bin").exists()
    return row


def build(row: Row, directory: Path) -> None:
    """Random weights for a row, in a models directory."""
    say(f"{row.model}: making random weights ...")
    if row.engine == "xtts":
        import random_xtts

        random_xtts.build_apart(directory / row.model, "full")
    else:
        import random_whisper

        random_whisper.build(directory / row.model, size=row.model.removeprefix("whisper-"))


async def bench(asked: argparse.Namespace) -> list[Row]:
    found = []
    with ExitStack() as at_end:
        random_dir = Path(at_end.enter_context(tempfile.TemporaryDirectory()))
        for row in plan(asked):
            if not row.skipped:
                row = await alone(row, asked, random_dir)
            say(f"{row.model or row.engine}: {row.skipped or speed(row)}")
            found.append(row)
    return found


async def alone(row: Row, asked: argparse.Namespace, random_dir: Path) -> Row:
    """One engine: measured once, started some more times."""
    if row.random:
        try:
            build(row, random_dir)
        except Exception as error:
            why = f"No random weights could be made ({type(error).__name__}: {error})."
            return replace(row, skipped=why)
    order = Order(
        row=row,
        models_dir=str(random_dir if row.random else asked.models_dir),
        ollama_host=asked.ollama_host,
        openai_url=asked.openai_url,
        rounds=asked.rounds,
        only_start=False,
    )
    say(f"{row.model or row.engine}: measuring ...")
    found = await measured(order, patience_s=asked.patience_s)
    if found.ready_s is None or found.skipped:
        return found
    ready_s = [found.ready_s]
    for _ in range(asked.starts - 1):
        again = await measured(replace(order, only_start=True), patience_s=asked.patience_s)
        ready_s += [] if again.ready_s is None else [again.ready_s]
    return replace(found, ready_s=statistics.median(ready_s))


# --- what is said ----------------------------------------------------------------


def speed(row: Row) -> str:
    """The figures of a row in words."""
    found = row.figures
    said = []
    if "frame_us" in found:
        said.append(f"{found['frame_us']:.0f} us a frame of {found['frame_ms_of_audio']:.0f} ms")
    if "first_ms" in found:
        said.append(f"first {found['first_ms']:.{0 if found['first_ms'] >= 10 else 1}f} ms")
    if "rtf" in found:
        said.append(f"RTF {found['rtf']:.3g}")
    if "tokens_per_s" in found:
        said.append(f"{found['tokens_per_s']:.0f} tokens/s")
    if "whole_window_ratio" in found:
        said.append(f"a window of 30 s {found['whole_window_ratio']:.1f} times")
    return ", ".join(said)


def table(rows: Sequence[Row]) -> str:
    lines = [("engine", "model", "device", "ready s", "speed", "MB ready", "MB working")]
    for row in rows:
        if row.skipped:
            continue
        ready, working = row.more_mb("ready"), row.more_mb("working")
        lines.append(
            (
                row.engine,
                row.model + (" (random)" if row.random else ""),
                row.device,
                "-" if row.ready_s is None else f"{row.ready_s:.2f}",
                speed(row),
                "-" if ready is None else f"{ready:.0f}",
                "-" if working is None else f"{working:.0f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    left_out = [f"{row.model or row.engine} left out: {row.skipped}" for row in rows if row.skipped]
    return "\n".join([*shown, *left_out])


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--models-dir", type=Path, default=MODELS_DIR, metavar="DIRECTORY")
    parser.add_argument(
        "--whisper", nargs="+", default=["tiny", "base"], metavar="SIZE", help="default: tiny base"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="whisper, xtts")
    parser.add_argument("--random-xtts", action="store_true", help="full size, random weights")
    parser.add_argument(
        "--accept-xtts-licence",
        action="store_true",
        help="you accept the licence of the XTTS weights (CPML): no commercial use",
    )
    parser.add_argument("--ollama-host", default="http://127.0.0.1:11434", metavar="URL")
    parser.add_argument("--openai-url", default="", metavar="URL", help="a chat server")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--starts", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--patience-s", type=float, default=900, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args(given)
    if unknown := [name for name in asked.engines if name not in KINDS]:
        parser.error(f"there is no engine {unknown[0]}; take of {', '.join(KINDS)}")
    asked.models_dir = asked.models_dir.expanduser()
    return asked


def main() -> int:
    asked = arguments()
    load = os.getloadavg()[0]
    rows = asyncio.run(bench(asked))
    where = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    if asked.json:
        result = {"machine": where, "load_before": load, "engines": [asdict(row) for row in rows]}
        print(json.dumps(result, indent=2))
    else:
        print(f"{where}, load before {load:.1f}")
        print(table(rows))
    return 0 if any(not row.skipped for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
