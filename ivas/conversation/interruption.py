"""Does a sound over the reply interrupt it?

The reply is ducked and held as soon as the user makes a sound; this decides what
becomes of it. Enough voiced audio is an interruption, a sound that stops before
is a cough or a click and the reply goes on where it was held.
"""

from __future__ import annotations

from typing import Literal

from .events import TurnSettings

Decision = Literal["yield", "dismiss", "wait"]


def decide(voiced_ms: float, silent_ms: float, settings: TurnSettings) -> Decision:
    """`voiced_ms` since the sound began, `silent_ms` since it last was voiced."""
    if voiced_ms >= settings.barge_in_ms:
        return "yield"
    if silent_ms >= settings.overlap_silence_ms:
        return "dismiss"
    return "wait"
