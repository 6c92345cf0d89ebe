"""The egress queue of one generation: text, sound and calls in order, paced, flushable.

Sound leaves a little ahead of real time: `lead_ms` is how far. That is enough to
bridge the network's jitter and little enough to flush at a barge-in. What was
heard is what was sent less what the speaker still holds, and the speaker is
modelled by one figure: `audible_until_ms`, when it runs dry.

Nothing leaves while the gate is closed or the playout is paused; `gain` is applied
as sound leaves. `put_*` sends at once what is due, without a task or a timer
between, because the first chunk is the one somebody waits for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from .audio.pcm import scale
from .engines import ToolCall

RATE_HZ = 24_000
BYTES_PER_MS = RATE_HZ * 2 // 1000
CHUNK_MS = 100.0
"""Longest piece sent at once: 6.5 kB on the wire, well under every client's limit."""
CONGESTION_RETRY_MS = 20.0


class Outlet(Protocol):
    """Where the playout sends to."""

    def words(self, text: str) -> None: ...
    def sound(self, pcm: bytes) -> None: ...
    def call(self, call: ToolCall) -> None: ...
    def drained(self) -> None:
        """All of it was sent; called once, after `finish`."""

    @property
    def congested(self) -> bool: ...


class Playout:
    """See the module. `starts_at_ms`: when the speaker is free of what came before."""

    def __init__(
        self,
        outlet: Outlet,
        *,
        now_ms: Callable[[], float],
        lead_ms: float,
        capacity_ms: float = 20_000,
        starts_at_ms: float = 0.0,
    ) -> None:
        self.gain = 1.0
        self.sent_ms = 0.0
        self.audible_until_ms = starts_at_ms
        self._outlet = outlet
        self._now_ms = now_ms
        self._lead_ms = lead_ms
        self._capacity_ms = capacity_ms
        self._queue: deque[str | bytes | ToolCall] = deque()
        self._queued_ms = 0.0
        self._room = asyncio.Event()
        self._room.set()
        self._open = False
        self._paused = False
        self._finished = False
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    # --- in ------------------------------------------------------------------

    async def room(self) -> None:
        """Wait until there is room for more sound (backpressure on the TTS)."""
        await self._room.wait()

    def put_words(self, text: str) -> None:
        """Queue text; it leaves just ahead of the sound put next."""
        if not self._closed:
            self._queue.append(text)
            self._send_due()

    def put_sound(self, pcm: bytes) -> None:
        """Queue PCM16 mono at 24 kHz."""
        if self._closed or not pcm:
            return
        step = int(CHUNK_MS) * BYTES_PER_MS
        self._queue.extend(pcm[at : at + step] for at in range(0, len(pcm), step))
        self._queued_ms += len(pcm) / BYTES_PER_MS
        if self._queued_ms >= self._capacity_ms:
            self._room.clear()
        self._send_due()

    def put_call(self, call: ToolCall) -> None:
        """Queue a function call: what was said before it is sent before it."""
        if not self._closed:
            self._queue.append(call)
            self._send_due()

    def finish(self) -> None:
        """Nothing more will be put; `outlet.drained` follows when all was sent."""
        self._finished = True
        self._send_due()

    # --- control -------------------------------------------------------------

    def open_gate(self) -> None:
        self._open = True
        self._send_due()

    def pause(self) -> None:
        """Hold at the sample reached."""
        self._paused = True
        self._cancel_timer()

    def resume(self) -> None:
        self._paused = False
        self._send_due()

    def flush(self) -> float:
        """Drop everything queued, for good. Returns the milliseconds heard."""
        heard = self.heard_ms()
        self._closed = True
        self._queue.clear()
        self._queued_ms = 0.0
        self.audible_until_ms = min(self.audible_until_ms, self._now_ms())
        self._room.set()
        self._cancel_timer()
        return heard

    def heard_ms(self) -> float:
        """How much of the sound the speaker has played by now, by the pacing clock."""
        held = max(0.0, self.audible_until_ms - self._now_ms())
        return max(0.0, self.sent_ms - held)

    # --- out -----------------------------------------------------------------

    def _send_due(self) -> None:
        self._cancel_timer()
        if not self._open or self._paused or self._closed:
            return
        while self._queue:
            wait_ms = self._wait_ms()
            if wait_ms > 0:
                self._timer = asyncio.get_running_loop().call_later(wait_ms / 1000, self._send_due)
                return
            self._send_one(self._queue.popleft())
        if self._finished:
            self._closed = True
            self._outlet.drained()

    def _wait_ms(self) -> float:
        """How long the head of the queue has to wait; 0 = it is due."""
        if self.sent_ms == 0.0:
            return 0.0  # never hold back the first sound
        if self._outlet.congested:
            return CONGESTION_RETRY_MS
        ahead_ms = self.audible_until_ms - self._now_ms()
        return max(0.0, ahead_ms - self._lead_ms)

    def _send_one(self, piece: str | bytes | ToolCall) -> None:
        if isinstance(piece, str):
            self._outlet.words(piece)
            return
        if isinstance(piece, ToolCall):
            self._outlet.call(piece)
            return
        duration_ms = len(piece) / BYTES_PER_MS
        self._queued_ms -= duration_ms
        if self._queued_ms < self._capacity_ms:
            self._room.set()
        self.sent_ms += duration_ms
        self.audible_until_ms = max(self.audible_until_ms, self._now_ms()) + duration_ms
        self._outlet.sound(piece if self.gain == 1.0 else scale(piece, self.gain))

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
