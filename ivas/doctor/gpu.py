"""GPUs: what is there, what can use it, and what runs where."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Sequence
from pathlib import Path

from ivas.hardware import ROOT, Gpu, Load, apple_mps, cuda_problem, nvidia, torch_build

from . import Finding, State, in_two

GIB = 2**30
LEAST_VRAM_GIB = 4.0
"""XTTS takes 2 to 4 GiB, Whisper large-v3-turbo in float16 about 2 GiB."""


def nvidia_cards(
    *,
    wanted: Sequence[str],
    root: Path = ROOT,
    load: Load = ctypes.CDLL,
    search: Sequence[str] | None = None,
) -> list[Finding]:
    """The NVIDIA cards and the libraries that compute on them.

    `wanted`: the engines that are set to run on CUDA; with any, what is amiss is a fail.
    """
    found = nvidia(root=root, load=load)
    amiss: State = "fail" if wanted else "warn"
    if found.problem is not None:
        what, fix = in_two(found.problem)
        if not found.card and not wanted:
            return [Finding("GPU", "ok", "no NVIDIA card: every engine runs on the CPU")]
        needs = f" {' and '.join(wanted)} should run on it." if wanted else ""
        return [Finding("GPU", amiss, f"{what}{needs}", fix)]
    return [
        *(_card(gpu, bool(wanted)) for gpu in found.gpus),
        *_libraries(amiss, root, load, search),
    ]


def _card(gpu: Gpu, used: bool) -> Finding:
    vram = f"{gpu.free_bytes / GIB:.1f} of {gpu.total_bytes / GIB:.1f} GiB free"
    said = (
        f"{gpu.name}, {vram if gpu.total_bytes else 'memory unknown'}, driver {gpu.driver}, "
        f"CUDA up to {gpu.cuda_version[0]}.{gpu.cuda_version[1]}"
    )
    if not used:
        fix = "to use it, start with IVAS_ENV=production (docs/gpu.md); now nothing does"
        return Finding("GPU", "ok", said, fix)
    if gpu.total_bytes and gpu.free_bytes / GIB < LEAST_VRAM_GIB:
        fix = "end other programs on the card (nvidia-smi shows them), or use smaller models"
        return Finding("GPU", "warn", f"{said}: little for Whisper and XTTS together.", fix)
    return Finding("GPU", "ok", said)


def _libraries(amiss: State, root: Path, load: Load, search: Sequence[str] | None) -> list[Finding]:
    """Whether torch (XTTS) and ctranslate2 (Whisper), where installed, can use the card."""
    findings = []
    for name in ("torch", "ctranslate2"):
        problem = cuda_problem(
            torch=name == "torch",
            ctranslate2=name == "ctranslate2",
            root=root,
            load=load,
            search=search,
        )
        if problem is not None and "is not installed" in problem:
            continue  # what needs it says so; here is nothing that could be broken
        if problem is None:
            findings.append(Finding(f"{name} on CUDA", "ok", "everything it needs is there"))
        else:
            findings.append(Finding(f"{name} on CUDA", amiss, *in_two(problem)))
    return findings


def apple(
    *, system: str = "", machine: str = "", search: Sequence[str] | None = None
) -> list[Finding]:
    """What runs where on a Mac; nothing to say elsewhere."""
    if (system or platform.system()) != "Darwin":
        return []
    metal = apple_mps(system=system, machine=machine, search=search)
    build = torch_build(search)
    torch = f"torch {build.version}" if build else "torch is not installed"
    what = (
        f"MPS {'could be used' if metal else 'cannot be used'} ({torch}), but no engine of IVAS "
        "does: Whisper, Kokoro, Piper and XTTS run on the CPU here, and only Ollama uses the "
        "GPU of the Mac, by itself"
    )
    return [Finding("Apple MPS", "ok", what)]
