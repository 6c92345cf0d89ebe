"""A server of files and a directory of models, fresh for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer, file_server
from model_downloads import Downloader


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as files:
        yield files


@pytest.fixture
def get(server: FileServer, tmp_path: Path) -> Downloader:
    return Downloader(server, tmp_path / "models")
