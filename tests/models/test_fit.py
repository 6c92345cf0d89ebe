"""Whether a model fits a machine, from a toy to a workstation."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.models import Model
from ivas.models.catalogue import CATALOGUE, find
from ivas.models.fit import Machine, fit

GB = 10**9
LAPTOP = Machine(16 * GB, 10 * GB, 100 * GB)
ORDER = ("fits", "tight", "too big")


@pytest.mark.parametrize(
    ("model_id", "machine", "verdict", "words"),
    [
        ("whisper-base", LAPTOP, "fits", "700 MB of memory of the 16.0 GB"),
        ("whisper-large-v3", LAPTOP, "tight", "too slow for a conversation"),
        ("whisper-large-v3", replace(LAPTOP, vram_bytes=16 * GB), "fits", "of the NVIDIA card"),
        ("whisper-large-v3", replace(LAPTOP, vram_bytes=4 * GB), "tight", "card of 4.7 GB"),
        ("xtts-v2", LAPTOP, "tight", "without an NVIDIA card of 4.0 GB"),
        ("xtts-v2", replace(LAPTOP, ram_bytes=4 * GB), "too big", "more than the 4.0 GB"),
        ("xtts-v2", replace(LAPTOP, disk_free_bytes=GB), "too big", "1.9 GB on disk"),
        ("kokoro", replace(LAPTOP, ram_free_bytes=GB // 2), "tight", "close other programs"),
        ("kokoro", Machine(GB * 3 // 2, GB * 3 // 2, GB), "tight", "little is left for an LLM"),
        ("kokoro", replace(LAPTOP, vram_bytes=80 * GB), "fits", "of memory"),
    ],
)
def test_the_verdict(model_id: str, machine: Machine, verdict: str, words: str) -> None:
    found = fit(find(model_id), machine)
    assert found.verdict == verdict
    assert words in found.sentence


def test_what_is_installed_needs_no_more_room() -> None:
    full = replace(LAPTOP, disk_free_bytes=0)
    assert fit(find("whisper-base"), full).verdict == "too big"
    assert fit(find("whisper-base"), full, installed=True).verdict == "fits"


sizes = st.integers(0, 200 * GB)


@given(st.sampled_from(CATALOGUE), sizes, sizes, sizes, st.none() | sizes, st.integers(0, 3), sizes)
def test_more_of_anything_never_makes_it_worse(
    model: Model,
    ram: int,
    free: int,
    disk: int,
    vram: int | None,
    which: int,
    more: int,
) -> None:
    machine = Machine(ram, free, disk, vram)
    name = ("ram_bytes", "ram_free_bytes", "disk_free_bytes", "vram_bytes")[which]
    better = replace(machine, **{name: (getattr(machine, name) or 0) + more})
    before, after = fit(model, machine), fit(model, better)
    assert ORDER.index(after.verdict) <= ORDER.index(before.verdict)
    assert before.sentence.endswith(".")
