"""`ivas serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ivas.errors import SettingsError

from .options import ConfigOption


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    keys_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Named keys; else server.keys_file.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Start the server and say where its page is."""
    from ivas.settings_sources import resolve

    flags = {"server.host": host, "server.port": port, "server.keys_file": keys_file}
    given = {path: value for path, value in flags.items() if value is not None}
    settings = resolve(config, flags=given).settings
    _refuse_unusable_address(settings.server.host, settings.server.port)

    from ivas.serving import serve as run

    run(settings)


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
