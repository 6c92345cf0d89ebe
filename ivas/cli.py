"""The `ivas` command line: what a person types. Decides nothing, computes nothing.

Heavy imports are inside the commands, so that `ivas --help` answers at once. An
error somebody can mend ends as its one sentence on stderr: exit code 2 for a wrong
setting or installation, 1 for anything else.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from ivas import __version__
from ivas.errors import IvasError, SettingsError

app = typer.Typer(
    help="A private, self-hosted, real-time voice assistant.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The config.py to run; else IVAS_CONFIG."),
]


def main() -> None:
    """The console script."""
    try:
        app()
    except SettingsError as error:
        print(f"ivas: {error}", file=sys.stderr)
        sys.exit(2)
    except IvasError as error:
        print(f"ivas: {error}", file=sys.stderr)
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"ivas {__version__}")
        raise typer.Exit


@app.callback()
def ivas(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """A private, self-hosted, real-time voice assistant."""


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    config: ConfigOption = None,
) -> None:
    """Start the server and say where its page is."""
    from ivas.settings_sources import resolve

    flags = {"server.host": host, "server.port": port}
    given = {path: value for path, value in flags.items() if value is not None}
    settings = resolve(config, flags=given).settings
    _refuse_unusable_address(settings.server.host, settings.server.port)

    from ivas.app import serve as run

    run(settings)


@app.command()
def demo(
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="A running server to ask; else starts one.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Its API key; on this machine, else the one in the settings.")
    ] = None,
    wav: Annotated[Path | None, typer.Option(metavar="FILE", help="Another question.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the reply there, play nothing.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, play nothing.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=1, help="Longest wait for each stage, in seconds.")
    ] = 30.0,
) -> None:
    """Ask a spoken question, hear the answer, see where the time went."""
    from ivas.client.demo import Demo, run
    from ivas.client.wire import on_this_machine

    if key is None and (url is None or on_this_machine(url)):
        from ivas.settings_sources import load

        secret = load().server.api_key
        key = None if secret is None else secret.get_secret_value()
    run(Demo(url=url, key=key, wav=wav, out=out, as_json=as_json, timeout_s=timeout))


@app.command("config")
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


def _refuse_unusable_address(host: str, port: int) -> None:
    """Fail before the engines are loaded, not after. Raises SettingsError."""
    import errno
    import socket

    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the server will: a port that only waits out old connections is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"Port {port} on {host} is taken by another program; "
                f"stop that program or choose another port: --port {port % 65535 + 1}"
            ) from error
        if error.errno == errno.EACCES:
            raise SettingsError(
                f"Port {port} is reserved for the administrator; choose one above 1023: --port 8000"
            ) from error
        raise SettingsError(
            f"The server cannot listen on {host} ({error.strerror}); "
            "give it an address of this machine: --host 127.0.0.1"
        ) from error
