"""Packages that are installed and do not work all the same: what no metadata tells.

First the traps that can be read from files (two builds of torch's family that do not fit,
two packages in one folder), then a try: importing in a process of its own, because a
library that does not fit may take its process with it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ivas.hardware import torch_build

from . import Finding, State
from .packages import Installed

LIGHT: Mapping[str, str] = {
    "numpy": "numpy",
    "av": "av",
    "soxr": "soxr",
    "onnxruntime": "onnxruntime",
    "webrtcvad": "webrtcvad-wheels",
    "pocketsphinx": "pocketsphinx",
    "espeakng_loader": "espeakng-loader",
    "ctranslate2": "ctranslate2",
    "piper": "piper-tts",
    "kokoro_onnx": "kokoro-onnx",
}
"""Modules with machine code in them -> the package that brings each."""
TORCH: Mapping[str, str] = {"torch": "torch", "torchaudio": "torchaudio"}
"""The same of XTTS. It wants torchcodec to be there too, but never imports it."""
OF_EXTRA: Mapping[str, str] = {
    "pocketsphinx": "embedded",
    "espeakng_loader": "embedded",
    "ctranslate2": "whisper",
    "piper": "piper",
    "kokoro_onnx": "kokoro",
    "torch": "xtts",
    "torchaudio": "xtts",
}
"""What is part of no extra is part of the core: without it nothing works."""

LIMIT_S = 7.0
"""torch and its family take 3 s to import on a slow machine."""


def same_build(torch: str, torchaudio: str | None) -> str:
    """How the two are made to fit."""
    versions = f"torch=={torch.partition('+')[0]} torchaudio=={torchaudio}"
    return (
        f"install both from one place: pip install --force-reinstall {versions}, or both for "
        "the CPU as pytorch.org/get-started shows"
    )


# Says what it is about to import, so that a module which kills the process is known.
_TRY = """
import importlib, json, sys
modules, search = json.loads(sys.argv[1])
sys.path[:0] = search
for name in modules:
    print(json.dumps([name, None]), flush=True)
    try:
        importlib.import_module(name)
        error = ""
    except BaseException as failure:
        error = f"{type(failure).__name__}: {failure}"
    print(json.dumps([name, error]), flush=True)
