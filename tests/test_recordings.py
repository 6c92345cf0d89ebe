"""A recording is cut where nobody speaks, and every stretch is transcribed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual_time import virtual_time

from ivas.conversation.endpointing import MIN_SILENCE_MS
from ivas.engines import Samples, Transcript
from ivas.engines.fake import FakeASR, FakeVAD, Fault
from ivas.errors import EngineError, EngineTimeout
from ivas.recordings import (
    CUT_SILENCE_MS,
    LONGEST_MS,
    PADDING_SAMPLES,
    QUEUE_S,
    Said,
    Stretch,
    find_speech,
    transcribe,
)

FRAME = 512


def sound(*parts: tuple[str, float]) -> Samples:
    """`("tone", seconds)` and `("silence", seconds)` in a row."""
    pieces = [np.zeros(0)]
    for kind, seconds in parts:
        count = round(seconds * 16_000)
        wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(count) / 16_000)
        pieces.append(wave if kind == "tone" else np.zeros(count))
    return np.concatenate(pieces).astype(np.float32)


def found(recording: Samples, **how: Any) -> list[Stretch]:
    return find_speech(recording, how.pop("vad", FakeVAD()), threshold=0.5, **how)


async def said(
    recording: Samples, asr: FakeASR, speech: Sequence[Stretch] | None = None, **how: Any
) -> list[Said]:
    if speech is None:
        speech = found(recording)
    stream = transcribe(recording, speech, asr, timeout_s=5, how={"language": None} | how)
    return [one async for one in stream]


class Noting(FakeASR):
    """Keeps what it was given to hear, and how it was opened."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**{"ms": 0} | how)
        self.heard: list[Samples] = []
        self.how: list[dict[str, Any]] = []

    def open(self, **how: Any) -> Any:
        self.how.append(how)
        utterance = super().open(**how)
        push = utterance.push

        def noted(samples: Samples) -> None:
            self.heard.append(samples)
            push(samples)

        utterance.push = noted  # type: ignore[method-assign]
        return utterance


# --- where there is speech -----------------------------------------------------------


def test_times_are_those_of_the_speech() -> None:
    recording = sound(("silence", 0.5), ("tone", 1), ("silence", 1), ("tone", 0.5), ("silence", 2))
    first, second = found(recording)
    assert first.start_sample == pytest.approx(8_000, abs=FRAME)
    assert first.end_sample == pytest.approx(24_000, abs=FRAME)
    assert second.start_sample == pytest.approx(40_000, abs=FRAME)
    assert second.end_sample == pytest.approx(48_000, abs=FRAME)


def test_a_short_pause_is_no_cut() -> None:
    recording = sound(("tone", 1), ("silence", CUT_SILENCE_MS / 1000 - 0.1), ("tone", 1))
    assert len(found(recording)) == 1


def test_speech_up_to_the_end() -> None:
    recording = sound(("silence", 0.3), ("tone", 1.01))
    (only,) = found(recording)
    assert only.end_sample == len(recording)
    (only,) = found(sound(("tone", 1), ("silence", 0.4)))
    assert only.end_sample == pytest.approx(16_000, abs=FRAME)


def test_a_long_speech_is_cut_and_nothing_of_it_lost() -> None:
    recording = sound(("tone", 60))
    stretches = found(recording)
    assert len(stretches) == 5
    assert stretches[0].start_sample == 0
    for one, other in pairwise(stretches):
        assert one.end_sample == other.start_sample
    assert stretches[-1].end_sample == len(recording)
    longest = max(one.end_sample - one.start_sample for one in stretches)
    assert longest <= LONGEST_MS * 16 + FRAME


@pytest.mark.parametrize("recording", [sound(("silence", 3)), sound(("tone", 0.05)), sound()])
def test_where_nobody_speaks_there_is_nothing(recording: Samples) -> None:
    assert found(recording) == []


@given(
    st.lists(
        st.tuples(st.sampled_from(["tone", "silence"]), st.floats(0, 2).map(lambda s: round(s, 3))),
        max_size=8,
    )
)
def test_stretches_are_in_order_and_apart(parts: list[tuple[str, float]]) -> None:
    recording = sound(*parts)
    stretches = found(recording)
    for one in stretches:
        assert 0 <= one.start_sample < one.end_sample <= len(recording)
        voiced = recording[one.start_sample : one.end_sample]
        assert np.abs(voiced).max() > 0.1
    for one, other in pairwise(stretches):
        assert other.start_sample - one.end_sample >= MIN_SILENCE_MS * 16


