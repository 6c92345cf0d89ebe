"""Silero VAD v6 through onnxruntime: 32 ms of audio in, probability of speech out.

The model file lies beside this one (MIT licence, see NOTICE), so nothing is
downloaded and no torch is needed. Driven frame by frame: each input is the new
frame with the last 64 samples of the one before it as context, and the LSTM
state h, c is carried from call to call, as in the reference implementation
https://github.com/snakers4/silero-vad.
"""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ivas.engines import Samples, Status
from ivas.errors import EngineUnavailable

MODEL_PATH = Path(__file__).with_name("silero_vad_v6.onnx")
FRAME_SAMPLES = 512
"""32 ms at 16 kHz: the only frame this model was trained for."""
CONTEXT_SAMPLES = 64
STATE_SHAPE = (1, 1, 128)

_MISSING = (
    "Silero cannot listen because the Python package onnxruntime is missing; "
    "install it with: pip install onnxruntime"
)
_NOT_STARTED = "Silero is not loaded; start() loads it."


class SileroVAD:
    """One shared model; every session opens its own detector."""

    name = "silero"
    frame_samples = FRAME_SAMPLES

    def __init__(self) -> None:
        self._session: Any = None
        self._reason = _NOT_STARTED if find_spec("onnxruntime") else _MISSING

    def status(self) -> Status:
        if self._session is None:
            return Status(ready=False, reason=self._reason)
        return Status(ready=True)

    async def start(self) -> None:
        """Load the model: 70 ms, of which onnxruntime holds the GIL for up to 55.

        So it belongs before the first session, not into the middle of one.
        """
        if self._session is None:
            session = await asyncio.to_thread(_load)
            SileroDetector(session).probability(np.zeros(FRAME_SAMPLES, np.float32))
            self._session = session

    def open(self) -> SileroDetector:
        """A detector for one session. Raises EngineUnavailable before `start`."""
        if self._session is None:
            raise EngineUnavailable(self._reason)
        return SileroDetector(self._session)

    async def aclose(self) -> None:
        self._session = None


class SileroDetector:
    """The LSTM state and context of one session. Costs 0.1 ms a frame."""

    __slots__ = ("_context_and_frame", "_feed", "_run")

    def __init__(self, session: Any) -> None:
        self._run = session.run
        self._context_and_frame = np.zeros((1, CONTEXT_SAMPLES + FRAME_SAMPLES), np.float32)
        self._feed = {
            "input": self._context_and_frame,
            "h": np.zeros(STATE_SHAPE, np.float32),
            "c": np.zeros(STATE_SHAPE, np.float32),
        }

    def probability(self, frame: Samples) -> float:
        """How probably this frame is speech, 0..1.

        `frame` has shape (512,); any other length raises ValueError.
        """
        if frame.shape != (FRAME_SAMPLES,):
            raise ValueError(f"a frame has {FRAME_SAMPLES} samples, this one has {frame.shape}")
        row = self._context_and_frame[0]
        row[:CONTEXT_SAMPLES] = row[-CONTEXT_SAMPLES:]
        row[CONTEXT_SAMPLES:] = frame
        speech, self._feed["h"], self._feed["c"] = self._run(None, self._feed)
        return float(speech[0])


def _load() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineUnavailable(_MISSING) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a frame is too small to share between threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        str(MODEL_PATH), options, providers=["CPUExecutionProvider"]
    )
