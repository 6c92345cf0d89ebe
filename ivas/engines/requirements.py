"""What an engine needs before it can load: packages and model files, said in one sentence.

Cheap enough for `start` to ask again and again (`auto` does, every few seconds): a
look at the package index and at the names and sizes of files, nothing is opened but
what is so small that it can only be a Git LFS pointer.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from ivas.errors import EngineUnavailable

LFS_POINTER = b"version https://git-lfs"
"""How a file begins that stands for one Git LFS has not fetched; it is about 130 bytes long."""
LFS_POINTER_MOST_BYTES = 1024


def need_package(module: str, *, extra: str) -> None:
    """Raises EngineUnavailable if `module` is not installed; `extra` of ivas brings it."""
    try:
        found = importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a parent that is broken, or a module half loaded
        found = False
    if not found:
        raise EngineUnavailable(
            f"The package {module} is not installed; install it with: "
            f"pip install 'ivas[{extra}]', then start IVAS again.",
            code="package_missing",
        )


def need_files(directory: Path, names: Sequence[str], *, fix: str) -> None:
    """Raises EngineUnavailable unless every file is there and may be a model.

    `fix` is what to do, as an imperative: "run: ivas models download whisper-base".
    """
    for name in names:
        path = directory / name
        try:
            size = path.stat().st_size
        except OSError:
            raise EngineUnavailable(
                f"The model file {path} is missing; {fix}.", code="model_missing"
            ) from None
        if size == 0:
            raise EngineUnavailable(f"The model file {path} is empty; {fix}.", code="model_broken")
        if size <= LFS_POINTER_MOST_BYTES and path.read_bytes().startswith(LFS_POINTER):
            raise EngineUnavailable(
                f"The model file {path} is only a Git LFS pointer, not the model; {fix}.",
                code="model_broken",
            )
