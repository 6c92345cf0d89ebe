"""The files of an XTTS model: are they there, and whole as far as can be seen cheaply?

A truncated download or a web page in place of the weights is told here, in milliseconds,
and not after torch was imported. Fit for nothing else: what is wrong within is found by
loading (`worker.py`).
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from ivas.engines.requirements import need_files
from ivas.errors import EngineUnavailable

NEEDED = ("config.json", "vocab.json", "model.pth")
SPEAKERS = "speakers_xtts.pth"
DOWNLOAD = "run: ivas models download xtts-v2"
DOWNLOAD_AGAIN = "run: ivas models remove xtts-v2, then: ivas models download xtts-v2"


def need_model(directory: Path, *, speakers: bool) -> None:
    """Raises EngineUnavailable unless the model may load; `speakers`: with its own voices.

    Reads 400 kB and the ends of the big files: call it on a thread.
    """
    names = (*NEEDED, SPEAKERS) if speakers else NEEDED
    need_files(directory, names, fix=DOWNLOAD)
    for name in names:
        path = directory / name
        try:
            if path.suffix == ".json":
                json.loads(path.read_bytes())
            elif not zipfile.is_zipfile(path):  # torch.save writes one; its end comes last
                raise ValueError("it is cut short, or no file of torch")
        except (OSError, ValueError) as error:
            raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> EngineUnavailable:
    """That a file is no good, for which `error` is the evidence."""
    said = str(error).strip().partition("\n")[0].rstrip(".:") or type(error).__name__
    return EngineUnavailable(
        f"xtts cannot start because {path} is damaged or of another model ({said}); "
        f"{DOWNLOAD_AGAIN}.",
        code="model_broken",
    )


def stamps(directory: Path) -> tuple[tuple[int, int], ...]:
    """What tells whether a model was fetched anew: times and sizes."""
    found = [path.stat() for name in NEEDED if (path := directory / name).exists()]
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in found)
