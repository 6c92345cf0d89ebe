"""The key file: named keys and what each may do, written by `ivas keys`, read by the server.

A key is 256 random bits, and the file holds its SHA-256 only. One fast hash is enough
here: slow ones (bcrypt, Argon2) are for passwords, which can be guessed, and NIST SP
800-63B, section 5.1.2.2, asks for them below 112 bits only. So the server can hash
what every client shows.

A file that cannot be used raises SettingsError, never reads as "no keys are wanted".
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ivas.errors import SettingsError

Scope = Literal["talk", "speech", "admin"]
"""talk: conversations. speech: audio over REST. admin: those and everything else."""
SCOPES: tuple[Scope, ...] = get_args(Scope)

KEY_PREFIX = "ivas_"
MAX_KEYS = 1000
"""All are compared with what a client shows: 0.1 ms for so many (Xeon, CPython 3.11)."""
MAX_FILE_BYTES = 1024 * 1024
LOCK_WAIT_S = 10.0
"""How long a writer waits for another one."""
SETTLED_S = 2.0
"""Within this time of a change the file may change again and keep its date: the
coarsest clock of a file system ticks every two seconds (FAT)."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
"""No dot and no colon: a name cannot be taken for an address."""

Seconds = Annotated[int, Field(ge=0, lt=2**40)]


class Key(BaseModel):
    """One named key; the key itself was shown when it was made and is nowhere kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=rf"^{_NAME.pattern}\z")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1, max_length=len(SCOPES))]
    created_at: Seconds
    """Seconds since the epoch."""
    expires_at: Seconds | None
    """Seconds since the epoch; None: never."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}\z", repr=False)]

    def expired(self, now_s: float) -> bool:
        return self.expires_at is not None and now_s >= self.expires_at


class _KeyFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1] = 1
    keys: Annotated[tuple[Key, ...], Field(max_length=MAX_KEYS)]

    @model_validator(mode="after")
    def _named_once(self) -> _KeyFile:
        if len({key.name for key in self.keys}) != len(self.keys):
            raise ValueError("two keys have the same name")
        return self


def digest_of(key: str) -> str:
    """SHA-256 in hex. Takes any string: a header may hold what no encoding could."""
    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def find_key(keys: Sequence[Key], presented: str) -> Key | None:
    """The key a client showed. Takes the same time wherever it is, or is not."""
    digest = digest_of(presented)
    found = None
    for key in keys:
        if hmac.compare_digest(key.sha256, digest):
            found = key
    return found


# --- reading -----------------------------------------------------------------


