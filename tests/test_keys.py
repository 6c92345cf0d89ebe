"""The key file: what is written, what is believed, and what never opens the door."""

from __future__ import annotations

import hmac
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ivas.keys as module
from ivas.errors import SettingsError
from ivas.keys import (
    KEY_PREFIX,
    Key,
    KeyRing,
    Scope,
    add_key,
    digest_of,
    find_key,
    read_keys,
    revoke_key,
)

NOW_S = 1_800_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ivas" / "keys.json"


def add(path: Path, name: str, *scopes: Scope, lasts_s: int | None = None) -> tuple[Key, str]:
    return add_key(path, name, scopes or ("talk",), lasts_s=lasts_s, now_s=NOW_S)


def age(path: Path, seconds: float = 60) -> None:
    """Let the file have been changed some time ago, so that its date counts."""
    before = path.stat().st_mtime_ns
    os.utime(path, ns=(before, before - int(seconds * 1e9)))


# --- writing -----------------------------------------------------------------


def test_a_key_is_shown_once_and_kept_as_a_hash(path: Path) -> None:
    key, shown = add(path, "phone", "speech", "talk", "talk", lasts_s=3600)
    assert key.scopes == ("talk", "speech")
    assert (key.created_at, key.expires_at) == (int(NOW_S), int(NOW_S) + 3600)
    assert shown.startswith(KEY_PREFIX)
    assert len(shown) == len(KEY_PREFIX) + 43  # 256 bits in base64
    written = path.read_text()
    assert shown.removeprefix(KEY_PREFIX)[:6] not in written
    assert read_keys(path) == (key,)
    assert find_key((key,), shown) == key
    assert digest_of(shown) not in repr(key)
    assert add(path, "other")[1] != shown


def test_the_file_is_for_its_owner_only(path: Path) -> None:
    before = os.umask(0)
    try:
        add(path, "phone")
        add(path, "tablet")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["keys.json", "keys.json.lock"]


@pytest.mark.parametrize(
    "name",
    ["", "-a", "_a", "a b", "a.b", "::1", "x" * 65, "ä", "a\n", "a\0", "٣", "../a", "{0}"],
)
def test_a_name_is_plain(path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=r"letters, digits, hyphens and underscores"):
        add(path, name)
    assert not path.exists()


def test_a_name_is_given_once(path: Path) -> None:
    _, first = add(path, "phone")
    with pytest.raises(SettingsError, match="ivas keys revoke phone"):
        add(path, "phone", "admin")
    (key,) = read_keys(path) or ()
    assert find_key((key,), first) == key


def test_revoking(path: Path) -> None:
    add(path, "phone")
    tablet, _ = add(path, "tablet")
    assert revoke_key(path, "phone") == (tablet,)
    assert read_keys(path) == (tablet,)
    with pytest.raises(SettingsError, match=r"There is no key 'phone'.*ivas keys list"):
        revoke_key(path, "phone")
    assert revoke_key(path, "tablet") == ()
    assert read_keys(path) == ()


def test_revoking_from_nothing(path: Path) -> None:
    with pytest.raises(SettingsError, match="There is no key"):
        revoke_key(path, "phone")


def test_writers_at_the_same_time_lose_nothing(path: Path) -> None:
    names = [f"key-{number}" for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: add(path, name), names))
    assert sorted(key.name for key in read_keys(path) or ()) == sorted(names)


def test_a_writer_that_hangs_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_WAIT_S", 0.0)
    with module._alone(path), pytest.raises(SettingsError, match="Another program"):
        add(path, "phone")
    add(path, "phone")


def test_there_is_a_most(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(path, "one")
    monkeypatch.setattr(module, "MAX_KEYS", 1)
    with pytest.raises(SettingsError, match="no more fit"):
        add(path, "two")


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    add(path, "phone")
    link = tmp_path / "link.json"
    link.symlink_to(path)
    add(link, "tablet")
    assert link.is_symlink()
    assert [key.name for key in read_keys(path) or ()] == ["phone", "tablet"]


def test_a_full_disk_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(path, "phone")
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SettingsError, match=r"cannot be written \(No space left on device\)"):
        add(path, "tablet")
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["keys.json", "keys.json.lock"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="IVAS_SERVER__KEYS_FILE"):
        add(tmp_path / "file" / "keys.json", "phone")


# --- believing ---------------------------------------------------------------

GOOD = {"name": "a", "scopes": ["talk"], "created_at": 1, "expires_at": None, "sha256": "0" * 64}


def written(**changes: object) -> str:
    return json.dumps({"version": 1, "keys": [GOOD | changes]})


