"""A whole recording -> what is said in it, and when.

The VAD cuts it into stretches of speech and each is transcribed by itself, so every
ASR engine gives times, silence is not made up into words, and nothing is longer than
Whisper's window of 30 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .conversation.endpointing import SAMPLES_PER_MS, Endpointer, Finished, Onset
from .conversation.events import TurnSettings
from .engines import ASR, SAMPLE_RATE_HZ, VAD, Samples, Transcript
from .errors import EngineError, EngineTimeout

CUT_SILENCE_MS = 600
"""Pause at which a recording is cut: about the end of a sentence."""
LONGEST_MS = 12_000
"""Longest stretch. An ASR that has begun one cannot be stopped: the shorter it is, the sooner
it is free for somebody who talks with the assistant."""
PADDING_SAMPLES = SAMPLE_RATE_HZ * 3 // 10
"""Heard by the ASR around each stretch, as far as it is not part of another: 300 ms."""
QUEUE_S = 30.0
CATCH_UP = 0.5
"""Seconds granted for a stretch and for each second of it, beside the usual deadline: everybody
who talks with the assistant goes before it, and other recordings may."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Speech between two samples of a recording."""

    start_sample: int
    end_sample: int


@dataclass(frozen=True, slots=True)
class Said:
    """What was said in a stretch."""

    stretch: Stretch
    transcript: Transcript


def find_speech(
    recording: Samples,
    vad: VAD,
    *,
    threshold: float,
    wanted: Callable[[], bool] = lambda: True,
) -> list[Stretch]:
    """Where there is speech, in order. Takes milliseconds a second: call it on a thread.

    `threshold`: P(speech) from which a frame is voiced. `wanted` is asked again and again;
    once it says no, what was found so far is all.
    Raises EngineError if the VAD fails.
    """
    settings = TurnSettings(
        threshold=threshold,
        silence_ms=CUT_SILENCE_MS,
        prefix_padding_ms=0,
        max_utterance_ms=LONGEST_MS,
    )
    endpointer = Endpointer(settings)
    size = vad.frame_samples
    found: list[Stretch] = []
    start: int | None = None
    detector = vad.open()
    end_sample = 0
    for at in range(0, len(recording), size):
        if not wanted():
            break
        frame = recording[at : at + size]
        end_sample = at + len(frame)
        if len(frame) < size:
            frame = np.pad(frame, (0, size - len(frame)))
        try:
            probability = detector.probability(frame)
        except Exception as error:
            raise _deaf(str(error)) from error
        if not 0.0 <= probability <= 1.0:  # NaN would pass for speech further on
            raise _deaf(f"{probability} is no probability")
        match endpointer.step(probability, end_sample):
            case Onset(start_sample):
                start = start_sample
            case Finished(end) if start is not None:
                found.append(Stretch(start, end))
                start = None
    if start is not None:
        silence = round(endpointer.silent_ms * SAMPLES_PER_MS)
        found.append(Stretch(start, end_sample - silence))
    return found


def _deaf(why: str) -> EngineError:
    return EngineError(
        f"The voice activity detector failed ({why}); try again, and if it stays so choose "
        "another with IVAS_VAD__ENGINE.",
        code="vad_failed",
    )


async def transcribe(
    recording: Samples,
    speech: Sequence[Stretch],
    asr: ASR,
    *,
    timeout_s: float,
    how: Mapping[str, Any],
) -> AsyncGenerator[Said, None]:
    """What is said in each stretch, as soon as it is known; stretches without words are left out.

    `how`: what `asr.open` takes. `timeout_s`: what the ASR may take for a stretch; waiting for
    its turn comes on top. Raises EngineError.
    """
    for number, stretch in enumerate(speech):
        before = speech[number - 1].end_sample if number else 0
        after = speech[number + 1].start_sample if number + 1 < len(speech) else len(recording)
        begin = max(before, stretch.start_sample - PADDING_SAMPLES)
        end = min(after, stretch.end_sample + PADDING_SAMPLES)
        utterance = asr.open(**how)
        try:
            utterance.push(recording[begin:end])
            length_s = (end - begin) / SAMPLE_RATE_HZ
            async with asyncio.timeout(timeout_s + QUEUE_S + length_s * CATCH_UP):
                transcript = await utterance.transcript(urgent=False)
                if transcript.end_sample < end - begin:  # of an engine that makes no partials
                    transcript = await utterance.transcript()
        except TimeoutError:
            raise EngineTimeout(
                "The speech recogniser did not answer in time; try again, or send a shorter "
                "recording.",
                code="asr_timeout",
            ) from None
        finally:
            utterance.close()
        if transcript.text.strip():
            yield Said(stretch, transcript)
