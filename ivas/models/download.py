"""A model over the network, onto the disk: every file of it, whatever comes in between.

Bounded retries after cut connections, a look at the disk before, the lock of the store
around, the manifest at the end. What is there already is verified and kept, so that the
same call also finishes an interrupted download and mends a damaged model.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from ivas import __version__
from ivas.models import Model, ModelError, ModelFile, Source, shown_size

from . import failures
from .store import PART, PART_STATE, Installed, Manifest, ModelStore, StoredFile
from .transfer import Attempt, Content, by_hand, fetch, on_thread, read_content

GITHUB = "https://github.com"

MOST_FAILURES = 6
"""Attempts in a row that bring next to nothing."""
WORTH_BYTES = 1_000_000
"""What an attempt must have brought to count as one that got on."""
LONGEST_PAUSE_S = 16.0
RESERVE_BYTES = 64_000_000
"""Left free on the disk, for everybody else who writes there."""
PROGRESS_EVERY_S = 0.1
SPEED_OVER_S = 5.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is."""

    model_id: str
    file: str
    done_bytes: int
    """Of this file."""
    total_bytes: int
    """Of this file: what the server says, else the catalogue."""
    model_done_bytes: int
    model_total_bytes: int
    bytes_per_s: float
    """Over the last seconds; 0.0 before anything can be said."""


def http_client() -> httpx.AsyncClient:
    """A client for `download`. Proxies and certificates as the environment has them."""

    async def stay_encrypted(response: httpx.Response) -> None:
        if not response.has_redirect_location or response.url.scheme != "https":
            return
        if response.url.join(response.headers["location"]).scheme != "https":
            raise failures.Unencrypted("a redirect from https to http")

    return httpx.AsyncClient(
        headers={"User-Agent": f"ivas/{__version__}"},
        timeout=httpx.Timeout(30.0, connect=15.0),
        event_hooks={"response": [stay_encrypted]},
    )


def free_bytes(path: Path) -> int:
    """What may still be written where `path` is, which must exist."""
    return shutil.disk_usage(path).free


async def download(
    model: Model,
    store: ModelStore,
    *,
    client: httpx.AsyncClient,
    base_urls: Mapping[Source, str],
    licence_accepted: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    now: Callable[[], float] = time.monotonic,
    disk_free: Callable[[Path], int] = free_bytes,
) -> Installed:
    """Have `model` complete and verified in `store`, fetching what is missing.

    `base_urls` are the addresses of the hub (or its mirror) and of GitHub. A model for
    non-commercial use needs `licence_accepted`, now or in its manifest. May be cancelled
    at any time: what has come stays, and the next call goes on there.

    Raises ModelError with one sentence: network, disk, checksum, licence, or another
    process that is downloading the same model.
    """
    accepted = licence_accepted or store.licence_accepted(model.id)
    if model.licence.non_commercial and not accepted:
        raise licence_refused(model)
    with store.lock(model.id):
        job = _Job(model, store, client, base_urls, on_progress, sleep, now, disk_free)
        try:
            files = await job.run()
            source = ", ".join(sorted({base_urls[file.source] for file in model.files}))
            manifest = Manifest(
                model.id, files, source, model.licence.name, model.licence.non_commercial
            )
            await on_thread(store.write_manifest, manifest)
        except OSError as error:
            raise failures.of_disk(error, str(store.path(model.id)), job.missing_bytes) from error
        finally:
            with suppress(OSError):  # only if nothing has come
                store.path(model.id).rmdir()
    installed = store.find_installed(model.id)
    if installed is None:
        raise ModelError(
            f"{model.id} was changed while it was downloaded; type the same again to mend it."
        )
    return installed


def licence_refused(model: Model) -> ModelError:
    """Nobody has said yes to the licence of a model for non-commercial use."""
    return ModelError(
        f"{model.id} is for non-commercial use only ({model.licence.name}, {model.licence.url}); "
        f"if you accept that, type: ivas models download {model.id} --accept-licence"
    )


