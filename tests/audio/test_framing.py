"""Every sample ends up in exactly one frame, and the recent past can be had again."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ivas.audio.framing import Framer
from ivas.engines import Samples

KEEP_MS = 20
KEPT = KEEP_MS * 16

cuts = st.lists(st.integers(0, 900), max_size=12)
frame_sizes = st.integers(1, 512)


def ramp(start: int, stop: int) -> Samples:
    """Samples that carry their own absolute number."""
    return np.arange(start, stop, dtype=np.float32)


@given(cuts, frame_sizes)
def test_every_sample_is_in_one_frame_or_pending(sizes: list[int], frame_samples: int) -> None:
    framer = Framer(frame_samples, keep_ms=KEEP_MS)
    consumed = 0
    for size in sizes:
        for frame, end in framer.push(ramp(framer.received, framer.received + size)):
            consumed += frame_samples
            assert end == consumed
            assert frame.tolist() == ramp(end - frame_samples, end).tolist()
    assert framer.received == sum(sizes)
    assert 0 <= framer.received - consumed < frame_samples


@given(cuts, st.integers(0, 11_000))
def test_the_past_from_any_position_ends_now_and_is_right(sizes: list[int], start: int) -> None:
    framer = Framer(512, keep_ms=KEEP_MS)
    for size in sizes:
        framer.push(ramp(framer.received, framer.received + size))
    past = framer.since(start)
    now = framer.received
    assert past.tolist() == ramp(now - len(past), now).tolist()
    assert len(past) >= min(max(0, now - start), KEPT)
    assert len(past) <= max(0, now - start)


def test_a_frame_is_the_caller_s_to_keep() -> None:
    framer = Framer(4, keep_ms=1)
    ((frame, _),) = framer.push(ramp(0, 4))
    past = framer.since(0)
    framer.push(np.full(500, -1, np.float32))
    assert frame.tolist() == past.tolist() == [0, 1, 2, 3]


def test_memory_is_bounded_and_the_kept_time_is_not_less_than_a_frame() -> None:
    framer = Framer(512, keep_ms=1)
    for _ in range(50):
        framer.push(ramp(0, 3_000))
    assert 512 <= len(framer.since(0)) <= 3 * 512
