"""Machines to look at: files the kernel would show, libraries that answer as NVIDIA's do."""

from __future__ import annotations

from pathlib import Path

GIB = 2**30
TORCH_CUDA = (
    "__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n"
)
TORCH_CPU = "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n"
TORCH_ROCM = (
    "__version__ = '2.13.0+rocm7'\ncuda: Optional[str] = None\nhip: Optional[str] = '7.0'\n"
)


class Nvml:
    """libnvidia-ml.so.1: one card."""

    def __init__(self, *, init=0, cuda=13000, driver=b"580.65.06", capability=(7, 5), cards=1):
        self.init, self.cuda, self.driver = init, cuda, driver
        self.capability, self.cards = capability, cards
        self.open = 0

    def nvmlInit_v2(self):
        self.open += self.init == 0
        return self.init

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlSystemGetDriverVersion(self, text, size):
        text.value = self.driver
        return 0

    def nvmlSystemGetCudaDriverVersion_v2(self, number):
        number._obj.value = self.cuda
        return 0

    def nvmlDeviceGetCount_v2(self, count):
        count._obj.value = self.cards
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, card):
        card._obj.value = 1000 + index
        return 0 if index < 2 else 15  # NVML_ERROR_GPU_IS_LOST

    def nvmlDeviceGetName(self, card, text, size):
        text.value = b"Tesla T4"
        return 0

    def nvmlDeviceGetMemoryInfo(self, card, vram):
        vram._obj.total, vram._obj.free = 16 * GIB, 15 * GIB
        return 0

    def nvmlDeviceGetCudaComputeCapability(self, card, major, minor):
        major._obj.value, minor._obj.value = self.capability
        return 0


class Cuda:
    """libcuda.so.1"""

    def __init__(self, code=0):
        self.code = code

    def cuInit(self, flags):
        return self.code


def loader(**libraries):
    """Opens `nvml`, `cuda` and `cublas` if they are given, and nothing else."""
    names = {
        "nvml": "libnvidia-ml.so.1",
        "cuda": "libcuda.so.1",
        "cublas": "libcublas.so.12",
    }
    known = {names[short]: library for short, library in libraries.items()}

    def load(name):
        if name not in known:
            raise OSError(f"{name}: cannot open shared object file")
        return known[name]

    return load


CARD = {
    "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
    "sys/bus/pci/devices/0000:01:00.0/class": "0x030200\n",
}
LOADED = {"proc/driver/nvidia/version": "NVRM version: ...\n"}
CONTAINER = {".dockerenv": ""}


def write_files(root: Path, files: dict[str, str]) -> Path:
    """A machine whose file system begins at `root`; returns it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
