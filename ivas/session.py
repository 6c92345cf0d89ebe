"""One connection: an inbox, the turn controller, and the performing of its actions.

The session decides nothing about turns: it translates what a client asks into
events, hands events to the controller one at a time, and does what comes back. One
task reads the inbox; everything that waits (the ASR, the LLM, the TTS) is a task of
the session's TaskGroup that posts its result, stamped with its number, and dies
with the session.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from . import announcements as say
from .choice import Engines
from .conversation import events as ev
from .conversation.endpointing import SAMPLES_PER_MS
from .conversation.history import NOTHING_SAID, History, Item, Part
from .conversation.turn import TurnController
from .ids import new_id
from .inbox import Inbox
from .items import ItemDesk
from .latency import Marks
from .listening import SLICE_BYTES, Ears
from .replies import Replies, reply_modality
from .session_limits import SessionLimits

log = logging.getLogger(__name__)

FRAMES_AT_ONCE = 8
"""VAD frames worked off before other sessions get their turn: about a millisecond."""
AT_ONCE_BYTES = 4 * FRAMES_AT_ONCE * SLICE_BYTES
"""Audio in one place of the inbox, at most: a second. So its bound is one of memory too,
however much a client puts into an event."""


@dataclass(slots=True)
class _Utterance:
    """What the client knows of an utterance."""

    item_id: str
    marks: Marks
    announced: bool = False


class Session:
    """See the module. `run` it; `submit` commands; cancel `run` to end it."""

    def __init__(
        self,
        *,
        engines: Engines,
        client: say.Client,
        settings: say.SessionSettings,
        limits: SessionLimits,
        now_ms: Callable[[], float],
    ) -> None:
        self._engines = engines
        self._client = client
        self._settings = settings
        self._limits = limits
        self._now_ms = now_ms
        self._inbox: Inbox[say.Command | ev.Event] = Inbox()
        self._turn = TurnController(settings.turn)
        self._history = History()
        self._items = ItemDesk(self._history, client)
        self._utterances: dict[int, _Utterance] = {}
        self._marks = Marks(now_ms)
        self._tick: asyncio.TimerHandle | None = None
        self._tick_at_ms = 0.0

    async def run(self) -> None:
        """Serve until cancelled. Leaves no task and no engine resource behind."""
        async with asyncio.TaskGroup() as self._tasks:
            self._ears = Ears(
                vad=self._engines.vad,
                post=self._inbox.post,
                spawn=self._tasks.create_task,
                on_caption=self._caption,
                on_deaf=self._deaf,
                timeout_s=self._limits.transcript_s,
                preroll_ms=self._limits.preroll_ms,
            )
            self._ears.captions = self._settings.transcribe
            self._replies = Replies(
                engines=self._engines,
                client=self._client,
                history=self._history,
                limits=self._limits,
                settings=lambda: self._settings,
                take_marks=self._take_marks,
                post=self._inbox.post,
                spawn=self._tasks.create_task,
                now_ms=self._now_ms,
            )
            try:
                while True:
                    await self._take(await self._inbox.get())
            finally:
                self._close()

    async def submit(self, command: say.Command) -> None:
        """Hand in what the client asks; waits while the session is busy."""
        if not isinstance(command, say.AppendAudio):
            await self._inbox.submit(command)
            return
        for at in range(0, len(command.pcm), AT_ONCE_BYTES):
            await self._inbox.submit(say.AppendAudio(command.pcm[at : at + AT_ONCE_BYTES]))

    # --- in ------------------------------------------------------------------

    async def _take(self, item: say.Command | ev.Event) -> None:
        try:
            if isinstance(item, say.AppendAudio):
                await self._hear(item.pcm)
            else:
                self._obey(item)
        except Exception:
            # A fault of ours must not end somebody's conversation.
            log.exception("a session could not handle %s", type(item).__name__)
            message = "The server failed at this event; the session goes on, please try again."
            self._client.send(say.Refused(ev.Failure("server_error", message), kind="server_error"))
        self._schedule_tick()

    async def _hear(self, pcm: bytes) -> None:
        detect = self._settings.turn.detection != "none"
        for number, frame in enumerate(self._ears.hear(pcm, detect=detect), 1):
            self._handle(frame)
            if number % FRAMES_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _obey(self, item: say.Command | ev.Event) -> None:
        match item:
            case say.Configure(settings, echo):
                self._settings = settings
                self._ears.captions = settings.transcribe
                self._handle(ev.Configured(settings.turn))
                self._client.send(say.Configured(echo))
            case say.AppendAudio():
                raise AssertionError("audio is heard, not obeyed")
            case say.CommitAudio(event_id):
                self._handle(ev.CommitRequested(self._ears.position, event_id))
            case say.ClearAudio():
                self._handle(ev.ClearRequested())
                self._client.send(say.AudioCleared())
            case say.AddItem():
                self._items.add(item)
                self._handle(ev.ItemAdded())
            case say.RetrieveItem():
                self._items.retrieve(item)
            case say.TruncateItem():
                if self._items.truncate(item):
                    for number in self._replies.stopped_by_client(item.item_id):
                        self._handle(ev.PlaybackStopped(number))
            case say.DeleteItem():
                self._items.delete(item)
            case say.CreateReply(options, event_id):
                beside = not options.in_conversation
                if beside and reply_modality(options, self._settings) == "text":
                    self._replies.write_beside(item)
                else:
                    self._handle(ev.ReplyRequested(options, event_id))
            case say.CancelActiveReply(reply_id, event_id):
                if not self._replies.cancel_beside(reply_id):
                    self._handle(ev.CancelRequested(self._replies.number_of(reply_id), event_id))
            case say.Malformed(failure, param, event_id):
                self._client.send(say.Refused(failure, param, event_id))
            case _:
                self._handle(item)

    def _handle(self, event: ev.Event) -> None:
        for action in self._turn.handle(event, self._now_ms()):
            self._perform(action)

    def _schedule_tick(self) -> None:
        at_ms = self._turn.next_deadline()
        if at_ms is None or (self._tick is not None and self._tick_at_ms <= at_ms):
            return  # an early tick does no harm
        if self._tick is not None:
            self._tick.cancel()
        delay_s = max(0.0, at_ms - self._now_ms()) / 1000
        self._tick_at_ms = at_ms
        self._tick = asyncio.get_running_loop().call_later(delay_s, self._on_tick)

    def _on_tick(self) -> None:
        self._tick = None
        self._inbox.post(ev.Tick())

    # --- out -----------------------------------------------------------------

    def _perform(self, action: ev.Action) -> None:
        match action:
            case ev.Listen(number, start_sample):
                self._utterances[number] = _Utterance(new_id("item"), Marks(self._now_ms))
                settings = self._settings
                self._ears.listen(
                    number,
                    self._engines.asr,
                    start_sample,
                    language=settings.language,
                    prompt=settings.prompt,
                )
            case ev.Transcribe(number, request):
                self._ears.transcribe(number, request)
            case ev.AnnounceSpeech(number, start_sample):
                utterance = self._utterances[number]
                utterance.announced = True
                start_ms = start_sample // SAMPLES_PER_MS
                self._client.send(say.SpeechStarted(utterance.item_id, start_ms))
            case ev.AnnounceSilence(number, end_sample):
                self._stop_speech(self._utterances[number], end_sample)
            case ev.CommitUser(number, text):
                self._commit(number, text)
            case ev.SetTranscript(number, text):
                self._set_transcript(number, text)
            case ev.LoseTranscript(number, failure):
                utterance = self._utterances.pop(number)
                self._ears.close(number)
                if self._settings.transcribe:
                    self._client.send(say.TranscriptFailed(utterance.item_id, failure))
            case ev.DiscardUser(number):
                utterance = self._utterances.pop(number)
                self._ears.close(number)
                if self._marks is utterance.marks:
                    self._marks = Marks(self._now_ms)  # no turn began with it
            case ev.Refuse(failure, event_id):
                self._client.send(say.Refused(failure, event_id=event_id))
            case ev.WaitedForUser(number, start_sample, end_sample):
                self._tell_waited(number, start_sample, end_sample)
            case _:
                self._replies.perform(action)

    def _stop_speech(self, utterance: _Utterance, end_sample: int) -> None:
        self._mark_end(utterance, end_sample)
        self._client.send(say.SpeechStopped(utterance.item_id, end_sample // SAMPLES_PER_MS))

    def _mark_end(self, utterance: _Utterance, end_sample: int) -> None:
        """A turn is measured from here; what it waits for may be marked much later."""
        self._marks = utterance.marks = Marks(self._now_ms)
        ago_ms = (self._ears.position - end_sample) / SAMPLES_PER_MS
        self._marks.mark("speech_end", ago_ms=ago_ms)
        self._marks.mark("endpoint")

    def _commit(self, number: int, text: str | None) -> None:
        utterance = self._utterances[number]
        utterance.announced = True
        if self._settings.turn.detection == "none":
            self._mark_end(utterance, self._ears.position)
        item = Item(utterance.item_id, "user", [Part("input_audio", None)])
        previous_id = self._history.add(item)
        self._client.send(say.AudioCommitted(item.id, previous_id))
        self._client.send(say.ItemAdded(item, previous_id))
        if text is not None:
            self._set_transcript(number, text)

    def _set_transcript(self, number: int, text: str) -> None:
        utterance = self._utterances.pop(number)
        item_id = utterance.item_id
        seconds = self._ears.close(number)
        utterance.marks.mark("transcript")
        item = self._history.get(item_id)
        if isinstance(item, Item):  # the client may have deleted it already
            item.parts[0].text = text
        if self._settings.transcribe:
            self._client.send(say.TranscriptCompleted(item_id, text, seconds))

    def _tell_waited(self, number: int, start_sample: int, end_sample: int) -> None:
        item_id = new_id("item")
        start_ms, end_ms = start_sample // SAMPLES_PER_MS, end_sample // SAMPLES_PER_MS
        self._client.send(say.WaitedForUser(item_id, start_ms, end_ms))
        item = Item(item_id, "user", [Part("input_audio", "")], blank=NOTHING_SAID)
        previous_id = self._history.add(item)
        self._client.send(say.AudioCommitted(item.id, previous_id))
        self._client.send(say.ItemAdded(item, previous_id))

    def _take_marks(self) -> Marks:
        """The marks of the turn a reply now begins for; the next turn has its own."""
        marks, self._marks = self._marks, Marks(self._now_ms)
        return marks

    def _caption(self, number: int, delta: str) -> None:
        utterance = self._utterances.get(number)
        if utterance is not None and utterance.announced and self._settings.transcribe:
            self._client.send(say.TranscriptDelta(utterance.item_id, delta))

    def _deaf(self, failure: ev.Failure) -> None:
        self._client.send(say.Refused(failure, kind="server_error"))

    def _close(self) -> None:
        self._ears.close_all()
        self._replies.close()
        if self._tick is not None:
            self._tick.cancel()
