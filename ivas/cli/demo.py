"""`ivas demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
