"""Whether a model fits this machine: its disk, its memory, its NVIDIA card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ivas.models import Model, shown_size

COMFORTABLE = 0.5
"""Of the memory in total a model may need before it is tight: the rest is the LLM's and yours."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to fit into."""

    ram_bytes: int
    """In total: of the machine, or of its container."""
    ram_free_bytes: int
    disk_free_bytes: int
    """Where the models are kept."""
    vram_bytes: int | None = None
    """Of the NVIDIA card that can be used; None if there is none."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The verdict, and why."""

    verdict: Literal["fits", "tight", "too big"]
    sentence: str


def fit(model: Model, machine: Machine, *, installed: bool = False) -> Fit:
    """Whether `machine` can hold and run `model`. One that is installed needs no more disk."""
    if not installed and machine.disk_free_bytes < model.size_bytes:
        return Fit(
            "too big",
            f"It takes {shown_size(model.size_bytes)} on disk and "
            f"{shown_size(machine.disk_free_bytes)} are free; make room first.",
        )
    if model.vram_bytes is not None and (machine.vram_bytes or 0) >= model.vram_bytes:
        return Fit(
            "fits",
            f"It needs about {shown_size(model.vram_bytes)} of the "
            f"{shown_size(machine.vram_bytes or 0)} of the NVIDIA card.",
        )
    needs = f"It needs about {shown_size(model.ram_bytes)} of memory"
    if machine.ram_bytes < model.ram_bytes:
        return Fit(
            "too big",
            f"{needs}, more than the {shown_size(machine.ram_bytes)} of this machine; "
            "choose a smaller one.",
        )
    if not model.live_on_cpu:
        return Fit(
            "tight",
            f"{needs}, and without an NVIDIA card of {shown_size(model.vram_bytes or 0)} it is "
            "too slow for a conversation.",
        )
    if machine.ram_free_bytes < model.ram_bytes:
        return Fit(
            "tight",
            f"{needs}, and {shown_size(machine.ram_free_bytes)} are free at the moment; "
            "close other programs.",
        )
    if model.ram_bytes > COMFORTABLE * machine.ram_bytes:
        return Fit(
            "tight",
            f"{needs}, most of the {shown_size(machine.ram_bytes)} of this machine; little is "
            "left for an LLM.",
        )
    return Fit("fits", f"{needs} of the {shown_size(machine.ram_bytes)} of this machine.")
