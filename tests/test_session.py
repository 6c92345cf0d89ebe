"""Whole turns on virtual time, from the microphone to the last sample sent.

Times are exact: the microphone sends 20 ms at once, a VAD frame has 32 ms, and every
delay of the fakes is known.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from memory_client import PIECE_MS, SILENCE, VOICE, NotingLLM, fakes, talk
from virtual_time import virtual_time

from ivas import announcements as say
from ivas.conversation.events import Failure
from ivas.engines.fake import CHUNK_MS, DEFAULT_REPLY, MS_PER_CHARACTER, FakeASR, FakeTTS
from ivas.playout import BYTES_PER_MS

FIRST_CLAUSE = DEFAULT_REPLY[: DEFAULT_REPLY.index(",") + 1]
SHORT = "It is almost noon, and all is well."


def spoken_bytes(text: str) -> int:
    """How much sound the fake TTS makes of one clause."""
    return round(len(text.strip()) * MS_PER_CHARACTER) * BYTES_PER_MS


# --- a turn ------------------------------------------------------------------


@virtual_time
async def test_a_spoken_turn_from_the_first_frame_to_the_last_sample() -> None:
    async with talk() as t:
        await t.turn(ms=600)
        ended = await t.client.next(say.ReplyEnded)
        client = t.client
        assert client.kinds() == [
            "SpeechStarted",
            "TranscriptDelta",
            "SpeechStopped",
            "AudioCommitted",
            "ItemAdded",
            "TranscriptCompleted",
            "ReplyStarted",
            "MessageStarted",
            *["WordsSpoken", "AudioSpoken"] * 3,
            "MessageEnded",
            "ReplyEnded",
        ]
        assert client.at_ms(say.SpeechStarted) == 100  # three frames, known at the next piece
        assert client.at_ms(say.SpeechStopped) == 1120  # 608 ms of speech, 500 of silence
        assert client.at_ms(say.TranscriptCompleted) == 1220  # the ASR takes 100
        assert client.at_ms(say.ReplyStarted) == 1220
        assert client.at_ms(say.WordsSpoken) == 1220 + 150 + 12 * 20  # the 13th token
        assert client.at_ms(say.AudioSpoken) == 1610 + 100  # the TTS takes 100
        assert ended.outcome == "completed"
        assert ended.text == client.words() == DEFAULT_REPLY
        assert len(client.sound()) == sum(
            spoken_bytes(spoken.delta) for spoken in client.all(say.WordsSpoken)
        )


@virtual_time
async def test_the_next_turn_sees_what_was_said_before() -> None:
    llm = NotingLLM(reply=SHORT)
    async with talk(fakes(llm=llm), instructions="Be brief.") as t:
        await t.turn()
        await t.rest(5000)
        await t.turn()
        await t.client.next(say.ReplyEnded, 2)
    first, second = llm.prompts
    assert [(m.role, m.text) for m in first] == [
        ("system", "Be brief."),
        ("user", "what time is it"),
    ]
    assert second[:2] == first
    assert [(m.role, m.text) for m in second[2:]] == [
        ("assistant", SHORT),
        ("user", "what time is it"),
    ]


@virtual_time
async def test_noise_without_words_leaves_no_trace() -> None:
    async with talk(fakes(asr=FakeASR(transcript=""))) as t:
        await t.turn()
        await t.rest(1000)
        assert t.client.kinds() == ["SpeechStarted", "SpeechStopped"]


@virtual_time
async def test_without_create_response_the_client_asks_for_the_reply() -> None:
    async with talk(create_response=False) as t:
        await t.turn()
        await t.rest(3000)
        assert t.client.all(say.TranscriptCompleted)
        assert not t.client.all(say.ReplyStarted)
        await t.create_reply()
        assert (await t.client.next(say.ReplyEnded)).outcome == "completed"


@virtual_time
async def test_more_audio_than_the_inbox_holds_waits_and_is_heard_whole() -> None:
    async with talk(detection="none") as t:
        much = say.AppendAudio(VOICE * (120_000 // PIECE_MS))
        sending = asyncio.create_task(t.session.submit(much))
        await asyncio.sleep(0)
        assert not sending.done()
        await sending
        await t.session.submit(say.CommitAudio())
        assert (await t.client.next(say.TranscriptCompleted)).audio_seconds == pytest.approx(
            120, abs=0.01
        )


@virtual_time
async def test_push_to_talk() -> None:
    async with talk(detection="none") as t:
        await t.speak(400)
        await t.rest(1500)  # no detection: silence ends nothing
        assert t.client.told == []
        await t.session.submit(say.CommitAudio())
        await t.create_reply()
        assert (await t.client.next(say.ReplyEnded)).text == DEFAULT_REPLY
        completed = t.client.all(say.TranscriptCompleted)
        assert [c.audio_seconds for c in completed] == [pytest.approx(1.9, abs=0.002)]
        assert t.client.kinds()[:4] == [
            "AudioCommitted",
            "ItemAdded",
            "ReplyStarted",
            "TranscriptCompleted",
        ]


@virtual_time
async def test_an_empty_commit_is_refused() -> None:
    async with talk(detection="none") as t:
        await t.session.submit(say.CommitAudio("e1"))
        refused = await t.client.next(say.Refused)
        assert refused.failure.code == "input_audio_buffer_commit_empty"
        assert refused.event_id == "e1"


@virtual_time
async def test_a_typed_turn_is_spoken() -> None:
    async with talk(fakes(llm=(llm := NotingLLM()))) as t:
        await t.ask("Hello there.")
        assert (await t.client.next(say.ReplyEnded)).text == DEFAULT_REPLY
        assert t.client.sound()
        assert [m.text for m in llm.prompts[0]] == ["Hello there."]


@virtual_time
async def test_text_only_writes_as_fast_as_the_model_does() -> None:
    tts = FakeTTS()
    async with talk(fakes(tts=tts), modality="text") as t:
        await t.ask("Hello there.")
        ended = await t.client.next(say.ReplyEnded)
        assert ended.text == DEFAULT_REPLY
        assert ended.reply.modality == "text"
        tokens = len(DEFAULT_REPLY.split())
        assert t.client.at_ms(say.ReplyEnded) == pytest.approx(150 + 20 * (tokens - 1))
        assert not t.client.sound()


@virtual_time
async def test_one_reply_may_be_free_of_what_binds_the_others() -> None:
    llm = NotingLLM(reply=SHORT)
    async with talk(fakes(llm=llm), instructions="Be brief.", max_tokens=3) as t:
        await t.ask("Hello.")
        bound = await t.client.next(say.ReplyEnded)
        await t.rest(4000)
        await t.create_reply(instructions="", max_tokens="inf")
        free = await t.client.next(say.ReplyEnded, 2)
    assert (bound.outcome, bound.text) == ("max_output_tokens", "It is almost")
    assert (free.outcome, free.text, free.reply.max_tokens) == ("completed", SHORT, None)
    assert [prompt[0].role for prompt in llm.prompts] == ["system", "user"]


@virtual_time
async def test_one_reply_may_differ_from_the_session() -> None:
    llm = NotingLLM(reply=SHORT)
    async with talk(fakes(llm=llm), instructions="Be brief.", voice="fake-low") as t:
        await t.ask("Hello.")
        await t.client.next(say.ReplyEnded)
        await t.rest(4000)
        await t.create_reply(
            instructions="Be grand.", voice="fake-high", max_tokens=3, metadata={"a": "b"}
        )
        ended = await t.client.next(say.ReplyEnded, 2)
        await t.create_reply(modality="text")
        plain = await t.client.next(say.ReplyEnded, 3)
    assert [prompt[0].text for prompt in llm.prompts] == ["Be brief.", "Be grand.", "Be brief."]
    assert (ended.outcome, ended.text) == ("max_output_tokens", "It is almost")
    assert ended.reply.metadata == {"a": "b"}
    low, high = t.client.sound(1), t.client.sound(2)
    period = 2 * 24_000 // 1200
    assert high[: 2 * period] == high[:period] * 2
    assert low[: 2 * period] != low[:period] * 2
    assert (plain.outcome, plain.reply.modality) == ("completed", "text")


@virtual_time
async def test_settings_changed_during_a_turn_serve_the_next_reply() -> None:
    async with talk(fakes(llm=NotingLLM(reply=SHORT))) as t:
        await t.speak(600)
        await t.configure(voice="fake-high", modality="text")
        await t.rest(620)
        await t.client.next(say.ReplyStarted)
        await t.configure(modality="audio")
        first = await t.client.next(say.ReplyEnded)
        await t.ask("And now?")
        second = await t.client.next(say.ReplyEnded, 2)
        assert (first.reply.modality, second.reply.modality) == ("text", "audio")
        assert len(t.client.all(say.Configured)) == 2


@virtual_time
async def test_turning_detection_off_while_the_user_speaks_forgets_the_utterance() -> None:
    async with talk() as t:
        await t.speak(600)
        await t.configure(detection="none")
        await t.rest(2000)
        assert t.client.kinds() == ["SpeechStarted", "SpeechStopped", "Configured"]
        await t.configure(detection="server_vad")
        await t.turn()
        assert (await t.client.next(say.ReplyEnded)).outcome == "completed"


# --- interruptions -----------------------------------------------------------


@virtual_time
async def test_a_recording_sent_at_once_is_given_the_time_it_takes() -> None:
    engines = fakes(asr=FakeASR(ms=12_000))
    how = {"detection": "none", "transcript_ms": 60_000, "transcribe": True}
    async with talk(engines, **how) as t:
        await t.session.submit(say.AppendAudio(bytes(2 * 24_000 * 30)))
        await t.session.submit(say.CommitAudio())
        assert (await t.client.next(say.TranscriptCompleted)).audio_seconds == 30


@virtual_time
async def test_sound_that_never_left_for_a_slow_client_was_not_heard() -> None:
    llm = NotingLLM()
    async with talk(fakes(llm=llm)) as t:
        await t.turn()
        await t.client.next(say.AudioSpoken)
        await asyncio.sleep(1.5)
        t.client.unsent_ms = 60_000
        await t.turn()
        await t.client.next(say.ReplyStarted, 2)
        await t.rest(200)
    assert [message.role for message in llm.prompts[1]] == ["user"]


@virtual_time
async def test_a_barge_in_silences_at_once_and_history_keeps_what_was_heard() -> None:
    llm = NotingLLM()
    async with talk(fakes(llm=llm)) as t:
        client = t.client
        await t.turn()
        await client.next(say.AudioSpoken)  # 1710 ms
        await asyncio.sleep(0.99)  # 2700 ms
        await t.speak(600)
        ended = await client.next(say.ReplyEnded)
        at_ms = client.at_ms(say.ReplyEnded)
        assert ended.outcome == "turn_detected"
        assert 192 <= at_ms - 2700 <= 192 + 32 + PIECE_MS
        assert client.purged == [(at_ms, 1)]
        spoken_before = client.sound()
        await t.rest(620)
        await client.next(say.ReplyStarted, 2)
        assert client.sound(1) == spoken_before
        item = await t.item(ended.reply.item_id)
        heard_ms = at_ms - 1710
        characters = int(heard_ms / MS_PER_CHARACTER)
        assert item.status == "incomplete"
        assert FIRST_CLAUSE.startswith(item.text)
        assert item.text.strip() == FIRST_CLAUSE[:characters].rsplit(" ", 1)[0].strip()
        await client.next(say.ReplyEnded, 2)
    first, second = llm.prompts
    assert second[: len(first)] == first
    assert [m.text for m in second[len(first) :]] == [item.text.rstrip() + "…", "what time is it"]


@virtual_time
async def test_a_barge_in_before_any_sound_leaves_no_reply_in_the_prompt() -> None:
    llm = NotingLLM()
    async with talk(fakes(llm=llm)) as t:
        await t.turn()
        await t.client.next(say.ReplyStarted)
        await t.turn()
        await t.client.next(say.ReplyEnded, 2)
        assert [e.outcome for e in t.client.all(say.ReplyEnded)] == ["turn_detected", "completed"]
        assert t.client.all(say.ReplyEnded)[0].text is None
    assert [(m.role, m.text) for m in llm.prompts[1]] == [
        ("user", "what time is it\nwhat time is it")
    ]


@virtual_time
async def test_a_cough_holds_the_reply_and_loses_no_sample() -> None:
    async with talk() as undisturbed:
        await undisturbed.turn()
        await undisturbed.client.next(say.ReplyEnded)
    async with talk() as t:
        client = t.client
        await t.turn()
        await client.next(say.AudioSpoken)
        await asyncio.sleep(0.5)
        before = len(client.sound())
        await t.speak(120)
        held = len(client.sound())
        await t.rest(100)
        assert len(client.sound()) == held  # two seconds are ahead: the speaker goes on
        assert held - before <= 120 * BYTES_PER_MS
        await t.rest(400)
        assert (await client.next(say.ReplyEnded)).outcome == "completed"
        assert len(client.all(say.SpeechStarted)) == 1
        assert client.sound() == undisturbed.client.sound()
        assert client.purged == []


@virtual_time
async def test_a_noise_before_the_first_sound_holds_it_back() -> None:
    async with talk(barge_in_ms=1000) as t:
        await t.ask("Hello.")
        await t.speak(900)
        assert t.client.told[-1][1] == t.client.all(say.ReplyStarted)[0]  # not even words
        await t.rest(400)
        assert (await t.client.next(say.ReplyEnded)).outcome == "completed"
        assert not t.client.all(say.SpeechStarted)


@virtual_time
async def test_with_interruptions_off_the_reply_goes_on() -> None:
    async with talk(interrupt_response=False) as t:
        await t.turn()
        await t.client.next(say.AudioSpoken)
        await t.turn()
        assert (await t.client.next(say.ReplyEnded)).outcome == "completed"
        assert t.client.purged == []
        assert len(t.client.all(say.TranscriptCompleted)) == 2


@virtual_time
async def test_what_the_client_says_it_played_refines_what_was_heard() -> None:
    async with talk() as t:
        await t.turn()
        await t.client.next(say.AudioSpoken)
        await asyncio.sleep(2)
        await t.speak(400)
        ended = await t.client.next(say.ReplyEnded)
        ours = (await t.item(ended.reply.item_id)).text
        await t.session.submit(say.TruncateItem(ended.reply.item_id, 0, 900))
        theirs = (await t.item(ended.reply.item_id)).text
        assert ours.startswith(theirs)
        assert theirs.strip() == "This is the"  # 15 characters of 60 ms each
        await t.session.submit(say.TruncateItem(ended.reply.item_id, 0, 1500))
        assert (await t.item(ended.reply.item_id)).text.strip() == "This is the fake engine"


@virtual_time
async def test_a_truncation_that_comes_before_the_cancel_is_kept() -> None:
    async with talk() as t:
        await t.turn()
        await t.client.next(say.AudioSpoken)
        await asyncio.sleep(3)
        item_id = t.client.all(say.AudioSpoken)[0].reply.item_id
        await t.session.submit(say.TruncateItem(item_id, 0, 900))
        await asyncio.sleep(1)  # more words leave meanwhile
        await t.session.submit(say.CancelActiveReply())
        await t.client.next(say.ReplyEnded)
        assert (await t.item(item_id)).text.strip() == "This is the"


@virtual_time
async def test_a_truncation_of_the_tail_stops_it() -> None:
    llm = NotingLLM(reply=SHORT)
    async with talk(fakes(llm=llm)) as t:
        await t.ask("Hello.")
        ended = await t.client.next(say.ReplyEnded)
        await t.session.submit(say.TruncateItem(ended.reply.item_id, 0, 300))
        await t.speak(160)  # no overlap any more: speech at once
        await t.rest(620)
        await t.client.next(say.ReplyEnded, 2)
        assert t.client.purged == []
        assert t.client.at_ms(say.SpeechStarted) - t.client.at_ms(say.ItemTruncated) == 100
    assert llm.prompts[1][1].text == "It is…"  # 5 characters of 60 ms


@virtual_time
async def test_the_client_cancels() -> None:
    async with talk() as t:
        await t.ask("Hello.")
        sound = await t.client.next(say.AudioSpoken)
        await t.session.submit(say.CancelActiveReply(sound.reply.id))
        ended = await t.client.next(say.ReplyEnded)
        assert ended.outcome == "client_cancelled"
        so_far = t.client.sound()
        await asyncio.sleep(10)
        assert t.client.sound() == so_far
        for reply_id in (None, sound.reply.id, "resp_unknown"):
            await t.session.submit(say.CancelActiveReply(reply_id, "e1"))
        await t.client.next(say.Refused, 3)
        assert {r.failure.code for r in t.client.all(say.Refused)} == {"response_cancel_not_active"}


@virtual_time
async def test_a_second_reply_at_once_is_refused() -> None:
    async with talk() as t:
        await t.ask("Hello.")
        await t.create_reply()
        refused = await t.client.next(say.Refused)
        assert refused.failure.code == "conversation_already_has_active_response"
        await t.client.next(say.ReplyEnded)


# --- sound -------------------------------------------------------------------


def speaker(told: list[tuple[float, say.Announcement]]) -> list[tuple[int, float, float]]:
    """(generation, begin, end) of every chunk as a speaker plays it without a gap of its own."""
    free_ms = 0.0
    played = []
    for at_ms, one in told:
        if isinstance(one, say.AudioSpoken):
            begin = max(free_ms, at_ms)
            free_ms = begin + len(one.pcm) / BYTES_PER_MS
            played.append((one.reply.generation, begin, free_ms))
    return played


@virtual_time
async def test_sound_is_never_further_ahead_than_the_lead() -> None:
    async with talk() as t:
        await t.turn()
        await t.client.next(say.ReplyEnded)
        sent = [(at, o) for at, o in t.client.told if isinstance(o, say.AudioSpoken)]
        for (at_ms, _), (_, begin, end) in zip(sent, speaker(t.client.told), strict=True):
            assert begin - at_ms <= 2000
            assert end - at_ms <= 2000 + CHUNK_MS
        # Faster than real time: after the first clause nothing is waited for.
        gaps = [b[1] - a[2] for a, b in pairwise(speaker(t.client.told))]
        assert max(gaps) == 0


@virtual_time
async def test_two_replies_in_a_row_do_not_overlap() -> None:
    async with talk(fakes(llm=NotingLLM(reply=SHORT))) as t:
        await t.ask("One.")
        await t.client.next(say.ReplyEnded)
        await t.ask("Two.")
        await t.client.next(say.ReplyEnded, 2)
        await t.ask("Three.")
        await t.client.next(say.ReplyEnded, 3)
        sent = [at for at, o in t.client.told if isinstance(o, say.AudioSpoken)]
        played = speaker(t.client.told)
        assert [g for g, _, _ in played] == sorted(g for g, _, _ in played)
        late = [begin - at for at, (_, begin, _) in zip(sent, played, strict=True)]
        # The first sound of a reply is never held back, so it may come with the tail before it.
        assert max(late) <= 2000 + CHUNK_MS
        whole = spoken_bytes("It is almost noon,") + spoken_bytes("and all is well.")
        assert [len(t.client.sound(g)) for g in (1, 2, 3)] == [whole] * 3


@virtual_time
async def test_interrupting_two_chained_replies_cuts_each_to_its_own_share() -> None:
    llm = NotingLLM(reply=SHORT)
    async with talk(fakes(llm=llm)) as t:
        await t.ask("One.")
        await t.client.next(say.ReplyEnded)
        await t.ask("Two.")
        await t.client.next(say.AudioSpoken, 22)  # the first sound of the second reply
        first, second = t.client.all(say.ReplyStarted)
        await t.speak(300)
        await t.client.next(say.ReplyEnded, 2)
        assert [generation for _, generation in t.client.purged] == [1, 2]
        heard_ms = t.client.purged[0][0] - t.client.at_ms(say.AudioSpoken)
        heard = SHORT[: int(heard_ms / MS_PER_CHARACTER)].rsplit(" ", 1)[0]
        assert len(heard) > len("It is")
        assert (await t.item(first.reply.item_id)).text.strip() == heard
        assert (await t.item(second.reply.item_id)).text == ""


@virtual_time
async def test_a_client_that_does_not_keep_up_gets_no_more_sound() -> None:
    async with talk() as t:
        await t.turn()
        await t.client.next(say.AudioSpoken)
        t.client.congested = True
        await asyncio.sleep(0.1)
        held = t.client.sound()
        await asyncio.sleep(5)
        assert t.client.sound() == held
        t.client.congested = False
        assert (await t.client.next(say.ReplyEnded)).outcome == "completed"
        assert len(t.client.sound()) > len(held)


@virtual_time
async def test_the_voice_waits_when_enough_is_queued_and_the_model_does_not() -> None:
    reply = " ".join(f"This is sentence number {n} of a rather long reply." for n in range(60))
    llm, tts = NotingLLM(reply=reply, tokens_per_s=500), FakeTTS(rtf=0.01)
    async with talk(fakes(llm=llm, tts=tts)) as t:
        await t.ask("Tell me everything.")
        await t.client.next(say.AudioSpoken)
        await asyncio.sleep(2)
        assert llm.live_streams == 0  # written to its end
        assert tts.live_streams == 1  # waits inside a sentence
        await t.client.next(say.ReplyEnded)
        assert t.client.words() == reply


@virtual_time
async def test_a_huge_append_lets_others_talk() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with talk(detection="server_vad") as t:
        task = asyncio.create_task(others())
        seconds = 60
        await t.session.submit(say.AppendAudio(SILENCE * (seconds * 1000 // PIECE_MS)))
        await t.session.submit(say.ClearAudio())
        await t.client.next(say.AudioCleared)
        task.cancel()
        assert turns >= seconds * 1000 / 32 / 8


@virtual_time
async def test_audio_in_any_cut_is_the_same_conversation() -> None:
    recording = VOICE * 30 + SILENCE * 60
    kinds = []
    for size in (len(recording), 961, 4096):
        async with talk() as t:
            for at in range(0, len(recording), size):
                await t.session.submit(say.AppendAudio(recording[at : at + size]))
            await t.client.next(say.ReplyEnded)
            stopped = t.client.all(say.SpeechStopped)
            assert [s.audio_end_ms for s in stopped] == [608]
            kinds.append([kind for kind in t.client.kinds() if kind != "TranscriptDelta"])
    assert kinds[0] == kinds[1] == kinds[2]


# --- latency -----------------------------------------------------------------


@virtual_time
async def test_where_the_time_of_a_turn_went() -> None:
    async with talk(reports_latency=True) as t:
        await t.turn()
        measured = await t.client.next(say.LatencyMeasured)
        assert measured.spans_ms == {
            "endpoint": 512,  # 500 of silence, known at the next piece of 20
            "asr": 100,
            "llm_first_token": 150,
            "llm_first_clause": 240,
            "tts_first_audio": 100,
            "total": 1102,
        }


@virtual_time
async def test_a_committed_turn_is_measured_from_the_commit() -> None:
    async with talk(detection="none", reports_latency=True) as t:
        for turn in (1, 2):
            await t.speak(1000)
            await t.session.submit(say.CommitAudio())
            await t.create_reply()
            measured = await t.client.next(say.LatencyMeasured, turn)
            assert measured.spans_ms == {
                "endpoint": 0,
                "asr": 100,
                "llm_first_token": 150,
                "llm_first_clause": 240,
                "tts_first_audio": 100,
                "total": 590,
            }
            await t.client.next(say.ReplyEnded, turn)


@virtual_time
async def test_a_typed_turn_is_not_measured_from_a_noise_before_it() -> None:
    asr = FakeASR(transcript="")
    async with talk(fakes(asr=asr), reports_latency=True) as t:
        await t.turn()  # a noise: no words
        await t.rest(5000)
        await t.ask("Hello.")
        measured = await t.client.next(say.LatencyMeasured)
        assert set(measured.spans_ms) == {"llm_first_token", "llm_first_clause", "tts_first_audio"}


@virtual_time
async def test_a_fault_of_ours_does_not_end_the_conversation() -> None:
    async with talk() as t:
        # Not a command at all: stands for any exception in the session's own code.
        await t.session.submit(object())  # type: ignore[arg-type]
        refused = await t.client.next(say.Refused)
        assert refused.kind == "server_error"
        assert refused.failure == Failure(
            "server_error",
            "The server failed at this event; the session goes on, please try again.",
        )
        await t.turn()
        assert (await t.client.next(say.ReplyEnded)).outcome == "completed"
