"""Whose turn it is. Every decision of a conversation is made in this file.

Rule 1: everything that changes whose turn it is lives here. The session performs
        actions; it decides nothing.
Rule 2: this file knows no clock, no engine, no wire. Time comes in as `now_ms`,
        the microphone as frames.
Rule 3: everything late carries a number (utterance, request, generation). What
        does not match the current number is ignored, whatever it says.

Theory of operation. Two regions live side by side.

The user, under turn detection:

    idle ──onset──> speaking ──silence──> ending ──transcript──> idle   (CommitUser)
      │                ▲  ▲                 │ └──── empty ─────> idle   (DiscardUser)
      │                │  └─────onset───────┘   (the same utterance goes on)
      └──onset over a reply──> overlap ──dismissed──> idle   (DiscardUser, reply resumes)

and without it (push-to-talk): audio collects in one utterance until the client
commits it, which makes it a user message at once; its transcript follows.

The reply: `None`, or one generation that waits for transcripts, runs, and ends
with exactly one `FinishReply` or `CancelReply`. Once all of it was sent it is no
longer active on the wire, but its sound may still play: that is its *tail*, and
the conversation is idle only when the reply and all tails are over.

Every wait has a deadline, checked on every event, so that an engine or a client
that never answers cannot leave the session stuck: see `next_deadline`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, assert_never
from unicodedata import category

from .endpointing import SAMPLES_PER_MS, Endpointer, Finished, Onset
from .events import (
    Action,
    AnnounceSilence,
    AnnounceSpeech,
    AudioFrame,
    CancelReason,
    CancelReply,
    CancelRequested,
    ClearRequested,
    CommitRequested,
    CommitUser,
    Configured,
    DiscardUser,
    Duck,
    Event,
    Failure,
    FinishReply,
    Flush,
    ItemAdded,
    Listen,
    LoseTranscript,
    OpenGate,
    Pause,
    PlaybackStopped,
    Refuse,
    ReplyFailed,
    ReplyOptions,
    ReplyProgressed,
    ReplyRequested,
    ReplySent,
    Resume,
    SetTranscript,
    StartReply,
    Tick,
    Transcribe,
    Transcribed,
    TranscriptionFailed,
    TurnSettings,
    Unduck,
    WaitedForUser,
)
from .interruption import decide

MAX_PENDING = 16
"""Transcripts awaited at once; beyond, the oldest words are given up (overload policy)."""

UserState = Literal["idle", "overlap", "speaking", "ending"]

_NO_TRANSCRIPT = Failure(
    "asr_timeout",
    "The speech recogniser did not answer in time, so these words were lost; please repeat them.",
)
_TOO_MANY_TRANSCRIPTS = Failure(
    "asr_overloaded",
    "Audio came in faster than it could be recognised, so these words were lost; "
    "please send it more slowly.",
)
_NO_REPLY = Failure(
    "reply_timeout", "The reply did not arrive in time and was given up; please ask again."
)


@dataclass(slots=True)
class _Pending:
    """A transcript that was asked for."""

    request: int
    deadline_ms: float
    committed: bool
    """The message exists already."""
    answered: bool
    """It ends the user's turn, so a reply follows by itself (if such are wanted)."""


@dataclass(slots=True)
class _Reply:
    """The active generation. `started` is false while it waits for transcripts."""

    generation: int
    started: bool
    deadline_ms: float


