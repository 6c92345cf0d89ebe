"""WebRTC's voice activity detector: next to no work, at home on quiet microphones.

A tenth of Silero's work, and it knows speech from silence, but not from other sound:
music, typing and noise that grows louder are speech to it, the latter until it has got
used to it. It stays with speech for 90-220 ms after its end (measured on the clips of the
tests at aggressiveness 2), so turns end that much later. For machines on which Silero
cannot run.

The library answers yes or no. The probability is the share of yes among the three
pieces of 10 ms of a frame: on whole frames of 30 ms it takes noise at -26 dBFS and
steady tones for speech, on pieces it does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ivas.engines import SAMPLE_RATE_HZ, Samples, Status
from ivas.errors import EngineUnavailable

FRAME_SAMPLES = 480
PIECE_SAMPLES = 160
SETTLING_FRAMES = 4
"""For up to 110 ms it takes any background for speech, until it knows it: that is silence."""

_NOT_STARTED = "WebRTC's voice detector is not loaded; start() loads it."


class WebrtcVAD:
    """Every session opens its own detector: there is no model to share."""

    name = "webrtc"
    frame_samples = FRAME_SAMPLES

    def __init__(self, *, aggressiveness: int = 2) -> None:
        """`aggressiveness` 0..3: the higher, the less noise and quiet speech counts as speech."""
        if aggressiveness not in range(4):
            raise ValueError(f"aggressiveness is 0, 1, 2 or 3, not {aggressiveness}")
        self._aggressiveness = aggressiveness
        self._library: Any = None
        self._reason = _NOT_STARTED

    def status(self) -> Status:
        if self._library is None:
            return Status(ready=False, reason=self._reason)
        return Status(ready=True)

    async def start(self) -> None:
        if self._library is not None:
            return
        try:
            self._library = _load()
        except EngineUnavailable as error:
            self._reason = str(error)
            raise

    def open(self) -> WebrtcDetector:
        """A detector for one session. Raises EngineUnavailable before `start`."""
        if self._library is None:
            raise EngineUnavailable(self._reason)
        return WebrtcDetector(self._library.Vad(self._aggressiveness))

    async def aclose(self) -> None:
        self._library = None
        self._reason = _NOT_STARTED


class WebrtcDetector:
    """What one session has sounded like so far. Costs 10 us a frame."""

    __slots__ = ("_is_speech", "_unsettled")

    def __init__(self, library_vad: Any) -> None:
        self._is_speech = library_vad.is_speech
        self._unsettled = SETTLING_FRAMES

    def probability(self, frame: Samples) -> float:
        """0, 1/3, 2/3 or 1. `frame` has shape (480,); any other length raises ValueError."""
        if frame.shape != (FRAME_SAMPLES,):
            raise ValueError(f"a frame has {FRAME_SAMPLES} samples, this one has {frame.shape}")
        pcm = np.clip(frame * 32768, -32768, 32767).astype("<i2").tobytes()
        size = 2 * PIECE_SAMPLES
        votes = sum(
            self._is_speech(pcm[at : at + size], SAMPLE_RATE_HZ) for at in range(0, len(pcm), size)
        )
        if self._unsettled:
            self._unsettled -= 1
            return 0.0
        return float(votes) / 3


def _load() -> Any:
    try:
        import webrtcvad
    except ImportError as error:
        # Missing, or the older package `webrtcvad`: it needs pkg_resources, which is gone.
        raise EngineUnavailable(
            f"WebRTC's voice detector cannot load ({error}); install its package with: "
            "pip install --force-reinstall webrtcvad-wheels",
            code="package_missing",
        ) from error
    return webrtcvad
