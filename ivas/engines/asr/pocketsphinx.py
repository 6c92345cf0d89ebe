"""Speech to text with CMU pocketsphinx: English, offline, nothing to download.

A modest recogniser that is always there. It decodes while it listens (about
0.15 of real time), so a transcript waits only for the last piece. Decoding holds
the GIL, so each utterance lives in a worker process leased until `close`.
"""

from __future__ import annotations

import re
from importlib.util import find_spec

import numpy as np

from ivas.engines import SAMPLE_RATE_HZ, Samples, Status, Transcript
from ivas.engines.process import Lease, Workers
from ivas.errors import EngineError, EngineUnavailable

PIECE_SAMPLES = 512
"""Sent at once: 32 ms, one frame of the VAD. Pieces of 96 ms make a transcript that is asked
for with no pause before it 20-40 ms later."""
MOST_BACKLOG_S = 300
"""How far the decoder may fall behind the speaker before the utterance fails (10 MB): a
recording may be sent at once, and is as long as push-to-talk may be."""

_MISSING = (
    "pocketsphinx cannot listen because its Python package is missing; install it with: "
    'pip install "ivas[embedded]" (ready-made wheels exist for CPython 3.11 and 3.13)'
)
_NOT_STARTED = "pocketsphinx is not started; start() starts it."
_FILLER = re.compile(r"<.*>|\[.*\]|\+\+.*\+\+")
_VARIANT = re.compile(r"\(\d+\)$")


class PocketsphinxASR:
    """The loaded model, in its template process."""

    name = "pocketsphinx"

    def __init__(self, *, most_utterances: int | None = None) -> None:
        """At most `most_utterances` at once (default 4 a CPU core, at least 2)."""
        self._workers = Workers(
            "ivas.engines.asr.pocketsphinx_worker:load", name=self.name, most=most_utterances
        )
        self._installed = find_spec("pocketsphinx") is not None

    def status(self) -> Status:
        if self._workers.ready:
            return Status(ready=True)
        return Status(ready=False, reason=_NOT_STARTED if self._installed else _MISSING)

    async def start(self) -> None:
        if not self._installed:
            raise EngineUnavailable(_MISSING)
        await self._workers.start()

    def open(
        self, *, language: str | None = None, prompt: str | None = None
    ) -> PocketsphinxUtterance:
        """Lease a worker for one utterance. `prompt` is not used: there is no way to.

        Never raises: what is wrong (another language than English, too many
        utterances) is what `transcript` raises.
        """
        if not self._installed:
            return PocketsphinxUtterance(EngineUnavailable(_MISSING))
        if language is not None and language.lower().replace("_", "-").split("-")[0] != "en":
            return PocketsphinxUtterance(
                EngineError(
                    f"pocketsphinx cannot transcribe {language!r} because it only knows English; "
                    "speak English, or let IVAS_ASR__ENGINE name an engine that knows more.",
                    code="unsupported_language",
                )
            )
        try:
            backlog = MOST_BACKLOG_S * SAMPLE_RATE_HZ * 2
            return PocketsphinxUtterance(self._workers.lease(most_backlog_bytes=backlog))
        except EngineError as failure:
            return PocketsphinxUtterance(failure)

    async def aclose(self) -> None:
        await self._workers.aclose()


class PocketsphinxUtterance:
    """One utterance, decoded in its own process as it comes."""

    def __init__(self, lease: Lease | EngineError) -> None:
        self._lease = lease
        self._piece: list[Samples] = []
        self._piece_samples = 0
        self._samples = 0
        self._revision = 0

    def push(self, samples: Samples) -> None:
        self._piece.append(samples)
        self._piece_samples += len(samples)
        self._samples += len(samples)
        if self._piece_samples >= PIECE_SAMPLES:
            self._send_piece()

    async def transcript(self, *, urgent: bool = True) -> Transcript:
        """See `Utterance`. Every utterance has a decoder of its own, so all are urgent."""
        if isinstance(self._lease, EngineError):
            raise self._lease
        self._send_piece()
        end_sample = self._samples
        text = (await self._lease.ask()).decode()
        self._revision += 1
        return Transcript(plain_words(text), self._revision, end_sample, language="en")

    def close(self) -> None:
        if isinstance(self._lease, Lease):
            self._lease.close()

    def _send_piece(self) -> None:
        if self._piece_samples and isinstance(self._lease, Lease):
            scaled = np.concatenate(self._piece) * np.float32(32768)
            self._lease.post(np.clip(scaled, -32768, 32767).astype(np.int16).tobytes())
        self._piece = []
        self._piece_samples = 0


def plain_words(hypothesis: str) -> str:
    """Drop fillers (`<sil>`, `[NOISE]`, `++UM++`) and the mark of a variant (`read(2)`)."""
    words = (word for word in hypothesis.split() if not _FILLER.fullmatch(word))
    return " ".join(_VARIANT.sub("", word) for word in words)
