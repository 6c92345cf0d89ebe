"""`ivas keys`: add, list and revoke the keys that let clients in."""

from __future__ import annotations

import re
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ivas.errors import SettingsError

from .options import ConfigOption

if TYPE_CHECKING:
    from ivas.keys import Scope

app = typer.Typer(help="The keys that let clients in.", no_args_is_help=True)

FileOption = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="The key file; else the setting server.keys_file."),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="What the key is called.")]

_UNITS_S = {"h": 3600, "d": 86_400, "w": 7 * 86_400}
MOST_EXPIRES_S = 3650 * _UNITS_S["d"]


@app.command("add")
def add(
    name: NameArgument,
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope", metavar="SCOPES", help="What it may do: talk, speech, admin, or several."
        ),
    ],
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="TIME", help="Until when: 12h, 30d, 8w; else for ever."),
    ] = None,
    file: FileOption = None,
    config: ConfigOption = None,
) -> None:
    """Make a key and print it, this once. A running server knows it at once."""
    from ivas.keys import add_key, read_keys

    scopes, lasts_s = _scopes(scope), _lasts_s(expires)
    path = _key_file(file, config)
    key, shown = add_key(path, name, scopes, lasts_s=lasts_s, now_s=time.time())
    # Only the key goes to stdout, so that a script can take it from there.
    print(
        f"The key {name} ({', '.join(key.scopes)}) expires {_day(key.expires_at)}. "
        "Keep it now: it is not shown again.",
        file=sys.stderr,
    )
    if len(read_keys(path) or ()) == 1:
        print(
            "It is the first: from now on every client has to show a key, on this machine too.",
            file=sys.stderr,
        )
    print(shown)


@app.command("list")
def list_keys(file: FileOption = None, config: ConfigOption = None) -> None:
    """Show every key: its name, what it may do, when it was made and when it expires."""
    from ivas.keys import read_keys

    path = _key_file(file, config)
    keys = read_keys(path)
    if not keys:
        print(f"There is no key in {path}. Make one with: ivas keys add NAME --scope talk")
        return
    now_s = time.time()
    rows = [("NAME", "SCOPES", "CREATED", "EXPIRES")]
    for key in keys:
        end = ("expired " if key.expired(now_s) else "") + _day(key.expires_at)
        rows.append((key.name, ",".join(key.scopes), _day(key.created_at), end))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


@app.command("revoke")
def revoke(name: NameArgument, file: FileOption = None, config: ConfigOption = None) -> None:
    """Take a key back. Conversations that run with it go on, nothing new begins."""
    from ivas.keys import revoke_key

    path = _key_file(file, config)
    left = revoke_key(path, name)
    print(f"The key {name} is revoked.")
    if not left:
        print(
            "No named key is left, and a server without IVAS_SERVER__API_KEY now lets nobody in. "
            f"To let everybody on this machine in again, remove {path} and restart the server."
        )


def _key_file(file: Path | None, config: Path | None) -> Path:
    if file is not None:
        return file
    from ivas.settings_sources import load

    return load(config).server.keys_file


def _scopes(given: list[str]) -> list[Scope]:
    from ivas.keys import SCOPES

    words = [word for part in given for word in part.replace(",", " ").split()]
    scopes = [scope for scope in SCOPES if scope in words]
    if unknown := [word for word in words if word not in SCOPES]:
        raise SettingsError(
            f"{unknown[0]!r:.80} is no scope; --scope takes one or more of {', '.join(SCOPES)}."
        )
    if not scopes:
        raise SettingsError(f"A key needs a scope; --scope takes {', '.join(SCOPES)}.")
    return scopes


def _lasts_s(given: str | None) -> int | None:
    if given is None:
        return None
    parts = re.fullmatch(r"([0-9]{1,6})([hdw])", given)
    lasts_s = int(parts[1]) * _UNITS_S[parts[2]] if parts else 0
    if not 0 < lasts_s <= MOST_EXPIRES_S:
        raise SettingsError(
            f"--expires {given!r:.80} is no time; it takes hours, days or weeks up to ten years, "
            "such as 12h, 30d or 8w."
        )
    return lasts_s


def _day(at_s: int | None) -> str:
    """In the time of this machine."""
    if at_s is None:
        return "never"
    try:
        return datetime.fromtimestamp(at_s).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):  # written by hand, beyond the year 9999
        return "never"