class _Job:
    """One call of `download`."""

    def __init__(
        self,
        model: Model,
        store: ModelStore,
        client: httpx.AsyncClient,
        base_urls: Mapping[Source, str],
        on_progress: Callable[[Progress], None],
        sleep: Callable[[float], Awaitable[object]],
        now: Callable[[], float],
        disk_free: Callable[[Path], int],
    ) -> None:
        self._model = model
        self._path = store.path(model.id)
        self._manifest = store.manifest(model.id)
        self._client = client
        self._base_urls = base_urls
        self._sleep = sleep
        self._disk_free = disk_free
        self._meter = _Meter(model, on_progress, now)

    @property
    def missing_bytes(self) -> int:
        """What is still to come."""
        return self._meter.missing_bytes

    async def run(self) -> dict[str, StoredFile]:
        """Every file, verified. Raises ModelError, OSError."""
        self._path.mkdir(parents=True, exist_ok=True)
        there: dict[str, Content] = {}
        for file in self._model.files:
            if content := await self._verified(file):
                there[file.name] = content
                self._meter.found(file.name, content.stored.size_bytes)
        self._check_space([file for file in self._model.files if file.name not in there])
        files = {}
        for file in self._model.files:
            content = there.get(file.name)
            # What has no published checksum is only known to be right once the server says so.
            if content is not None and self._known_sha256(file):
                stored = content.stored
            else:
                stored = await self._fetch(file, content)
            for suffix in (PART, PART_STATE):
                (self._path / (file.name + suffix)).unlink(missing_ok=True)
            self._meter.finish(file.name, stored.size_bytes)
            files[file.name] = stored
        return files

    def _known_sha256(self, file: ModelFile) -> str | None:
        stored = self._manifest.files.get(file.name) if self._manifest else None
        return file.sha256 or (stored.sha256 if stored else None)

    async def _verified(self, file: ModelFile) -> Content | None:
        """The file if it is there and not known to be wrong."""
        place = self._path / file.name
        if not place.is_file():
            return None
        content = await on_thread(read_content, place)
        if self._known_sha256(file) in (None, content.stored.sha256):
            return content
        if self._manifest is None:  # every file of ours was verified before it got its name
            raise by_hand(place, self._model.id)
        return None

    async def _fetch(self, file: ModelFile, there: Content | None) -> StoredFile:
        """Attempt after attempt, as long as they get on."""
        url = f"{self._base_urls[file.source].rstrip('/')}/{file.url_path}"
        failed = 0
        best_bytes = 0
        while True:
            self._meter.begin(file)
            try:
                return await fetch(
                    self._client,
                    url,
                    self._path / file.name,
                    model_id=self._model.id,
                    size_bytes=file.size_bytes,
                    sha256=file.sha256,
                    there=there,
                    on_start=self._on_start,
                    on_bytes=self._meter.advance,
                )
            except Attempt as attempt:
                failure = attempt.failure
            if self._meter.done_bytes - best_bytes >= WORTH_BYTES:
                best_bytes, failed = self._meter.done_bytes, 0
            failed += 1
            # Where nothing has answered at all, nothing will in half a minute.
            hopeless = failure.unreachable and not best_bytes
            if not failure.again or hopeless or failed >= MOST_FAILURES:
                raise ModelError(failure.sentence)
            pause_s = min(LONGEST_PAUSE_S, 2.0 ** (failed - 1))
            await self._sleep(max(pause_s, failure.wait_s or 0.0))

    def _on_start(self, total_bytes: int | None, done_bytes: int) -> None:
        self._meter.start(total_bytes, done_bytes)
        self._refuse_a_full_disk(self._meter.missing_bytes)

    def _check_space(self, missing: list[ModelFile]) -> None:
        need_bytes = 0
        for file in missing:
            part = self._path / (file.name + PART)
            there = part.stat().st_size if part.is_file() else 0
            need_bytes += max(0, file.size_bytes - there)
        self._refuse_a_full_disk(need_bytes)

    def _refuse_a_full_disk(self, need_bytes: int) -> None:
        free = self._disk_free(self._path)
        if need_bytes and free < need_bytes + RESERVE_BYTES:
            short = need_bytes + RESERVE_BYTES - free
            raise ModelError(
                f"{self._model.id} needs {shown_size(need_bytes)} in {self._path}, where only "
                f"{shown_size(free)} are free; free {shown_size(short)} more, or choose another "
                "directory: IVAS_MODELS_DIR"
            )


class _Meter:
    """Counts what comes, and tells it now and then."""

    def __init__(
        self, model: Model, on_progress: Callable[[Progress], None], now: Callable[[], float]
    ) -> None:
        self._model = model
        self._totals = {file.name: file.size_bytes for file in model.files}
        self._done = dict.fromkeys(self._totals, 0)
        self._file = model.files[0].name
        self._on_progress = on_progress
        self._now = now
        self._told_at = -PROGRESS_EVERY_S
        self._seen: deque[tuple[float, int]] = deque()

    @property
    def done_bytes(self) -> int:
        """Of the file at hand."""
        return self._done[self._file]

    @property
    def missing_bytes(self) -> int:
        """Of the whole model."""
        return sum(max(0, total - self._done[name]) for name, total in self._totals.items())

    def found(self, name: str, size_bytes: int) -> None:
        """A file was there before anything was fetched."""
        self._totals[name] = self._done[name] = size_bytes

    def begin(self, file: ModelFile) -> None:
        """This file is at hand."""
        self._file = file.name

    def start(self, total_bytes: int | None, done_bytes: int) -> None:
        """An answer has come; `done_bytes` were there already."""
        if total_bytes is not None:
            self._totals[self._file] = total_bytes
        self._seen.clear()
        self._set(done_bytes, tell=True)

    def advance(self, done_bytes: int) -> None:
        """So much of the file is there now."""
        self._set(done_bytes, tell=self._now() - self._told_at >= PROGRESS_EVERY_S)

    def finish(self, name: str, size_bytes: int) -> None:
        """A file is there as a whole."""
        self._file = name
        self._totals[name] = size_bytes
        self._set(size_bytes, tell=True)

    def _set(self, done_bytes: int, *, tell: bool) -> None:
        self._done[self._file] = done_bytes
        if not tell:
            return
        at = self._told_at = self._now()
        self._seen.append((at, done_bytes))
        while at - self._seen[0][0] > SPEED_OVER_S:
            self._seen.popleft()
        since, before = self._seen[0]
        speed = (done_bytes - before) / (at - since) if at > since else 0.0
        self._on_progress(
            Progress(
                self._model.id,
                self._file,
                done_bytes,
                self._totals[self._file],
                sum(self._done.values()),
                sum(self._totals.values()),
                max(0.0, speed),
            )
        )
