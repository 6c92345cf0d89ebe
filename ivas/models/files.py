"""What a store of files asks of the operating system: hash, replace as a whole, lock."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

try:
    import fcntl
except ImportError:  # Windows: there nobody is kept from downloading the same model twice
    fcntl = None  # type: ignore[assignment]

LFS_POINTER = b"version https://git-lfs"
"""How a file begins that stands for one Git LFS has not fetched; it is about 130 bytes long."""
LFS_POINTER_MOST_BYTES = 1024

_BLOCK_BYTES = 1 << 20


class Digest(Protocol):
    """What hashlib makes."""

    def update(self, data: bytes, /) -> None: ...


def hash_file(path: Path, digest: Digest) -> int:
    """Feed a file to `digest` block by block; returns its length. Blocks. Raises OSError."""
    length = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            length += len(block)
    return length


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file only stands for a model. Raises OSError."""
    if path.stat().st_size > LFS_POINTER_MOST_BYTES:
        return False
    return path.read_bytes().startswith(LFS_POINTER)


def write_atomically(path: Path, text: str) -> None:
    """All of it or nothing, also after a power cut. Raises OSError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable, where the system can: not all file systems do."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def locked(place: Path) -> Iterator[int | None]:
    """Hold the lock file `place`; None if it is held now, else the process that holds it.

    Never waits. The system gives the lock back when its holder dies, so the file of a dead
    process holds up nobody. Raises OSError.
    """
    descriptor = _lock(place)
    if descriptor is None:
        try:
            holder = int(place.read_text())
        except (OSError, ValueError):  # it has just been taken, or given back
            holder = 0
        yield holder
        return
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield None
    finally:
        place.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(place: Path) -> int | None:
    """A descriptor that holds the lock; None if somebody else has it."""
    while True:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
        if fcntl is None:
            return descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        # Its last holder may have taken the file away in between: that lock is nobody's.
        if _is_file_at(descriptor, place):
            return descriptor
        os.close(descriptor)


def _is_file_at(descriptor: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), place.stat())
    except FileNotFoundError:
        return False