def read_keys(path: Path) -> tuple[Key, ...] | None:
    """All keys of the file, or None if there is no file. Raises SettingsError."""
    try:
        raw = _read(path)
        return None if raw is None else _KeyFile.model_validate_json(raw).keys
    except OSError as error:
        raise _unusable(path, f"cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        why = f"{place}: {first['msg']}" if place else first["msg"]
        raise _unusable(path, f"is broken ({why})") from None  # its text quotes the file


def _read(path: Path) -> bytes | None:
    try:
        # A look first: to open a pipe would wait for whoever fills it.
        if not stat.S_ISREG(path.stat().st_mode):
            raise _unusable(path, "is not a file")
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        if path.is_symlink():
            raise _unusable(path, "is a link to nothing") from None
        return None
    if len(raw) > MAX_FILE_BYTES:
        raise _unusable(path, f"is larger than {MAX_FILE_BYTES // 1024} KiB")
    return raw


def _unusable(path: Path, why: str) -> SettingsError:
    return SettingsError(
        f"The key file {path} {why}, so no named key is accepted; put it right, or remove it "
        "and make new keys with: ivas keys add NAME --scope talk"
    )


class KeyRing:
    """The keys as they are now: looks whether the file changed, reads it only then.

    For the server, which asks once for every request and connection, never for a
    frame. Costs one `stat` while nothing changed.
    """

    def __init__(self, path: Path | None, *, now_s: Callable[[], float] = time.time) -> None:
        """`path`: None if there are to be no named keys. `now_s`: seconds since the epoch."""
        self._path = path
        self._now_s = now_s
        self._seen: tuple[int, ...] | None = None
        self._found: tuple[Key, ...] | SettingsError | None = None
        self._existed = False

    def keys(self) -> tuple[Key, ...] | None:
        """All keys, expired ones too; None if there is no key file and never was one.

        A file that vanishes takes its keys along, but does not open the door. Raises
        SettingsError while the file cannot be used.
        """
        if self._path is None:
            return None
        seen = self._look(self._path)
        if seen is None or seen != self._seen:
            self._seen = seen
            try:
                self._found = read_keys(self._path)
            except SettingsError as error:
                self._found = error
            self._existed = self._existed or self._found is not None
        if isinstance(self._found, SettingsError):
            raise SettingsError(str(self._found))
        return () if self._found is None and self._existed else self._found

    def _look(self, path: Path) -> tuple[int, ...] | None:
        """What changes when the file does; None if that cannot be relied on."""
        try:
            status = path.stat()
        except OSError:
            return None
        if self._now_s() - status.st_mtime < SETTLED_S:
            return None
        return (
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_ino,
            status.st_size,
            status.st_mode,
        )


# --- writing -----------------------------------------------------------------


def add_key(
    path: Path, name: str, scopes: Sequence[Scope], *, lasts_s: int | None = None, now_s: float
) -> tuple[Key, str]:
    """Make a key, write it down, and return it with what the client has to show.

    `lasts_s`: seconds until it expires; None: never. Raises SettingsError if the name
    is unfit or taken, or the file cannot be used.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{name!r:.80} cannot be the name of a key; take at most 64 letters, digits, "
            "hyphens and underscores, a letter or digit first."
        )
    shown = KEY_PREFIX + secrets.token_urlsafe(32)
    key = Key(
        name=name,
        scopes=tuple(scope for scope in SCOPES if scope in scopes),
        created_at=int(now_s),
        expires_at=None if lasts_s is None else int(now_s) + lasts_s,
        sha256=digest_of(shown),
    )
    with _alone(path) as target:
        keys = read_keys(target) or ()
        if any(other.name == name for other in keys):
            raise SettingsError(
                f"There is a key {name} already; choose another name, "
                f"or first run: ivas keys revoke {name}"
            )
        if len(keys) >= MAX_KEYS:
            raise SettingsError(
                f"The key file holds {MAX_KEYS} keys, and no more fit; "
                "revoke one that is not used: ivas keys revoke NAME"
            )
        _write(target, (*keys, key))
    return key, shown


def revoke_key(path: Path, name: str) -> tuple[Key, ...]:
    """Remove a key and return those that are left. Raises SettingsError.

    A conversation that runs with it goes on; nothing new begins. After the last key
    the file stays, empty: it keeps the server closed.
    """
    with _alone(path) as target:
        keys = read_keys(target) or ()
        left = tuple(key for key in keys if key.name != name)
        if len(left) == len(keys):
            raise SettingsError(f"There is no key {name!r:.80}; see all with: ivas keys list")
        _write(target, left)
    return left


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """While no other process writes: the file to write, where `path` may be a link to it.

    The lock is on a file beside it, because the key file itself is replaced.
    """
    try:
        import fcntl
    except ImportError:
        raise SettingsError(
            "Keys are managed on Linux and macOS only; on Windows run IVAS in WSL or Docker."
        ) from None
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(f"{target}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unwritable(target, error) from error
    try:
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise SettingsError(
                        f"Another program has been changing the key file {target} for "
                        f"{LOCK_WAIT_S:g} seconds; end it, then try again."
                    ) from None
                time.sleep(0.02)
            except OSError as error:
                raise _unwritable(target, error) from error
        yield target
    finally:
        os.close(lock)


def _write(target: Path, keys: tuple[Key, ...]) -> None:
    """Replace the file as a whole: a crash leaves the old one or the new one."""
    text = _KeyFile(keys=keys).model_dump_json(indent=1) + "\n"
    draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        draft.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _unwritable(target: Path, error: OSError) -> SettingsError:
    return SettingsError(
        f"The key file {target} cannot be written ({error.strerror}); make its folder writable "
        "for this user, or set another place: IVAS_SERVER__KEYS_FILE"
    )
