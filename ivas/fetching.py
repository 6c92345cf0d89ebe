"""Better ears, fetched in the background: what `auto` needs to leave pocketsphinx behind.

The only thing IVAS ever fetches unasked: small, freely licensed, and said in the
terminal before it begins. Everything bigger waits for `ivas models download`.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path

from .composition import whisper_dir, whisper_model
from .models import Model, ModelError, shown_size
from .models.catalogue import find
from .models.download import GITHUB, Progress, download, http_client
from .models.store import PART, PART_STATE, ModelStore
from .settings import Settings

log = logging.getLogger(__name__)

SAY_EVERY = 0.25
"""The share of the model after which the terminal is told again."""


def wants_ears(settings: Settings) -> bool:
    """Whether there is something to fetch that may be fetched unasked."""
    store = ModelStore(settings.models_dir)
    return (
        settings.env == "development"
        and settings.asr.engine == "auto"
        and settings.asr.model in (None, "base", "whisper-base")
        and not settings.offline
        and importlib.util.find_spec("faster_whisper") is not None
        and store.find_installed(whisper_model(settings)) is None
        and _is_ours_to_fill(whisper_dir(settings), find(whisper_model(settings)))
    )


def _is_ours_to_fill(directory: Path, model: Model) -> bool:
    """Whether nothing is there but what an interrupted fetch of `model` left behind."""
    names = {file.name + suffix for file in model.files for suffix in ("", PART, PART_STATE)}
    try:
        return {place.name for place in directory.iterdir()} <= names
    except FileNotFoundError:
        return True
    except OSError:  # not a directory, or not ours to read
        return False


async def fetch_ears(settings: Settings, say: Callable[[str], None]) -> None:
    """Fetch the Whisper model; `say` is told in sentences. Never raises what a network,
    a disk or a hub can do: the conversation goes on as it is."""
    if not wants_ears(settings):
        return
    model = find(whisper_model(settings))
    size = shown_size(sum(file.size_bytes for file in model.files))
    say(
        f"Better ears are being fetched in the background: {model.id} ({size}, "
        f"{model.licence.name}). IVAS_OFFLINE=1 forbids it."
    )
    told = 0.0

    def on_progress(now: Progress) -> None:
        nonlocal told
        share = now.model_done_bytes / max(now.model_total_bytes, 1)
        if share >= told + SAY_EVERY:
            told = share - share % SAY_EVERY
            say(f"{model.id}: {told:.0%} fetched.")

    try:
        async with http_client() as client:
            await download(
                model,
                ModelStore(settings.models_dir),
                client=client,
                base_urls={"hub": settings.models_hub, "github": GITHUB},
                on_progress=on_progress,
            )
    except ModelError as error:
        say(
            f"Whisper could not be fetched, so the simple recogniser stays: {error} "
            f"To try again, type: ivas models download {model.id}"
        )
