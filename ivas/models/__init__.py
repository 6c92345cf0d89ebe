"""Models on disk: what a model is, and what can be wrong with one. A leaf: no engine, no settings.

`catalogue.py` names the models that can be fetched, `store.py` keeps them, `download.py`
fetches them, `fit.py` says which of them this machine can run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ivas.errors import IvasError

Source = Literal["hub", "github"]
"""Where a file comes from: the Hugging Face hub (or its mirror), or a GitHub release."""


class ModelError(IvasError):
    """A model cannot be fetched, kept or removed; the sentence says what to do."""


@dataclass(frozen=True, slots=True)
class Licence:
    """What the makers of a model allow."""

    name: str
    """An SPDX identifier where there is one."""
    url: str
    """Where its text is, or the card that names it."""
    non_commercial: bool = False
    """Somebody has to accept it before the model is fetched."""
    note: str = ""
    """What the name alone does not say."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model."""

    name: str
    """What it is called on disk, inside the directory of its model."""
    source: Source
    url_path: str
    """Below the address of its source, as `owner/repository/resolve/revision/file`."""
    size_bytes: int
    """About: the server's own word decides."""
    sha256: str | None = None
    """64 hexadecimal digits; None where nobody has published one: the server's then counts."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be fetched."""

    id: str
    """Also the name of its directory, and what is typed: `whisper-base`."""
    engine: Literal["whisper", "kokoro", "piper", "xtts"]
    purpose: str
    """What it is for, in a phrase."""
    languages: tuple[str, ...]
    """BCP 47 codes; `multi` where they are too many to name."""
    licence: Licence
    files: tuple[ModelFile, ...]
    ram_bytes: int
    """What its engine needs in memory while it works on the processor, about."""
    vram_bytes: int | None = None
    """What it needs on an NVIDIA card, about; None where the card brings nothing."""
    live_on_cpu: bool = True
    """Whether a usual processor runs it fast enough for a conversation."""

    @property
    def size_bytes(self) -> int:
        """What it takes on disk, about."""
        return sum(file.size_bytes for file in self.files)


def shown_size(size_bytes: float) -> str:
    """A size for a person, in powers of ten as disks and downloads are sold: `145 MB`."""
    if size_bytes < 999.5e3:
        return f"{size_bytes / 1e3:.0f} kB"
    if size_bytes < 999.5e6:
        return f"{size_bytes / 1e6:.0f} MB"
    return f"{size_bytes / 1e9:.1f} GB"
