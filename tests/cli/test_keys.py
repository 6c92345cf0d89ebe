"""`ivas keys` as a person meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import ivas as ivas_package
from ivas.cli.keys import app
from ivas.errors import SettingsError
from ivas.keys import find_key, read_keys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def keys(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--file", str(file)])


def refused(result: Result) -> str:
    assert isinstance(result.exception, SettingsError)
    assert result.stdout == ""
    return str(result.exception)


def test_the_key_alone_goes_to_stdout(file: Path) -> None:
    done = keys(file, "add", "phone", "--scope", "talk,speech", "--expires", "30d")
    assert done.exit_code == 0
    shown = done.stdout.removesuffix("\n")
    (key,) = read_keys(file) or ()
    assert find_key((key,), shown) == key
    assert (key.name, key.scopes) == ("phone", ("talk", "speech"))
    assert key.expires_at == key.created_at + 30 * 86_400
    assert abs(key.created_at - time.time()) < 60
    assert "The key phone (talk, speech) expires 20" in done.stderr
    assert "not shown again" in done.stderr
    assert shown not in done.stderr


def test_the_first_key_closes_the_door_and_says_so(file: Path) -> None:
    said = [keys(file, "add", name, "--scope", "talk").stderr for name in ("one", "two")]
    assert ["every client has to show a key" in one for one in said] == [True, False]


@pytest.mark.parametrize(
    ("given", "seconds"), [("1h", 3600), ("8w", 8 * 7 * 86_400), ("3650d", 3650 * 86_400)]
)
def test_a_time_to_expire(file: Path, given: str, seconds: int) -> None:
    keys(file, "add", "phone", "--scope", "talk", "--expires", given)
    (key,) = read_keys(file) or ()
    assert key.expires_at == key.created_at + seconds


@pytest.mark.parametrize(
    "given", ["", "30", "0d", "d", "-1d", "1.5d", "30 d", "30D", "3651d", "9999999h", "٣d", "1d\n"]
)
def test_no_time(file: Path, given: str) -> None:
    said = refused(keys(file, "add", "phone", "--scope", "talk", f"--expires={given}"))
    assert "such as 12h, 30d or 8w" in said
    assert not file.exists()


def test_scopes_one_by_one_or_in_a_list(file: Path) -> None:
    keys(file, "add", "one", "--scope", "speech", "--scope", "talk")
    keys(file, "add", "two", "--scope", " talk, speech ,")
    first, second = read_keys(file) or ()
    assert first.scopes == second.scopes == ("talk", "speech")


@pytest.mark.parametrize("scope", ["root", "talk;speech", "Talk", "talk,,root"])
def test_no_scope(file: Path, scope: str) -> None:
    assert "talk, speech, admin" in refused(keys(file, "add", "phone", "--scope", scope))


@pytest.mark.parametrize("scope", ["", " ", ","])
def test_a_key_needs_a_scope(file: Path, scope: str) -> None:
    assert "needs a scope" in refused(keys(file, "add", "phone", "--scope", scope))
    assert keys(file, "add", "phone").exit_code == 2


def test_a_list_shows_everything_but_the_key(file: Path) -> None:
    shown = keys(file, "add", "phone", "--scope", "talk").stdout.strip()
    keys(file, "add", "a-tablet", "--scope", "admin", "--expires", "1h")
    done = keys(file, "list")
    head, phone, tablet = done.stdout.splitlines()
    assert head.split() == ["NAME", "SCOPES", "CREATED", "EXPIRES"]
    assert phone.split()[:2] == ["phone", "talk"]
    assert phone.endswith("  never")
    assert tablet.split()[:2] == ["a-tablet", "admin"]
    assert head.index("EXPIRES") == phone.index("never")
    (key, _) = read_keys(file) or ()
    for secret in (shown[5:9], shown[-4:], key.sha256[:6], key.sha256[-6:]):
        assert secret not in done.stdout


def test_a_list_says_what_has_expired(file: Path) -> None:
    old = {"name": "old", "scopes": ["talk"], "created_at": 0, "expires_at": 86_400 * 2}
    odd = {"name": "odd", "scopes": ["talk"], "created_at": 0, "expires_at": 2**40 - 1}
    text = json.dumps({"keys": [old | {"sha256": "0" * 64}, odd | {"sha256": "1" * 64}]})
    file.write_text(text)
    _, first, second = keys(file, "list").stdout.splitlines()
    assert "  expired 1970-01-0" in first
    assert second.endswith("never")  # in the year 36812


def test_an_empty_list_says_how_to_begin(file: Path) -> None:
    done = keys(file, "list")
    assert (done.exit_code, f"There is no key in {file}." in done.stdout) == (0, True)
    assert "ivas keys add NAME --scope talk" in done.stdout
    assert not file.exists()


def test_revoking_says_when_the_last_is_gone(file: Path) -> None:
    keys(file, "add", "phone", "--scope", "talk")
    keys(file, "add", "tablet", "--scope", "talk")
    assert keys(file, "revoke", "phone").stdout == "The key phone is revoked.\n"
    last = keys(file, "revoke", "tablet").stdout
    assert "nobody" in last
    assert str(file) in last
    assert "There is no key 'tablet'" in refused(keys(file, "revoke", "tablet"))


def test_a_broken_file_is_a_sentence(file: Path) -> None:
    file.write_text("{")
    for arguments in (["add", "a", "--scope", "talk"], ["list"], ["revoke", "a"]):
        assert f"The key file {file} is broken" in refused(keys(file, *arguments))


def test_the_file_of_the_settings_is_used(tmp_path: Path) -> None:
    """A process of its own: nothing else may read the environment."""
    code = "from ivas.cli.keys import app; app(['add', 'phone', '--scope', 'talk'])"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("IVAS_")}
    environ["PYTHONPATH"] = str(Path(ivas_package.__file__).parents[1])
    environ["XDG_CONFIG_HOME"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (key,) = read_keys(tmp_path / "ivas" / "keys.json") or ()
    assert find_key((key,), done.stdout.strip()) == key
