"""One generation as its client sees it: from behind a closed gate to its end.

Joins the production of a reply (`reply.py`), its egress (`playout.py`), its item in
the history and the announcements about it. It decides nothing: the session calls it
as the turn controller says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from .announcements import (
    AudioSpoken,
    Client,
    FunctionCalled,
    LatencyMeasured,
    MessageEnded,
    MessageStarted,
    ReplyEnded,
    ReplyStarted,
    ReplyView,
    Usage,
    WordsSpoken,
)
from .conversation.events import (
    CancelReason,
    Event,
    Failure,
    Outcome,
    ReplyFailed,
    ReplyProgressed,
    ReplySent,
)
from .conversation.history import FunctionCall, History, Item, Part, PartKind, SpokenText
from .engines import ToolCall
from .ids import new_id
from .latency import Marks
from .playout import Playout
from .reply import Producer, Production

log = logging.getLogger(__name__)

PROGRESS_EVERY_MS = 250.0
"""How often the turn controller hears that a reply is alive."""


class Generation:
    """See the module."""

    def __init__(
        self,
        view: ReplyView,
        *,
        instructions: str,
        client: Client,
        history: History,
        marks: Marks,
        post: Callable[[Event], None],
        now_ms: Callable[[], float],
        lead_ms: float,
        starts_at_ms: float,
        reports_latency: bool,
        speed: float = 1.0,
    ) -> None:
        self.view = view
        self.instructions = instructions
        self.input_tokens = 0
        """Estimated length of its prompt."""
        self.spoken = SpokenText(speed=speed)
        self.marks = marks
        self.playout = Playout(self, now_ms=now_ms, lead_ms=lead_ms, starts_at_ms=starts_at_ms)
        self.ended = False
        self.heard_is_known = False
        """The client has said what was heard: our clock knows no better."""
        self.task: asyncio.Task[None] | None = None
        self._client = client
        self._history = history
        self._post = post
        self._now_ms = now_ms
        self._reports_latency = reports_latency
        self._opened = False
        self._item: Item | None = None
        self._message_ended = False
        self._calls: list[FunctionCall] = []
        self._previous_id: str | None = None
        self._sent_text: list[str] = []
        self._sounded = False
        self._silent = False
        self._production = Production()
        self._progressed_ms = float("-inf")

    # --- the session's verbs -------------------------------------------------

    def open(self) -> None:
        """The gate opens: the client hears of this reply from here on."""
        self._opened = True
        self._client.send(ReplyStarted(self.view))
        self.playout.open_gate()

    async def produce(self, producer: Producer) -> None:
        """Run the producer; when all was sent, `ReplySent` or `ReplyFailed` is posted."""
        self._production = producer.result
        try:
            await producer.run()
        except Exception:
            log.exception("a reply failed unexpectedly")
            message = "The reply failed unexpectedly; please try again."
            self._production = Production(failure=Failure("server_error", message))
        self.playout.finish()

    def flush(self) -> None:
        """Silence it: what was heard stays, what is queued anywhere goes."""
        if self._silent:
            return
        sent_ms = self.playout.sent_ms
        heard_ms = self.silence()
        unsent_ms = self._client.purge(self.view.generation)
        self._cut(min(heard_ms, sent_ms - unsent_ms))

    def silence(self) -> float:
        """Its speaker has stopped; returns the milliseconds heard by our clock."""
        self._silent = True
        return self.playout.flush()

    def end(self, outcome: Outcome | Failure | CancelReason) -> None:
        """The reply is over on the wire. Its sound may play on."""
        self.ended = True
        if self.task is not None:
            self.task.cancel()
        if isinstance(outcome, Failure) and not self._silent:
            self._cut(self.playout.sent_ms)  # words that never came to sound were not said
        if self._item is not None and not self._message_ended:
            whole = outcome == "completed"
            self._item.status = "completed" if whole else "incomplete"
        if not self._opened:
            return
        self._end_message()
        usage = Usage(self.input_tokens, self._production.tokens)
        item = self._item
        text = "".join(self._sent_text) if item is not None else None
        status = "completed" if item is None else item.status
        ended = ReplyEnded(self.view, outcome, text, tuple(self._calls), usage, status)
        self._client.send(ended)

    def on_progress(self) -> None:
        """A sign of life."""
        now_ms = self._now_ms()
        if now_ms - self._progressed_ms >= PROGRESS_EVERY_MS:
            self._progressed_ms = now_ms
            self._post(ReplyProgressed(self.view.generation))

    # --- the playout's outlet ------------------------------------------------

    def words(self, text: str) -> None:
        item = self._item
        if item is None:
            item = self._item = self._begin_item()
        self._sent_text.append(text)
        if not self.heard_is_known:
            item.parts[0].text = "".join(self._sent_text)
        self._client.send(WordsSpoken(self.view, text))

    def sound(self, pcm: bytes) -> None:
        self._client.send(AudioSpoken(self.view, pcm))
        if not self._sounded:
            self._sounded = True
            if self._reports_latency:
                self._client.send(LatencyMeasured(self.view, self.marks.spans_ms()))
        self.on_progress()

    def call(self, call: ToolCall) -> None:
        if self._item is not None:
            self._item.status = "completed"
            self._end_message()
        made = FunctionCall(
            new_id("item"), call.call_id or new_id("call"), call.name, call.arguments
        )
        index = len(self._calls) + (self._item is not None)
        self._calls.append(made)
        self._client.send(FunctionCalled(self.view, made, index, self._history.add(made)))

    def drained(self) -> None:
        number, until_ms = self.view.generation, self.playout.audible_until_ms
        failure = self._production.failure
        if failure is not None:
            self._post(ReplyFailed(number, failure, until_ms))
        else:
            called = bool(self._calls)
            self._post(ReplySent(number, self._production.outcome, until_ms, called))

    @property
    def congested(self) -> bool:
        return self._client.congested

    def _cut(self, played_ms: float) -> None:
        if self._item is not None and not self.heard_is_known:
            self._history.truncate(self._item, played_ms)

    def _end_message(self) -> None:
        item = self._item
        if item is None or self._message_ended:
            return
        self._message_ended = True
        text = "".join(self._sent_text)
        self._client.send(MessageEnded(self.view, text, item.status, self._previous_id))

    def _begin_item(self) -> Item:
        spoken = self.spoken if self.view.modality == "audio" else None
        kind: PartKind = "output_audio" if spoken is not None else "output_text"
        item = Item(
            self.view.item_id, "assistant", [Part(kind, "")], status="in_progress", spoken=spoken
        )
        self._previous_id = self._history.add(item)
        self._client.send(MessageStarted(self.view, self._previous_id))
        return item
