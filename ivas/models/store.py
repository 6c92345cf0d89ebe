"""The directory of models: what is there, whether it is whole, and taking it away again.

    <root>/<model id>/<files>            a model, as its engine expects it
    <root>/<model id>/ivas-model.json    its manifest, written last: the model is complete
    <root>/<model id>/<file>.part        a download that was interrupted (download.py)

A directory put there by hand has no manifest and is as good, once every file is in it.
Nothing here touches the network, and nothing outside the root is ever changed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ivas.models import Model, ModelError, shown_size

from .catalogue import CATALOGUE
from .files import hash_file, is_lfs_pointer, locked, write_atomically

MANIFEST = "ivas-model.json"
PART = ".part"
PART_STATE = ".part.json"
"""Beside a `.part`: of which version of the file it is the beginning (download.py)."""

_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What a manifest knows of a file."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was fetched, from where, and what somebody agreed to."""

    model_id: str
    files: Mapping[str, StoredFile]
    source: str
    """Where it came from: the address of the hub or of GitHub."""
    licence: str
    licence_accepted: bool
    """Somebody said yes to it; only a non-commercial one is asked about."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A model that is complete on disk."""

    model_id: str
    path: Path
    size_bytes: int
    """Of all its files, as they are on disk."""
    by_hand: bool
    """Put there by somebody, not by a download: there is nothing to check it against but
    the catalogue."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong with a model on disk."""

    file: str
    kind: Literal["missing", "size", "sha256", "lfs_pointer", "part", "manifest", "unreadable"]
    sentence: str


