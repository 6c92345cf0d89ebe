"""One file over the network: asked for, resumed, hashed while it is written, proven, renamed.

Beside `<file>.part` lies `<file>.part.json`, which says what it is the beginning of. A
resumed download asks with Range and If-Range, so that a server whose file has changed sends
the new one whole; one that cannot do ranges sends it whole too. Either starts anew.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

import httpx

from ivas.models import ModelError

from . import failures
from .files import is_lfs_pointer, sync_directory, write_atomically
from .store import PART, PART_STATE, StoredFile

P = ParamSpec("P")
T = TypeVar("T")

BLOCK_BYTES = 1 << 18
"""Written and hashed at once; what a cut connection loses at most."""
MOST_OF_SIZE = 1.2
"""Of what the catalogue says a file has, that much may come without being announced."""
_HASH_BLOCK_BYTES = 1 << 23

_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_SHA1 = re.compile(r"[0-9a-f]{40}")
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


@dataclass(frozen=True, slots=True)
class Remote:
    """What the server says of a file."""

    total_bytes: int | None
    validator: str | None
    """A strong ETag or the time of the last change: what If-Range takes."""
    sha256: str | None
    git_sha1: str | None
    """The name git gives its content; what the hub tells of small files."""


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a file, by the two names a server may give it."""

    stored: StoredFile
    git_sha1: str

    def differs(self, remote: Remote) -> bool:
        """Whether the server says that it has something else."""
        return remote.sha256 not in (None, self.stored.sha256) or (
            remote.sha256 is None and remote.git_sha1 not in (None, self.git_sha1)
        )


class Attempt(Exception):
    """An attempt has failed; `failure` says why and whether another may do better."""

    def __init__(self, failure: failures.Failure) -> None:
        super().__init__(failure.sentence)
        self.failure = failure


async def fetch(
    client: httpx.AsyncClient,
    url: str,
    place: Path,
    *,
    model_id: str,
    size_bytes: int,
    sha256: str | None,
    there: Content | None,
    on_start: Callable[[int | None, int], None],
    on_bytes: Callable[[int], None],
) -> StoredFile:
    """Fetch `url` to `place`, going on where an earlier attempt stopped.

    `size_bytes` is about what it should have: an answer without end is stopped beyond it.
    `sha256` is what the file must have, if that is known. `there` is what lies at `place`
    already: it stays, unless the server says that it is another file, which is an error.
    `on_start(total, done)` is called when the server has answered, and may raise;
    `on_bytes(done)` after every block.

    Raises Attempt, ModelError (final), OSError (the disk).
    """
    part = _Part(place)
    await on_thread(part.open)
    try:
        if part.remote is None or part.remote.total_bytes != part.done_bytes:
            kept = await _receive(
                client, url, part, model_id, size_bytes, sha256, there, on_start, on_bytes
            )
            if kept is not None:
                return kept
        else:
            on_start(part.done_bytes, part.done_bytes)
        return await on_thread(part.finish, sha256, model_id)
    finally:
        await on_thread(part.close)


def read_content(place: Path) -> Content:
    """Blocks, for about a second a gigabyte. Raises OSError."""
    size_bytes = place.stat().st_size
    sha256, git_sha1 = hashlib.sha256(), _git_sha1(size_bytes)
    with place.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            sha256.update(block)
            git_sha1.update(block)
    return Content(StoredFile(size_bytes, sha256.hexdigest()), git_sha1.hexdigest())


def by_hand(place: Path, model_id: str) -> ModelError:
    """Somebody's own file is where a published one would go."""
    return ModelError(
        f"{place} was put there by hand and is not the published file, so it is left as it is; "
        f"to download {model_id} remove it first: ivas models remove {model_id}"
    )


