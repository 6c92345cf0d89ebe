"""Nothing tells anybody that somebody uses IVAS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LOOK = """
import asyncio, os, sys
from pathlib import Path
from ivas.engines.vad.silero import SileroVAD

vad = SileroVAD()
asyncio.run(vad.start())
import onnxruntime

onnxruntime.InferenceSession  # loaded for good
opened = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
          if os.path.exists(f"/proc/self/fd/{fd}")]
sys.exit("\\n".join(o for o in opened if "Microsoft" in o or "telemetry" in o.lower()) or 0)
"""


def test_onnxruntime_keeps_no_diary(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
