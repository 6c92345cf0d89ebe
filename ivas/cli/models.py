"""`ivas models`: list, download, remove and check the models on disk."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from .options import ConfigOption

if TYPE_CHECKING:
    from pathlib import Path

    from ivas.models import Model
    from ivas.models.download import Progress
    from ivas.models.fit import Machine
    from ivas.models.store import Installed, ModelStore
    from ivas.settings import Settings

app = typer.Typer(help="The models on disk.", no_args_is_help=True)

OLLAMA = "ollama:"
"""Before the name of a model that Ollama keeps, not IVAS."""

_WIDTH_OF_A_FILE = 180
"""Columns of a table that nobody looks at in a terminal."""

IdsArgument = Annotated[
    list[str], typer.Argument(metavar="ID...", help="Models, as `ivas models list` names them.")
]


@app.command("list")
def list_models(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show every model: what for, size, licence, whether it is here and fits this machine."""
    from ivas.models import shown_size
    from ivas.models.catalogue import CATALOGUE
    from ivas.models.fit import fit

    settings, store = _opened(config)
    here = {model.model_id: model for model in store.installed()}
    machine = _machine(settings)
    rows = [(model, fit(model, machine, installed=model.id in here)) for model in CATALOGUE]
    if as_json:
        import json

        shown = [
            {
                "id": model.id,
                "engine": model.engine,
                "purpose": model.purpose,
                "languages": model.languages,
                "size_bytes": model.size_bytes,
                "ram_bytes": model.ram_bytes,
                "vram_bytes": model.vram_bytes,
                "licence": {
                    "name": model.licence.name,
                    "url": model.licence.url,
                    "non_commercial": model.licence.non_commercial,
                    "note": model.licence.note,
                },
                "installed": model.id in here,
                "by_hand": model.id in here and here[model.id].by_hand,
                "fits": fits.verdict,
                "why": fits.sentence,
            }
            for model, fits in rows
        ]
        print(json.dumps({"models_dir": str(store.root), "models": shown}, indent=2))
        return

    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_OF_A_FILE)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("MODEL", no_wrap=True)
    table.add_column("FOR", min_width=24)
    table.add_column("LANGUAGES")
    table.add_column("SIZE", justify="right", no_wrap=True)
    for name in ("LICENCE", "HERE", "FITS"):
        table.add_column(name)
    for model, fits in rows:
        licence = model.licence.name
        if model.licence.non_commercial:
            licence += ", non-commercial"
        have = "" if model.id not in here else "by hand" if here[model.id].by_hand else "yes"
        languages = " ".join(model.languages)
        size = shown_size(model.size_bytes)
        table.add_row(model.id, model.purpose, languages, size, licence, have, fits.verdict)
    console.print(table)
    console.print(f"Kept in {store.root}. Get one with: ivas models download ID")


@app.command("download")
def download_models(
    ids: IdsArgument,
    accept_licence: Annotated[
        bool,
        typer.Option("--accept-licence", help="Say yes to licences for non-commercial use only."),
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Fetch models, finish interrupted ones, mend damaged ones. `ollama:NAME` is Ollama's."""
    from ivas.errors import SettingsError

    settings, store = _opened(config)
    if settings.offline:
        raise SettingsError(
            "IVAS_OFFLINE is set, so nothing is fetched from the network; unset it to download "
            f"{ids[0]}, or put the files into {store.root} by hand."
        )
    try:
        for model_id in ids:
            if model_id.startswith(OLLAMA):
                asyncio.run(_pull(model_id.removeprefix(OLLAMA), settings.llm.host))
            else:
                _download_one(model_id, settings, store, accept_licence)
    except KeyboardInterrupt:
        print("Stopped. Type the same again to go on.", file=sys.stderr)
        raise typer.Exit(130) from None


@app.command("remove")
def remove_models(ids: IdsArgument, config: ConfigOption = None) -> None:
    """Delete models from disk."""
    from ivas.models import shown_size

    _, store = _opened(config)
    for model_id in ids:
        freed = store.remove(model_id)
        print(f"{model_id} is removed; {shown_size(freed)} are free again.")


@app.command("check")
def check_models(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID...]", help="Models; else all that are here.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Read models byte by byte and say what is damaged. Exit code 1 if anything is."""
    _, store = _opened(config)
    wanted = ids or store.present()
    if not wanted:
        print(f"There is no model in {store.root}. Get one with: ivas models download ID")
    faults = 0
    for model_id in wanted:
        problems = store.check(model_id)
        for problem in problems:
            print(f"{model_id}: {problem.sentence}")
        if not problems:
            print(f"{model_id}: sound")
        faults += len(problems)
    if faults:
        raise typer.Exit(1)


def _opened(config: Path | None) -> tuple[Settings, ModelStore]:
    from ivas.models.store import ModelStore
    from ivas.settings_sources import load

    settings = load(config)
    return settings, ModelStore(settings.models_dir)


def _machine(settings: Settings) -> Machine:
    from ivas import hardware
    from ivas.models.fit import Machine

    memory = hardware.memory()
    cards = [gpu.total_bytes for gpu in hardware.nvidia().gpus]
    return Machine(
        memory.total_bytes,
        memory.available_bytes,
        hardware.disk_free(settings.models_dir),
        max(cards, default=None),
    )


def _download_one(
    model_id: str, settings: Settings, store: ModelStore, accept_licence: bool
) -> None:
    from ivas.models import shown_size
    from ivas.models.catalogue import find
    from ivas.models.download import GITHUB, download, http_client
    from ivas.models.fit import fit

    model = find(model_id)
    accepted = accept_licence or store.licence_accepted(model_id) or _ask(model)
    fits = fit(model, _machine(settings), installed=store.find_installed(model_id) is not None)
    if fits.verdict != "fits":
        print(f"{model_id} is {fits.verdict} for this machine. {fits.sentence}", file=sys.stderr)

    async def run() -> Installed:
        with _bar() as show:

            def on_progress(now: Progress) -> None:
                show(f"{model_id} {now.file}", now.model_done_bytes, now.model_total_bytes)

            async with http_client() as client:
                return await download(
                    model,
                    store,
                    client=client,
                    base_urls={"hub": settings.models_hub, "github": GITHUB},
                    licence_accepted=accepted,
                    on_progress=on_progress,
                )

    done = asyncio.run(run())
    print(f"{model_id} is in {done.path} ({shown_size(done.size_bytes)}).")


def _ask(model: Model) -> bool:
    """Ask for a licence that has to be accepted. Raises ModelError where nobody can answer."""
    from ivas.models.download import licence_refused

    licence = model.licence
    if not licence.non_commercial:
        return False
    if not sys.stdin.isatty():
        raise licence_refused(model)
    about = f": {licence.note}" if licence.note else ""
    print(f"{model.id} is for non-commercial use only ({licence.name}{about}).\n{licence.url}")
    if not typer.confirm("Do you accept this licence?"):
        raise typer.Exit(1)
    return True


async def _pull(name: str, host: str) -> None:
    """Let Ollama fetch a model of its own library."""
    from ivas.engines.llm.ollama import OllamaLLM

    engine = OllamaLLM(host=host, model=name)
    try:
        with _bar() as show:
            async with aclosing(engine.pull(name)) as steps:
                async for step in steps:
                    show(f"{name} {step.status}", step.completed, step.total)
    finally:
        await engine.aclose()
    print(f"{name} is ready in Ollama.")


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr, for a terminal only. Show it: a text, bytes done, bytes in all."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def show(text: str, done_bytes: int, total_bytes: int) -> None:
            bar.update(task, description=text, completed=done_bytes, total=total_bytes or None)

        yield show
