"""The worker side of the pocketsphinx engine: decodes PCM16 in a leased process.

Runs in a process forked by `ivas.engines.process_worker`, never in the server.
"""

from __future__ import annotations

import os
import signal
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ivas.engines.process_worker import Connection, Serve

BLOCK_BYTES = 320
"""10 ms, the decoder's frame."""
BEGINNING_BYTES = 90 * BLOCK_BYTES
"""0.9 s: the pre-roll and about 0.6 s of speech. The silence that ends an utterance is
longer than what catching up on this costs (RTF 0.14)."""
AVERAGE_SPEAKER = (50.2, 5.4, 5.2, 22.6, -0.7, -0.1, 4.5, -4.4, -1.5, -3.0, 6.0, 1.2, 1.4)
"""Mean cepstra of four flite voices (rms, slt, awb, kal16) over 12 questions."""


def load() -> Serve:
    """Load the decoder with the US English model of the package (0.3 s, 105 MB)."""
    from pocketsphinx import Decoder

    # fwdflat off: the same words, but the end of an utterance costs 5-40 ms instead of 300-450.
    decoder = Decoder(samprate=16_000, loglevel="FATAL", fwdflat=False, bestpath=True)

    def serve(connection: Connection) -> None:
        decoding = _Decoding(decoder)
        while (message := connection.receive()) is not None:
            ticket, payload = message
            if ticket == 0:
                decoding.feed(payload)
            elif os.fork() == 0:
                # Ending the utterance gives the best text but ends the decoding too. So a
                # snapshot of this process ends it and answers, while this one goes on.
                _answer_and_exit(decoding, connection, ticket)

    return serve


class _Decoding:
    """One utterance: measures how loud the speaker is first, then decodes.

    The decoder subtracts a mean from its cepstra (CMN) and only moves that mean from
    one utterance to the next. A fresh decoder therefore mishears a whole first
    utterance, and here every utterance is a first one. So it starts from the mean of
    an average speaker, with the level (C0) of this utterance's own beginning. Taking
    more than the level from so little speech makes it worse. Measured on seven questions
    by four flite voices at two levels (256 words), each voice left out of the average it
    was heard with: 64 words wrong before, 30 since; slt gained least, 13 to 11.
    """

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self._beginning: bytearray | None = bytearray()  # None = decoding

    def feed(self, pcm: bytes) -> None:
        if self._beginning is None:
            self._decoder.process_raw(pcm)
            return
        self._beginning += pcm
        if len(self._beginning) >= BEGINNING_BYTES:
            self._begin()

    def end(self) -> str:
        """The text of everything fed; nothing may be fed afterwards."""
        self._begin()
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return hypothesis.hypstr if hypothesis else ""

    def _begin(self) -> None:
        if self._beginning is None:
            return
        pcm, self._beginning = bytes(self._beginning), None
        self._decoder.set_cmn(",".join(f"{value:.3f}" for value in self._mean(_loud(pcm))))
        self._decoder.start_utt()
        if pcm:
            self._decoder.process_raw(pcm)

    def _mean(self, pcm: bytes) -> list[float]:
        """An average speaker's cepstral mean at the level of `pcm`."""
        frames = len(pcm) // BLOCK_BYTES
        if frames < 10:
            return list(AVERAGE_SPEAKER)
        decoder = self._decoder
        decoder.set_cmn(",".join("0" * len(AVERAGE_SPEAKER)))
        decoder.start_utt()
        decoder.process_raw(pcm, True)  # features only, no search
        decoder.end_utt()
        # The decoder blends: its own mean, here zero, counts as 500 frames.
        level = float(decoder.get_cmn(True).split(",")[0]) * (500 + frames) / frames
        return [level, *AVERAGE_SPEAKER[1:]]


def _loud(pcm: bytes) -> bytes:
    """The blocks within 30 dB of the loudest: silence says nothing about the speaker."""
    import numpy as np

    whole = len(pcm) - len(pcm) % BLOCK_BYTES
    blocks = np.frombuffer(pcm[:whole], "<i2").reshape(-1, BLOCK_BYTES // 2)
    power = np.square(blocks.astype(np.float32)).mean(axis=1)
    loud: bytes = blocks[power > power.max(initial=0.0) / 1000].tobytes()
    return loud


def _answer_and_exit(decoding: _Decoding, connection: Connection, ticket: int) -> None:
    try:
        connection.answer(ticket, decoding.end().encode())
    except BaseException:
        traceback.print_exc()
        os.kill(os.getppid(), signal.SIGKILL)  # whoever asked sees a crash, not a silence
    finally:
        os._exit(0)
