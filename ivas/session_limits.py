"""What the operator sets for every session."""

from __future__ import annotations

from dataclasses import dataclass, field

from .reply import ReplyLimits


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """See the module."""

    transcript_s: float = 5.0
    reply: ReplyLimits = field(default_factory=ReplyLimits)
    max_tokens: int = 1024
    """Of one reply, whatever the client allows."""
    context_tokens: int = 8192
    """What the LLM can take in: prompt and reply together."""
    lead_ms: float = 2_000
    """How far sound is sent ahead of real time."""
    preroll_ms: int = 3_100
    """Audio kept from before an onset: the longest padding (2 s) and onset (1 s)."""
