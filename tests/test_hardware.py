"""Machines made of files and of libraries that answer as NVIDIA's do."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import (
    CARD,
    CONTAINER,
    GIB,
    LOADED,
    TORCH_CPU,
    TORCH_CUDA,
    TORCH_ROCM,
    Cuda,
    Nvml,
    loader,
    write_files,
)

from ivas import hardware
from ivas.hardware import (
    Gpu,
    apple_mps,
    cuda_problem,
    disk_free,
    load_cublas,
    memory,
    nvidia,
    physical_cores,
    torch_build,
)


@pytest.fixture
def machine(tmp_path):
    """Writes files of a machine: `machine({"proc/x": "text"})` returns its root."""
    return partial(write_files, tmp_path)


# --- memory, disk, cores -------------------------------------------------------


def test_this_machine():
    here = memory()
    assert 2**20 < here.available_bytes <= here.total_bytes
    assert physical_cores() >= 1
    assert 0 < disk_free(hardware.ROOT) == pytest.approx(disk_free(hardware.ROOT), rel=0.1)


def test_the_limit_of_a_container_counts(machine):
    root = machine(
        {
            "sys/fs/cgroup/memory.max": "300000000\n",
            "sys/fs/cgroup/memory.current": "200000000\n",
            "sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 50000000\nactive_file 7\n",
        }
    )
    assert memory(root=root) == hardware.Memory(300_000_000, 150_000_000)


def test_the_limit_of_an_old_container_counts(machine):
    root = machine(
        {
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "300000000",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "400000000",
        }
    )
    assert memory(root=root) == hardware.Memory(300_000_000, 0)


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", "", "nonsense"])
def test_a_container_without_limit_has_the_memory_of_the_machine(machine, limit):
    root = machine({"sys/fs/cgroup/memory.max": limit})
    assert memory(root=root).total_bytes == memory().total_bytes


@given(st.binary(max_size=40))
def test_whatever_the_kernel_writes_memory_is_told(tmp_path_factory, noise):
    root = tmp_path_factory.mktemp("noise")
    group = root / "sys/fs/cgroup"
    group.mkdir(parents=True)
    for name in ("memory.max", "memory.current", "memory.stat", "cpu.max"):
        (group / name).write_bytes(noise)
    told = memory(root=root)
    assert 0 <= told.available_bytes <= told.total_bytes
    assert physical_cores(root=root) >= 1


def test_the_disk_of_a_directory_still_to_be_made(tmp_path):
    assert disk_free(tmp_path / "models/deep/below") > 0


def test_a_quota_bounds_the_cores(machine):
    assert physical_cores(root=machine({"sys/fs/cgroup/cpu.max": "50000 100000\n"})) == 1
    assert physical_cores(root=machine({"sys/fs/cgroup/cpu.max": "max 100000\n"})) >= 1


# --- NVIDIA --------------------------------------------------------------------


def test_a_card_that_works(machine):
    nvml = Nvml(cards=3)
    told = nvidia(root=machine({}), load=loader(nvml=nvml))
    assert told.problem is None
    assert told.card
    t4 = Gpu("Tesla T4", 16 * GIB, 15 * GIB, "580.65.06", (13, 0), (7, 5))
    assert told.gpus == (t4, t4)  # the third is lost
    assert nvml.open == 0


@pytest.mark.parametrize(
    ("files", "code", "sentence", "card"),
    [
        ({}, None, "No NVIDIA card is in this machine", False),
        (CONTAINER, None, "No NVIDIA card is in this machine", False),
        (CARD, None, "no driver for it; install one", True),
        (CARD | CONTAINER, None, "without the NVIDIA runtime", True),
        (LOADED | CONTAINER, None, "without the NVIDIA runtime", True),
        (LOADED | {"proc/1/cgroup": "12:/docker/af"}, 9, "without the NVIDIA runtime", True),
        (LOADED | CARD, None, "its library libnvidia-ml.so.1 is missing", True),
        ({"dev/nvidia0": ""}, None, "no driver for it", True),
        (CARD, 9, "installed but not running; restart the machine", True),
        (CARD, 18, "updated while the old one is still running", True),
        (CARD, 4, "This user may not use", True),
        ({}, 4, "This user may not use", True),
        (CARD, 999, "does not answer (NVML error 999)", True),
        ({}, 9, "No NVIDIA card is in this machine", False),
    ],
)
def test_why_there_is_no_card(machine, files, code, sentence, card):
    load = loader() if code is None else loader(nvml=Nvml(init=code))
    told = nvidia(root=machine(files), load=load)
    assert told.gpus == ()
    assert sentence in told.problem
    assert told.problem.count(". ") == 0  # one sentence
    assert told.card == card


def test_a_driver_that_shows_no_card(machine):
    told = nvidia(root=machine({}), load=loader(nvml=Nvml(cards=0)))
    assert "No NVIDIA card" in told.problem


def test_the_sound_of_a_card_is_no_card(machine):
    audio = {name: text.replace("0x0302", "0x0403") for name, text in CARD.items()}
    assert not nvidia(root=machine(audio), load=loader()).card


def test_a_driver_from_before_cuda_12(machine):
    told = nvidia(root=machine({}), load=loader(nvml=Nvml(cuda=11040, driver=b"470.82.01")))
    assert told.problem == (
        "The NVIDIA driver 470.82.01 is too old: it goes up to CUDA 11.4, but IVAS needs "
        "CUDA 12; update the driver to 525 or newer."
    )
    assert len(told.gpus) == 1


# --- CUDA ----------------------------------------------------------------------


def problem(root, *, torch=True, ctranslate2=False, **libraries):
    """On a machine with a card, its packages under `root`."""
    load = loader(**({"nvml": Nvml(), "cuda": Cuda()} | libraries))
    return cuda_problem(
        torch=torch, ctranslate2=ctranslate2, root=root, load=load, search=[str(root)]
    )


def test_torch_that_fits(machine):
    assert problem(machine({"torch/version.py": TORCH_CUDA})) is None


def test_the_cards_own_problem_comes_first(machine):
    said = cuda_problem(torch=True, ctranslate2=True, root=machine(CARD), load=loader())
    assert "no driver for it" in said


def test_a_container_without_the_compute_library(machine):
    said = cuda_problem(torch=False, ctranslate2=False, root=machine({}), load=loader(nvml=Nvml()))
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in said


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (100, "CUDA_VISIBLE_DEVICES"),
        (802, "nvidia-fabricmanager"),
        (803, "of two versions"),
        (999, "CUDA does not start (error 999)"),
    ],
)
def test_cuda_that_does_not_start(machine, code, sentence):
    assert sentence in problem(machine({}), torch=False, cuda=Cuda(code))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (TORCH_CPU, "torch 2.13.0+cpu is built for the CPU only and cannot use the NVIDIA card"),
        (TORCH_CPU, "pip install --force-reinstall torch==2.13.0"),
        (TORCH_ROCM, "torch 2.13.0+rocm7 is built for AMD cards"),
        ("", "The package torch is not installed"),
    ],
)
def test_torch_of_another_build(machine, text, sentence):
    assert sentence in problem(machine({"torch/version.py": text}))


def test_torch_newer_than_the_driver(machine):
    said = problem(
        machine({"torch/version.py": TORCH_CUDA}), nvml=Nvml(cuda=12020, driver=b"535.104")
    )
    assert said == (
        "The NVIDIA driver 535.104 is too old: it goes up to CUDA 12.2, but torch 2.13.0+cu130 "
        "needs CUDA 13; update the driver to 580 or newer."
    )


def test_a_card_older_than_cuda_13(machine):
    root = machine({"torch/version.py": TORCH_CUDA})
    said = problem(root, nvml=Nvml(capability=(6, 1)))
    assert "The Tesla T4 (compute capability 6.1) is too old for torch 2.13.0+cu130" in said


CTRANSLATE2 = {"ctranslate2/__init__.py": ""}


def test_ctranslate2_with_cublas_on_the_path(machine):
    root = machine(CTRANSLATE2)
    assert problem(root, torch=False, ctranslate2=True, cublas=object()) is None


def test_ctranslate2_without_cublas(machine):
    said = problem(machine(CTRANSLATE2), torch=False, ctranslate2=True)
    assert "libcublas.so.12" in said
    assert "pip install 'nvidia-cublas-cu12" in said


def test_ctranslate2_itself_is_missing(machine):
    said = problem(machine({}), torch=False, ctranslate2=True)
    assert "pip install 'ivas[whisper]'" in said


def test_cublas_is_brought_in_from_site_packages(machine):
    root = machine({"nvidia/cublas/lib/libcublas.so.12": ""})
    opened = []

    def load(name):
        opened.append(name.removeprefix(str(root)))
        if "/" not in name:
            raise OSError
        return object()

    assert load_cublas(load=load, search=[str(root)])
    assert opened == [
        "libcublas.so.12",
        "/nvidia/cublas/lib/libcublasLt.so.12",
        "/nvidia/cublas/lib/libcublas.so.12",
    ]


def test_a_cublas_that_is_no_library_is_missing(machine):
    root = machine({"nvidia/cublas/lib/libcublas.so.12": "version https://git-lfs"})
    assert not load_cublas(search=[str(root)])


def test_torch_of_this_environment_is_read_without_importing_it():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, ivas.hardware as h; h.torch_build(); h.nvidia();"
            "assert not {'torch', 'ctranslate2', 'numpy'} & set(sys.modules)",
        ],
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr


def test_torch_build(machine):
    root = machine({"torch/version.py": TORCH_CUDA})
    assert torch_build([str(root / "none"), str(root)]) == hardware.TorchBuild(
        "2.13.0+cu130", "13.0", None
    )


@pytest.mark.parametrize(
    ("system", "processor", "text", "can"),
    [
        ("Darwin", "arm64", TORCH_CPU, True),
        ("Darwin", "arm64", "", False),
        ("Darwin", "x86_64", TORCH_CPU, False),
        ("Linux", "aarch64", TORCH_CPU, False),
    ],
)
def test_apple_mps(machine, system, processor, text, can):
    root = machine({"torch/version.py": text})
    assert apple_mps(system=system, machine=processor, search=[str(root)]) == can


# --- the real way through ctypes -----------------------------------------------

NVML_C = r"""
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory;
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned n) { strncpy(text, "580.65.06", n); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *v) { *v = 13010; return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **h) { *h = (void *)0x7f1234567890; return 0; }
static int lost(void *h) { return h != (void *)0x7f1234567890; }
int nvmlDeviceGetName(void *h, char *text, unsigned n)
{ if (lost(h)) return 2; strncpy(text, "NVIDIA H200", n); return 0; }
int nvmlDeviceGetMemoryInfo(void *h, memory *m)
{ if (lost(h)) return 2; m->total = 150ull << 30; m->free = 149ull << 30; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *h, int *a, int *b)
{ if (lost(h)) return 2; *a = 9; *b = 0; return 0; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_library_in_c(tmp_path):
    (tmp_path / "nvml.c").write_text(NVML_C)
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "nvml.c"], check=True)
    told = nvidia(root=tmp_path, load=lambda name: ctypes.CDLL(str(tmp_path / name)))
    assert told.gpus == (Gpu("NVIDIA H200", 150 * GIB, 149 * GIB, "580.65.06", (13, 1), (9, 0)),)
