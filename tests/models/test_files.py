"""Hashing, replacing as a whole, and the lock: also against real processes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ivas.models.files import hash_file, is_lfs_pointer, locked, write_atomically

HOLD = """
import sys, time
from pathlib import Path
from ivas.models.files import locked
with locked(Path(sys.argv[1])) as holder:
    print(holder, flush=True)
    sys.stdin.read()
"""


def test_a_file_is_hashed_block_by_block(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "f").write_bytes(data)
    digest = hashlib.sha256()
    assert hash_file(tmp_path / "f", digest) == len(data)
    assert digest.hexdigest() == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", True),
        (b"", False),
        (b"version", False),
        (b"version https://git-lfs" + bytes(2000), False),  # too long to be one
    ],
)
def test_a_pointer_is_told_from_a_model(tmp_path: Path, data: bytes, pointer: bool) -> None:
    (tmp_path / "f").write_bytes(data)
    assert is_lfs_pointer(tmp_path / "f") is pointer


def test_a_text_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    write_atomically(tmp_path / "f", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "new"


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()  # cannot be replaced by a file
    with pytest.raises(OSError, match="f"):
        write_atomically(tmp_path / "f", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_one_holds_the_lock_the_other_is_told_who(tmp_path: Path) -> None:
    place = tmp_path / ".lock"
    with locked(place) as first:
        assert first is None
        with locked(place) as second:
            assert second == os.getpid()
    assert not place.exists()
    with locked(place) as third:
        assert third is None


def test_a_lock_file_taken_away_meanwhile_is_not_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking it, its holder has given it back and removed it."""
    place = tmp_path / ".lock"
    flock, tries = fcntl.flock, 0

    def too_late(descriptor: int, operation: int) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            place.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr("ivas.models.files.fcntl.flock", too_late)
    with locked(place) as first, locked(place) as second:
        assert (first, second) == (None, os.getpid())


def test_the_lock_of_a_killed_process_holds_up_nobody(tmp_path: Path) -> None:
    place = tmp_path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"None\n"
        with locked(place) as holder:
            assert holder == other.pid
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert place.exists()  # the dead do not tidy up
    with locked(place) as holder:
        assert holder is None
