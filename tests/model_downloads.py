"""Small models on a small server, and a downloader whose clock nobody has to wait for."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import httpx
from file_server import FileServer, Served

from ivas.models import Licence, Model, ModelFile
from ivas.models.download import Progress, download
from ivas.models.store import Installed, ModelStore

PLENTY = 10**12


def content(size_bytes: int, seed: int = 0) -> bytes:
    """Bytes that are no other file's, and no two blocks of it are alike."""
    block = hashlib.shake_256(bytes([seed])).digest(min(size_bytes, 1 << 16))
    parts = (bytes([i % 256]) + block[1:] for i in range(size_bytes // len(block) + 1))
    return b"".join(parts)[:size_bytes]


def model_of(
    files: dict[str, bytes],
    *,
    model_id: str = "tiny",
    published: bool = True,
    source: Literal["hub", "github"] = "hub",
    non_commercial: bool = False,
) -> Model:
    """A model of these files; `published`: with their checksums in the catalogue."""
    return Model(
        id=model_id,
        engine="piper",
        purpose="for tests",
        languages=("en",),
        licence=Licence("CPML" if non_commercial else "MIT", "https://l.example", non_commercial),
        files=tuple(
            ModelFile(
                name,
                source,
                f"owner/repo/resolve/main/{name}",
                len(data),
                hashlib.sha256(data).hexdigest() if published else None,
            )
            for name, data in files.items()
        ),
        ram_bytes=1,
    )


def serve(server: FileServer, model: Model, files: dict[str, bytes], **how: object) -> Served:
    """Put the files of a model on the server; returns the last."""
    for file in model.files:
        served = server.files[f"/{file.url_path}"] = Served(files[file.name])
        for name, value in how.items():
            setattr(served, name, value)
    return served


class Downloader:
    """Downloads from `server` into `store`; pauses are counted, not waited for."""

    def __init__(self, server: FileServer, root: Path) -> None:
        self.server = server
        self.root = root
        self.pauses_s: list[float] = []
        self.progress: list[Progress] = []
        self.now_s = 0.0
        self.tick_s = 0.05
        self.free_bytes = PLENTY

    def store(self, model: Model) -> ModelStore:
        return ModelStore(self.root, (model,))

    async def __call__(
        self,
        model: Model,
        *,
        licence_accepted: bool = False,
        hub: str | None = None,
        client: httpx.AsyncClient | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Installed:
        async with client or httpx.AsyncClient(trust_env=False, timeout=5) as http:
            return await download(
                model,
                self.store(model),
                client=http,
                base_urls={"hub": hub or self.server.url, "github": self.server.url},
                licence_accepted=licence_accepted,
                on_progress=on_progress or self.progress.append,
                sleep=self._sleep,
                now=self._tick,
                disk_free=lambda _: self.free_bytes,
            )

    async def _sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        await asyncio.sleep(0)

    def _tick(self) -> float:
        self.now_s += self.tick_s
        return self.now_s
