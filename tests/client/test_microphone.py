from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.client.demo import QUESTION
from ivas.client.microphone import (
    FRAME_SAMPLES,
    Microphone,
    open_microphone,
    read_question,
    speech_end,
)
from ivas.client.wire import FRAME_BYTES, WireError


def test_the_committed_question() -> None:
    question = read_question(QUESTION)
    assert question.name == "question.wav"
    assert 1.5 < len(question.pcm) / 48_000 < 2.5
    assert 1.5 < question.speech_end_sample / 24_000 < len(question.pcm) / 48_000


def test_speech_ends_with_its_last_loud_window() -> None:
    samples = np.full(24_000, 1e-4, np.float32)
    samples[1_000:9_000] = 0.1
    assert speech_end(samples) == 19 * FRAME_SAMPLES  # the window 8640..9120 is the last
    assert speech_end(samples[:8_700]) == 8_700  # never beyond the recording
    assert speech_end(np.zeros(5_000, np.float32)) == 0


@given(st.binary(max_size=4_000).map(lambda data: data + data), st.integers(0, 3))
def test_says_every_byte_once_then_silence(pcm: bytes, before: int) -> None:
    microphone = Microphone(start_s=0.0)
    for _ in range(before):
        assert next(microphone) == bytes(FRAME_BYTES)
    assert microphone.position == before * FRAME_SAMPLES
    microphone.say(pcm)
    frames = [next(microphone) for _ in range(10)]
    assert {len(frame) for frame in frames} == {FRAME_BYTES}
    assert b"".join(frames) == pcm.ljust(10 * FRAME_BYTES, b"\0")


def test_a_sample_is_captured_just_before_its_frame_goes_out() -> None:
    microphone = Microphone(start_s=7.0)
    last_of_frame_3 = 4 * FRAME_SAMPLES
    assert microphone.captured_s(last_of_frame_3) == pytest.approx(7.0 + 3 * 0.02)


async def test_streams_while_open_and_leaves_a_closed_connection_to_the_receiver() -> None:
    class Closed:
        async def stream(self, frames: Microphone, **how: object) -> None:
            next(frames)
            raise WireError("closed")

    import asyncio

    async with open_microphone(Closed()) as microphone:  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert microphone.position == FRAME_SAMPLES
