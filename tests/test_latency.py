"""Marks, spans and percentiles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.latency import SPANS, Marks, percentile


def test_spans_are_measured_between_the_first_of_each_mark() -> None:
    clock = iter([1000.0, 1000.0, 1100.0, 1250.0, 1300.0, 1400.0, 9000.0])
    marks = Marks(lambda: next(clock))
    marks.mark("speech_end", ago_ms=500)
    marks.mark("endpoint")
    marks.mark("transcript")
    marks.mark("started")
    marks.mark("first_token")
    marks.mark("first_audio")
    marks.mark("first_audio")  # later ones do not count
    assert marks.spans_ms() == {
        "endpoint": 500,
        "asr": 100,
        "llm_first_token": 50,
        "total": 900,
    }


def test_nothing_marked_is_nothing_measured() -> None:
    assert Marks(lambda: 0.0).spans_ms() == {}
    assert len({name for name, _, _ in SPANS}) == len(SPANS)


def test_percentile_is_the_nearest_rank() -> None:
    values = [30.0, 10.0, 20.0, 50.0, 40.0]
    assert [percentile(values, p) for p in (0, 0.2, 0.21, 0.5, 0.95, 1)] == [10, 10, 20, 30, 50, 50]
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_percentile_is_a_value_with_that_share_at_or_below(
    values: list[float], share: float
) -> None:
    value = percentile(values, share)
    assert value in values
    assert sum(v <= value for v in values) >= share * len(values) - 1e-9
    assert sum(v < value for v in values) <= share * len(values)
