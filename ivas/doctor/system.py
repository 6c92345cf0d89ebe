"""The ground IVAS stands on: Python, the installation, memory, disk, the clock."""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

import ivas
from ivas.hardware import Memory, disk_free, memory, physical_cores

from . import Finding

GIB = 2**30
NEWEST_PYTHON = (3, 13)
"""The newest that pocketsphinx has a wheel for; 3.12 lacks one too."""
POCKETSPHINX_WHEELS = ((3, 11), (3, 13))

LEAST_AVAILABLE_GIB = 0.3
"""The server with espeak, pocketsphinx and one session: under 0.3 GiB (docs/performance.md)."""
COMFORTABLE_GIB = 4.0
"""An LLM of 3 billion parameters in 4 bits beside it takes about 3 GiB."""
LEAST_MODELS_GIB = 1.0
"""Whisper base and a Piper voice together are about 0.25 GiB."""
COMFORTABLE_MODELS_GIB = 5.0
"""XTTS and Whisper large-v3-turbo together are about 3.5 GiB."""
LEAST_TEMPORARY_GIB = 0.2


def python(version: tuple[int, int] | None = None) -> list[Finding]:
    """The interpreter. pyproject.toml refuses anything below 3.11, so old ones never get here."""
    here = version or sys.version_info[:2]
    full = platform.python_version() if version is None else ".".join(map(str, here))
    said = f"Python {full} on {platform.system()} {platform.machine()}"
    if here in POCKETSPHINX_WHEELS:
        return [Finding("Python", "ok", said)]
    if here > NEWEST_PYTHON:
        what = f"{said}, which is newer than what IVAS was tested with."
        return [Finding("Python", "warn", what, "use Python 3.11 or 3.13 if something breaks")]
    what = f"{said}; pocketsphinx has no ready-made wheel for it and needs a C compiler"
    return [Finding("Python", "ok", what)]


def installation(search: Sequence[str] | None = None) -> list[Finding]:
    """Which IVAS this is and where it runs from."""
    place = Path(ivas.__file__).parent
    found = next(
        (
            known
            for known in distributions(path=list(sys.path if search is None else search))
            if known.metadata["Name"] == "ivas"
        ),
        None,
    )
    if found is None:
        what = f"IVAS {ivas.__version__} runs from {place} without being installed."
        return [Finding("IVAS", "warn", what, "install it with: scripts/serve, or pip install .")]
    kind = "an editable installation" if _editable(found) else "installed"
    said = f"IVAS {ivas.__version__}, {kind} in {place}"
    if found.version != ivas.__version__ and not _editable(found):
        what = f"{said}, but its package says {found.version}: two versions lie over each other."
        return [Finding("IVAS", "warn", what, "install it anew: pip install --force-reinstall .")]
    return [Finding("IVAS", "ok", said)]


def _editable(found: Distribution) -> bool:
    text = found.read_text("direct_url.json") or "{}"
    directory = json.loads(text).get("dir_info", {})
    return bool(directory.get("editable", False))


def memory_left(now: Memory | None = None) -> list[Finding]:
    """RAM, as much as this process may use."""
    ram = now or memory()
    free = ram.available_bytes / GIB
    said = f"{free:.1f} of {ram.total_bytes / GIB:.1f} GiB are free, {physical_cores()} cores"
    if free < LEAST_AVAILABLE_GIB:
        fix = "close other programs, or name small engines: espeak, pocketsphinx, builtin"
        return [Finding("memory", "fail", f"Only {said}.", fix)]
    if free < COMFORTABLE_GIB:
        fix = "close other programs before a language model is to run here as well"
        return [Finding("memory", "warn", f"Only {said}; a language model needs more.", fix)]
    return [Finding("memory", "ok", said)]


def disk(models_dir: Path) -> list[Finding]:
    """Room for models and for temporary files, and whether they can be written."""
    findings = []
    gib = disk_free(models_dir) / GIB
    said = f"{gib:.1f} GiB are free for models in {models_dir}"
    if refused := _unwritable(models_dir):
        fix = "make it writable, or set IVAS_MODELS_DIR to a folder that is"
        findings.append(Finding("models disk", "warn", refused, fix))
    elif gib < LEAST_MODELS_GIB:
        fix = "free some space, or set IVAS_MODELS_DIR to a folder on another disk"
        findings.append(Finding("models disk", "warn", f"Only {said}.", fix))
    elif gib < COMFORTABLE_MODELS_GIB:
        fix = "free some space before XTTS or a large Whisper is downloaded"
        findings.append(Finding("models disk", "ok", said, fix))
    else:
        findings.append(Finding("models disk", "ok", said))
    return [*findings, _temporary()]


def _temporary() -> Finding:
    try:
        place = Path(tempfile.gettempdir())
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"ivas")
    except OSError as error:
        what = f"No temporary file can be written ({error.strerror})."
        return Finding("temporary disk", "fail", what, "free some space there, or set TMPDIR")
    gib = disk_free(place) / GIB
    said = f"{gib:.1f} GiB are free for temporary files in {place}"
    if gib < LEAST_TEMPORARY_GIB:
        return Finding("temporary disk", "warn", f"Only {said}.", "free some space, or set TMPDIR")
    return Finding("temporary disk", "ok", said)


def _unwritable(folder: Path) -> str | None:
    """Why nothing can be written into `folder`, which may still have to be made."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return f"Models cannot be kept in {folder} because {place} is no folder."
    try:
        with tempfile.TemporaryFile(dir=place):
            return None
    except OSError as error:
        return f"Models cannot be kept in {folder} because {place} refuses it ({error.strerror})."


def clock(now_s: float | None = None) -> list[Finding]:
    """A clock that is behind makes every certificate look as if it began tomorrow."""
    now = time.time() if now_s is None else now_s
    installed = Path(ivas.__file__).stat().st_mtime
    shown = time.strftime("%Y-%m-%d %H:%M", time.localtime(now))
    if now < installed - 24 * 3600:
        what = f"The clock says {shown}, which is before IVAS was installed: it is behind."
        return [Finding("clock", "fail", what, "set it: sudo timedatectl set-ntp true")]
    return [Finding("clock", "ok", shown)]


def ffmpeg() -> list[Finding]:
    """Said because people look for it."""
    return [Finding("ffmpeg", "ok", "not needed: the package av brings what it takes")]
