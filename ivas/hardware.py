"""What this machine has: memory, disk, cores, NVIDIA cards, and why a card cannot be used.

A leaf: the standard library and psutil. Nothing heavy is imported: NVML and the CUDA
driver are asked through ctypes, torch and ctranslate2 are known by their files. What is
asked may take a second the first time: call it on a thread. Every problem is one plain
sentence that holds the fix.

`root` is where the file system begins, `load` opens a shared library and raises OSError,
`search` is where packages are looked for (sys.path): tests hand in machines of their own.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

Load = Callable[[str], Any]
"""Opens a shared library by its name or path. Raises OSError."""

ROOT = Path("/")
NVIDIA_VENDOR = "0x10de"
DISPLAY_CLASS = "0x03"
"""How the PCI class of a graphics card begins; the same card has an audio device, 0x04."""

NVML = ("libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1")
CUDA = ("libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1")
"""By name, and where Windows puts the driver for its Linux."""
CUBLAS = "libcublas.so.12"
"""What ctranslate2 4.8.5 opens by this name, and all it opens beside the driver (no cuDNN)."""
CTRANSLATE2_CUDA = 12

LEAST_DRIVER = {12: "525", 13: "580"}
"""CUDA major version -> first driver that serves all of it (CUDA Compatibility, table 1)."""
CUDA_13_LEAST_CAPABILITY = (7, 5)
"""CUDA 13 left Maxwell, Pascal and Volta behind; the first it serves is Turing (T4, RTX 20)."""

_NVML_NO_PERMISSION, _NVML_DRIVER_NOT_LOADED, _NVML_VERSION_MISMATCH = 4, 9, 18

IN_CONTAINER = (
    "This container cannot reach the NVIDIA card because it runs without the NVIDIA runtime; "
    "install nvidia-container-toolkit on the host and start the container with: --gpus all"
)


@dataclass(frozen=True, slots=True)
class Memory:
    """RAM this process may use: of the machine, or of its container if that has a limit."""

    total_bytes: int
    available_bytes: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA card, as its driver tells it."""

    name: str
    total_bytes: int
    """VRAM; 0 if the driver does not tell (a part of a card, shared memory)."""
    free_bytes: int
    driver: str
    """`580.65.06`"""
    cuda_version: tuple[int, int]
    """The newest CUDA the driver serves, (13, 0)."""
    compute_capability: tuple[int, int]
    """(7, 5) for a T4."""


@dataclass(frozen=True, slots=True)
class Nvidia:
    """The NVIDIA cards that can be used; `problem` says why there is none."""

    gpus: tuple[Gpu, ...]
    problem: str | None
    card: bool
    """A card is in the machine, usable or not."""


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """What torch was built for, read from its files."""

    version: str
    cuda: str | None
    """`13.0`; None for a CPU build."""
    hip: str | None
    """The same of a build for AMD cards."""


class _NvmlMemory(ctypes.Structure):
    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


# --- memory, disk, cores -------------------------------------------------------


def memory(*, root: Path = ROOT) -> Memory:
    """RAM in total and still to be had. A container's limit counts, if it has one."""
    machine = psutil.virtual_memory()
    groups = root / "sys/fs/cgroup"
    limit = _number(groups / "memory.max") or _number(groups / "memory/memory.limit_in_bytes")
    if limit is None or limit >= machine.total:
        return Memory(machine.total, machine.available)
    used = _number(groups / "memory.current") or _number(groups / "memory/memory.usage_in_bytes")
    # Files the kernel merely keeps at hand are counted as used, but are given back when needed.
    stat = _text(groups / "memory.stat") or _text(groups / "memory/memory.stat")
    cached = re.search(r"^(?:total_)?inactive_file (\d+)$", stat, re.MULTILINE)
    free = limit - (used or 0) + (int(cached[1]) if cached else 0)
    return Memory(limit, max(0, min(machine.available, free)))


def disk_free(path: Path) -> int:
    """Bytes this user may still write where `path` is, or will be once it is made."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def physical_cores(*, root: Path = ROOT) -> int:
    """Cores this process may use, at least 1: hyper-threads are not counted twice, and what
    an affinity or a container's quota leaves is the most."""
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    quota = _text(root / "sys/fs/cgroup/cpu.max").split()  # "200000 100000": 2 cores; or "max"
    if len(quota) == 2 and quota[0].isdigit() and int(quota[1]):
        cores = min(cores, math.ceil(int(quota[0]) / int(quota[1])))
    return max(1, cores)


# --- NVIDIA --------------------------------------------------------------------


def nvidia(*, root: Path = ROOT, load: Load = ctypes.CDLL) -> Nvidia:
    """Ask the driver for its cards; without one, find out why from what the kernel shows."""
    library = _first(NVML, load)
    if library is None:
        return _unusable(root)
    code = library.nvmlInit_v2()
    if code != 0:
        return _unusable(root, code)
    try:
        gpus = _gpus(library)
    finally:
        library.nvmlShutdown()
    if not gpus:
        return _unusable(root)
    newest = gpus[0].cuda_version
    problem = None
    if newest < (CTRANSLATE2_CUDA, 0):
        problem = _too_old(gpus[0], "IVAS", CTRANSLATE2_CUDA)
    return Nvidia(gpus, problem, card=True)


