"""The model files on disk: which are there, which are not whole."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ivas.models import ModelError, shown_size
from ivas.models.store import Installed, ModelStore

from . import Finding, in_two

READ_FOR_S = 4.0
"""How long models are read byte by byte (a second a gigabyte), the smallest first."""
CHECK = "ivas models check"


def check(
    root: Path,
    *,
    read_for_s: float = READ_FOR_S,
    clock: Callable[[], float] = time.monotonic,
) -> list[Finding]:
    """Every model below `root`, and those that somebody began to fetch."""
    store = ModelStore(root)
    models = store.installed()
    findings = _unfinished(store, {model.model_id for model in models})
    until = clock() + read_for_s
    sound, unread = [], []
    for model in sorted(models, key=lambda model: model.size_bytes):
        if clock() + model.size_bytes / 1e9 > until:
            unread.append(model)
            continue
        problems = store.check(model.model_id)
        findings += [Finding("models", "warn", *in_two(one.sentence)) for one in problems]
        if not problems:
            sound.append(model)
    if unread:
        what = f"{_names(unread)}: there, but too large to be read through here"
        findings.append(Finding("models", "ok", what, f"to be sure: {CHECK}"))
    if sound:
        findings.append(Finding("models", "ok", f"{_names(sound)}: whole"))
    if not findings:
        fix = "see what there is with: ivas models list"
        findings.append(Finding("models", "ok", f"none in {root}", fix))
    return findings


def _unfinished(store: ModelStore, whole: set[str]) -> list[Finding]:
    """Folders of models that lack something, as a download leaves them that was ended."""
    findings = []
    try:
        folders = sorted(place.name for place in store.root.iterdir() if place.is_dir())
    except OSError:
        return []
    for folder in folders:
        try:
            if folder in whole or not any(store.path(folder).iterdir()):
                continue
        except (ModelError, OSError):
            continue
        what = f"The model {folder} is not complete."
        fix = f"finish it with: ivas models download {folder}"
        findings.append(Finding("models", "warn", what, fix))
    return findings


def _names(models: list[Installed]) -> str:
    return ", ".join(f"{model.model_id} ({shown_size(model.size_bytes)})" for model in models)