class TurnController:
    """One conversation's turn-taking: `handle` events, perform the actions in order."""

    def __init__(self, settings: TurnSettings) -> None:
        self.settings = settings
        self.user: UserState = "idle"
        self._endpointer = Endpointer(settings)
        self._utterance = 0  # newest number given out
        self._request = 0
        self._generation = 0
        self._current: int | None = None  # the utterance being spoken or collected
        self._start_sample = 0  # where it begins
        self._position = 0  # end of the newest frame
        self._collected_from = 0  # push-to-talk: start of the uncommitted audio
        self._collected_until = 0  # and end of what was committed
        self._frame_deadline_ms = 0.0  # the microphone must send again before this
        self._pending: dict[int, _Pending] = {}
        self._reply: _Reply | None = None
        self._tails: dict[int, float] = {}  # generations sent whole: when each has sounded
        self._replied: tuple[float, int] | None = None  # when the last reply had sounded, and
        # how far the microphone had come when it was sent; None = the user did something since
        self._words: deque[str] = deque(maxlen=16)  # said since the last reply, for its key
        self._out: list[Action] = []

    # --- the two verbs -------------------------------------------------------

    def handle(self, event: Event, now_ms: float) -> tuple[Action, ...]:
        """Take one event; return what to do about it, in order."""
        self._expire(now_ms)
        match event:
            case AudioFrame():
                self._on_frame(event, now_ms)
            case Transcribed():
                self._on_transcript(event, now_ms)
            case TranscriptionFailed():
                self._on_transcription_failed(event, now_ms)
            case CommitRequested():
                self._on_commit(event, now_ms)
            case ClearRequested():
                self._drop_user()
            case ReplyRequested():
                self._on_reply_requested(event, now_ms)
            case CancelRequested():
                self._on_cancel(event)
            case ReplyProgressed(generation):
                if (reply := self._active(generation)) is not None:
                    reply.deadline_ms = now_ms + self.settings.reply_stall_ms
            case ReplySent(generation, outcome, until_ms, called):
                if self._on_reply_over(generation, outcome, until_ms, now_ms) and not called:
                    sounds_until_ms = max(until_ms, now_ms, *self._tails.values())
                    self._replied = (sounds_until_ms, self._position)
            case ReplyFailed(generation, failure, until_ms):
                self._on_reply_over(generation, failure, until_ms, now_ms)
            case PlaybackStopped(generation):
                self._tails.pop(generation, None)
            case ItemAdded():
                self._replied = None
            case Configured(settings):
                self._on_configured(settings)
            case Tick():
                pass
            case _:
                assert_never(event)
        self._settle(now_ms)
        out, self._out = self._out, []
        return tuple(out)

    def next_deadline(self) -> float | None:
        """When `handle(Tick(), now_ms)` is due at the latest; None = never."""
        deadlines = [pending.deadline_ms for pending in self._pending.values()]
        if self.user in ("overlap", "speaking"):
            deadlines.append(self._frame_deadline_ms)
        if self._reply is not None:
            deadlines.append(self._reply.deadline_ms)
        deadlines += self._tails.values()
        if (idle_ms := self._idle_deadline()) is not None:
            deadlines.append(idle_ms)
        return min(deadlines, default=None)

    @property
    def idle(self) -> bool:
        """Nobody speaks, nothing is awaited, nothing sounds."""
        return self.user == "idle" and not self._pending and self._reply is None and not self._tails

    @property
    def collecting(self) -> bool:
        """Push-to-talk: there is uncommitted audio."""
        return self.settings.detection == "none" and self._current is not None

    # --- the user ------------------------------------------------------------

    def _on_frame(self, frame: AudioFrame, now_ms: float) -> None:
        before, self._position = self._position, frame.end_sample
        self._frame_deadline_ms = now_ms + self.settings.silent_microphone_ms
        if self.settings.detection == "none":
            self._collect(before)
            return
        mark = self._endpointer.step(frame.probability, frame.end_sample)
        match mark:
            case Onset(start_sample):
                self._on_onset(start_sample)
            case Finished(end_sample):
                if self.user == "overlap":
                    self._drop_user()
                else:
                    self._finish_speech(end_sample, now_ms)
            case None:
                if self.user == "overlap":
                    self._decide_overlap()
            case _:
                assert_never(mark)

    def _collect(self, start_sample: int) -> None:
        collected = (self._position - self._collected_from) / SAMPLES_PER_MS
        if self._current is not None and collected > self.settings.max_collect_ms:
            self._drop_user()  # overload policy: the oldest audio goes
        if self._current is None:
            # What the last commit took of an unfinished frame is not taken again.
            self._collected_from = max(start_sample, self._collected_until)
            self._open_utterance(self._collected_from)

    def _on_onset(self, start_sample: int) -> None:
        if self.user == "ending" and not self._full():
            # The user went on before the words were even recognised: one utterance.
            assert self._current is not None
            del self._pending[self._current]
            self.user = "speaking"
            if self.settings.interrupt_response:
                self._interrupt()
            return
        if self.user == "ending":
            assert self._current is not None
            self._pending[self._current].committed = True
            self._do(CommitUser(self._current, None))
        self._open_utterance(start_sample)
        if self._sounding() and self.settings.interrupt_response:
            self.user = "overlap"
            for generation in self._sounding():
                self._do(Duck(generation), Pause(generation))
            self._decide_overlap()
        else:
            self._announce()

    def _idle_deadline(self) -> float | None:
        """When the assistant speaks again by itself; None = it waits."""
        after_ms = self.settings.idle_timeout_ms
        waits = self.user == "idle" and not self._pending and self._reply is None
        if self._replied is None or after_ms is None or not waits:
            return None
        if self.settings.detection == "none":
            return None  # push-to-talk: nobody listens for a user who might begin
        return self._replied[0] + after_ms

    def _full(self) -> bool:
        """The utterance may not grow further: endless talk comes in pieces."""
        spoken = (self._position - self._start_sample) / SAMPLES_PER_MS
        return spoken >= self.settings.max_utterance_ms

    def _decide_overlap(self) -> None:
        endpointer = self._endpointer
        decision = decide(endpointer.voiced_ms, endpointer.silent_ms, self.settings)
        if decision == "yield":
            self._announce()
            self._interrupt()
        elif decision == "dismiss":
            self._drop_user()

    def _announce(self) -> None:
        assert self._current is not None
        self.user = "speaking"
        self._replied = None
        for pending in self._pending.values():
            pending.answered = False  # the user goes on: the reply comes after these words
        self._do(AnnounceSpeech(self._current, self._start_sample))

    def _finish_speech(self, end_sample: int, now_ms: float) -> None:
        assert self._current is not None
        self.user = "ending"
        self._do(AnnounceSilence(self._current, end_sample))
        self._ask_transcript(self._current, now_ms, committed=False)

    def _on_commit(self, event: CommitRequested, now_ms: float) -> None:
        if self.user == "overlap":
            self._announce()
            self._interrupt()
        collected = (event.end_sample - self._collected_from) / SAMPLES_PER_MS
        if self.settings.detection == "none" and collected < self.settings.min_commit_ms:
            self._refuse_empty_commit(event)
            return
        utterance, self._current = self._current, None
        if utterance is None:
            self._refuse_empty_commit(event)
            return
        self._collected_until = event.end_sample
        if self.user == "speaking":
            self._do(AnnounceSilence(utterance, event.end_sample))
        self._do(CommitUser(utterance, None))
        if self.user == "ending":
            self._pending[utterance].committed = True
        else:
            self._ask_transcript(utterance, now_ms, committed=True)
        self._reset_user()

    def _refuse_empty_commit(self, event: CommitRequested) -> None:
        failure = Failure(
            "input_audio_buffer_commit_empty",
            "Error committing input audio buffer: it holds less than "
            f"{self.settings.min_commit_ms:.0f} ms of uncommitted speech; append audio first.",
        )
        self._do(Refuse(failure, event.event_id))

    def _drop_user(self) -> None:
        """Forget the utterance in progress, if any; it leaves no trace."""
        if self._current is None:
            return
        if self.user == "overlap":
            self._release()
        elif self.user == "speaking":
            # The client was told of speech: it must not believe that it still goes on.
            self._do(AnnounceSilence(self._current, self._position))
        utterance, self._current = self._current, None
        self._pending.pop(utterance, None)
        self._reset_user()
        self._do(DiscardUser(utterance))

    def _reset_user(self) -> None:
        self.user = "idle"
        self._endpointer.stop()

    def _open_utterance(self, start_sample: int) -> None:
        self._utterance += 1
        self._current = self._utterance
        self._start_sample = start_sample
        self._do(Listen(self._current, start_sample))

    # --- transcripts ---------------------------------------------------------

    def _ask_transcript(self, utterance: int, now_ms: float, *, committed: bool) -> None:
        if len(self._pending) == MAX_PENDING:
            oldest = next(iter(self._pending))  # committed: only the newest may not be
            pending = self._pending.pop(oldest)
            self._lose_transcript(oldest, pending, _TOO_MANY_TRANSCRIPTS, now_ms)
        self._request += 1
        deadline_ms = now_ms + self.settings.transcript_ms
        self._pending[utterance] = _Pending(
            self._request, deadline_ms, committed, answered=not committed
        )
        self._do(Transcribe(utterance, self._request))

    def _take_pending(self, utterance: int, request: int) -> _Pending | None:
        pending = self._pending.get(utterance)
        if pending is None or pending.request != request:
            return None
        del self._pending[utterance]
        return pending

    def _on_transcript(self, event: Transcribed, now_ms: float) -> None:
        pending = self._take_pending(event.utterance, event.request)
        if pending is None:
            return
        text = event.text.strip()
        if pending.committed:
            self._do(SetTranscript(event.utterance, text))
        else:
            self._current, self.user = None, "idle"
            if not text:
                self._do(DiscardUser(event.utterance))
                return
            self._do(CommitUser(event.utterance, text))
        self._words.append(text)
        if pending.answered and self.settings.create_response and self._reply is None:
            self._new_reply(ReplyOptions(), now_ms)

    def _on_transcription_failed(self, event: TranscriptionFailed, now_ms: float) -> None:
        pending = self._take_pending(event.utterance, event.request)
        if pending is not None:
            self._lose_transcript(event.utterance, pending, event.failure, now_ms)

    def _lose_transcript(
        self, utterance: int, pending: _Pending, failure: Failure, now_ms: float
    ) -> None:
        """The words are gone. The client is told, and so is whoever waits for a reply."""
        if not pending.committed:
            self._current, self.user = None, "idle"
            self._do(CommitUser(utterance, None))
        self._do(LoseTranscript(utterance, failure))
        if self._reply is not None and not self._reply.started:
            self._end_reply(failure)
        elif pending.answered and self.settings.create_response and self._reply is None:
            self._new_reply(ReplyOptions(), now_ms)
            self._end_reply(failure)

    # --- the reply -----------------------------------------------------------

    def _on_reply_requested(self, event: ReplyRequested, now_ms: float) -> None:
        if self._reply is not None:
            failure = Failure(
                "conversation_already_has_active_response",
                "Conversation already has an active response in progress; "
                "wait until it is done or cancel it first.",
            )
            self._do(Refuse(failure, event.event_id))
            return
        self._new_reply(event.options, now_ms)

    def _new_reply(self, options: ReplyOptions, now_ms: float) -> None:
        """A reply from now on; `_settle` starts it once no transcript is awaited."""
        self._generation += 1
        self._replied = None
        deadline_ms = now_ms + self.settings.reply_stall_ms
        self._reply = _Reply(self._generation, False, deadline_ms)
        self._do(OpenGate(self._generation, options))
        if self.user == "overlap":
            self._do(Duck(self._generation), Pause(self._generation))

    def _active(self, generation: int) -> _Reply | None:
        reply = self._reply
        return reply if reply is not None and reply.generation == generation else None

    def _on_reply_over(
        self,
        generation: int,
        outcome: Literal["completed", "max_output_tokens"] | Failure,
        until_ms: float,
        now_ms: float,
    ) -> bool:
        """Whether it was the active one."""
        if self._active(generation) is None:
            return False
        self._end_reply(outcome)
        if until_ms > now_ms:
            self._tails[generation] = until_ms
        return True

    def _end_reply(self, outcome: Literal["completed", "max_output_tokens"] | Failure) -> None:
        assert self._reply is not None
        self._do(FinishReply(self._reply.generation, outcome))
        self._reply = None

    def _on_cancel(self, event: CancelRequested) -> None:
        reply = self._reply
        if reply is None or event.generation not in (None, reply.generation):
            failure = Failure(
                "response_cancel_not_active", "Cancellation failed: no active response found"
            )
            self._do(Refuse(failure, event.event_id))
            return
        self._cancel(reply.generation, "client_cancelled")

    def _interrupt(self) -> None:
        """The user takes the turn: silence everything that sounds or is about to."""
        for generation in self._tails:
            self._do(Flush(generation))
        self._tails.clear()
        if self._reply is not None:
            self._cancel(self._reply.generation, "turn_detected")

    def _cancel(self, generation: int, reason: CancelReason) -> None:
        self._reply = None
        self._do(Flush(generation), CancelReply(generation, reason))

    def _release(self) -> None:
        """It was no interruption: what is held goes on where it was."""
        for generation in self._sounding():
            # The gain first: what was held leaves at once, and at full gain.
            self._do(Unduck(generation), Resume(generation))

    def _sounding(self) -> list[int]:
        """Generations that sound or may begin to, the older first."""
        reply = [self._reply.generation] if self._reply is not None else []
        return [*self._tails, *reply]

    # --- settings and time ---------------------------------------------------

    def _on_configured(self, settings: TurnSettings) -> None:
        if settings.detection != self.settings.detection:
            self._drop_user()
            self._endpointer = Endpointer(settings, position=self._position)
        self.settings = settings
        self._endpointer.settings = settings

    def _expire(self, now_ms: float) -> None:
        """Whatever is overdue ends now, before the event at hand is looked at."""
        for utterance, pending in list(self._pending.items()):
            if pending.deadline_ms <= now_ms:
                del self._pending[utterance]
                self._lose_transcript(utterance, pending, _NO_TRANSCRIPT, now_ms)
        if self._reply is not None and self._reply.deadline_ms <= now_ms:
            self._do(Flush(self._reply.generation))
            self._end_reply(_NO_REPLY)
        self._tails = {g: until for g, until in self._tails.items() if until > now_ms}
        if self._frame_deadline_ms <= now_ms:
            if self.user == "overlap":
                self._drop_user()
            elif self.user == "speaking":
                self._endpointer.stop()
                self._finish_speech(self._position, now_ms)

    def _give_up_waiting(self, now_ms: float) -> None:
        """Nobody has spoken since the reply: the assistant takes the turn itself."""
        assert self._replied is not None
        start_sample, self._replied = self._replied[1], None
        self._utterance += 1
        self._do(WaitedForUser(self._utterance, start_sample, self._position))
        if self.settings.create_response:
            self._new_reply(ReplyOptions(), now_ms)

    def _settle(self, now_ms: float) -> None:
        """What follows from the new state, however it came about."""
        idle_ms = self._idle_deadline()
        if idle_ms is not None and idle_ms <= now_ms:
            self._give_up_waiting(now_ms)
        if self.user == "overlap" and not (self._sounding() and self.settings.interrupt_response):
            self._release()
            self._announce()  # nothing is left to interrupt: the user simply speaks
        reply = self._reply
        if reply is not None and not reply.started and not self._pending:
            reply.started = True
            reply.deadline_ms = now_ms + self.settings.reply_stall_ms
            self._do(StartReply(reply.generation, _key(self._words)))
            self._words.clear()

    def _do(self, *actions: Action) -> None:
        self._out.extend(actions)


def _key(words: Iterable[str]) -> str:
    """The user's words without case, punctuation and spacing: what they say.

    Letters, marks and numbers are kept (Unicode L, M, N): in Indic scripts the vowels are marks.
    """
    said = " ".join(words).casefold()
    return " ".join("".join(c if category(c)[0] in "LMN" else " " for c in said).split())