async def on_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As asyncio.to_thread; but when cancelled it ends only when the call has ended."""
    task = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen: nobody is left to be told
        raise


async def _receive(
    client: httpx.AsyncClient,
    url: str,
    part: _Part,
    model_id: str,
    size_bytes: int,
    sha256: str | None,
    there: Content | None,
    on_start: Callable[[int | None, int], None],
    on_bytes: Callable[[int], None],
) -> StoredFile | None:
    """The file that was there, if it is the server's; else its bytes go into `part`."""
    # Packed on the way, a file has no length that is known and no middle to go on from.
    headers = {"Accept-Encoding": "identity"}
    if part.remote is not None and part.remote.validator is not None and part.done_bytes:
        headers["Range"] = f"bytes={part.done_bytes}-"
        headers["If-Range"] = part.remote.validator
    host = "The hub"
    try:
        host = httpx.URL(url).host
        async with client.stream("GET", url, headers=headers, follow_redirects=True) as response:
            host = response.url.host
            if response.status_code == 416:  # it has become shorter than what is here
                await on_thread(part.discard)
                raise Attempt(failures.cut(host))
            if response.status_code not in (200, 206):
                raise Attempt(failures.of_answer(response, model_id))
            if response.headers.get("content-type", "").startswith("text/html"):
                raise Attempt(failures.login_page(host))
            start, remote = _read_head(response)
            if there is not None:
                if there.differs(remote):
                    raise by_hand(part.place, model_id)
                return there.stored
            if sha256 is not None and remote.sha256 not in (None, sha256):
                raise ModelError(
                    f"{host} has another {part.place.name} than the one that was published for "
                    f"{model_id}; choose another hub: IVAS_MODELS_HUB"
                )
            if start and (start != part.done_bytes or not _same(part.remote, remote)):
                await on_thread(part.discard)
                raise Attempt(failures.cut(host))
            on_start(remote.total_bytes, start)
            await _hash_beginning(part, start, remote)
            most_bytes = max(int(size_bytes * MOST_OF_SIZE), remote.total_bytes or 0)
            async for block in response.aiter_bytes(BLOCK_BYTES):
                if part.done_bytes + len(block) > most_bytes:
                    await on_thread(part.discard)
                    raise Attempt(failures.too_long(host, part.place.name, size_bytes))
                await on_thread(part.write, block)
                on_bytes(part.done_bytes)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Attempt(failures.of_error(error, host)) from error
    if remote.total_bytes not in (None, part.done_bytes):
        raise Attempt(failures.cut(host))
    return None


async def _hash_beginning(part: _Part, start: int, remote: Remote) -> None:
    """In pieces, so that it can be cancelled: of gigabytes it takes seconds."""
    if not start:
        await on_thread(part.restart, remote)
    while part.hashed_bytes < start:
        await on_thread(part.hash_more)


def _read_head(response: httpx.Response) -> tuple[int, Remote]:
    """From which byte the answer goes, and what it says of the file.

    The hub tells the checksum in the answer that redirects to where the bytes are; the
    ETag of that place is only good for asking it again.
    """
    sha256 = git_sha1 = None
    for answer in (*response.history, response):
        told = answer.headers.get("x-linked-etag")
        if told is None and "x-repo-commit" in answer.headers:
            told = answer.headers.get("etag")
        told = (told or "").removeprefix("W/").strip('"')
        if _SHA256.fullmatch(told):
            sha256 = told
        elif _GIT_SHA1.fullmatch(told):
            git_sha1 = told
    etag = response.headers.get("etag", "")
    strong = etag if etag.startswith('"') else None
    packed = response.headers.get("content-encoding", "identity") != "identity"
    length = response.headers.get("content-length", "")
    start, total = 0, int(length) if length.isdecimal() and not packed else None
    if response.status_code == 206:
        told_range = _RANGE.fullmatch(response.headers.get("content-range", ""))
        start, total = (int(told_range[1]), int(told_range[2])) if told_range else (-1, None)
    validator = None if packed else strong or response.headers.get("last-modified")
    return start, Remote(total, validator, sha256, git_sha1)


def _same(before: Remote | None, now: Remote) -> bool:
    """Whether both are the same version of a file, as far as they tell."""
    if before is None:
        return False
    pairs = (
        (before.total_bytes, now.total_bytes),
        (before.validator, now.validator),
        (before.sha256, now.sha256),
        (before.git_sha1, now.git_sha1),
    )
    return all(old == new for old, new in pairs if old is not None and new is not None)


