"""`ivas config`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from ivas.errors import SettingsError

from .options import ConfigOption


def show_config(
    path: Annotated[
        Path | None, typer.Argument(metavar="[PATH]", help="With --init: the file to write.")
    ] = None,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    init: Annotated[bool, typer.Option("--init", help="Write a config.py to edit.")] = False,
) -> None:
    """Show every setting and where its value comes from."""
    if init:
        _write_config(path or Path("config.py"))
        return
    if path is not None:
        raise SettingsError(f"To show what {path} sets, run: ivas config --config {path}")

    from ivas.settings import all_settings
    from ivas.settings_sources import resolve

    resolved = resolve(config)
    values = resolved.settings.model_dump(mode="json")  # SecretStr masks itself
    rows = []
    for name, setting in all_settings().items():
        group, dot, key = name.partition(".")
        value = values[group][key] if dot else values[name]
        rows.append((name, setting.variable, value, resolved.origins[name]))

    import json

    if as_json:
        settings = {
            name: {"value": value, "variable": variable, "origin": origin}
            for name, variable, value, origin in rows
        }
        file = None if resolved.config is None else str(resolved.config)
        print(json.dumps({"config": file, "settings": settings}, indent=2, ensure_ascii=False))
        return
    for name, variable, value, origin in rows:
        shown = json.dumps(value, ensure_ascii=False)
        if len(shown) > 60:
            shown = f"{shown[:57]}..."
        print(f"{name} = {shown}  # {variable}, {origin}")


def _write_config(path: Path) -> None:
    from ivas.settings_sources import shipped_config

    source = shipped_config()
    if source is None:
        raise SettingsError("This installation carries no config.py to copy; install IVAS again.")
    try:
        with source.open("rb") as original, path.open("xb") as copy:
            shutil.copyfileobj(original, copy)
    except FileExistsError:
        raise SettingsError(
            f"{path} exists and is left as it is; choose another name: ivas config --init PATH"
        ) from None
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be written ({error.strerror}); choose another place."
        ) from error
    print(f"Wrote {path}. Edit it, then start with: ivas serve --config {path}")