class ModelStore:
    """The models below `root`, which need not exist yet."""

    def __init__(self, root: Path, catalogue: tuple[Model, ...] = CATALOGUE) -> None:
        self.root = root
        self._catalogue = {model.id: model for model in catalogue}

    def path(self, model_id: str) -> Path:
        """The directory of a model, there or not. Raises ModelError for what is no model id."""
        if not _SAFE_ID.fullmatch(model_id) or ".." in model_id:
            raise ModelError(
                f"{model_id!r:.80} is no name of a model; list them with: ivas models list"
            )
        return self.root / model_id

    def installed(self) -> tuple[Installed, ...]:
        """Every complete model, in alphabetical order. Reads names, sizes and manifests only."""
        try:
            names = sorted(place.name for place in self.root.iterdir() if place.is_dir())
        except OSError:  # not there yet, or not ours to read: no engine could load it either
            return ()
        ids = [name for name in names if _SAFE_ID.fullmatch(name) and ".." not in name]
        found = (self.find_installed(model_id) for model_id in ids)
        return tuple(model for model in found if model is not None)

    def present(self) -> tuple[str, ...]:
        """The id of every model of which there is anything, complete or not."""
        found = {model.model_id for model in self.installed()}
        for model_id in self._catalogue:
            if any(self.path(model_id).glob("*")):
                found.add(model_id)
        return tuple(sorted(found))

    def find_installed(self, model_id: str) -> Installed | None:
        """That model if it is complete: its manifest's files, else its catalogue's, are there."""
        path = self.path(model_id)
        manifest = self.manifest(model_id)
        model = self._catalogue.get(model_id)
        if manifest is not None:
            names = list(manifest.files)
        elif model is not None:
            names = [file.name for file in model.files]
        else:
            return None
        sizes = [_model_file_size(path / name) for name in names]
        if None in sizes:
            return None
        total = sum(size for size in sizes if size is not None)
        return Installed(model_id, path, total, by_hand=manifest is None)

    def manifest(self, model_id: str) -> Manifest | None:
        """The manifest of a model; None if it has none, or one that cannot be read."""
        try:
            return _read_manifest((self.path(model_id) / MANIFEST).read_text("utf-8"), model_id)
        except (OSError, ValueError):
            return None

    def licence_accepted(self, model_id: str) -> bool:
        """Whether somebody agreed to the licence when this model was downloaded."""
        manifest = self.manifest(model_id)
        return manifest is not None and manifest.licence_accepted

    def write_manifest(self, manifest: Manifest) -> None:
        """Say that a model is complete: at once for everybody, and for good (fsync)."""
        path = self.path(manifest.model_id) / MANIFEST
        files = {
            name: {"size_bytes": file.size_bytes, "sha256": file.sha256}
            for name, file in manifest.files.items()
        }
        content = {
            "model": manifest.model_id,
            "source": manifest.source,
            "licence": manifest.licence,
            "licence_accepted": manifest.licence_accepted,
            "files": files,
        }
        write_atomically(path, json.dumps(content, indent=2) + "\n")

    def remove(self, model_id: str) -> int:
        """Take a model away; returns the bytes that are free again.

        A link to a directory elsewhere is unlinked; what it points to stays. Raises
        ModelError if there is nothing, or it is being downloaded right now.
        """
        path = self.path(model_id)
        if not path.is_symlink() and not path.is_dir():
            raise ModelError(
                f"There is no model {model_id} in {self.root}; see what is there with: "
                "ivas models list"
            )
        with self.lock(model_id):
            try:
                if path.is_symlink():
                    path.unlink()
                    return 0
                freed = sum(
                    file.lstat().st_size for file in path.rglob("*") if not file.is_symlink()
                )
                # First, so that one that is half gone is nobody's complete model.
                (path / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(path)  # does not follow links
            except OSError as error:
                raise ModelError(
                    f"{path} cannot be removed ({error.strerror}); remove it as a user who may."
                ) from error
        return freed

    def check(self, model_id: str) -> tuple[Problem, ...]:
        """What is wrong with a model, read byte by byte; nothing for one that is sound.

        Blocks for about a second a gigabyte. Against its manifest, else against the
        catalogue as far as that knows checksums. Raises ModelError if there is nothing.
        """
        path = self.path(model_id)
        if not path.is_dir():
            raise ModelError(
                f"There is no model {model_id} in {self.root}; "
                f"get it with: ivas models download {model_id}"
            )
        manifest = self.manifest(model_id)
        model = self._catalogue.get(model_id)
        if manifest is None and model is None:
            raise ModelError(
                f"{path} has no manifest and is no model of the catalogue, so there is nothing "
                "to check it against; see what could be with: ivas models list"
            )
        return tuple(_problems(path, manifest, model, model_id))

    @contextmanager
    def lock(self, model_id: str) -> Iterator[None]:
        """While inside, no other process and no other task changes that model.

        Raises ModelError at once if another does. The system gives the lock back when its
        holder dies, so a lock file of a dead process holds up nobody.
        """
        self.path(model_id)  # refuses what is no id
        with ExitStack() as held:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                holder = held.enter_context(locked(self.root / f".{model_id}.lock"))
            except OSError as error:
                raise ModelError(
                    f"{self.root} cannot be written to ({error.strerror}); make it writable for "
                    "this user, or choose another directory: IVAS_MODELS_DIR"
                ) from error
            if holder is not None:
                raise ModelError(
                    f"Another process ({holder}) is downloading or removing {model_id}; "
                    "wait until it has finished, then try again."
                )
            yield


def _model_file_size(path: Path) -> int | None:
    """Bytes of a file that may be part of a model; None if it is missing, empty or a pointer."""
    try:
        size = path.stat().st_size
        return None if size == 0 or not path.is_file() or is_lfs_pointer(path) else size
    except OSError:
        return None


def _read_manifest(text: str, model_id: str) -> Manifest:
    """Raises ValueError for anything that is not a manifest of that model."""
    content = json.loads(text)
    try:
        files = {
            str(name): StoredFile(int(file["size_bytes"]), str(file["sha256"]))
            for name, file in content["files"].items()
        }
        known = {
            "model_id": str(content["model"]),
            "source": str(content["source"]),
            "licence": str(content["licence"]),
        }
        accepted = content["licence_accepted"] is True
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not a manifest") from error
    # A name with a slash would lead out of the directory.
    if known["model_id"] != model_id or not files or not all(map(_SAFE_ID.fullmatch, files)):
        raise ValueError("not the manifest of this model")
    return Manifest(**known, files=files, licence_accepted=accepted)


def _problems(
    path: Path, manifest: Manifest | None, model: Model | None, model_id: str
) -> Iterator[Problem]:
    again = f"get it again with: ivas models download {model_id}"
    expected: dict[str, tuple[int | None, str | None]] = {}
    for file in model.files if model else ():
        expected[file.name] = (None, file.sha256)
    if manifest is not None:
        for name, stored in manifest.files.items():
            expected[name] = (stored.size_bytes, stored.sha256)
    elif (path / MANIFEST).exists():
        sentence = f"The manifest {path / MANIFEST} cannot be read; {again}"
        yield Problem(MANIFEST, "manifest", sentence)
    for name, (size_bytes, sha256) in expected.items():
        try:
            yield from _file_problem(path / name, size_bytes, sha256, again)
        except OSError as error:
            sentence = f"{path / name} cannot be read ({error.strerror}); {again}"
            yield Problem(name, "unreadable", sentence)
    for part in sorted(path.glob(f"*{PART}")):
        size = shown_size(part.stat().st_size)
        sentence = f"{part} is {size} of an interrupted download; finish it with: "
        yield Problem(part.name, "part", f"{sentence}ivas models download {model_id}")


def _file_problem(
    path: Path, size_bytes: int | None, sha256: str | None, again: str
) -> Iterator[Problem]:
    if not path.is_file():
        yield Problem(path.name, "missing", f"{path} is missing; {again}")
        return
    size = path.stat().st_size
    if is_lfs_pointer(path):
        sentence = f"{path} is only a Git LFS pointer, not the model; {again}"
        yield Problem(path.name, "lfs_pointer", sentence)
        return
    if size == 0 or (size_bytes is not None and size != size_bytes):
        should = f" instead of {size_bytes}" if size_bytes is not None else ""
        sentence = f"{path} has {size} bytes{should}, so it is incomplete or changed; {again}"
        yield Problem(path.name, "size", sentence)
        return
    if sha256 is None:
        return
    digest = hashlib.sha256()
    hash_file(path, digest)
    if digest.hexdigest() != sha256:
        sentence = f"{path} is damaged or changed: its checksum is not the published one; {again}"
        yield Problem(path.name, "sha256", sentence)