def test_what_is_good_is_believed(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(written())
    assert [key.name for key in read_keys(path) or ()] == ["a"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0",
        "{}",
        "[]",
        "null",
        '{"keys": [',
        '{"version": 2, "keys": []}',
        '{"version": 1, "keys": [], "more": 1}',
        '{"version": 1, "keys": {}}',
        json.dumps({"keys": [GOOD, GOOD]}),
        json.dumps({"keys": [{"name": "a"}]}),
        written(scopes=[]),
        written(scopes=["talk", "everything"]),
        written(scopes="talk"),
        written(name="a.b"),
        written(name="a\n"),
        written(sha256=""),
        written(sha256="0" * 63),
        written(sha256="0" * 64 + "\n"),
        written(expires_at="never"),
        written(expires_at=True),
        written(expires_at=-1),
        written(expires_at=1e300),
        written(extra=1),
        written(expires_at=float("nan")),
        "[" * 100_000,
    ],
)
def test_what_is_broken_is_one_sentence_and_no_key(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(SettingsError) as broken:
        read_keys(path)
    said = str(broken.value)
    assert said.startswith(f"The key file {path} is broken (")
    assert "ivas keys add" in said
    assert "\n" not in said
    assert "0000" not in said
    with pytest.raises(SettingsError):
        add(path, "phone")
    with pytest.raises(SettingsError):
        KeyRing(path).keys()


@given(st.binary(max_size=300))
def test_any_bytes_are_keys_or_refused(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(raw)
    with pytest.raises(SettingsError):
        read_keys(path)


def test_what_is_no_file_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(SettingsError, match="is not a file"):
        read_keys(path)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(SettingsError, match="is not a file"):  # and nobody waits for a writer
        read_keys(path)
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(SettingsError, match="is a link to nothing"):
        read_keys(path)
    path.unlink()
    path.symlink_to("keys.json")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_keys(path)


def test_a_file_without_end_is_not_read_to_its_end(path: Path) -> None:
    path.parent.mkdir()
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(SettingsError, match="is larger than 1024 KiB"):
        read_keys(path)


def test_an_unreadable_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(path, "phone")

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(SettingsError, match=r"cannot be read \(Permission denied\)"):
        read_keys(path)


# --- comparing ---------------------------------------------------------------


@given(st.text(st.characters()))
def test_any_string_is_compared(presented: str) -> None:
    key = Key.model_validate(GOOD | {"scopes": ("talk",)})
    assert find_key((key,), presented) is None
    mine = key.model_copy(update={"sha256": digest_of(presented)})
    assert find_key((key, mine, key), presented) is mine


def test_all_keys_are_compared_wherever_the_right_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    compare = hmac.compare_digest

    def counting(one: str, other: str) -> bool:
        compared.append(one)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    keys = [
        Key.model_validate(GOOD | {"scopes": ("talk",), "sha256": digest_of(str(number))})
        for number in range(5)
    ]
    for presented in ("0", "4", "none of them"):
        compared.clear()
        find_key(keys, presented)
        assert compared == [key.sha256 for key in keys]


def test_a_key_expires_at_its_second() -> None:
    key = Key.model_validate(GOOD | {"scopes": ("talk",), "expires_at": 100})
    assert not key.expired(99.9)
    assert key.expired(100)
    assert not Key.model_validate(GOOD | {"scopes": ("talk",)}).expired(1e12)


# --- watching ----------------------------------------------------------------


def names(ring: KeyRing) -> list[str] | None:
    keys = ring.keys()
    return None if keys is None else [key.name for key in keys]


def test_a_running_server_sees_every_change(path: Path) -> None:
    ring = KeyRing(path)
    assert names(ring) is None
    add(path, "phone")
    assert names(ring) == ["phone"]
    add(path, "tablet")
    assert names(ring) == ["phone", "tablet"]
    revoke_key(path, "phone")
    assert names(ring) == ["tablet"]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every reading of a file."""
    done: list[Path] = []
    read = module.read_keys

    def counting(path: Path) -> tuple[Key, ...] | None:
        done.append(path)
        return read(path)

    monkeypatch.setattr(module, "read_keys", counting)
    return done


@pytest.mark.parametrize(("seconds", "times"), [(-100, 5), (0, 5), (1.9, 5), (2.1, 1), (1e6, 1)])
def test_a_file_that_rests_is_not_read_again(
    path: Path, reads: list[Path], seconds: float, times: int
) -> None:
    """One that changed just now is: it may change again without a new date."""
    add(path, "phone")
    changed_s = path.stat().st_mtime
    reads.clear()
    ring = KeyRing(path, now_s=lambda: changed_s + seconds)
    assert [names(ring) for _ in range(5)] == [["phone"]] * 5
    assert len(reads) == times


def test_one_that_changes_after_a_rest_is_read_once(path: Path, reads: list[Path]) -> None:
    add(path, "phone")
    age(path)
    ring = KeyRing(path)
    assert names(ring) == ["phone"]
    path.write_text(path.read_text().replace("phone", "spoon"))
    age(path)
    reads.clear()
    assert [names(ring) for _ in range(5)] == [["spoon"]] * 5
    assert len(reads) == 1


def test_a_file_that_vanishes_does_not_open_the_door(path: Path) -> None:
    ring = KeyRing(path)
    add(path, "phone")
    assert names(ring) == ["phone"]
    path.unlink()
    assert names(ring) == []
    add(path, "tablet")
    assert names(ring) == ["tablet"]


def test_nor_does_one_that_was_broken_first(path: Path) -> None:
    path.mkdir(parents=True)
    ring = KeyRing(path)
    with pytest.raises(SettingsError):
        ring.keys()
    path.rmdir()
    assert names(ring) == []


def test_a_broken_file_is_refused_until_it_is_mended(path: Path) -> None:
    add(path, "phone")
    good = path.read_text()
    ring = KeyRing(path)
    assert names(ring) == ["phone"]
    path.write_text(good[:-9])
    age(path)
    for _ in range(3):
        with pytest.raises(SettingsError, match="is broken"):
            ring.keys()
    path.write_text(good)
    assert names(ring) == ["phone"]


def test_without_a_path_there_are_no_named_keys() -> None:
    assert KeyRing(None).keys() is None
