"""The worker side of the pocketsphinx engine: decodes PCM16 in a leased process.

Runs in a process forked by `ivas.engines.process_worker`, never in the server.
"""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ivas.engines.process_worker import Connection, Serve


def load() -> Serve:
    """Load the decoder with the US English model of the package (0.3 s, 105 MB)."""
    from pocketsphinx import Decoder

    # fwdflat off: the same words, but the end of an utterance costs 5-40 ms instead of 300-450.
    decoder = Decoder(samprate=16_000, loglevel="FATAL", fwdflat=False, bestpath=True)

    def serve(connection: Connection) -> None:
        decoder.start_utt()
        while (message := connection.receive()) is not None:
            ticket, payload = message
            if ticket == 0:
                decoder.process_raw(payload)
            elif os.fork() == 0:
                # Ending the utterance gives the best text but ends the decoding too. So a
                # snapshot of this process ends it and answers, while this one goes on.
                _answer_and_exit(decoder, connection, ticket)

    return serve


def _answer_and_exit(decoder: Any, connection: Connection, ticket: int) -> None:
    try:
        decoder.end_utt()
        hypothesis = decoder.hyp()
        connection.answer(ticket, hypothesis.hypstr.encode() if hypothesis else b"")
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)
