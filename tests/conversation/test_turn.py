"""The turn controller by example: each test is a conversation and what must follow.

A `Conversation` is a controller with a clock and a microphone. Every helper returns
all the actions it caused, in order, so that a test also fails on an action too many.
The frames are those of the VAD: 32 ms, 512 samples.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

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
from ivas.conversation.turn import TurnController

FRAME_MS = 32
FRAME = FRAME_MS * 16
PREROLL = 300 * 16
PLAIN = ReplyOptions()
BROKEN = Failure("broken", "It broke; try again.")


class Conversation:
    """A controller, the clock it is told, and a microphone that sends frames in time."""

    def __init__(self, **settings: Any) -> None:
        self.turn = TurnController(TurnSettings(**settings))
        self.now = 0.0
        self.sample = 0
        self.asked = Transcribe(0, 0)  # the newest request to the ASR

    def send(self, event: Event) -> list[Action]:
        actions = list(self.turn.handle(event, self.now))
        for action in actions:
            if isinstance(action, Transcribe):
                self.asked = action
        return actions

    def hear(self, ms: float, probability: float) -> list[Action]:
        """`ms` of microphone audio, in real time."""
        actions: list[Action] = []
        for _ in range(round(ms / FRAME_MS)):
            self.now += FRAME_MS
            self.sample += FRAME
            actions += self.send(AudioFrame(probability, self.sample))
        return actions

    def speech(self, ms: float) -> list[Action]:
        return self.hear(ms, 0.9)

    def silence(self, ms: float) -> list[Action]:
        return self.hear(ms, 0.01)

    def wait(self, ms: float) -> list[Action]:
        """`ms` in which nothing comes in; the session ticks whenever it is due."""
        end, actions = self.now + ms, []
        while (due := self.turn.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            actions += self.send(Tick())
            left = self.turn.next_deadline()
            assert left is None or left > self.now, "what was due is still due"
        self.now = end
        return actions

    def recognise(self, text: str) -> list[Action]:
        """The ASR answers its newest request."""
        return self.send(Transcribed(self.asked.utterance, self.asked.request, text))

    def fail_to_recognise(self) -> list[Action]:
        return self.send(TranscriptionFailed(self.asked.utterance, self.asked.request, BROKEN))

    def commit(self) -> list[Action]:
        return self.send(CommitRequested(self.sample, "e"))

    def configure(self, **changes: Any) -> list[Action]:
        return self.send(Configured(replace(self.turn.settings, **changes)))

    def say(self, text: str) -> list[Action]:
        """A whole utterance, recognised at once."""
        return self.speech(320) + self.silence(512) + self.recognise(text)

    def sent(self, generation: int, *, plays_ms: float = 0) -> list[Action]:
        """The reply went out whole; the speaker needs `plays_ms` more."""
        return self.send(ReplySent(generation, "completed", self.now + plays_ms))


def replying(**settings: Any) -> Conversation:
    """A conversation in which reply 1 (to utterance 1) is running."""
    c = Conversation(**settings)
    c.silence(320)
    actions = c.say("Hello")
    assert actions[-2:] == [OpenGate(1, PLAIN), StartReply(1, "hello")]
    return c


def sounding(**settings: Any) -> Conversation:
    """A conversation in which reply 1 was sent whole and still plays for two seconds."""
    c = replying(**settings)
    assert c.sent(1, plays_ms=2_000) == [FinishReply(1, "completed")]
    return c


def refused(actions: list[Action]) -> str:
    """The code of the one refusal; that nothing else happened is part of it."""
    [refusal] = actions
    assert isinstance(refusal, Refuse)
    assert refusal.event_id == "e"
    return refusal.failure.code


# --- a turn, taken by voice --------------------------------------------------


def test_a_turn_from_first_sound_to_the_end_of_playback() -> None:
    c = Conversation()
    assert c.silence(640) == []
    began = c.sample
    assert c.speech(64) == []
    assert c.speech(32) == [Listen(1, began - PREROLL), AnnounceSpeech(1, began - PREROLL)]
    assert c.speech(640) == []
    ended = c.sample
    assert c.silence(480) == []
    assert c.silence(32) == [AnnounceSilence(1, ended), Transcribe(1, 1)]
    assert c.recognise(" What time is it? ") == [
        CommitUser(1, "What time is it?"),
        OpenGate(1, PLAIN),
        StartReply(1, "what time is it"),
    ]
    assert c.send(ReplyProgressed(1)) == []
    assert c.sent(1, plays_ms=700) == [FinishReply(1, "completed")]
    assert not c.turn.idle
    assert c.turn.next_deadline() == c.now + 700
    assert c.wait(699) == []
    assert not c.turn.idle
    assert c.wait(1) == []
    assert c.turn.idle
    assert c.turn.next_deadline() is None


def test_the_next_turn_counts_on() -> None:
    c = replying()
    c.sent(1)
    actions = c.say("And you?")
    assert actions[2:] == [
        AnnounceSilence(2, c.sample - 512 * 16),
        Transcribe(2, 2),
        CommitUser(2, "And you?"),
        OpenGate(2, PLAIN),
        StartReply(2, "and you"),
    ]


def test_noise_is_discarded_and_answered_by_nothing() -> None:
    c = Conversation()
    c.speech(96)
    c.silence(512)
    assert c.recognise("  ") == [DiscardUser(1)]
    assert c.turn.idle


def test_a_click_shorter_than_the_onset_is_not_even_listened_to() -> None:
    c = Conversation()
    assert c.speech(64) + c.silence(512) == []


def test_the_user_goes_on_before_the_words_are_recognised() -> None:
    c = Conversation()
    c.speech(320)
    c.silence(512)
    assert c.speech(64) == []
    assert c.speech(32) == []  # the same utterance, announced already
    assert c.turn.user == "speaking"
    assert c.recognise("I would like") == []  # the answer to the first half came too late
    ended = c.sample
    assert c.silence(512) == [AnnounceSilence(1, ended), Transcribe(1, 2)]
    assert c.recognise("I would like some tea.")[0] == CommitUser(1, "I would like some tea.")


def test_without_create_response_the_turn_is_only_committed() -> None:
    c = Conversation(create_response=False)
    assert c.say("Hello")[-1] == CommitUser(1, "Hello")
    assert c.turn.idle
    c.say("again")
    assert c.send(ReplyRequested()) == [OpenGate(1, PLAIN), StartReply(1, "hello again")]


def test_an_utterance_ends_at_its_longest_although_the_user_talks_on() -> None:
    c = Conversation(max_utterance_ms=1_280, prefix_padding_ms=0)
    assert c.speech(1_280)[2:] == [AnnounceSilence(1, 1_280 * 16), Transcribe(1, 1)]


def test_a_full_utterance_is_not_gone_on_with() -> None:
    c = Conversation(max_utterance_ms=1_280, prefix_padding_ms=0)
    c.speech(1_280)
    assert c.speech(96) == [
        CommitUser(1, None),
        Listen(2, 1_280 * 16),
        AnnounceSpeech(2, 1_280 * 16),
    ]
    assert c.recognise("First half") == [SetTranscript(1, "First half")]
    c.silence(512)
    assert c.recognise("second half.") == [
        CommitUser(2, "second half."),
        OpenGate(1, PLAIN),
        StartReply(1, "first half second half"),
    ]


def test_the_key_of_a_reply_is_what_was_said_without_case_punctuation_and_spacing() -> None:
    c = Conversation()
    assert c.say("It's  FIVE — isn't it?")[-1] == StartReply(1, "it s five isn t it")


def test_the_key_of_a_reply_holds_the_newest_words_only() -> None:
    c = Conversation(create_response=False)
    for i in range(20):
        c.say(f"w{i}")
    start = c.send(ReplyRequested())[-1]
    assert start == StartReply(1, " ".join(f"w{i}" for i in range(4, 20)))


def test_the_key_tells_words_apart_that_differ_only_in_a_vowel_sign() -> None:
    keys = set()
    for text in ("की", "का", "के"):
        c = Conversation()
        start = c.say(text)[-1]
        assert isinstance(start, StartReply)
        keys.add(start.key)
    assert len(keys) == 3


# --- the user speaks over a reply --------------------------------------------


def test_barge_in_over_a_running_reply() -> None:
    c = replying()
    began = c.sample
    start = began  # pre-roll does not reach back into the utterance before
    assert c.speech(96) == [Listen(2, start), Duck(1), Pause(1)]
    assert c.turn.user == "overlap"
    assert c.speech(64) == []
    assert c.speech(32) == [AnnounceSpeech(2, start), Flush(1), CancelReply(1, "turn_detected")]
    ended = c.sample
    assert c.silence(512) == [AnnounceSilence(2, ended), Transcribe(2, 2)]
    assert c.recognise("Stop.")[-1] == StartReply(2, "stop")


def test_barge_in_over_a_tail() -> None:
    c = sounding()
    start = c.sample
    assert c.speech(96) == [Listen(2, start), Duck(1), Pause(1)]
    assert c.speech(96) == [AnnounceSpeech(2, start), Flush(1)]
    assert c.turn.next_deadline() == c.now + 2_000  # nothing but the microphone is awaited


def test_barge_in_over_a_tail_and_the_reply_that_follows_it() -> None:
    c = sounding()
    c.send(ReplyRequested())
    start = c.sample
    assert c.speech(96) == [Listen(2, start), Duck(1), Pause(1), Duck(2), Pause(2)]
    assert c.speech(96) == [
        AnnounceSpeech(2, start),
        Flush(1),
        Flush(2),
        CancelReply(2, "turn_detected"),
    ]


def test_barge_in_over_two_tails_silences_both() -> None:
    """A second short reply is sent whole while the first one still plays."""
    c = sounding()
    c.send(ReplyRequested())
    c.sent(2, plays_ms=2_500)
    start = c.sample
    assert c.speech(96) == [Listen(2, start), Duck(1), Pause(1), Duck(2), Pause(2)]
    assert c.speech(96) == [AnnounceSpeech(2, start), Flush(1), Flush(2)]


def test_two_tails_end_each_in_its_time() -> None:
    c = sounding()
    c.send(ReplyRequested())
    c.sent(2, plays_ms=2_500)
    c.wait(2_000)
    assert not c.turn.idle
    assert c.turn.next_deadline() == c.now + 500
    c.wait(500)
    assert c.turn.idle


def test_a_long_onset_interrupts_at_once() -> None:
    c = replying(onset_ms=192)
    start = c.sample
    assert c.speech(192) == [
        Listen(2, start),
        Duck(1),
        Pause(1),
        AnnounceSpeech(2, start),
        Flush(1),
        CancelReply(1, "turn_detected"),
    ]


@pytest.mark.parametrize("make", [replying, sounding])
def test_a_cough_leaves_no_trace(make: Any) -> None:
    c = make()
    assert c.speech(96) == [Listen(2, c.sample - 96 * 16), Duck(1), Pause(1)]
    assert c.silence(160) == []
    assert c.silence(32) == [Unduck(1), Resume(1), DiscardUser(2)]
    assert c.turn.user == "idle"


def test_a_cough_is_over_at_the_end_of_a_shorter_silence_window() -> None:
    c = replying(silence_ms=160, overlap_silence_ms=400)
    c.speech(96)
    assert c.silence(160) == [Unduck(1), Resume(1), DiscardUser(2)]


def test_a_stutter_of_coughs_is_held_until_it_interrupts() -> None:
    c = replying()
    start = c.sample
    c.speech(96)
    assert c.silence(128) + c.speech(64) + c.silence(128) == []
    assert c.speech(32) == [AnnounceSpeech(2, start), Flush(1), CancelReply(1, "turn_detected")]


def test_the_reply_ends_under_the_overlap() -> None:
    c = replying()
    start = c.sample
    c.speech(96)
    assert c.sent(1) == [FinishReply(1, "completed"), AnnounceSpeech(2, start)]
    assert c.turn.user == "speaking"


def test_the_reply_becomes_a_tail_under_the_overlap() -> None:
    c = replying()
    c.speech(96)
    assert c.sent(1, plays_ms=5_000) == [FinishReply(1, "completed")]
    assert c.silence(192) == [Unduck(1), Resume(1), DiscardUser(2)]


def test_the_tail_ends_under_the_overlap() -> None:
    c = replying()
    c.sent(1, plays_ms=150)
    start = c.sample
    c.speech(96)
    assert c.wait(54) == [AnnounceSpeech(2, start)]


def test_a_reply_asked_for_under_the_overlap_is_held_too() -> None:
    c = sounding()
    c.speech(96)
    assert c.send(ReplyRequested()) == [
        OpenGate(2, PLAIN),
        Duck(2),
        Pause(2),
        StartReply(2, ""),
    ]
    assert c.silence(192) == [Unduck(1), Resume(1), Unduck(2), Resume(2), DiscardUser(2)]


def test_without_interrupt_response_the_reply_goes_on_and_gets_no_second_one() -> None:
    c = replying(interrupt_response=False)
    start = c.sample
    assert c.speech(320) == [Listen(2, start), AnnounceSpeech(2, start)]
    assert c.silence(512) == [AnnounceSilence(2, c.sample - 512 * 16), Transcribe(2, 2)]
    assert c.recognise("I see.") == [CommitUser(2, "I see.")]
    assert c.sent(1) == [FinishReply(1, "completed")]


def test_without_interrupt_response_a_turn_over_a_tail_is_answered() -> None:
    c = sounding(interrupt_response=False)
    assert c.say("Go on.")[-3:] == [
        CommitUser(2, "Go on."),
        OpenGate(2, PLAIN),
        StartReply(2, "go on"),
    ]


def test_going_on_speaking_cancels_the_reply_that_waits_for_the_words() -> None:
    c = Conversation()
    c.speech(320)
    c.silence(512)
    assert c.send(ReplyRequested()) == [OpenGate(1, PLAIN)]
    assert c.speech(96) == [Flush(1), CancelReply(1, "turn_detected")]


def test_going_on_speaking_silences_a_tail() -> None:
    c = Conversation(create_response=False)
    c.speech(320)
    c.send(ReplyRequested())  # over the user's own words
    c.silence(512)
    c.sent(1, plays_ms=2_000)
    assert c.speech(96) == [Flush(1)]


def test_going_on_speaking_without_interrupt_response_lets_the_reply_start() -> None:
    c = Conversation(interrupt_response=False)
    c.speech(320)
    c.silence(512)
    c.send(ReplyRequested())
    assert c.speech(96) == [StartReply(1, "")]


# --- push-to-talk and commits by hand ----------------------------------------


def test_push_to_talk() -> None:
    c = Conversation(detection="none")
    assert c.speech(32) == [Listen(1, 0)]
    assert c.speech(640) == []
    assert c.turn.collecting
    assert c.commit() == [CommitUser(1, None), Transcribe(1, 1)]
    assert not c.turn.collecting
    assert c.send(ReplyRequested(event_id="e")) == [OpenGate(1, PLAIN)]  # it waits for the words
    assert c.recognise("Hello.") == [SetTranscript(1, "Hello."), StartReply(1, "hello")]


def test_push_to_talk_reply_asked_for_after_the_transcript() -> None:
    c = Conversation(detection="none")
    c.speech(640)
    c.commit()
    assert c.recognise("Hello.") == [SetTranscript(1, "Hello.")]
    assert c.send(ReplyRequested()) == [OpenGate(1, PLAIN), StartReply(1, "hello")]


def test_push_to_talk_reply_waits_for_every_transcript() -> None:
    c = Conversation(detection="none")
    c.speech(320)
    c.commit()
    assert c.speech(320) == [Listen(2, 320 * 16)]
    c.commit()
    c.send(ReplyRequested())
    assert c.send(Transcribed(2, 2, "world")) == [SetTranscript(2, "world")]
    assert c.send(Transcribed(1, 1, "Hello")) == [
        SetTranscript(1, "Hello"),
        StartReply(1, "world hello"),
    ]


def test_push_to_talk_takes_no_sample_twice() -> None:
    c = Conversation(detection="none")
    c.speech(320)
    within_the_next_frame = c.sample + 100
    c.send(CommitRequested(within_the_next_frame))
    assert c.speech(320) == [Listen(2, within_the_next_frame)]


def test_push_to_talk_commit_of_nothing_is_refused() -> None:
    c = Conversation(detection="none")
    assert refused(c.commit()) == "input_audio_buffer_commit_empty"
    c.speech(64)
    assert refused(c.commit()) == "input_audio_buffer_commit_empty"
    c.speech(64)
    assert c.commit() == [CommitUser(1, None), Transcribe(1, 1)]
    assert refused(c.commit()) == "input_audio_buffer_commit_empty"


def test_push_to_talk_clear() -> None:
    c = Conversation(detection="none")
    assert c.send(ClearRequested()) == []
    c.speech(320)
    assert c.send(ClearRequested()) == [DiscardUser(1)]
    assert refused(c.commit()) == "input_audio_buffer_commit_empty"
    assert c.speech(32) == [Listen(2, 320 * 16)]


def test_push_to_talk_forgets_audio_that_nobody_commits() -> None:
    c = Conversation(detection="none", max_collect_ms=640)
    assert c.speech(640) == [Listen(1, 0)]
    assert c.speech(32) == [DiscardUser(1), Listen(2, 640 * 16)]
    assert c.speech(608) == []


def test_push_to_talk_neither_ends_nor_interrupts_by_itself() -> None:
    c = replying()
    c.configure(detection="none")
    assert c.speech(3_200) == [Listen(2, c.sample - 3_200 * 16)]
    assert c.silence(3_200) + c.wait(20_000) == []


def test_transcripts_are_awaited_in_bounded_number() -> None:
    """A client may upload faster than real time; the oldest words go first."""
    c = Conversation(detection="none")
    lost: list[int] = []
    for _ in range(100):
        c.sample += 10 * FRAME
        for action in c.send(AudioFrame(0.9, c.sample)) + c.commit():
            if isinstance(action, LoseTranscript):
                assert action.failure.code == "asr_overloaded"
                lost.append(action.utterance)
    assert lost == list(range(1, 100 - 16 + 1))
    for utterance in range(85, 101):
        assert c.send(Transcribed(utterance, utterance, "x")) == [SetTranscript(utterance, "x")]


def test_commit_by_hand_under_vad_while_nobody_speaks_is_refused() -> None:
    c = Conversation()
    c.silence(640)
    assert refused(c.commit()) == "input_audio_buffer_commit_empty"


def test_commit_by_hand_while_the_user_speaks() -> None:
    c = Conversation()
    c.speech(320)
    assert c.commit() == [AnnounceSilence(1, c.sample), CommitUser(1, None), Transcribe(1, 1)]
    assert c.recognise("Hello") == [SetTranscript(1, "Hello")]
    assert c.turn.idle


def test_commit_by_hand_while_the_words_are_recognised() -> None:
    c = Conversation()
    c.speech(320)
    c.silence(512)
    assert c.commit() == [CommitUser(1, None)]
    assert c.speech(96) == [Listen(2, c.sample - 96 * 16), AnnounceSpeech(2, c.sample - 96 * 16)]
    assert c.recognise("Hello") == [SetTranscript(1, "Hello")]


def test_a_turn_that_ended_by_itself_is_answered_though_it_was_committed_by_hand_too() -> None:
    c = Conversation()
    c.speech(320)
    c.silence(512)
    c.commit()
    assert c.recognise("Hello") == [
        SetTranscript(1, "Hello"),
        OpenGate(1, ReplyOptions()),
        StartReply(1, "hello"),
    ]


def test_a_turn_that_ended_by_itself_and_lost_its_words_fails_its_reply() -> None:
    c = Conversation()
    c.speech(320)
    c.silence(512)
    c.commit()
    failure = Failure("asr_failed", "No.")
    assert c.send(TranscriptionFailed(1, 1, failure)) == [
        LoseTranscript(1, failure),
        OpenGate(1, ReplyOptions()),
        FinishReply(1, failure),
    ]


def test_commit_by_hand_over_a_reply_interrupts_it() -> None:
    c = replying()
    start = c.sample
    c.speech(96)
    assert c.commit() == [
        AnnounceSpeech(2, start),
        Flush(1),
        CancelReply(1, "turn_detected"),
        AnnounceSilence(2, c.sample),
        CommitUser(2, None),
        Transcribe(2, 2),
    ]


def test_clear_while_the_user_speaks_tells_the_client_that_it_is_over() -> None:
    c = Conversation()
    c.speech(320)
    assert c.send(ClearRequested()) == [AnnounceSilence(1, c.sample), DiscardUser(1)]
    assert c.turn.idle


def test_clear_while_the_words_are_recognised() -> None:
    c = Conversation()
    c.speech(320)
    c.silence(512)
    assert c.send(ClearRequested()) == [DiscardUser(1)]
    assert c.recognise("Hello") == []
    assert c.turn.idle


def test_clear_over_a_reply_lets_it_go_on() -> None:
    c = replying()
    c.speech(96)
    assert c.send(ClearRequested()) == [Unduck(1), Resume(1), DiscardUser(2)]


# --- replies asked for and cancelled by the client ---------------------------


def test_reply_asked_for_while_one_is_active_is_refused() -> None:
    c = replying()
    code = refused(c.send(ReplyRequested(event_id="e")))
    assert code == "conversation_already_has_active_response"


def test_reply_asked_for_while_another_waits_for_its_words_is_refused() -> None:
    c = Conversation()
    c.speech(320)
    c.silence(512)
    c.send(ReplyRequested())
    code = refused(c.send(ReplyRequested(event_id="e")))
    assert code == "conversation_already_has_active_response"
    assert c.recognise("Hello") == [CommitUser(1, "Hello"), StartReply(1, "hello")]


def test_reply_asked_for_carries_its_options() -> None:
    c = Conversation()
    options = ReplyOptions(modality="text", metadata={"a": "b"})
    assert c.send(ReplyRequested(options)) == [OpenGate(1, options), StartReply(1, "")]


@pytest.mark.parametrize("generation", [None, 1])
def test_cancel_of_the_active_reply(generation: int | None) -> None:
    c = replying()
    assert c.send(CancelRequested(generation)) == [Flush(1), CancelReply(1, "client_cancelled")]
    assert c.turn.idle


def test_cancel_of_a_reply_that_waits() -> None:
    c = Conversation()
    c.speech(320)
    c.silence(512)
    c.send(ReplyRequested())
    assert c.send(CancelRequested()) == [Flush(1), CancelReply(1, "client_cancelled")]
    assert c.recognise("Hello") == [
        CommitUser(1, "Hello"),
        OpenGate(2, PLAIN),
        StartReply(2, "hello"),
    ]


@pytest.mark.parametrize("generation", [0, 7])
def test_cancel_of_a_reply_that_is_not_active_is_refused(generation: int) -> None:
    c = replying()
    refusal = c.send(CancelRequested(generation, "e"))
    assert refused(refusal) == "response_cancel_not_active"


def test_cancel_without_an_active_reply_is_refused() -> None:
    c = Conversation()
    assert refused(c.send(CancelRequested(None, "e"))) == "response_cancel_not_active"
    c = sounding()  # a tail is done on the wire
    assert refused(c.send(CancelRequested(1, "e"))) == "response_cancel_not_active"


def test_cancel_under_the_overlap_leaves_a_user_who_speaks() -> None:
    c = replying()
    start = c.sample
    c.speech(96)
    assert c.send(CancelRequested()) == [
        Flush(1),
        CancelReply(1, "client_cancelled"),
        AnnounceSpeech(2, start),
    ]


def test_playback_stopped_by_the_client_ends_the_tail() -> None:
    c = sounding()
    assert c.send(PlaybackStopped(1)) == []
    assert c.turn.idle


def test_playback_stopped_under_the_overlap_leaves_a_user_who_speaks() -> None:
    c = sounding()
    start = c.sample
    c.speech(96)
    assert c.send(PlaybackStopped(1)) == [AnnounceSpeech(2, start)]


# --- what fails and what never comes -----------------------------------------


def test_the_transcript_never_comes() -> None:
    c = Conversation()
    c.speech(320)
    c.silence(512)
    assert c.wait(5_999) == []
    committed, lost, opened, finished = c.wait(1)
    assert (committed, opened) == (CommitUser(1, None), OpenGate(1, PLAIN))
    assert isinstance(lost, LoseTranscript)
    assert lost.failure.code == "asr_timeout"
    assert finished == FinishReply(1, lost.failure)
    assert c.turn.idle
    assert c.recognise("Hello") == []


def test_the_asr_fails_on_a_turn() -> None:
    c = Conversation()
    c.speech(320)
    c.silence(512)
    assert c.fail_to_recognise() == [
        CommitUser(1, None),
        LoseTranscript(1, BROKEN),
        OpenGate(1, PLAIN),
        FinishReply(1, BROKEN),
    ]
    assert c.turn.idle


def test_the_asr_fails_where_no_reply_was_due() -> None:
    c = Conversation(create_response=False)
    c.speech(320)
    c.silence(512)
    assert c.fail_to_recognise() == [CommitUser(1, None), LoseTranscript(1, BROKEN)]


def test_the_asr_fails_under_a_running_reply() -> None:
    c = replying(interrupt_response=False)
    c.speech(320)
    c.silence(512)
    assert c.fail_to_recognise() == [CommitUser(2, None), LoseTranscript(2, BROKEN)]
    assert c.sent(1) == [FinishReply(1, "completed")]


def test_the_asr_fails_and_with_it_the_reply_that_waited() -> None:
    c = Conversation()
    c.speech(320)
    c.silence(512)
    c.send(ReplyRequested())
    assert c.fail_to_recognise() == [
        CommitUser(1, None),
        LoseTranscript(1, BROKEN),
        FinishReply(1, BROKEN),
    ]


def test_the_asr_fails_on_push_to_talk() -> None:
    c = Conversation(detection="none")
    c.speech(320)
    c.commit()
    assert c.fail_to_recognise() == [LoseTranscript(1, BROKEN)]
    assert c.turn.idle


def test_the_asr_fails_on_push_to_talk_and_with_it_the_reply_that_waited() -> None:
    c = Conversation(detection="none")
    c.speech(320)
    c.commit()
    c.send(ReplyRequested())
    assert c.fail_to_recognise() == [LoseTranscript(1, BROKEN), FinishReply(1, BROKEN)]


def test_two_transcripts_are_overdue_at_once() -> None:
    c = Conversation(detection="none")
    c.speech(320)
    c.commit()
    c.speech(320)
    c.commit()
    c.now += 60_000  # the machine slept
    first, second = c.send(Tick())
    assert isinstance(first, LoseTranscript)
    assert isinstance(second, LoseTranscript)
    assert (first.utterance, second.utterance) == (1, 2)
    assert c.turn.idle


def test_the_reply_breaks_and_what_was_sent_plays_on() -> None:
    c = replying()
    assert c.send(ReplyFailed(1, BROKEN, c.now + 400)) == [FinishReply(1, BROKEN)]
    assert not c.turn.idle
    c.wait(400)
    assert c.turn.idle


def test_the_reply_breaks_before_anything_was_sent() -> None:
    c = replying()
    assert c.send(ReplyFailed(1, BROKEN, 0)) == [FinishReply(1, BROKEN)]
    assert c.turn.idle


def test_the_reply_is_cut_by_its_token_limit() -> None:
    c = replying()
    sent = c.send(ReplySent(1, "max_output_tokens", c.now))
    assert sent == [FinishReply(1, "max_output_tokens")]


def test_the_reply_never_comes() -> None:
    c = replying()
    assert c.wait(29_999) == []
    flush, finish = c.wait(1)
    assert flush == Flush(1)
    assert isinstance(finish, FinishReply)
    assert isinstance(finish.outcome, Failure)
    assert finish.outcome.code == "reply_timeout"
    assert c.turn.idle


def test_every_sign_of_life_gives_the_reply_new_time() -> None:
    c = replying()
    for _ in range(5):
        assert c.wait(29_000) == []
        c.send(ReplyProgressed(1))
    assert len(c.wait(30_000)) == 2


def test_a_reply_that_waits_for_words_gets_its_whole_time_once_it_starts() -> None:
    c = Conversation(transcript_ms=40_000, reply_stall_ms=5_000)
    c.speech(320)
    c.silence(512)
    c.send(ReplyRequested())
    c.wait(4_000)
    c.recognise("Hello")
    assert c.wait(4_999) == []
    assert [type(action) for action in c.wait(1)] == [Flush, FinishReply]


def test_a_reply_does_not_wait_for_words_for_ever() -> None:
    c = Conversation(transcript_ms=40_000, reply_stall_ms=5_000)
    c.speech(320)
    c.silence(512)
    c.send(ReplyRequested())
    assert [type(action) for action in c.wait(5_000)] == [Flush, FinishReply]


def test_the_microphone_falls_silent_while_the_user_speaks() -> None:
    c = Conversation()
    c.speech(320)
    assert c.wait(1_999) == []
    assert c.wait(1) == [AnnounceSilence(1, c.sample), Transcribe(1, 1)]
    assert c.turn.next_deadline() == c.now + 6_000


def test_the_microphone_falls_silent_over_a_reply() -> None:
    c = replying()
    c.speech(96)
    assert c.wait(2_000) == [Unduck(1), Resume(1), DiscardUser(2)]
    assert c.speech(96) == [Listen(3, c.sample - 96 * 16), Duck(1), Pause(1)]


def test_the_microphone_comes_back_late_with_the_same_utterance() -> None:
    c = Conversation()
    c.speech(320)
    c.now += 10_000  # the process was stopped: no tick came either
    assert c.speech(32) == [AnnounceSilence(1, c.sample - FRAME), Transcribe(1, 1)]
    assert c.speech(64) == []
    assert c.turn.user == "speaking"


# --- what comes late, twice or for somebody else -----------------------------


def test_answers_of_the_asr_that_nobody_waits_for_change_nothing() -> None:
    c = Conversation()
    c.speech(320)
    c.silence(512)
    for utterance, request in ((1, 0), (1, 2), (0, 1), (2, 1)):
        assert c.send(Transcribed(utterance, request, "Wrong")) == []
        assert c.send(TranscriptionFailed(utterance, request, BROKEN)) == []
    assert c.recognise("Right")[0] == CommitUser(1, "Right")
    assert c.recognise("Right") == []
    assert c.fail_to_recognise() == []


def test_news_of_replies_that_are_over_change_nothing() -> None:
    c = replying()
    c.send(CancelRequested())
    c.say("And now?")
    deadline = c.turn.next_deadline()
    c.wait(100)
    for generation in (0, 1, 3):
        assert c.send(ReplyProgressed(generation)) == []
        assert c.sent(generation, plays_ms=9_000) == []
        assert c.send(ReplyFailed(generation, BROKEN, c.now + 9_000)) == []
        assert c.send(PlaybackStopped(generation)) == []
    assert c.turn.next_deadline() == deadline
    assert c.sent(2, plays_ms=1_000) == [FinishReply(2, "completed")]
    assert c.sent(2, plays_ms=9_000) == []  # twice
    assert c.send(PlaybackStopped(1)) == []
    assert c.turn.next_deadline() == c.now + 1_000


# --- the settings change -----------------------------------------------------


def test_new_durations_hold_from_the_next_frame() -> None:
    c = Conversation()
    c.speech(320)
    c.silence(256)
    assert c.configure(silence_ms=200) == []
    assert c.silence(32) == [AnnounceSilence(1, c.sample - 288 * 16), Transcribe(1, 1)]


def test_a_turned_off_create_response_holds_for_the_turn_in_progress() -> None:
    c = Conversation()
    c.speech(320)
    c.silence(512)
    c.configure(create_response=False)
    assert c.recognise("Hello") == [CommitUser(1, "Hello")]


def test_interrupt_response_turned_off_under_the_overlap_lets_both_speak() -> None:
    c = replying()
    start = c.sample
    c.speech(96)
    assert c.configure(interrupt_response=False) == [
        Unduck(1),
        Resume(1),
        AnnounceSpeech(2, start),
    ]
    assert c.speech(320) == []


def test_turn_detection_off_while_idle() -> None:
    c = Conversation()
    c.silence(320)
    assert c.configure(detection="none") == []
    assert c.speech(32) == [Listen(1, 320 * 16)]


def test_turn_detection_off_while_the_user_speaks() -> None:
    c = Conversation()
    c.speech(320)
    assert c.configure(detection="none") == [AnnounceSilence(1, c.sample), DiscardUser(1)]
    assert c.wait(10_000) == []


def test_turn_detection_off_while_the_words_are_recognised() -> None:
    c = Conversation()
    c.speech(320)
    c.silence(512)
    assert c.configure(detection="none") == [DiscardUser(1)]
    assert c.recognise("Hello") == []


def test_turn_detection_off_over_a_reply_lets_it_go_on() -> None:
    c = replying()
    c.speech(96)
    assert c.configure(detection="none") == [Unduck(1), Resume(1), DiscardUser(2)]


def test_turn_detection_on_forgets_what_was_collected_and_hears_only_what_comes() -> None:
    c = Conversation(detection="none")
    c.speech(640)
    assert c.configure(detection="server_vad") == [DiscardUser(1)]
    assert c.speech(96) == [Listen(2, 640 * 16), AnnounceSpeech(2, 640 * 16)]


def test_a_committed_transcript_survives_a_change_of_turn_detection() -> None:
    c = Conversation(detection="none")
    c.speech(640)
    c.commit()
    assert c.configure(detection="server_vad") == []
    assert c.recognise("Hello") == [SetTranscript(1, "Hello")]


# --- waiting for a user who says nothing ---------------------------------------


def answered(**settings: Any) -> Conversation:
    """A conversation whose first reply was sent whole and sounds for two more seconds."""
    c = Conversation(idle_timeout_ms=5_000, **settings)
    c.send(ReplyRequested())
    c.send(ReplySent(1, "completed", c.now + 2_000))
    return c


def test_after_a_reply_nobody_answers_the_assistant_speaks_again() -> None:
    c = answered()
    since = c.sample
    assert c.hear(6_976, 0.0) == []
    assert c.turn.next_deadline() == 7_000
    waited = WaitedForUser(1, since, c.sample + FRAME)
    assert c.hear(32, 0.0) == [waited, OpenGate(2, PLAIN), StartReply(2, "")]
    assert c.send(ReplySent(2, "completed", c.now)) == [FinishReply(2, "completed")]
    assert c.turn.next_deadline() == c.now + 5_000  # and again


def test_whoever_speaks_is_not_waited_for() -> None:
    c = answered()
    c.hear(4_000, 0.0)
    c.hear(320, 1.0)
    assert c.turn.user == "speaking"
    assert c.turn.next_deadline() == c.now + 2_000  # the microphone's, no other
    c = answered()
    c.hear(3_008, 0.0)
    assert c.send(ReplyRequested()) == [OpenGate(2, PLAIN), StartReply(2, "")]
    assert c.send(CancelRequested()) == [Flush(2), CancelReply(2, "client_cancelled")]
    assert c.turn.next_deadline() is None


def test_a_client_that_asks_as_the_wait_ends_gets_its_own_reply() -> None:
    c = answered()
    c.now = 7_000
    options = ReplyOptions(instructions="Go on.")
    assert c.send(ReplyRequested(options)) == [OpenGate(2, options), StartReply(2, "")]


def test_nobody_is_waited_for_while_the_client_has_the_next_word() -> None:
    for ended in (
        ReplySent(1, "completed", 0.0, called=True),  # its function is at work
        ReplyFailed(1, BROKEN, 0.0),  # or it would apologise for ever
    ):
        c = Conversation(idle_timeout_ms=5_000)
        c.send(ReplyRequested())
        c.send(ended)
        assert c.turn.next_deadline() is None
    c = answered()
    assert c.send(ItemAdded()) == []
    c.now = 2_000
    c.send(Tick())
    assert c.turn.next_deadline() is None


def test_a_client_that_replies_itself_is_only_told() -> None:
    c = answered(create_response=False)
    assert c.hear(7_008, 0.0) == [WaitedForUser(1, 0, c.sample)]
    assert c.hear(20_000, 0.0) == []


def test_push_to_talk_waits_for_ever() -> None:
    c = answered(detection="none")
    c.now = 2_000
    c.send(Tick())
    assert c.turn.next_deadline() is None
    c.now = 60_000
    assert c.send(Tick()) == []
