"""Packages by what they say of themselves: which extras are there, which wants do not agree.

Metadata only, so nothing is imported; what metadata cannot tell is in `imports.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from . import Finding

EXTRAS: Mapping[str, tuple[str, str]] = {
    "embedded": ("pocketsphinx", "hearing without any download"),
    "whisper": ("faster-whisper", "good hearing"),
    "kokoro": ("kokoro-onnx", "a natural voice"),
    "piper": ("piper-tts", "small voices in many languages"),
    "xtts": ("coqui-tts", "cloned voices"),
    "mic": ("sounddevice", "sound in the terminal"),
}
"""The extras of IVAS that bring something to a conversation: the package by which one is known
to be there, and what it is good for."""


@dataclass(frozen=True, slots=True)
class _Want:
    """`who` needs `requirement`."""

    who: str
    requirement: Requirement
    """Its marker holds here."""


class Installed:
    """The distributions on a path, by canonical name; the first of a name counts."""

    def __init__(self, search: Sequence[str] | None = None) -> None:
        self._known: dict[str, Distribution] = {}
        for found in distributions(path=list(sys.path if search is None else search)):
            name = found.metadata["Name"]
            if name:  # half-removed packages have none
                self._known.setdefault(canonicalize_name(name), found)

    def version(self, name: str) -> str | None:
        """What is installed of `name`, or None."""
        found = self._known.get(canonicalize_name(name))
        return None if found is None else found.version

    def names(self) -> Collection[str]:
        return self._known.keys()

    def wants(self, name: str, extras: Collection[str] = ()) -> Iterator[_Want]:
        """What `name` needs here, with these extras of it and without any."""
        found = self._known.get(canonicalize_name(name))
        if found is None:
            return
        for line in found.requires or ():
            try:
                requirement = Requirement(line)
            except InvalidRequirement:
                continue
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in ("", *extras)):
                yield _Want(found.metadata["Name"], requirement)

    def unmet(self, want: _Want) -> str | None:
        """Why it does not have what it needs; None if it has."""
        requirement = want.requirement
        have = self.version(requirement.name)
        if have is None:
            return f"{want.who} needs {_plain(requirement)}, which is not installed."
        if requirement.specifier.contains(have, prereleases=True):
            return None
        return f"{want.who} needs {_plain(requirement)}, but {have} is installed."


def _plain(requirement: Requirement) -> str:
    """`ctranslate2<5,>=4.0`: without marker and extras."""
    return f"{requirement.name}{requirement.specifier}"


def check(*, needed: Collection[str] = (), search: Sequence[str] | None = None) -> list[Finding]:
    """The extras and every want that is not met.

    `needed`: the extras that the settings name an engine of; without them it fails.
    """
    installed = Installed(search)
    if installed.version("ivas") is None:
        what = "IVAS itself is not installed, so what it needs cannot be looked up."
        return [Finding("packages", "warn", what, "install it with: scripts/serve")]
    here = [extra for extra, (main, _) in EXTRAS.items() if installed.version(main)]
    findings = [_extra(installed, extra, extra in needed) for extra in EXTRAS]
    return findings + _clashes(installed, here)


def _extra(installed: Installed, extra: str, needed: bool) -> Finding:
    main, brings = EXTRAS[extra]
    version = installed.version(main)
    fix = f"install it with: pip install 'ivas[{extra}]'"
    if version is not None:
        return Finding(extra, "ok", f"{main} {version} ({brings})")
    if needed:
        what = f"The settings name an engine of the extra {extra}, which is not installed."
        return Finding(extra, "fail", what, fix)
    return Finding(extra, "ok", f"not installed; it brings {brings}", fix)


def _clashes(installed: Installed, extras: Sequence[str]) -> list[Finding]:
    """What IVAS and all it brought need and do not have, and whom IVAS stands in the way of."""
    ours: set[str] = set()
    findings: dict[str, Finding] = {}
    queue: list[tuple[str, frozenset[str]]] = [("ivas", frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while queue:
        name, asked = queue.pop(0)
        if (name, asked) in seen:
            continue
        seen.add((name, asked))
        ours.add(name)
        for want in installed.wants(name, asked):
            need = canonicalize_name(want.requirement.name)
            if what := installed.unmet(want):
                fix = f"pip install '{_plain(want.requirement)}'"
                findings.setdefault(need, Finding(need, "fail", what, fix))
            if need in installed.names():
                queue.append((need, frozenset(want.requirement.extras)))
    for name in sorted(set(installed.names()) - ours):
        for want in installed.wants(name):
            need = canonicalize_name(want.requirement.name)
            what = installed.unmet(want)
            if need in ours and what is not None:
                fix = f"give IVAS a virtual environment of its own, or remove {name}"
                findings.setdefault(need, Finding(need, "warn", what, fix))
    return list(findings.values())