"""


def light(*, needed: Collection[str] = (), search: Sequence[str] | None = None) -> list[Finding]:
    """The small packages with machine code in them, and what gets into their way."""
    installed = Installed(search)
    findings = _two_in_one_place(installed)
    there = [module for module, package in LIGHT.items() if installed.version(package)]
    findings += tried(there, installed, needed=needed, search=search)
    return findings or [Finding("native packages", "ok", f"{', '.join(there)}: can be imported")]


def torch_family(
    *, needed: Collection[str] = (), search: Sequence[str] | None = None
) -> list[Finding]:
    """torch and torchaudio: builds that fit each other, and can be imported."""
    installed = Installed(search)
    there = [module for module, package in TORCH.items() if installed.version(package)]
    findings: list[Finding] = []
    if misfit := _builds(installed, needed, search):
        findings.append(misfit)
        there = [module for module in there if module != "torchaudio"]
    if installed.version("coqui-tts") and not installed.version("six"):
        what = "coqui-tts cannot be imported because it needs six without saying so."
        findings.append(Finding("six", _state("torch", needed), what, "pip install six"))
    findings += tried(there, installed, needed=needed, search=search)
    if not findings and there:
        versions = ", ".join(f"{module} {installed.version(module)}" for module in there)
        return [Finding("torch", "ok", f"{versions}: they fit and can be imported")]
    return findings


def _two_in_one_place(installed: Installed) -> list[Finding]:
    """Pairs of packages that write into the same folder, so that one breaks the other."""
    pairs = (
        ("webrtcvad", "webrtcvad-wheels", "it needs a pkg_resources that setuptools gave up"),
        ("tts", "coqui-tts", "it fits neither the transformers nor the torch of today"),
        ("onnxruntime-gpu", "onnxruntime", "both are the module onnxruntime"),
    )
    findings = []
    for bad, good, why in pairs:
        version = installed.version(bad)
        if version is not None:
            what = f"The package {bad} {version} lies over {good}: {why}."
            fix = f"pip uninstall -y {bad}, then: pip install --force-reinstall --no-deps {good}"
            findings.append(Finding(bad, "warn", what, fix))
    return findings


def _builds(
    installed: Installed, needed: Collection[str], search: Sequence[str] | None
) -> Finding | None:
    """torchaudio built for another CUDA than torch; its files tell, its metadata does not."""
    torch = torch_build(search)
    audio = _version_file("torchaudio", search)
    built = re.search(r"\+cu(\d+)(\d)$", audio or "")
    if torch is None or built is None or not installed.version("torchaudio"):
        return None
    wants = f"{built[1]}.{built[2]}"
    if torch.cuda is not None and torch.cuda.split(".")[:2] == wants.split("."):
        return None
    has = f"for CUDA {torch.cuda}" if torch.cuda else "without CUDA"
    what = (
        f"torchaudio {audio} is built for CUDA {wants}, but torch {torch.version} {has}: it cannot "
        "be imported, and with it neither transformers nor XTTS."
    )
    fix = same_build(torch.version, installed.version("torchaudio"))
    return Finding("torchaudio", _state("torchaudio", needed), what, fix)


def _version_file(package: str, search: Sequence[str] | None) -> str | None:
    for place in sys.path if search is None else search:
        try:
            text = (Path(place) / package / "version.py").read_text(encoding="utf-8")
        except OSError:
            continue
        if found := re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE):
            return found[1]
    return None


def tried(
    modules: Sequence[str],
    installed: Installed,
    *,
    needed: Collection[str] = (),
    search: Sequence[str] | None = None,
    limit_s: float = LIMIT_S,
) -> list[Finding]:
    """Import the modules one after the other in a process of its own; what failed is found."""
    if not modules:
        return []
    command = [sys.executable, "-P", "-c", _TRY, json.dumps([list(modules), list(search or ())])]
    try:
        done = subprocess.run(command, capture_output=True, timeout=limit_s, check=False)
        output, late = done.stdout, False
        signal = -done.returncode
    except subprocess.TimeoutExpired as expired:
        output, late, signal = expired.stdout or b"", True, 0
    results = _results(output)
    findings: list[Finding] = []
    for module in modules:
        error = results.get(module, "")
        if error is None and not late:
            error = f"it ended its process with signal {signal}"
        if error is None:
            what = f"Importing {module} took longer than {limit_s:g} s and was given up."
            fix = f"see for yourself: python -c 'import {module}'"
            return [*findings, Finding(module, "warn", what, fix)]
        if error:
            what, fix = explained(module, error, installed)
            findings.append(Finding(module, _state(module, needed), what, fix))
        if error and module == "numpy":
            break  # it takes most of the others with it
    return findings


def _results(output: bytes) -> dict[str, str | None]:
    """Module -> its error, empty if it was imported, None if that never came to an end."""
    results: dict[str, str | None] = {}
    for line in output.splitlines():
        try:  # a module may print while it is imported
            name, error = json.loads(line)
        except ValueError:
            continue
        results[name] = error
    return results


def explained(module: str, error: str, installed: Installed) -> tuple[str, str]:
    """What an import error means, and the fix."""
    package = LIGHT.get(module) or TORCH.get(module) or module
    version = installed.version(package)
    if module == "torchaudio" and re.search(r"cuda|cudart|Could not load this library", error):
        torch = installed.version("torch") or "of its own"
        what = (
            f"torchaudio {version} does not fit torch {torch}: it is built for another CUDA and "
            "cannot be imported, nor can XTTS."
        )
        return what, same_build(torch, version)
    if module == "webrtcvad" and "pkg_resources" in error:
        what = "webrtcvad is the original, which needs a pkg_resources that is gone."
        return (
            what,
            "pip uninstall -y webrtcvad, then: pip install --force-reinstall webrtcvad-wheels",
        )
    of_numpy = "NumPy 1.x" in error or "numpy.core.multiarray" in error
    if of_numpy and module != "numpy":
        what = f"{module} {version} is built for another numpy than {installed.version('numpy')}."
        return what, f"pip install --upgrade {package}"
    first = error.strip().splitlines()[0][:200]
    what = f"{module} {version} is installed but cannot be imported ({first})."
    return what, f"pip install --force-reinstall --no-deps {package}=={version}"


def _state(module: str, needed: Collection[str]) -> State:
    """Broken is a fail where it is needed: in the core, or by an engine that was named."""
    extra = OF_EXTRA.get(module)
    return "fail" if extra is None or extra in needed else "warn"
