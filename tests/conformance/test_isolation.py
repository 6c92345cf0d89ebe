"""Callers at the same time on real engines: to each their own words and their own voice."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from conformance.driver import HEARD, REPLY, TRANSCRIPTION, caller, clip, in_order, silence


@dataclass(frozen=True, slots=True)
class Person:
    """Who calls, with what microphone, and what they want to hear."""

    says: str
    clip: str
    microphone_hz: int
    answer: str
    voice: str


PEOPLE = (
    Person("what time is it", "what_time_is_it_slt", 16_000, "Alpha is the first of all.", "en-us"),
    Person("can you hear me", "can_you_hear_me_rms", 24_000, "Bravo comes after that.", "de"),
    Person("what can you do", "what_can_you_do_slt", 48_000, "Charlie ends the row.", "vi"),
)
SAME = "This is what my voice is like."
"""Said in all voices, so that only the voice differs."""

Spectrum = npt.NDArray[np.float64]


async def call(url: str, person: Person) -> tuple[str, str, bytes, set[str]]:
    """One voice turn: what was heard, what was answered, its sound, and every id seen."""
    async with caller(url) as one:
        await one.configure(
            instructions=f'Reply only with "{person.answer}"',
            audio={
                "input": {"transcription": {"model": "whisper-1"}},
                "output": {"voice": person.voice},
            },
        )
        mark = len(one.events)
        pcm = silence(300) + clip(person.clip, person.microphone_hz) + silence(900)
        await one.hear(pcm)
        response = await one.done()
        in_order(one.since(mark), *HEARD, *REPLY)
        assert response["status"] == "completed"
        assert response["audio"]["output"]["voice"] == person.voice
        (heard,) = one.all(f"{TRANSCRIPTION}completed")
        said = response["output"][0]["content"][0]["transcript"]
        deltas = "".join(e["delta"] for e in one.all("response.output_audio_transcript.delta"))
        assert deltas == said
        ids = {event[key] for event in one.events for key in ("item_id", "response_id")
               if key in event}  # fmt: skip
        return heard["transcript"], said, one.audio(response["id"]), ids


async def speak(url: str, person: Person) -> bytes:
    """The sound of `SAME` in the voice of this person."""
    async with caller(url) as one:
        await one.configure(
            instructions=f'Reply only with "{SAME}"', audio={"output": {"voice": person.voice}}
        )
        await one.say("Speak.")
        return one.audio((await one.reply())["id"])


def spectrum(pcm: bytes) -> Spectrum:
    """Mean log power in 128 bands: what a voice sounds like, whenever it says it."""
    sound = np.frombuffer(pcm, "<i2").astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(sound, 1024)[::256] * np.hanning(1024)
    power = np.abs(np.fft.rfft(frames, axis=1)[:, :512]) ** 2
    loud = power.sum(axis=1) > power.sum(axis=1).max() / 1000
    banded = power[loud].reshape(loud.sum(), 128, 4).sum(axis=2)
    mean: Spectrum = np.log10(banded + 1).mean(axis=0)
    return mean


def distance(one: Spectrum, other: Spectrum) -> float:
    return float(np.sqrt(np.mean((one - other) ** 2)))


async def test_each_caller_is_heard_and_answered_alone(embedded: str) -> None:
    async with asyncio.TaskGroup() as calls:
        tasks = [calls.create_task(call(embedded, who)) for who in PEOPLE]
    results = [task.result() for task in tasks]
    for person, (heard, said, sound, _) in zip(PEOPLE, results, strict=True):
        assert heard == person.says
        assert said == person.answer
        assert len(sound) / 48 > 500
    ids = [ids for *_, ids in results]
    assert len(set().union(*ids)) == sum(map(len, ids))  # none was seen by two


async def test_each_caller_hears_their_own_voice(embedded: str) -> None:
    alone = [spectrum(await speak(embedded, who)) for who in PEOPLE]
    async with asyncio.TaskGroup() as calls:
        tasks = [calls.create_task(speak(embedded, who)) for who in PEOPLE]
    together = [spectrum(task.result()) for task in tasks]
    for own, voice in enumerate(together):
        distances = [distance(voice, other) for other in alone]
        closest = distances.pop(own)
        assert closest < min(distances) / 2  # in fact it is a tenth


@pytest.mark.parametrize("microphone_hz", [16_000, 24_000, 48_000])
async def test_a_microphone_of_any_rate_is_understood(embedded: str, microphone_hz: int) -> None:
    person = Person("can you hear me", "can_you_hear_me_slt", microphone_hz, "Yes.", "en-gb")
    heard, said, _, _ = await call(embedded, person)
    assert (heard, said) == (person.says, person.answer)