def _gpus(library: Any) -> tuple[Gpu, ...]:
    text = ctypes.create_string_buffer(96)
    number = ctypes.c_int(0)
    library.nvmlSystemGetDriverVersion(text, 96)
    driver = text.value.decode(errors="replace")
    library.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(number))
    cuda = (number.value // 1000, number.value % 1000 // 10)  # 12040 is 12.4
    count = ctypes.c_uint(0)
    library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    found = []
    for index in range(count.value):
        card = ctypes.c_void_p()
        if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(card)) != 0:
            continue  # lost, or not for this user
        library.nvmlDeviceGetName(card, text, 96)
        vram = _NvmlMemory()
        library.nvmlDeviceGetMemoryInfo(card, ctypes.byref(vram))
        major, minor = ctypes.c_int(0), ctypes.c_int(0)
        library.nvmlDeviceGetCudaComputeCapability(card, ctypes.byref(major), ctypes.byref(minor))
        name = text.value.decode(errors="replace")
        capability = (major.value, minor.value)
        found.append(Gpu(name, vram.total, vram.free, driver, cuda, capability))
    return tuple(found)


def _unusable(root: Path, code: int = 0) -> Nvidia:
    """Why there is no card to be had, after NVML was missing or said `code`."""
    card = _card_in(root)
    loaded = (root / "proc/driver/nvidia/version").exists()
    if code == _NVML_VERSION_MISMATCH:
        why = (
            "The NVIDIA driver was updated while the old one is still running; restart the machine."
        )
    elif code == _NVML_NO_PERMISSION:
        why = (
            "This user may not use the NVIDIA card; put the user into the group that owns "
            "/dev/nvidia0 (often video) and log in again."
        )
    elif (card or loaded) and _in_container(root):
        why = IN_CONTAINER
    elif loaded and code == 0:
        why = (
            "The NVIDIA driver is loaded, but its library libnvidia-ml.so.1 is missing or shows "
            "no card; install the driver anew and restart the machine."
        )
    elif card and code == _NVML_DRIVER_NOT_LOADED:
        why = (
            "The NVIDIA driver is installed but not running; restart the machine, and if it "
            "stays so install the driver anew (with Secure Boot on, its key must be enrolled)."
        )
    elif card and code:
        why = (
            f"The NVIDIA driver does not answer (NVML error {code}); restart the machine, and "
            "if it stays so install the driver anew."
        )
    elif card:
        why = (
            "An NVIDIA card is in this machine, but no driver for it; install one (on Ubuntu: "
            "sudo ubuntu-drivers install) and restart the machine."
        )
    else:
        why = (
            "No NVIDIA card is in this machine; run on the CPU (IVAS_ENV=development), or use "
            "a machine with one."
        )
    return Nvidia((), why, card=card or loaded or code == _NVML_NO_PERMISSION)


def _card_in(root: Path) -> bool:
    """Whether the PCI bus, or a driver's device file, shows an NVIDIA graphics card."""
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        graphics = _text(device / "class").startswith(DISPLAY_CLASS)
        if graphics and _text(device / "vendor").strip() == NVIDIA_VENDOR:
            return True
    return (root / "dev/nvidia0").exists()


def _in_container(root: Path) -> bool:
    marks = (root / ".dockerenv", root / "run/.containerenv")
    groups = _text(root / "proc/1/cgroup")
    return any(mark.exists() for mark in marks) or "docker" in groups or "kubepods" in groups


# --- CUDA ----------------------------------------------------------------------


def cuda_problem(
    *,
    torch: bool,
    ctranslate2: bool,
    root: Path = ROOT,
    load: Load = ctypes.CDLL,
    search: Sequence[str] | None = None,
) -> str | None:
    """Why these libraries cannot use the NVIDIA card; None if nothing speaks against it.

    With `ctranslate2` cuBLAS is loaded, see `load_cublas`, and stays.
    """
    cards = nvidia(root=root, load=load)
    if cards.problem is not None:
        return cards.problem
    driver = _first(CUDA, load)
    if driver is None:
        return (
            "The NVIDIA driver's library libcuda.so.1 is missing, so nothing can compute on the "
            "card; install the driver anew, or in a container set "
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility."
        )
    code = driver.cuInit(0)
    if code != 0:
        return _cuda_refused(code)
    problem = _torch_problem(cards.gpus, search) if torch else None
    if problem is None and ctranslate2:
        problem = _ctranslate2_problem(cards.gpus, load, search)
    return problem


