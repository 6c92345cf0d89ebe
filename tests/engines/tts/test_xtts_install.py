"""The many ways in which coqui-tts is not installed as it must be, told apart."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
from types import SimpleNamespace

import pytest

from ivas.engines.tts.xtts import install
from ivas.engines.tts.xtts.install import need_cuda, why_not_imported
from ivas.errors import EngineUnavailable


def torch(*, cuda: str | None = "13.0", complaint: str = "", at: str = "init"):
    """A torch that complains when CUDA starts, or at the first computation."""

    def refuse():
        if complaint and at == "init":
            raise RuntimeError(complaint)

    def ones(*_shape, device):
        assert device == "cuda"
        if complaint and at == "work":
            raise RuntimeError(complaint)
        return SimpleNamespace(add_=lambda _: SimpleNamespace(item=lambda: 2.0))

    return SimpleNamespace(
        __version__="2.13.0" if cuda else "2.13.0+cpu",
        version=SimpleNamespace(cuda=cuda, hip=None),
        cuda=SimpleNamespace(init=refuse),
        ones=ones,
    )


def test_a_card_that_computes_is_fine():
    need_cuda(torch())


# What torch 2.13 says, from its sources (torch/cuda/__init__.py, c10/cuda/driver_api.cpp).
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (torch(cuda=None), r"this torch \(2\.13\.0\+cpu\) is built for the CPU only; install a CU"),
        (
            torch(complaint="Found no NVIDIA driver on your system. Please check that you have"),
            "there is no NVIDIA driver; install the NVIDIA driver",
        ),
        (
            torch(complaint="The NVIDIA driver on your system is too old (found version 12040)."),
            r"the NVIDIA driver is too old for CUDA 13\.0, which torch is built for; update",
        ),
        (
            torch(complaint="No CUDA GPUs are available"),
            "the driver shows no GPU; see nvidia-smi and CUDA_VISIBLE_DEVICES",
        ),
        (
            torch(complaint="CUDA error: no kernel image is available for execution", at="work"),
            "this torch has no code for this GPU; install a torch build that supports it",
        ),
        (
            torch(complaint="CUDA error: out of memory\nCUDA kernel errors might be", at="work"),
            r"the GPU has no free memory; end what else uses it",
        ),
        (
            torch(complaint="libcublas.so.13: undefined symbol: cublasLtCreate"),
            "torch does not fit the CUDA libraries",
        ),
        (
            torch(complaint="CUDA unknown error - this may be due to an incorrectly set up"),
            "CUDA does not start .CUDA unknown error .* restart the machine",
        ),
    ],
)
def test_says_why_the_card_cannot_compute(broken, said):
    with pytest.raises(EngineUnavailable, match=f"cannot use the GPU because {said}") as refusal:
        need_cuda(broken)
    assert refusal.value.code == "no_cuda"
    assert str(refusal.value).endswith(", or set TTS_USE_GPU=false.")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("module", "error", "said"),
    [
        (
            "torchaudio",
            OSError("libtorch_cuda.so: cannot open shared object file: No such file"),
            "torchaudio is built for CUDA and torch is not (libtorch_cuda.so: cannot open",
        ),
        (
            "torchaudio",
            RuntimeError(
                "Detected that PyTorch and TorchAudio were compiled with different CUDA versions. "
                "PyTorch has CUDA version 12.8 whereas TorchAudio has CUDA version 13.0."
            ),
            "torch and torchaudio are built for different versions of CUDA",
        ),
        (
            "TTS.tts.models.xtts",
            ImportError("cannot import name 'BeamSearchScorer' from 'transformers' (/x)"),
            "coqui-tts and transformers do not fit together",
        ),
        (
            "TTS.tts.models.xtts",
            ModuleNotFoundError("No module named 'six'", name="six"),
            "coqui-tts needs the package six, which is not installed; run: pip install",
        ),
        (
            "TTS.tts.models.xtts",
            RuntimeError("Could not load libtorchcodec. Likely causes:\n 1. FFmpeg is not"),
            "torchcodec does not load (Could not load libtorchcodec",
        ),
        ("torch", OSError("libgomp.so.1: cannot open"), "the package torch does not load"),
        ("transformers", ValueError(""), "the package transformers does not load (ValueError)"),
    ],
)
def test_says_why_a_package_cannot_be_imported(module, error, said):
    sentence = why_not_imported(module, error)
    assert said in sentence
    assert sentence.endswith(".")
    assert re.search("pip install .*(xtts|force-reinstall)", sentence)
    assert "\n" not in sentence


def test_imports_step_by_step(tmp_path, monkeypatch):
    """A broken torchaudio is found before the import of TTS would hide it."""
    for name, body in {
        "torch": "version = None",
        "torchaudio": "raise OSError('libcudart.so.13: cannot open shared object file')",
        "transformers": "raise AssertionError('too far')",
    }.items():
        (tmp_path / f"{name}.py").write_text(body)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with pytest.raises(EngineUnavailable, match="built for CUDA and torch is not") as refusal:
        install.import_all("cpu")
    assert refusal.value.code == "package_broken"
    sys.modules.pop("torch", None)


def test_the_abandoned_original_is_not_taken_for_it(monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(install, "need_package", lambda _module, **_options: None)
    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(EngineUnavailable, match="pip uninstall TTS, then: pip install"):
        install.need_packages()
