"""Onset and end of utterances, counted in samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.conversation.endpointing import MIN_SILENCE_MS, Endpointer, Finished, Onset
from ivas.conversation.events import TurnSettings

FRAME_MS = 32
FRAME = FRAME_MS * 16
Mark = Onset | Finished


class Microphone:
    """Feeds an endpointer with frames of 32 ms."""

    def __init__(self, *, position: int = 0, **settings: float) -> None:
        self.endpointer = Endpointer(TurnSettings(**settings), position=position)  # type: ignore[arg-type]
        self.sample = position

    def hear(self, ms: float, probability: float) -> list[Mark]:
        marks: list[Mark] = []
        for _ in range(round(ms / FRAME_MS)):
            self.sample += FRAME
            mark = self.endpointer.step(probability, self.sample)
            if mark is not None:
                marks.append(mark)
        return marks


# --- onset -------------------------------------------------------------------


def test_the_onset_comes_with_the_frame_that_completes_it() -> None:
    microphone = Microphone(onset_ms=96)
    microphone.hear(640, 0.0)
    began = microphone.sample
    assert microphone.hear(64, 0.9) == []
    assert microphone.hear(32, 0.9) == [Onset(began - 300 * 16)]
    assert microphone.endpointer.voiced_ms == 96
    assert microphone.endpointer.silent_ms == 0


def test_a_frame_is_voiced_from_the_threshold_on() -> None:
    assert Microphone(threshold=0.5).hear(96, 0.5) == [Onset(0)]
    assert Microphone(threshold=0.5).hear(960, 0.499) == []


def test_one_missed_frame_delays_an_onset_and_does_not_undo_it() -> None:
    microphone = Microphone(onset_ms=96)
    assert microphone.hear(64, 0.9) + microphone.hear(32, 0.1) + microphone.hear(32, 0.9) == []
    assert len(microphone.hear(32, 0.9)) == 1


def test_as_much_silence_as_sound_forgets_it() -> None:
    microphone = Microphone(onset_ms=96)
    microphone.hear(64, 0.9)
    microphone.hear(64, 0.1)
    assert microphone.hear(64, 0.9) == []
    assert len(microphone.hear(32, 0.9)) == 1


def test_the_preroll_does_not_reach_before_the_first_sample() -> None:
    assert Microphone().hear(96, 0.9) == [Onset(0)]
    assert Microphone(position=80_000).hear(96, 0.9) == [Onset(80_000)]


def test_the_preroll_does_not_reach_into_the_utterance_before() -> None:
    microphone = Microphone(silence_ms=160)
    microphone.hear(320, 0.9)
    microphone.hear(160, 0.0)
    finished_at = microphone.sample
    microphone.hear(32, 0.0)
    assert microphone.hear(96, 0.9) == [Onset(finished_at)]


# --- end ---------------------------------------------------------------------


def test_the_end_is_where_the_silence_began() -> None:
    microphone = Microphone(silence_ms=500)
    microphone.hear(640, 0.9)
    ended = microphone.sample
    assert microphone.hear(480, 0.1) == []
    assert microphone.endpointer.silent_ms == 480
    assert microphone.hear(32, 0.1) == [Finished(ended)]


def test_a_pause_shorter_than_the_window_does_not_end_it() -> None:
    microphone = Microphone(silence_ms=500)
    microphone.hear(640, 0.9)
    assert microphone.hear(480, 0.1) + microphone.hear(32, 0.9) + microphone.hear(480, 0.1) == []
    assert len(microphone.hear(32, 0.1)) == 1


def test_no_window_is_shorter_than_the_least_silence() -> None:
    microphone = Microphone(silence_ms=0)
    microphone.hear(320, 0.9)
    assert microphone.hear(MIN_SILENCE_MS - FRAME_MS, 0.0) == []
    assert len(microphone.hear(FRAME_MS, 0.0)) == 1


def test_a_probability_that_wavers_does_not_chop_an_utterance() -> None:
    microphone = Microphone(threshold=0.5, silence_ms=160)
    microphone.hear(96, 0.9)
    assert microphone.hear(3_200, 0.36) == []
    assert microphone.endpointer.voiced_ms == 96 + 3_200
    assert len(microphone.hear(160, 0.34)) == 1


@pytest.mark.parametrize("threshold", [0.02, 0.1, 0.15, 0.2])
def test_silence_ends_an_utterance_however_low_the_threshold(threshold: float) -> None:
    microphone = Microphone(threshold=threshold, silence_ms=160)
    microphone.hear(320, 0.9)
    assert len(microphone.hear(160, threshold * 0.4)) == 1


def test_an_utterance_ends_at_its_longest() -> None:
    microphone = Microphone(max_utterance_ms=640, prefix_padding_ms=0)
    assert microphone.hear(640, 0.9) == [Onset(0), Finished(640 * 16)]


def test_the_longest_counts_the_preroll_and_ends_before_a_pause_that_runs() -> None:
    microphone = Microphone(max_utterance_ms=640, prefix_padding_ms=320)
    microphone.hear(320, 0.0)
    microphone.hear(256, 0.9)
    ended = microphone.sample
    assert microphone.hear(64, 0.0) == [Finished(ended)]


# --- stop --------------------------------------------------------------------


def test_stop_forgets_the_utterance_in_progress() -> None:
    microphone = Microphone()
    microphone.hear(320, 0.9)
    microphone.endpointer.stop()
    stopped_at = microphone.sample
    assert microphone.endpointer.voiced_ms == 0
    assert microphone.hear(640, 0.0) == []
    microphone.endpointer.stop()
    microphone.hear(64, 0.9)
    assert microphone.hear(32, 0.9) == [Onset(stopped_at + 640 * 16)]


def test_stop_forgets_a_half_heard_onset() -> None:
    microphone = Microphone(onset_ms=96)
    microphone.hear(64, 0.9)
    microphone.endpointer.stop()
    assert microphone.hear(64, 0.9) == []


# --- what holds for every microphone -----------------------------------------

PROBABILITY = st.sampled_from([0.0, 0.1, 0.34, 0.36, 0.49, 0.5, 0.9, 1.0])
RUNS = st.lists(st.tuples(PROBABILITY, st.integers(1, 30)), max_size=30)
SETTINGS = st.builds(
    TurnSettings,
    threshold=st.sampled_from([0.05, 0.2, 0.5, 0.9]),
    silence_ms=st.sampled_from([0, 160, 200, 500]),
    prefix_padding_ms=st.sampled_from([0, 100, 300, 1_000]),
    onset_ms=st.sampled_from([0, 32, 96, 200]),
    max_utterance_ms=st.sampled_from([500, 2_000, 60_000]),
)


@given(runs=RUNS, settings=SETTINGS, frame=st.sampled_from([160, 320, 512]))
def test_marks_alternate_and_lie_where_they_must(
    runs: list[tuple[float, int]], settings: TurnSettings, frame: int
) -> None:
    endpointer = Endpointer(settings)
    position = begun_at = finished_at = start = unvoiced = 0
    speaking = False
    for probability, frames in runs:
        for _ in range(frames):
            position += frame
            unvoiced = unvoiced + frame if probability < settings.threshold else 0
            mark = endpointer.step(probability, position)
            match mark:
                case Onset(start):
                    assert not speaking
                    speaking, begun_at = True, position
                    assert probability >= settings.threshold
                    # The pre-roll is there, and nothing that another utterance had.
                    onset_and_padding = settings.onset_ms + settings.prefix_padding_ms
                    assert start <= max(finished_at, position - onset_and_padding * 16)
                    assert finished_at <= start < position
                case Finished(end):
                    assert speaking
                    speaking, finished_at = False, position
                    assert begun_at <= end <= position
                    full = position - start >= settings.max_utterance_ms * 16
                    assert full or unvoiced >= max(MIN_SILENCE_MS, settings.silence_ms) * 16
            if speaking:
                assert position - start < settings.max_utterance_ms * 16 or mark is not None
