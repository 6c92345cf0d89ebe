from __future__ import annotations

import os
import signal

import pytest

from ivas.doctor import imports
from ivas.doctor.packages import Installed

AUDIO_CUDA = "__version__ = '2.11.0+cu130'\n"
TORCH = "__version__ = '2.13.0+{build}'\ncuda: Optional[str] = {cuda}\nhip = None\n"
GOOD = ""


def torch_file(cuda):
    return TORCH.format(
        build="cpu" if cuda is None else "cu" + cuda.replace(".", ""), cuda=repr(cuda)
    )


def family(site, *, torch="import sys", cuda=None, audio=GOOD, audio_version="", **how):
    """An environment with torch and torchaudio; the findings about them."""
    site(
        "torch", "2.13.0", files={"torch/__init__.py": torch, "torch/version.py": torch_file(cuda)}
    )
    files = {"torchaudio/__init__.py": audio, "torchaudio/version.py": audio_version}
    site("torchaudio", "2.11.0", files=files)
    return imports.torch_family(search=[str(site)], **how)


def test_a_family_that_fits(site):
    (finding,) = family(site)
    assert finding.state == "ok"
    assert finding.what == "torch 2.13.0, torchaudio 2.11.0: they fit and can be imported"


def test_cpu_torch_beside_cuda_torchaudio(site):
    (finding,) = family(site, audio_version=AUDIO_CUDA)
    assert finding.name == "torchaudio"
    assert finding.state == "warn"
    assert "built for CUDA 13.0, but torch 2.13.0+cpu without CUDA" in finding.what
    assert "pip install --force-reinstall torch==2.13.0 torchaudio==2.11.0" in finding.fix


def test_torchaudio_for_another_cuda(site):
    (finding,) = family(site, cuda="12.8", audio_version=AUDIO_CUDA, needed=["xtts"])
    assert finding.state == "fail"
    assert "built for CUDA 13.0, but torch 2.13.0+cu128 for CUDA 12.8" in finding.what


@pytest.mark.parametrize("audio_version", [AUDIO_CUDA, "__version__ = '2.11.0+cpu'\n", "garbage"])
def test_torchaudio_that_fits(site, audio_version):
    (finding,) = family(site, cuda="13.0", audio_version=audio_version)
    assert finding.state == "ok"


def test_a_torchaudio_that_only_the_import_shows_to_be_broken(site):
    (finding,) = family(
        site, audio="raise OSError('libcudart.so.13: cannot open shared object file')"
    )
    assert finding.name == "torchaudio"
    assert "does not fit torch" in finding.what


def test_coqui_without_six(site):
    site("coqui-tts", "0.28.0")
    findings = {finding.name: finding for finding in family(site)}
    assert findings["six"].fix == "pip install six"


def test_torchcodec_need_only_be_there(site):
    text = "raise RuntimeError('Could not load libtorchcodec. FFmpeg is not installed')"
    site("torchcodec", "0.13.0", files={"torchcodec/__init__.py": text})
    assert imports.torch_family(search=[str(site)]) == []


def test_without_torch_there_is_nothing_to_say(site):
    assert imports.torch_family(search=[str(site)]) == []


def tried(site, text, *, limit_s=5.0, **how):
    site("av", "18.1.0", files={"av/__init__.py": text})
    return imports.tried(["av"], Installed([str(site)]), search=[str(site)], limit_s=limit_s, **how)


def test_a_module_that_cannot_be_imported(site):
    (finding,) = tried(site, "import nowhere_at_all")
    assert finding.state == "fail"  # av is part of the core
    assert "av 18.1.0 is installed but cannot be imported (ModuleNotFoundError" in finding.what
    assert finding.fix == "pip install --force-reinstall --no-deps av==18.1.0"


def test_a_module_that_takes_its_process_with_it(site):
    (finding,) = tried(site, f"import os; os.kill(os.getpid(), {int(signal.SIGILL)})")
    assert f"ended its process with signal {int(signal.SIGILL)}" in finding.what


def test_a_module_that_ends_its_process(site):
    (finding,) = tried(site, "import os; os._exit(3)")
    assert "ended its process" in finding.what


def test_a_module_that_says_goodbye(site):
    (finding,) = tried(site, "raise SystemExit('no licence')")
    assert "SystemExit: no licence" in finding.what


def test_a_module_that_hangs(site):
    (finding,) = tried(site, "import threading; threading.Event().wait()", limit_s=0.5)
    assert finding.state == "warn"
    assert "took longer than 0.5 s" in finding.what


def test_a_module_that_talks(site):
    text = "print('[1, 2]'); print('hello'); print('[\"av\", \"\"')"
    assert tried(site, text) == []


def test_a_module_built_for_another_numpy(site):
    site("numpy", "2.4.6", files={"numpy/__init__.py": ""})
    (finding,) = tried(site, "raise ImportError('numpy.core.multiarray failed to import')")
    assert "built for another numpy than 2.4.6" in finding.what


def test_the_original_webrtcvad(site):
    site("webrtcvad", "2.0.10")
    site("webrtcvad-wheels", "2.0.14", files={"webrtcvad.py": "import pkg_resources_of_old"})
    lying, broken = imports.light(search=[str(site)])
    assert "lies over webrtcvad-wheels" in lying.what
    assert broken.name == "webrtcvad"


def test_webrtcvad_without_pkg_resources(site):
    text = "raise ModuleNotFoundError(\"No module named 'pkg_resources'\")"
    site("webrtcvad-wheels", "2.0.10", files={"webrtcvad.py": text})
    (finding,) = imports.light(search=[str(site)])
    assert "is the original" in finding.what


@pytest.mark.parametrize("name", ["TTS", "onnxruntime-gpu"])
def test_two_packages_in_one_folder(site, name):
    site(name, "0.22.0")
    (finding,) = imports.light(search=[str(site)])
    assert f"pip uninstall -y {name.lower()}" in finding.fix


def test_the_working_directory_is_no_place_for_modules(site, tmp_path, monkeypatch):
    stray = tmp_path / "elsewhere"
    stray.mkdir()
    (stray / "json.py").write_text("raise SystemExit")
    monkeypatch.chdir(stray)
    assert tried(site, "") == []
    assert os.getcwd() == str(stray)


def test_a_broken_numpy_is_told_once(site):
    broken = {"numpy/__init__.py": "raise ImportError('numpy.core.multiarray failed to import')"}
    site("numpy", "2.4.6", files=broken)
    site("soxr", "1.1.0", files={"soxr/__init__.py": "import numpy"})
    (finding,) = imports.light(search=[str(site)])
    assert finding.fix == "pip install --force-reinstall --no-deps numpy==2.4.6"