class _Part:
    """The beginning of a file on disk. Its methods block: they run on a thread."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.path = place.with_name(place.name + PART)
        self.state = place.with_name(place.name + PART_STATE)
        self.remote: Remote | None = None
        self.done_bytes = 0
        self.hashed_bytes = 0
        self._resumed = True
        self._sha256 = hashlib.sha256()
        self._git_sha1 = _git_sha1(0)
        self._file: BinaryIO | None = None

    def open(self) -> None:
        """Take up what an earlier attempt has left."""
        # Unbuffered: what is written stays, also if the process is killed in the next moment.
        self._file = self.path.open("ab+", buffering=0)
        self.done_bytes = self.path.stat().st_size
        self._adopt(_read_state(self.state) if self.done_bytes else None)

    def restart(self, remote: Remote) -> None:
        """From the first byte, of this version of the file."""
        self._opened.truncate(0)  # before its state changes: what is empty is never resumed
        self.done_bytes = 0
        self._resumed = False
        write_atomically(self.state, json.dumps(asdict(remote)))
        self._adopt(remote)

    def hash_more(self) -> None:
        """The next piece of what was already there."""
        self._opened.seek(self.hashed_bytes)
        block = self._opened.read(min(_HASH_BLOCK_BYTES, self.done_bytes - self.hashed_bytes))
        if not block:
            raise OSError(errno.EIO, "it has become shorter")
        self._hash(block)

    def write(self, block: bytes) -> None:
        """Append to what is there."""
        view = memoryview(block)
        while view:
            written = self._opened.write(view)
            self._hash(view[:written])
            self.done_bytes += written
            view = view[written:]

    def finish(self, sha256: str | None, model_id: str) -> StoredFile:
        """Prove it and give it its name; if it is not the file, delete it.

        Raises Attempt if the old beginning may be to blame, else ModelError.
        """
        while self.hashed_bytes < self.done_bytes:
            self.hash_more()
        os.fsync(self._opened.fileno())
        got = self._sha256.hexdigest()
        if problem := self._problem(got, sha256):
            self.discard()
            if self._resumed:
                raise Attempt(failures.Failure(problem, again=True))
            raise ModelError(problem)
        self.path.replace(self.place)
        sync_directory(self.place.parent)
        return StoredFile(self.done_bytes, got)

    def discard(self) -> None:
        """Take it away, and begin with nothing next time."""
        self.path.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)

    def close(self) -> None:
        """What is there stays for the next attempt."""
        if self._file is None:
            return
        self._file.close()
        with suppress(OSError):
            if self.path.stat().st_size == 0:
                self.discard()

    @property
    def _opened(self) -> BinaryIO:
        assert self._file is not None
        return self._file

    def _adopt(self, remote: Remote | None) -> None:
        self.remote = remote
        self._sha256 = hashlib.sha256()
        self._git_sha1 = _git_sha1(remote.total_bytes or 0 if remote else 0)
        self.hashed_bytes = 0

    def _hash(self, block: bytes | memoryview) -> None:
        self._sha256.update(block)
        self._git_sha1.update(block)
        self.hashed_bytes += len(block)

    def _problem(self, got: str, sha256: str | None) -> str | None:
        remote = self.remote
        assert remote is not None
        name = self.place.name
        if is_lfs_pointer(self.path):
            return (
                f"A Git LFS pointer came instead of {name}, so the mirror is not complete; "
                "choose another hub: IVAS_MODELS_HUB"
            )
        expected = sha256 or remote.sha256
        git = None if expected or remote.total_bytes is None else remote.git_sha1
        if expected not in (None, got) or git not in (None, self._git_sha1.hexdigest()):
            return (
                f"{name} came damaged: its checksum is not the published one, and it is deleted; "
                "try again, and if it happens again choose another hub: IVAS_MODELS_HUB"
            )
        return None


def _git_sha1(size_bytes: int) -> hashlib._Hash:
    """The digest by which git names a content of that length."""
    return hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)


def _read_state(path: Path) -> Remote | None:
    """What a part is the beginning of; None if nothing tells, so that it starts anew."""
    try:
        told = json.loads(path.read_text("utf-8"))
        remote = Remote(**told)
    except (OSError, ValueError, TypeError):
        return None
    texts = (remote.validator, remote.sha256, remote.git_sha1)
    if all(text is None or isinstance(text, str) for text in texts) and (
        remote.total_bytes is None or isinstance(remote.total_bytes, int)
    ):
        return remote
    return None