def _cuda_refused(code: int) -> str:
    match code:
        case 100:  # CUDA_ERROR_NO_DEVICE
            return (
                "CUDA sees no NVIDIA card although the driver does; unset CUDA_VISIBLE_DEVICES, "
                "or let it name a card that exists, such as 0."
            )
        case 802:  # CUDA_ERROR_SYSTEM_NOT_READY
            return (
                "The NVIDIA card is not ready because the Fabric Manager does not run; start it "
                "with: sudo systemctl start nvidia-fabricmanager"
            )
        case 803:  # CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
            return (
                "The NVIDIA driver and its library libcuda.so.1 are of two versions; restart "
                "the machine, or in a container take an image without a driver in it."
            )
    return (
        f"CUDA does not start (error {code}); restart the machine, and if it stays so install "
        "the NVIDIA driver anew."
    )


def torch_build(search: Sequence[str] | None = None) -> TorchBuild | None:
    """What torch is built for, without importing it; None if it is not installed."""
    for place in sys.path if search is None else search:
        text = _text(Path(place) / "torch/version.py")
        values = dict(re.findall(r"^(__version__|cuda|hip)\b[^=\n]*= *'([^']*)'", text, re.M))
        if "__version__" in values:
            return TorchBuild(values["__version__"], values.get("cuda"), values.get("hip"))
    return None


def _torch_problem(gpus: Sequence[Gpu], search: Sequence[str] | None) -> str | None:
    build = torch_build(search)
    if build is None:
        return "The package torch is not installed; install it with: pip install 'ivas[xtts]'"
    plain = build.version.partition("+")[0]
    if build.cuda is None:
        kind = "AMD cards" if build.hip else "the CPU only"
        return (
            f"torch {build.version} is built for {kind} and cannot use the NVIDIA card; install "
            f"its CUDA build with: pip install --force-reinstall torch=={plain}"
        )
    wanted = int(build.cuda.partition(".")[0])
    if gpus[0].cuda_version[0] < wanted:
        return _too_old(gpus[0], f"torch {build.version}", wanted)
    oldest = min(gpu.compute_capability for gpu in gpus)
    if wanted >= 13 and oldest < CUDA_13_LEAST_CAPABILITY:
        card = next(gpu for gpu in gpus if gpu.compute_capability == oldest)
        return (
            f"The {card.name} (compute capability {oldest[0]}.{oldest[1]}) is too old for torch "
            f"{build.version}, whose CUDA {build.cuda} begins at 7.5; install a torch built for "
            "CUDA 12.6, or use a newer card."
        )
    return None


def _ctranslate2_problem(
    gpus: Sequence[Gpu], load: Load, search: Sequence[str] | None
) -> str | None:
    places = sys.path if search is None else search
    if not any((Path(place) / "ctranslate2/__init__.py").exists() for place in places):
        return (
            "The package ctranslate2 is not installed; install it with: pip install 'ivas[whisper]'"
        )
    if gpus[0].cuda_version[0] < CTRANSLATE2_CUDA:
        return _too_old(gpus[0], "ctranslate2", CTRANSLATE2_CUDA)
    if not load_cublas(load=load, search=search):
        return (
            f"ctranslate2 cannot use the NVIDIA card because {CUBLAS} of CUDA 12 is missing or "
            "does not load; install it with: pip install 'nvidia-cublas-cu12>=12.4'"
        )
    return None


def load_cublas(*, load: Load = ctypes.CDLL, search: Sequence[str] | None = None) -> bool:
    """Bring cuBLAS 12 into this process, from the loader's path or from site-packages.

    ctranslate2 opens it by name and does not look into site-packages; but what is loaded
    already is found. Call it before the first use of ctranslate2 on CUDA. False: it is missing.
    """
    if _first((CUBLAS,), load) is not None:
        return True
    for place in sys.path if search is None else search:
        for cublas in sorted(Path(place).glob(f"nvidia/*/lib/{CUBLAS}")):
            # It needs its other half, which lies beside it and may not be on the path either.
            _first((str(cublas.with_name("libcublasLt.so.12")),), load)
            if _first((str(cublas),), load) is not None:
                return True
    return False


def _too_old(gpu: Gpu, what: str, cuda: int) -> str:
    have = f"CUDA {gpu.cuda_version[0]}.{gpu.cuda_version[1]}"
    least = LEAST_DRIVER.get(cuda)
    which = f"to {least} or newer" if least else "to the newest"
    return (
        f"The NVIDIA driver {gpu.driver} is too old: it goes up to {have}, but {what} needs "
        f"CUDA {cuda}; update the driver {which}."
    )


# --- Apple ---------------------------------------------------------------------


def apple_mps(*, system: str = "", machine: str = "", search: Sequence[str] | None = None) -> bool:
    """Whether torch is installed and could use the GPU of this Mac (Apple silicon, Metal)."""
    here = (system or platform.system(), machine or platform.machine())
    return here == ("Darwin", "arm64") and torch_build(search) is not None


# --- small parts ---------------------------------------------------------------


def _first(names: Sequence[str], load: Load) -> Any:
    """The first library that can be opened, or None."""
    for name in names:
        try:
            return load(name)
        except OSError:
            continue
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None
