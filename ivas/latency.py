"""Where the time of one turn goes: marks, the spans between them, percentiles.

The clock is passed in (milliseconds, monotonic), so that a turn can be replayed.
Everything is measured on the server; what the network and the speaker add is the
client's to see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

Mark = Literal[
    "speech_end", "endpoint", "transcript", "started", "first_token", "first_clause", "first_audio"
]
SPANS: tuple[tuple[str, Mark, Mark], ...] = (
    ("endpoint", "speech_end", "endpoint"),
    ("asr", "endpoint", "transcript"),
    ("llm_first_token", "started", "first_token"),
    ("llm_first_clause", "first_token", "first_clause"),
    ("tts_first_audio", "first_clause", "first_audio"),
    ("total", "speech_end", "first_audio"),
)
"""Name, from, to. `endpoint` is the silence waited for before the turn counted as
over; `total` runs from the last voiced sample to the first sound sent."""


class Marks:
    """The moments of one turn; each is kept the first time it is marked."""

    def __init__(self, now_ms: Callable[[], float]) -> None:
        self._now_ms = now_ms
        self._at: dict[Mark, float] = {}

    def mark(self, mark: Mark, *, ago_ms: float = 0.0) -> None:
        """It happened now, or `ago_ms` before."""
        self._at.setdefault(mark, self._now_ms() - ago_ms)

    def spans_ms(self) -> dict[str, float]:
        """Every span of which both ends were marked, in the order of `SPANS`."""
        at = self._at
        return {
            name: round(at[end] - at[begin], 3)
            for name, begin, end in SPANS
            if begin in at and end in at
        }


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; `share` 0..1. Raises ValueError on no values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * share // 1))  # ceiling
    return ordered[int(rank) - 1]
