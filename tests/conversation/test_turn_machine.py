"""The turn controller under every order of events that Hypothesis can think of.

`Outside` is the world as the controller's actions make it: it performs them and
refuses an action that is not allowed there. `TurnMachine` lets things happen to a
controller and its outside: speech and silence, answers of the engines in time, late,
twice, never and to questions nobody asked, a client that asks for anything, changing
settings, time that passes and time that jumps. What must hold after every step is in
`deliver` and in the machine's invariants, marked with the number of the invariant.

The search is the same in every run. `run_state_machine_as_test(TurnMachine,
settings=settings(max_examples=10_000, derandomize=False))` searches further.
"""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import dataclass, field
from typing import assert_never

from hypothesis import settings as search
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from ivas.conversation.endpointing import MIN_SILENCE_MS, SAMPLES_PER_MS
from ivas.conversation.events import (
    Action,
    AnnounceSilence,
    AnnounceSpeech,
    AudioFrame,
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
from ivas.conversation.turn import MAX_PENDING, TurnController

FRAME_MS = 32
FRAME = FRAME_MS * SAMPLES_PER_MS
BROKEN = Failure("broken", "It broke; try again.")
DRAIN_MS = 60_000
"""Longer than every wait of `SETTINGS` and of `rules` one after the other."""
KEY_WORDS = 16
"""Texts that a reply's key may consist of; every text here is one word."""

SETTINGS = st.builds(
    TurnSettings,
    detection=st.sampled_from(["server_vad", "server_vad", "server_vad", "none"]),
    create_response=st.sampled_from([True, True, False]),
    interrupt_response=st.sampled_from([True, True, False]),
    threshold=st.sampled_from([0.5, 0.1]),
    silence_ms=st.sampled_from([0.0, 200.0, 500.0]),
    onset_ms=st.sampled_from([32.0, 96.0, 250.0]),
    max_utterance_ms=st.sampled_from([1_000.0, 60_000.0]),
    overlap_silence_ms=st.sampled_from([96.0, 192.0]),
    max_collect_ms=st.sampled_from([400.0, 300_000.0]),
    transcript_ms=st.sampled_from([6_000.0, 6_000.0, 500.0]),
    reply_stall_ms=st.sampled_from([30_000.0, 30_000.0, 700.0]),
    idle_timeout_ms=st.sampled_from([None, None, 400.0, 5_000.0]),
)
TEXTS = st.sampled_from(["yes", "no", " ", ""])


@dataclass
class Outside:
    """What the session, the engines and the client know, from the actions alone."""

    utterance: int = 0  # newest number seen, as below
    request: int = 0
    generation: int = 0

    open: int | None = None  # the utterance that is listened to
    start_sample: int = 0
    announced: bool = False
    speaking: bool = False  # what the client was told last about it
    outstanding: dict[int, int] = field(default_factory=dict)  # utterance -> request
    awaiting: set[int] = field(default_factory=set)  # committed without a text
    due: dict[int, float] = field(default_factory=dict)  # utterance -> end of its wait
    words: deque[str] = field(default_factory=lambda: deque(maxlen=KEY_WORDS))

    active: int | None = None
    started: bool = False
    stalled_from: float = 0.0  # without a sign of life the active reply has failed then
    tails: dict[int, float] = field(default_factory=dict)
    ducked: set[int] = field(default_factory=set)
    paused: set[int] = field(default_factory=set)
    flushed: set[int] = field(default_factory=set)
    replied_at: float | None = None  # when the last reply had sounded; None = the user acted

    def sounding(self) -> set[int]:
        return {*self.tails, *([] if self.active is None else [self.active])}

    def expire(self, now: float) -> None:
        for generation in [g for g, until in self.tails.items() if until <= now]:
            self.end_tail(generation)

    def end_tail(self, generation: int) -> None:
        if self.tails.pop(generation, None) is not None:
            self.ducked.discard(generation)
            self.paused.discard(generation)

    def perform(self, action: Action, event: Event, now: float, settings: TurnSettings) -> None:
        generation = getattr(action, "generation", None)
        if generation in self.flushed:
            assert isinstance(action, CancelReply | FinishReply)
        match action:
            case Listen(utterance, start_sample):
                assert self.open is None
                assert utterance == self.utterance + 1
                self.utterance = self.open = utterance
                self.announced = self.speaking = False
                self.start_sample = start_sample
            case AnnounceSpeech(utterance, start_sample):
                assert utterance == self.open
                assert not self.announced  # I4
                assert start_sample == self.start_sample
                self.announced = self.speaking = True
                self.replied_at = None
            case AnnounceSilence(utterance, end_sample):
                assert utterance == self.open
                assert self.announced
                assert end_sample > self.start_sample
                self.speaking = False
            case Transcribe(utterance, request):
                assert utterance == self.open or utterance in self.awaiting
                assert not self.speaking or utterance != self.open
                assert request == self.request + 1
                self.request = self.outstanding[utterance] = request
                self.due[utterance] = now + settings.transcript_ms
            case CommitUser(utterance, text):
                self.close(utterance)
                if text is None:
                    self.awaiting.add(utterance)
                else:
                    assert isinstance(event, Transcribed)
                    assert text == event.text.strip() != ""
                    assert self.outstanding.pop(utterance) == event.request
                    self.words.append(text)
            case SetTranscript(utterance, text):
                assert isinstance(event, Transcribed)
                assert text == event.text.strip()
                self.awaiting.remove(utterance)
                assert self.outstanding.pop(utterance) == event.request
                self.words.append(text)
            case LoseTranscript(utterance, failure):
                assert failure.code != "asr_timeout" or now >= self.due[utterance]
                self.awaiting.remove(utterance)
                del self.outstanding[utterance]
            case DiscardUser(utterance):
                self.close(utterance)
                self.outstanding.pop(utterance, None)
            case WaitedForUser(utterance, start_sample, end_sample):
                assert self.open is None
                assert self.active is None
                assert not self.outstanding
                assert utterance == self.utterance + 1
                assert start_sample <= end_sample
                assert self.replied_at is not None
                assert settings.idle_timeout_ms is not None
                assert now >= self.replied_at + settings.idle_timeout_ms
                assert not self.tails
                self.utterance = utterance
                self.replied_at = None
            case OpenGate(generation, options):
                self.replied_at = None
                assert self.active is None  # I3
                assert generation == self.generation + 1
                expected = event.options if isinstance(event, ReplyRequested) else ReplyOptions()
                assert options == expected
                self.generation = self.active = generation
                self.started = False
                self.stalled_from = now + settings.reply_stall_ms
            case StartReply(generation, key):
                assert generation == self.active
                assert not self.started  # I9
                assert key.split() == [word for word in self.words if word]
                self.words.clear()
                self.started = True
                self.stalled_from = now + settings.reply_stall_ms
            case Duck(generation):
                assert generation in self.sounding() - self.ducked
                self.ducked.add(generation)
            case Pause(generation):
                assert generation in self.sounding() - self.paused
                self.paused.add(generation)
            case Resume(generation):
                self.paused.remove(generation)
            case Unduck(generation):
                self.ducked.remove(generation)  # I15
            case Flush(generation):
                assert generation in self.sounding()
                self.flushed.add(generation)
                self.ducked.discard(generation)
                self.paused.discard(generation)
                if generation in self.tails:
                    assert self.open is not None  # only who takes the turn ends a tail
                    assert self.announced
                    self.end_tail(generation)
            case CancelReply(generation, reason):
                assert generation == self.active  # I9
                assert generation in self.flushed
                if reason == "client_cancelled":
                    assert isinstance(event, CancelRequested)
                else:
                    assert self.open is not None
                    assert self.announced
                self.active = None
            case FinishReply(generation, outcome):
                assert generation == self.active  # I9
                self.active = None
                sent_whole = isinstance(event, ReplySent) and event.generation == generation
                if sent_whole and not event.called and generation not in self.flushed:
                    self.replied_at = max(event.audible_until_ms, now)
                match event:
                    case ReplySent(sent, expected, until) if sent == generation:
                        assert outcome in (expected, outcome if generation in self.flushed else "")
                    case ReplyFailed(sent, expected, until) if sent == generation:
                        assert outcome == expected or generation in self.flushed
                    case _:
                        assert isinstance(outcome, Failure)
                        assert generation in self.flushed or not self.started
                        until = now
                if generation in self.flushed:
                    assert now >= self.stalled_from
                if until > now and generation not in self.flushed:
                    self.tails[generation] = until
                else:
                    self.ducked.discard(generation)
                    self.paused.discard(generation)
            case Refuse(failure, event_id):
                assert isinstance(event, CommitRequested | ReplyRequested | CancelRequested)
                assert event_id == event.event_id
                assert failure.message
            case _:
                assert_never(action)

    def close(self, utterance: int) -> None:
        assert utterance == self.open  # I4
        assert not self.speaking
        self.open = None


class TurnMachine(RuleBasedStateMachine):
    """Things happen to `turn`; `outside` performs what it says."""

    @initialize(settings=SETTINGS)
    def begin(self, settings: TurnSettings) -> None:
        self.initial = settings
        self.turn = TurnController(settings)
        self.outside = Outside()
        self.log: list[tuple[Event, float, tuple[Action, ...], bool]] = []
        self.now = 0.0
        self.sample = 0
        self.frame_came_at = 0.0
        self.unvoiced = 0  # samples at the end of the audio that are no speech
        self.segment = 0  # no earlier than here began what the endpointer counts
        self.floor = 0  # audio before this belongs to what is over
        self.voiced = self.silent = 0  # samples since the onset, since the last sound
        self.longest = settings.max_utterance_ms
        self.asked: list[tuple[int, int]] = [(0, 0)]

    # --- one event, and what must hold whatever it was ---------------------------

    def deliver(self, event: Event, *, inert: bool = False) -> tuple[Action, ...]:
        outside, before, settings = self.outside, self.turn.user, self.turn.settings
        outside.expire(self.now)
        if isinstance(event, PlaybackStopped):
            outside.end_tail(event.generation)
        silent_too_long = self.now - self.frame_came_at >= settings.silent_microphone_ms
        # What is overdue ends before the frame at hand is looked at.
        overdue = silent_too_long and isinstance(event, AudioFrame)
        ended_at = self.sample - FRAME if overdue else self.sample
        actions = self.turn.handle(event, self.now)
        self.log.append((event, self.now, actions, inert))
        if isinstance(event, Configured):
            if event.settings.detection != settings.detection:
                self.floor = self.sample
            settings = event.settings
        for i, action in enumerate(actions):
            free = outside.active is None
            outside.perform(action, event, self.now, settings)
            match action:
                case Transcribe(utterance, request):
                    self.asked.append((utterance, request))
                case Listen(_, start_sample):
                    assert self.floor <= start_sample < self.sample
                    self.segment = start_sample
                    self.voiced = self.silent = 0
                case AnnounceSilence():
                    if not silent_too_long:
                        self.check_silence(event, settings)
                    self.segment = self.floor = ended_at
                case DiscardUser() if before == "overlap":
                    self.floor = ended_at
                case WaitedForUser() if settings.create_response:
                    assert isinstance(actions[i + 1], OpenGate)
                case CommitUser(_, str()) if free and settings.create_response:
                    assert isinstance(actions[i + 1], OpenGate)
                case _:
                    pass

        if isinstance(event, ReplyProgressed) and event.generation == outside.active:
            outside.stalled_from = self.now + settings.reply_stall_ms
        user = self.turn.user
        ended = {a.generation for a in actions if isinstance(a, CancelReply | FinishReply)}
        for action in actions:
            if isinstance(action, StartReply):
                assert user != "ending"
                assert not outside.awaiting
            if isinstance(action, Flush):  # nothing that was flushed goes on
                assert action.generation in ended or action.generation != outside.active
            if isinstance(action, LoseTranscript):
                assert outside.active is None or outside.started
            if isinstance(action, CancelReply) and action.reason == "turn_detected":
                assert settings.interrupt_response
            if isinstance(action, CommitUser) and settings.detection == "none":
                assert isinstance(event, CommitRequested)
                length = event.end_sample - outside.start_sample
                assert length >= settings.min_commit_ms * SAMPLES_PER_MS
        if isinstance(event, AudioFrame):
            self.check_frame(event, before)
        return actions

    def check_frame(self, frame: AudioFrame, before: str) -> None:
        """With the audio comes what has to happen now, and not at some time."""
        settings, user = self.turn.settings, self.turn.user
        if settings.detection == "none":
            length = self.sample - self.outside.start_sample
            assert length <= settings.max_collect_ms * SAMPLES_PER_MS
            return
        if settings.interrupt_response and user == "speaking" != before:
            assert not self.outside.sounding()  # who speaks has the turn
        if before != "idle":
            self.voiced += FRAME if frame.probability == 1.0 else 0
            self.silent = self.silent + FRAME if frame.probability == 0.0 else 0
        if user == "overlap":
            assert self.voiced < settings.barge_in_ms * SAMPLES_PER_MS
            assert self.silent < settings.overlap_silence_ms * SAMPLES_PER_MS
        if user == "speaking":
            window_ms = max(settings.silence_ms, MIN_SILENCE_MS)
            assert self.silent < window_ms * SAMPLES_PER_MS
            if self.segment == self.outside.start_sample:  # nothing was gone on with
                length = self.sample - self.segment
                assert length < settings.max_utterance_ms * SAMPLES_PER_MS

    def check_silence(self, event: Event, settings: TurnSettings) -> None:
        """I16: only a client, or a microphone that is gone, ends speech without silence."""
        if isinstance(event, AudioFrame):
            full = self.sample - self.segment >= settings.max_utterance_ms * SAMPLES_PER_MS
            assert full or self.unvoiced >= MIN_SILENCE_MS * SAMPLES_PER_MS
        else:
            assert isinstance(event, CommitRequested | ClearRequested | Configured)

    def deliver_if_stale_inert(self, event: Event, stale: bool) -> None:
        """I14: what nobody waits for changes nothing (nor later: see `teardown`)."""
        actions = self.deliver(event, inert=stale)
        assert not (stale and actions)

    # --- the user ------------------------------------------------------------

    @rule(
        probability=st.sampled_from([0.0, 1.0, 0.0, 1.0, 0.4]),
        frames=st.integers(1, 20),
        live=st.sampled_from([True, True, True, False]),
    )
    def hear(self, probability: float, frames: int, live: bool) -> None:
        """A run of frames, in real time or uploaded at once."""
        for _ in range(frames):
            if live:
                self.wait(FRAME_MS)
            self.sample += FRAME
            voiced = probability >= self.turn.settings.threshold
            self.unvoiced = 0 if voiced else self.unvoiced + FRAME
            self.deliver(AudioFrame(probability, self.sample))
            self.frame_came_at = self.now

    @rule(text=TEXTS, live=st.booleans())
    def say(self, text: str, live: bool) -> None:
        """A turn as it should be."""
        self.hear(1.0, 12, live)
        self.hear(0.0, 16, live)
        if self.outside.open in self.outside.outstanding:
            request = self.outside.outstanding[self.outside.open]
            self.deliver(Transcribed(self.outside.open, request, text))

    @precondition(lambda self: self.turn.user == "idle")
    @rule(tail=st.booleans())
    def a_sound_over_a_reply(self, tail: bool) -> None:
        """Undecided yet: what comes next decides."""
        if self.outside.active is None:
            self.client_asks_for_a_reply(ReplyOptions())
        if tail and self.outside.started:
            self.reply_ends(3_000.0, "completed")
        for _ in range(12):
            if self.turn.user == "idle":
                self.hear(1.0, 1, True)

    @rule(voiced=st.integers(4, 20))
    def a_pause_in_speech(self, voiced: int) -> None:
        """The words are being recognised; the user may go on."""
        self.hear(1.0, voiced, True)
        for _ in range(16):
            if self.turn.user == "speaking":
                self.hear(0.0, 1, True)

    @precondition(lambda self: self.turn.user == "ending")
    @rule(reply=st.booleans())
    def the_user_goes_on(self, reply: bool) -> None:
        if reply:
            self.deliver(ReplyRequested())
        self.hear(1.0, 4, True)

    @precondition(lambda self: self.outside.sounding())
    @rule(voiced=st.integers(2, 5), unvoiced=st.integers(0, 6))
    def cough(self, voiced: int, unvoiced: int) -> None:
        self.hear(1.0, voiced, True)
        if unvoiced:
            self.hear(0.0, unvoiced, True)

    @precondition(lambda self: self.turn.settings.detection == "none")
    @rule(times=st.integers(1, 20), text=st.sampled_from([None, "yes"]))
    def push_to_talk_in_a_burst(self, times: int, text: str | None) -> None:
        """Commits faster than real time; the ASR answers at once or not yet."""
        for _ in range(times):
            self.hear(1.0, 4, False)
            self.client_commits(0)
            utterance = self.outside.utterance
            if text is not None and utterance in self.outside.outstanding:
                request = self.outside.outstanding[utterance]
                self.deliver(Transcribed(utterance, request, text))

    # --- the ASR -------------------------------------------------------------

    def stale_request(self, utterance: int, request: int) -> bool:
        going_on = utterance == self.outside.open and self.turn.user == "speaking"
        return self.outside.outstanding.get(utterance) != request or going_on

    @precondition(lambda self: self.outside.outstanding)
    @rule(data=st.data(), text=TEXTS)
    def asr_answers(self, data: st.DataObject, text: str) -> None:
        utterance = data.draw(st.sampled_from(sorted(self.outside.outstanding)))
        self.deliver(Transcribed(utterance, self.outside.outstanding[utterance], text))

    @precondition(lambda self: self.outside.outstanding)
    @rule(data=st.data())
    def asr_fails(self, data: st.DataObject) -> None:
        utterance = data.draw(st.sampled_from(sorted(self.outside.outstanding)))
        request = self.outside.outstanding[utterance]
        self.deliver(TranscriptionFailed(utterance, request, BROKEN))

    @rule(data=st.data(), text=TEXTS, off=st.sampled_from([0, 0, 0, 1, -1]), fails=st.booleans())
    def asr_answers_anything(self, data: st.DataObject, text: str, off: int, fails: bool) -> None:
        """To any question ever asked, or to one that never was."""
        utterance, request = data.draw(st.sampled_from(self.asked[-8:]))
        self.deliver(Tick())
        stale = self.stale_request(utterance, request + off)
        event = (
            TranscriptionFailed(utterance, request + off, BROKEN)
            if fails
            else Transcribed(utterance, request + off, text)
        )
        self.deliver_if_stale_inert(event, stale)

    # --- the reply -----------------------------------------------------------

    @precondition(lambda self: self.outside.active is not None and self.outside.started)
    @rule(
        plays_ms=st.sampled_from([-100.0, 0.0, 150.0, 2_000.0, 3_000.0]),
        how=st.sampled_from(["completed", "completed", "max_output_tokens", "failed"]),
    )
    def reply_ends(self, plays_ms: float, how: str) -> None:
        assert self.outside.active is not None
        self.deliver(self.end_of_reply(self.outside.active, plays_ms, how))

    def end_of_reply(self, generation: int, plays_ms: float, how: str) -> Event:
        until = self.now + plays_ms
        if how == "failed":
            return ReplyFailed(generation, BROKEN, until)
        outcome = "max_output_tokens" if how == "max_output_tokens" else "completed"
        return ReplySent(generation, outcome, until)

    @precondition(lambda self: self.outside.active is not None and self.outside.started)
    @rule()
    def reply_progresses(self) -> None:
        assert self.outside.active is not None
        self.deliver(ReplyProgressed(self.outside.active))

    @rule(back=st.integers(-1, 3), how=st.sampled_from(["completed", "failed", "alive"]))
    def reply_of_another_generation_stirs(self, back: int, how: str) -> None:
        self.deliver(Tick())
        generation = self.outside.generation - back
        if generation == self.outside.active:
            return
        event = (
            ReplyProgressed(generation)
            if how == "alive"
            else self.end_of_reply(generation, 2_500.0, how)
        )
        self.deliver_if_stale_inert(event, True)

    # --- the client ----------------------------------------------------------

    @rule(rest_ms=st.sampled_from([0, 0, 7]))
    def client_commits(self, rest_ms: int) -> None:
        self.deliver(CommitRequested(self.sample + rest_ms * SAMPLES_PER_MS, "commit"))

    @rule()
    def client_clears(self) -> None:
        self.deliver(ClearRequested())

    @rule()
    def client_adds_an_item(self) -> None:
        self.deliver(Tick())
        self.outside.replied_at = None
        assert self.deliver(ItemAdded()) == ()

    @rule(options=st.sampled_from([ReplyOptions(), ReplyOptions(modality="text")]))
    def client_asks_for_a_reply(self, options: ReplyOptions) -> None:
        self.deliver(Tick())
        busy = self.outside.active is not None
        actions = self.deliver(ReplyRequested(options, "create"))
        assert isinstance(actions[0], Refuse if busy else OpenGate)
        assert not busy or len(actions) == 1

    @rule(back=st.sampled_from([None, 0, 0, 1, -1]))
    def client_cancels(self, back: int | None) -> None:
        self.deliver(Tick())
        generation = None if back is None else max(0, self.outside.generation - back)
        known = self.outside.active is not None and generation in (None, self.outside.active)
        actions = self.deliver(CancelRequested(generation, "cancel"))
        assert isinstance(actions[0], Flush if known else Refuse)
        assert known or len(actions) == 1

    @rule(back=st.integers(-1, 2))
    def client_stops_playing(self, back: int) -> None:
        self.deliver(Tick())
        generation = self.outside.generation - back
        stale = generation not in self.outside.tails
        self.deliver_if_stale_inert(PlaybackStopped(generation), stale)

    @rule(settings=SETTINGS)
    def client_changes_the_settings(self, settings: TurnSettings) -> None:
        self.longest = max(self.longest, settings.max_utterance_ms)
        self.deliver(Tick())  # what is overdue is so under the old settings
        self.deliver(Configured(settings))

    @precondition(lambda self: self.turn.user == "overlap")
    @rule(data=st.data())
    def client_meddles_with_an_overlap(self, data: st.DataObject) -> None:
        what = data.draw(
            st.sampled_from(["reply", "cancel", "clear", "commit", "stop", "settings"])
        )
        match what:
            case "reply":
                self.client_asks_for_a_reply(ReplyOptions())
            case "cancel":
                self.client_cancels(None)
            case "clear":
                self.client_clears()
            case "commit":
                self.client_commits(0)
            case "stop":
                self.client_stops_playing(data.draw(st.integers(0, 1)))
            case _:
                self.client_changes_the_settings(data.draw(SETTINGS))

    # --- time ----------------------------------------------------------------

    @rule(ms=st.sampled_from([1.0, 100.0, 500.0, 2_000.0, 6_000.0]))
    def wait(self, ms: float) -> None:
        """Time passes; the session ticks when it is due."""
        end = self.now + ms
        while (due := self.turn.next_deadline()) is not None and due <= end:
            self.now = due
            self.deliver(Tick())
            self.check_deadline()
        self.now = end

    @rule(ms=st.sampled_from([100.0, 3_000.0, 40_000.0]))
    def stall(self, ms: float) -> None:
        """Time passes and nobody ticks: a busy loop, a machine that slept."""
        self.now += ms

    @rule(ms=st.sampled_from([0.0, 0.5]))
    def tick_for_nothing(self, ms: float) -> None:
        self.now += ms
        self.deliver(Tick())

    @rule()
    def everything_falls_silent(self) -> None:
        self.deliver(Tick())
        self.wait(DRAIN_MS)
        self.check_silence_everywhere(self.turn, self.outside)

    # --- what always holds ---------------------------------------------------

    def check_deadline(self) -> None:
        due = self.turn.next_deadline()
        assert due is None or due > self.now

    @invariant()
    def the_session_is_told_when_to_tick(self) -> None:
        if self.log and self.log[-1][1] == self.now:
            self.check_deadline()
            assert (self.turn.next_deadline() is None) == (self.turn.idle and not self.armed())

    def armed(self) -> bool:
        """The assistant will speak again by itself."""
        settings = self.turn.settings
        wanted = settings.idle_timeout_ms is not None and settings.detection != "none"
        return wanted and self.outside.replied_at is not None

    @invariant()
    def inside_and_outside_agree(self) -> None:
        if not self.log or self.log[-1][1] != self.now:
            return  # time has passed that nobody has been told of
        turn, outside = self.turn, self.outside
        push_to_talk = turn.settings.detection == "none"
        assert (outside.open is not None and not push_to_talk) == (turn.user != "idle")
        assert (outside.open is not None and push_to_talk) == turn.collecting
        assert outside.speaking == (turn.user == "speaking") or turn.user == "speaking"
        if turn.user == "overlap":
            assert outside.sounding()
            assert turn.settings.interrupt_response
        assert outside.announced or turn.user in ("idle", "overlap")
        assert turn.idle == (
            turn.user == "idle"
            and not outside.outstanding
            and outside.active is None
            and not outside.tails
        )
        if outside.active is not None and not outside.started:
            assert outside.awaiting or turn.user == "ending"

    @invariant()
    def held_is_what_the_user_may_be_interrupting(self) -> None:
        """I15: all that sounds, or nothing."""
        if self.log and self.log[-1][1] == self.now:
            held = self.outside.sounding() if self.turn.user == "overlap" else set()
            assert self.outside.ducked == held
            assert self.outside.paused == held

    @invariant()
    def nothing_grows_without_bound(self) -> None:
        """I10."""
        turn, outside = self.turn, self.outside
        assert len(outside.outstanding) <= MAX_PENDING
        assert outside.awaiting <= set(outside.outstanding)
        if outside.open is not None:
            length_ms = (self.sample - outside.start_sample) / SAMPLES_PER_MS
            if turn.settings.detection == "none":
                assert length_ms <= max(300_000, turn.settings.max_collect_ms)
            elif turn.user == "speaking":
                assert length_ms < 2 * self.longest

    @invariant()
    def it_would_come_to_an_end_from_here(self) -> None:
        """I11: with no further input everything is over in bounded time."""
        settings = self.turn.settings
        turn, outside = copy.deepcopy((self.turn, self.outside), {id(settings): settings})
        now, end = self.now, self.now + DRAIN_MS
        due: float | None = now
        while due is not None:
            now = max(now, due)
            assert now <= end
            outside.expire(now)
            for action in turn.handle(Tick(), now):
                outside.perform(action, Tick(), now, settings)
            due = turn.next_deadline()
            assert due is None or due > now
        self.check_silence_everywhere(turn, outside)

    def check_silence_everywhere(self, turn: TurnController, outside: Outside) -> None:
        assert turn.idle
        assert not outside.outstanding
        assert not outside.awaiting
        assert not outside.sounding()
        assert not outside.ducked | outside.paused
        assert outside.open is None or turn.collecting

    def teardown(self) -> None:
        """I17: the same events cause the same actions; I14: also without the stale ones."""
        again, without = TurnController(self.initial), TurnController(self.initial)
        for event, now, actions, inert in self.log:
            assert again.handle(event, now) == actions
            if not inert:
                assert without.handle(event, now) == actions


TestTurnMachine = TurnMachine.TestCase
TestTurnMachine.settings = search(
    max_examples=500, stateful_step_count=50, deadline=None, derandomize=True, database=None
)