def test_nobody_wants_it_any_more() -> None:
    asked = iter([True] * 100)  # frames: 3.2 s
    recording = sound(*[("tone", 1), ("silence", 1)] * 20)
    assert len(found(recording, wanted=lambda: next(asked, False))) == 2


@pytest.mark.parametrize("kind", ["raise", "crash", "garbage"])
def test_a_detector_that_fails_says_so(kind: Any) -> None:
    with pytest.raises(EngineError, match="voice activity detector failed") as caught:
        found(sound(("tone", 1)), vad=FakeVAD(fault=Fault(kind, after=3)))
    assert caught.value.code == "vad_failed"


# --- what is said in it -----------------------------------------------------------------


async def test_every_stretch_is_heard_with_a_little_around_it() -> None:
    recording = sound(("silence", 1), ("tone", 1), ("silence", 0.7), ("tone", 1), ("silence", 1))
    asr = Noting()
    first, second = await said(recording, asr)
    assert (first.transcript.text, second.transcript.text) == ("what time is it",) * 2
    spoken = second.stretch.end_sample - second.stretch.start_sample
    assert len(asr.heard[1]) == spoken + 2 * PADDING_SAMPLES
    assert asr.open_utterances == 0


async def test_nobody_hears_the_words_of_another_stretch() -> None:
    recording = sound(("tone", 60))
    asr = Noting()
    await said(recording, asr)
    assert sum(map(len, asr.heard)) == len(recording)


async def test_what_the_client_said_of_it_reaches_the_engine() -> None:
    asr = Noting()
    await said(sound(("tone", 1)), asr, language="de", prompt="Names: Ada.")
    assert asr.how == [{"language": "de", "prompt": "Names: Ada."}]


async def test_stretches_without_words_are_left_out() -> None:
    assert await said(sound(("tone", 1)), FakeASR(ms=0, transcript=" ")) == []


@pytest.mark.parametrize("kind", ["raise", "crash"])
async def test_a_recogniser_that_fails_leaves_nothing_open(kind: Any) -> None:
    asr = FakeASR(ms=0, fault=Fault(kind))
    with pytest.raises((EngineError, RuntimeError)):
        await said(sound(("tone", 1)), asr)
    assert asr.open_utterances == 0


async def test_a_recogniser_that_hangs_is_given_up() -> None:
    asr = FakeASR(ms=0, fault=Fault("hang"))
    stream = transcribe(
        sound(("tone", 0.2)), [Stretch(0, 10)], asr, timeout_s=-math.inf, how={"language": None}
    )
    with pytest.raises(EngineTimeout, match="send a shorter recording"):
        await anext(stream)
    assert asr.open_utterances == 0


@pytest.mark.parametrize(("partials", "urgent"), [(True, [False]), (False, [False, True])])
async def test_whoever_talks_with_the_assistant_is_heard_first(
    partials: bool, urgent: list[bool]
) -> None:
    class Partial(FakeASR):
        """Without `partials` it makes none, as the engine of a remote server."""

        def open(self, **how: Any) -> Any:
            utterance = super().open(**how)
            transcript = utterance.transcript

            async def noted(*, urgent: bool = True) -> Transcript:
                asked.append(urgent)
                if not (urgent or partials):
                    return Transcript("", 1, 0)
                return await transcript(urgent=urgent)

            utterance.transcript = noted  # type: ignore[method-assign]
            return utterance

    asked: list[bool] = []
    (only,) = await said(sound(("tone", 1)), Partial(ms=0))
    assert only.transcript.text == "what time is it"
    assert asked == urgent


@virtual_time
async def test_a_full_queue_is_waited_for() -> None:
    for wait_s, patient in (5 + QUEUE_S, True), (5 + QUEUE_S + 2, False):
        asr = FakeASR(ms=wait_s * 1000)
        try:
            assert len(await said(sound(("tone", 1)), asr)) == patient
        except EngineTimeout:
            assert not patient


async def test_closing_closes_the_utterance() -> None:
    asr = FakeASR(ms=0, fault=Fault("hang"))
    stream = transcribe(
        sound(("tone", 1)), [Stretch(0, 10)], asr, timeout_s=math.inf, how={"language": None}
    )
    asking: asyncio.Future[Said] = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert asr.open_utterances == 0


def test_a_transcript_is_a_value() -> None:
    said_ = Said(Stretch(0, 1), Transcript("a", 1, 1))
    assert said_ == Said(Stretch(0, 1), Transcript("a", 1, 1))
