"""Partial transcripts made append-only: words two hypotheses in a row agree on.

Known as LocalAgreement-2 (Liu et al. 2020, Macháček et al. 2023): a word is
confirmed once two successive hypotheses share it and everything before it. What
was confirmed is never taken back, although the final transcript may differ.
"""

from __future__ import annotations


class Captions:
    """The captions of one utterance."""

    def __init__(self) -> None:
        self._last: list[str] = []
        self._confirmed: list[str] = []

    def confirm(self, hypothesis: str) -> str:
        """Take the newest hypothesis; returns the words it newly confirms, or ""."""
        words = hypothesis.split()
        agreed = 0
        while agreed < min(len(words), len(self._last)) and words[agreed] == self._last[agreed]:
            agreed += 1
        self._last = words
        fresh = words[len(self._confirmed) : agreed]
        if not fresh or words[: len(self._confirmed)] != self._confirmed:
            return ""
        first = not self._confirmed
        self._confirmed += fresh
        return " ".join(fresh) if first else " " + " ".join(fresh)
