"""The `ivas` command line: what a person types. One module a command; this one joins them.

Heavy imports are inside the commands, so that `ivas --help` answers at once. An
error somebody can mend ends as its one sentence on stderr: exit code 2 for a wrong
setting or installation, 1 for anything else.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ivas import __version__
from ivas.errors import IvasError, SettingsError

from .config import show_config
from .demo import demo
from .doctor import doctor
from .keys import app as keys
from .models import app as models
from .serve import serve
from .speech import say, transcribe

app = typer.Typer(
    help="A private, self-hosted, real-time voice assistant.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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


app.command()(serve)
app.command()(demo)
app.command()(say)
app.command()(transcribe)
app.add_typer(models, name="models")
app.command()(doctor)
app.add_typer(keys, name="keys")
app.command("config")(show_config)
