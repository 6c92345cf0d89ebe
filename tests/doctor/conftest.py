"""Installations made of folders: packages with metadata, files and nothing else."""

from __future__ import annotations

import pytest


@pytest.fixture
def site(tmp_path):
    """`site("name", "1.0", requires=[...], files={...})` installs it; `str(site)` is its path."""

    class Site:
        def __str__(self):
            return str(tmp_path)

        def __call__(self, name, version, *, requires=(), extras=(), files=()):
            meta = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info" / "METADATA"
            meta.parent.mkdir()
            lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
            lines += [f"Provides-Extra: {extra}" for extra in extras]
            lines += [f"Requires-Dist: {line}" for line in requires]
            meta.write_text("\n".join(lines) + "\n")
            for path, text in dict(files).items():
                file = tmp_path / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)

    return Site()


@pytest.fixture
def ivas_site(site):
    """A site where IVAS is installed, with an extra of which nothing is there yet."""
    requires = [
        "httpx>=0.28",
        "faster-whisper>=1.2; extra == 'whisper'",
        "coqui-tts>=0.28; extra == 'xtts'",
        "six>=1.17; extra == 'xtts'",
        "never>=1; python_version < '3'",
    ]
    site("ivas", "0.1.0", requires=requires, extras=["whisper", "xtts"])
    site("httpx", "0.28.1")
    return site
