from __future__ import annotations

from functools import partial

import pytest
from machines import CARD, TORCH_CPU, TORCH_CUDA, Cuda, Nvml, loader, write_files

from ivas.doctor import gpu


@pytest.fixture
def machine(tmp_path):
    return partial(write_files, tmp_path)


def cards(root, *, wanted=(), **libraries):
    return gpu.nvidia_cards(wanted=wanted, root=root, load=loader(**libraries), search=[str(root)])


def test_no_card_and_none_wanted(machine):
    (finding,) = cards(machine({}))
    assert (finding.state, finding.fix) == ("ok", None)
    assert "every engine runs on the CPU" in finding.what


def test_no_card_but_one_is_wanted(machine):
    (finding,) = cards(machine({}), wanted=["Whisper", "XTTS"])
    assert finding.state == "fail"
    assert finding.what == ("No NVIDIA card is in this machine. Whisper and XTTS should run on it.")
    assert "IVAS_ENV=development" in finding.fix


def test_a_card_without_driver(machine):
    (finding,) = cards(machine(CARD))
    assert finding.state == "warn"
    assert "install one" in finding.fix


def test_a_card_that_nothing_uses(machine):
    root = machine({"torch/version.py": TORCH_CPU})
    card, torch = cards(root, nvml=Nvml(), cuda=Cuda())
    assert card.state == "ok"
    assert "Tesla T4, 15.0 of 16.0 GiB free, driver 580.65.06, CUDA up to 13.0" in card.what
    assert "IVAS_ENV=production" in card.fix
    assert (torch.name, torch.state) == ("torch on CUDA", "warn")


def test_production_that_is_ready(machine):
    root = machine({"torch/version.py": TORCH_CUDA, "ctranslate2/__init__.py": ""})
    found = cards(root, wanted=["XTTS"], nvml=Nvml(), cuda=Cuda(), cublas=object())
    assert [finding.state for finding in found] == ["ok", "ok", "ok"]


def test_production_without_cublas(machine):
    root = machine({"ctranslate2/__init__.py": ""})
    _, finding = cards(root, wanted=["Whisper"], nvml=Nvml(), cuda=Cuda())
    assert finding.state == "fail"
    assert "nvidia-cublas-cu12" in finding.fix


def test_a_card_that_is_nearly_full(machine, monkeypatch):
    monkeypatch.setattr(gpu, "LEAST_VRAM_GIB", 15.5)
    (finding,) = cards(machine({}), wanted=["XTTS"], nvml=Nvml(), cuda=Cuda())
    assert finding.state == "warn"
    assert "nvidia-smi" in finding.fix


@pytest.mark.parametrize(
    ("processor", "text", "said"),
    [
        ("arm64", TORCH_CPU, "MPS could be used (torch 2.13.0+cpu), but no engine of IVAS does"),
        ("arm64", "", "MPS cannot be used (torch is not installed)"),
        ("x86_64", TORCH_CPU, "MPS cannot be used (torch 2.13.0+cpu)"),
    ],
)
def test_what_runs_where_on_a_mac(machine, processor, text, said):
    root = machine({"torch/version.py": text})
    (finding,) = gpu.apple(system="Darwin", machine=processor, search=[str(root)])
    assert said in finding.what
    assert "only Ollama uses the GPU of the Mac" in finding.what


def test_elsewhere_mps_is_no_subject():
    assert gpu.apple(system="Linux") == []
