"""Speech probabilities in, onset and end of an utterance out.

Counts samples and nothing else: the microphone is the clock. A frame is voiced
from `threshold` on; once speech has begun it stays voiced down to
`threshold - HYSTERESIS`, so that a probability wavering around the threshold does
not chop an utterance (the gap is the one Silero's own iterator uses). Below a
threshold of twice that gap it is half the threshold, so that silence stays silence
however low a client sets it.
"""

from __future__ import annotations

from dataclasses import dataclass

from .events import TurnSettings

SAMPLES_PER_MS = 16
HYSTERESIS = 0.15
MIN_SILENCE_MS = 160
"""No end is ever decided on less silence (invariant I16): plosives are this long."""


@dataclass(frozen=True, slots=True)
class Onset:
    """The user speaks. `start_sample` includes the pre-roll."""

    start_sample: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The silence window is over, or the utterance reached its longest length."""

    end_sample: int


class Endpointer:
    """Follows one microphone; `step` it with every frame."""

    def __init__(self, settings: TurnSettings, *, position: int = 0) -> None:
        """`position` is the sample at which the first frame will begin."""
        self.settings = settings
        self._position = position
        self._floor = position  # pre-roll never reaches back into the utterance before
        self._speaking = False
        self._onset_samples = 0  # leaky count of voiced samples before the onset
        self._start = 0
        self._voiced = 0
        self._silence = 0

    @property
    def voiced_ms(self) -> float:
        """Voiced audio since the onset, in milliseconds."""
        return self._voiced / SAMPLES_PER_MS

    @property
    def silent_ms(self) -> float:
        """Unvoiced audio since the last voiced frame of the utterance."""
        return self._silence / SAMPLES_PER_MS

    def step(self, probability: float, end_sample: int) -> Onset | Finished | None:
        """Take one frame that ends at `end_sample`."""
        samples = end_sample - self._position
        self._position = end_sample
        if self._speaking:
            return self._in_speech(probability, samples)
        return self._in_silence(probability, samples)

    def stop(self) -> None:
        """Forget the utterance in progress: somebody else has ended it."""
        self._speaking = False
        self._onset_samples = self._silence = self._voiced = 0
        self._floor = self._position

    def _in_silence(self, probability: float, samples: int) -> Onset | None:
        settings = self.settings
        if probability < settings.threshold:
            # Leaky rather than reset: one missed frame inside an onset is common.
            self._onset_samples = max(0, self._onset_samples - samples)
            return None
        self._onset_samples += samples
        if self._onset_samples < settings.onset_ms * SAMPLES_PER_MS:
            return None
        self._speaking = True
        self._voiced, self._silence = self._onset_samples, 0
        padding = round(settings.prefix_padding_ms * SAMPLES_PER_MS)
        self._start = max(self._floor, self._position - self._onset_samples - padding)
        self._onset_samples = 0
        return Onset(self._start)

    def _in_speech(self, probability: float, samples: int) -> Finished | None:
        settings = self.settings
        if probability >= max(settings.threshold - HYSTERESIS, settings.threshold / 2):
            self._voiced += samples
            self._silence = 0
        else:
            self._silence += samples
        window = max(settings.silence_ms, MIN_SILENCE_MS) * SAMPLES_PER_MS
        too_long = self._position - self._start >= settings.max_utterance_ms * SAMPLES_PER_MS
        if self._silence < window and not too_long:
            return None
        end = self._position - self._silence
        self.stop()
        return Finished(end)
