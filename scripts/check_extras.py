#!/usr/bin/env python3
"""Does each extra alone install, import and start? In fresh environments, thrown away after.

For every extra: a venv, `pip install -c constraints.txt '.[EXTRA]'` (the wheel, not the
checkout), then `pip check`, the import of what the extra brings and of its engine,
`ivas doctor --json`, and `ivas serve` with its engine named outright and an empty models
directory: it must answer at /ready, or end with the one sentence that says which model is
missing. The engines of other kinds are `fake`, which need nothing.

    python3 scripts/check_extras.py                        all of them: minutes, gigabytes
    python3 scripts/check_extras.py kokoro piper
    python3 scripts/check_extras.py --constraints constraints-cuda.txt xtts

Needs only Python and a package index; downloads no model. Ends with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INSTALL_S = 1800.0
STEP_S = 180.0
READY_S = 60.0


@dataclass(frozen=True, slots=True)
class Extra:
    """What an extra brings, and the engine that needs it."""

    modules: tuple[str, ...]
    kind: str = ""
    engine: str = ""
    says: str = ""
    """In the sentence with which `ivas serve` ends without a model; "" means it must start."""


EXTRAS = {
    "embedded": Extra(
        ("pocketsphinx", "espeakng_loader", "ivas.engines.asr.pocketsphinx"), "asr", "pocketsphinx"
    ),
    "whisper": Extra(
        ("faster_whisper", "ivas.engines.asr.whisper"),
        "asr",
        "whisper",
        "ivas models download whisper-base",
    ),
    "piper": Extra(
        ("piper", "ivas.engines.tts.piper"), "tts", "piper", "ivas models download piper-"
    ),
    "kokoro": Extra(
        ("kokoro_onnx", "ivas.engines.tts.kokoro"), "tts", "kokoro", "ivas models download kokoro"
    ),
    # Not TTS itself: beside a torch for the CPU the torchaudio of PyPI, built for CUDA, cannot
    # be imported, which is for the engine to say.
    "xtts": Extra(("torch", "ivas.engines.tts.xtts"), "tts", "xtts", "xtts-v2"),
    "mic": Extra(("sounddevice", "ivas.client.speaker")),
}


@dataclass(slots=True)
class Found:
    """What came of one extra."""

    extra: str
    failures: list[str] = field(default_factory=list)
    said: str = ""
    """What `ivas serve` ended with, or when it was ready."""
    seconds: float = 0.0
    megabytes: float = 0.0


class Failed(Exception):
    """A step went wrong; the rest cannot be tried."""


def run(*command: str | Path, env: dict[str, str], timeout_s: float = STEP_S, **how: str) -> str:
    """The output of a command. Raises Failed with its last lines."""
    shown = " ".join(map(str, command[1:]))[:80]
    try:
        done = subprocess.run(
            command, env=env, timeout=timeout_s, capture_output=True, text=True, cwd=how.get("cwd")
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{shown}: not done after {timeout_s:g} s") from None
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()[-3:]
        raise Failed(f"{shown}: ended with {done.returncode}: {' / '.join(last)}")
    return done.stdout


def check(extra: str, constraints: Path, place: Path) -> Found:
    """All steps for one extra, in an environment below `place`."""
    found, begin = Found(extra), time.monotonic()
    brings = EXTRAS[extra]
    python = place / "venv" / "bin" / "python"
    home = place / "home"
    home.mkdir()
    # Handed on, for pip; but no settings and no caches of whoever runs this.
    mine = dict(os.environ)  # noqa: TID251
    env = {name: value for name, value in mine.items() if not name.startswith("IVAS_")}
    env |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    try:
        say(f"{extra}: installing ...")
        venv.create(place / "venv", with_pip=True)
        install = (python, "-m", "pip", "install", "--quiet", "-c", constraints, f".[{extra}]")
        run(*install, env=mine, timeout_s=INSTALL_S, cwd=str(ROOT))
        found.megabytes = size_mb(place / "venv")
        say(f"{extra}: {found.megabytes:.0f} MB after {time.monotonic() - begin:.0f} s; trying ...")
        run(python, "-m", "pip", "check", env=env)
        for module in brings.modules:
            run(python, "-c", f"import {module}", env=env, cwd=str(home))
        doctor(python, env, home)
        found.said = serve(python, brings, env, home)
    except Failed as failure:
        found.failures.append(str(failure))
    found.seconds = time.monotonic() - begin
    return found


def doctor(python: Path, env: dict[str, str], home: Path) -> None:
    """`ivas doctor --json` may find things to complain about, but must say so in JSON."""
    done = subprocess.run(
        (python, "-m", "ivas", "doctor", "--json"),
        env=env,
        timeout=STEP_S,
        capture_output=True,
        text=True,
        cwd=home,
    )
    try:
        json.loads(done.stdout)
    except ValueError:
        last = (done.stdout + done.stderr).strip().splitlines()[-2:]
        raise Failed(f"ivas doctor --json printed no JSON: {' / '.join(last)}") from None


def serve(python: Path, brings: Extra, env: dict[str, str], home: Path) -> str:
    """Start the server; when it was ready, or the sentence it ended with. Raises Failed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kinds = {"asr": "fake", "llm": "fake", "tts": "fake"} | {brings.kind: brings.engine}
    chosen = {f"IVAS_{kind.upper()}__ENGINE": name for kind, name in kinds.items() if kind}
    chosen |= {"IVAS_OFFLINE": "1", "IVAS_TTS__XTTS_LICENCE_ACCEPTED": "true"}
    command = (python, "-m", "ivas", "serve", "--port", str(port))
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(command, env=env | chosen, stdout=log, stderr=log, cwd=home)
        begin = time.monotonic()
        try:
            while server.poll() is None and time.monotonic() < begin + READY_S:
                if ready(port):
                    if brings.says:
                        raise Failed(f"ivas serve started with {brings.engine} and no model")
                    return f"ready after {time.monotonic() - begin:.1f} s"
                time.sleep(0.1)
            if server.poll() is None:
                raise Failed(f"ivas serve neither started nor ended within {READY_S:g} s")
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        log.seek(0)
        said = log.read().strip()
    last = said.splitlines()[-1] if said else "nothing"
    if not brings.says or brings.says not in last or "Traceback" in said:
        raise Failed(f"ivas serve ended with {server.returncode} and said: {last}")
    return last


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def size_mb(place: Path) -> float:
    files = (path for path in place.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help=f"of {', '.join(EXTRAS)}")
    parser.add_argument("--constraints", type=Path, default=ROOT / "constraints.txt")
    asked = parser.parse_args()
    if unknown := [extra for extra in asked.extras if extra not in EXTRAS]:
        parser.error(f"there is no extra {unknown[0]}; take of {', '.join(EXTRAS)}")
    failed = False
    for extra in asked.extras or EXTRAS:
        place = Path(tempfile.mkdtemp(prefix=f"ivas-extra-{extra}-"))
        try:
            found = check(extra, asked.constraints.resolve(), place)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        failed = failed or bool(found.failures)
        print(
            f"{extra}: {'FAILED' if found.failures else 'ok'}, {found.megabytes:.0f} MB, "
            f"{found.seconds:.0f} s. {' '.join([found.said, *found.failures]).strip()}",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
