"""A catalogue whose whisper-base is the tiny one: what a hub has to offer in these tests."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from file_server import FileServer, Served

from ivas.models import Model, catalogue, store

MODEL_ID = "whisper-base"


def tiny(directory: Path) -> Model:
    """The entry of whisper-base, with the files of `directory`, the biggest first."""
    real = catalogue.find(MODEL_ID)
    folder = real.files[0].url_path.rpartition("/")[0]
    files = []
    for path in sorted(directory.iterdir(), key=lambda path: -path.stat().st_size):
        file = replace(real.files[0], name=path.name, url_path=f"{folder}/{path.name}")
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        files.append(replace(file, size_bytes=len(data), sha256=digest))
    return replace(real, files=tuple(files))


def hand_in(directory: str) -> None:
    """Put it in the place of the real one; called in the process of the server."""
    model = tiny(Path(directory))
    catalogue._BY_ID[MODEL_ID] = model
    known = tuple(model if each.id == MODEL_ID else each for each in catalogue.CATALOGUE)
    store.ModelStore.__init__.__defaults__ = (known,)


def offer(hub: FileServer, model: Model, directory: Path) -> Served:
    """Let the hub serve it; returns the weights."""
    for file in model.files:
        served = Served((directory / file.name).read_bytes(), hub=True)
        hub.files[f"/{file.url_path}"] = served
    return hub.files[f"/{model.files[0].url_path}"]
