"""Is coqui-tts installed so that it works, and if not, which of the many ways was it?

`need_packages` is cheap and asked by the server. `import_all` imports, step by step so that
each fault can be told from the others; it runs in the worker process.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from typing import Any

from ivas.engines.requirements import need_package
from ivas.errors import EngineUnavailable

REINSTALL = "pip install --upgrade 'ivas[xtts]'"
_CUDA_LIBRARY = re.compile(r"lib(?:cud|cublas|cufft|nv|torch_cuda|c10_cuda)\w*\.so[.\d]*")


def need_packages() -> None:
    """Raises EngineUnavailable unless all packages are there. Imports none of them."""
    # coqui-tts imports six without requiring it; torchcodec must be there from torch 2.9 on.
    for module in ("TTS", "torch", "torchaudio", "torchcodec", "transformers", "six"):
        need_package(module, extra="xtts")
    try:
        importlib.metadata.version("coqui-tts")
    except importlib.metadata.PackageNotFoundError:
        raise EngineUnavailable(
            "xtts cannot start because the installed package TTS is the abandoned original, which "
            "does not work with today's transformers; run: pip uninstall TTS, then: "
            f"{REINSTALL}.",
            code="package_broken",
        ) from None


def import_all(device: str) -> Any:
    """Import torch, see that it has `device`, import the rest; returns torch.

    Raises EngineUnavailable.
    """
    torch = _import("torch")
    if device != "cpu":
        need_cuda(torch)
    for module in ("torchaudio", "transformers", "TTS.tts.models.xtts"):
        _import(module)
    return torch


def need_cuda(torch: Any) -> None:
    """Raises EngineUnavailable if torch cannot compute on an NVIDIA card, with the reason."""
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        raise _no_cuda(
            f"this torch ({torch.__version__}) is built for the CPU only",
            "install a CUDA build of torch",
        )
    try:
        torch.cuda.init()
        torch.ones(1, device="cuda").add_(1).item()
    except (RuntimeError, AssertionError, OSError) as error:
        raise _no_cuda(*why_no_cuda(str(error), torch)) from error


def why_no_cuda(message: str, torch: Any) -> tuple[str, str]:
    """What torch's complaint means, and what to do."""
    first = message.strip().partition("\n")[0].rstrip(".")
    if "Found no NVIDIA driver" in message:
        return (
            "there is no NVIDIA driver",
            "install the NVIDIA driver, and see that nvidia-smi runs",
        )
    if "driver" in message and ("too old" in message or "insufficient" in message):
        return (
            f"the NVIDIA driver is too old for CUDA {torch.version.cuda}, which torch is built for",
            "update the driver",
        )
    if "No CUDA GPUs" in message or "no CUDA-capable device" in message:
        return (
            "the driver shows no GPU",
            "see nvidia-smi and CUDA_VISIBLE_DEVICES, and in a container run it with --gpus all",
        )
    if "no kernel image" in message:
        return (
            "this torch has no code for this GPU",
            "install a torch build that supports it",
        )
    if "out of memory" in message:
        return "the GPU has no free memory", "end what else uses it (see nvidia-smi)"
    if _CUDA_LIBRARY.search(message) or "undefined symbol" in message:
        return (
            f"torch does not fit the CUDA libraries ({first})",
            f"install them anew together with: {REINSTALL}",
        )
    return f"CUDA does not start ({first})", "see whether nvidia-smi runs, then restart the machine"


def _no_cuda(why: str, fix: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"xtts cannot use the GPU because {why}; {fix}, or set TTS_USE_GPU=false.",
        code="no_cuda",
    )


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except Exception as error:  # a broken package raises what it likes
        raise EngineUnavailable(why_not_imported(module, error), code="package_broken") from error


def why_not_imported(module: str, error: Exception) -> str:
    """One sentence with the fix for an import that failed."""
    package = "coqui-tts" if module.startswith("TTS") else module
    said = str(error).strip()
    first = said.partition("\n")[0].rstrip(".") or type(error).__name__
    missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    if missing:
        return (
            f"xtts cannot start because {package} needs the package {missing.split('.')[0]}, which "
            f"is not installed; run: {REINSTALL}."
        )
    if module == "torchaudio" and _CUDA_LIBRARY.search(said):
        return (
            "xtts cannot start because torchaudio is built for CUDA and torch is not "
            f"({first}); install both of one kind: pip install --force-reinstall torch torchaudio."
        )
    if module == "torchaudio" and "different CUDA versions" in said:
        return (
            "xtts cannot start because torch and torchaudio are built for different versions of "
            "CUDA; install them together: pip install --force-reinstall torch torchaudio."
        )
    if "torchcodec" in said.lower():
        return (
            f"xtts cannot start because torchcodec does not load ({first}); install the release of "
            f"torchcodec that is made for this torch: {REINSTALL}."
        )
    if module != "torch" and "transformers" in said:
        return (
            f"xtts cannot start because {package} and transformers do not fit together ({first}); "
            f"run: {REINSTALL}."
        )
    return (
        f"xtts cannot start because the package {package} does not load ({first}); install it anew "
        f"with: pip install --force-reinstall {package}."
    )
