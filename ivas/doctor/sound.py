"""Microphone and loudspeaker of this machine. The web page uses those of the browser instead.

PortAudio is asked in a process of its own: some audio systems hang or crash when asked.
"""

from __future__ import annotations

import json
import subprocess
import sys

from . import Finding

LIMIT_S = 5.0
HINT = "the page in the browser uses the microphone and loudspeaker of the browser's machine"
INSTALL = "for sound in the terminal: pip install 'ivas[mic]'"

_ASK = """
import json
try:
    import sounddevice
except ImportError:
    print(json.dumps({"problem": "package"}))
except OSError:
    print(json.dumps({"problem": "portaudio"}))
else:
    devices = sounddevice.query_devices()
    default = sounddevice.default.device
    def name(index, channels):
        if 0 <= index < len(devices):
            return devices[index]["name"]
        return next((d["name"] for d in devices if d[channels]), None)
    print(json.dumps({
        "microphone": name(default[0], "max_input_channels"),
        "loudspeaker": name(default[1], "max_output_channels"),
    }))
"""


def devices(*, python: str = sys.executable, limit_s: float = LIMIT_S) -> list[Finding]:
    """The default microphone and loudspeaker, or why there is none."""
    try:
        done = subprocess.run(
            [python, "-P", "-c", _ASK], capture_output=True, timeout=limit_s, check=False
        )
        told = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        what = f"The audio system does not answer within {limit_s:g} s."
        return [Finding("sound", "warn", what, "start it again: systemctl --user restart pipewire")]
    except (ValueError, IndexError):
        what = "The audio system cannot be asked."
        return [Finding("sound", "warn", what, "see what this says: python -m sounddevice")]
    return [_said(told)]


def _said(told: dict[str, str | None]) -> Finding:
    match told.get("problem"):
        case "package":
            return Finding("sound", "ok", f"not installed; {HINT}", INSTALL)
        case "portaudio":
            what = f"The PortAudio library is missing, so the terminal has no sound; {HINT}."
            fix = "install it (on Debian and Ubuntu: sudo apt install libportaudio2)"
            return Finding("sound", "warn", what, fix)
    microphone, loudspeaker = told["microphone"], told["loudspeaker"]
    if microphone is None and loudspeaker is None:
        return Finding("sound", "ok", f"no microphone or loudspeaker here; {HINT}")
    return Finding(
        "sound", "ok", f"microphone: {microphone or 'none'}, loudspeaker: {loudspeaker or 'none'}"
    )
