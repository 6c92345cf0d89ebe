"""Egress: every sample once and in order, never too far ahead, and nothing after a flush."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual_time import run, virtual_time

from ivas.playout import BYTES_PER_MS, CHUNK_MS, CONGESTION_RETRY_MS, Playout

LEAD_MS = 300


@dataclass
class Speaker:
    """An outlet that notes what came when."""

    pieces: list[tuple[float, str | bytes]] = field(default_factory=list)
    congested: bool = False
    drains: int = 0

    def words(self, text: str) -> None:
        self.pieces.append((now_ms(), text))

    def sound(self, pcm: bytes) -> None:
        self.pieces.append((now_ms(), pcm))

    def drained(self) -> None:
        self.drains += 1

    @property
    def pcm(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces if isinstance(piece, bytes))


def now_ms() -> float:
    return asyncio.get_running_loop().time() * 1000


def playout(
    speaker: Speaker, *, capacity_ms: float = 20_000, open_gate: bool = True, at_ms: float = 0
) -> Playout:
    made = Playout(
        speaker, now_ms=now_ms, lead_ms=LEAD_MS, capacity_ms=capacity_ms, starts_at_ms=at_ms
    )
    if open_gate:
        made.open_gate()
    return made


def sound(ms: float, seed: int = 0) -> bytes:
    samples = round(ms * BYTES_PER_MS / 2)
    return np.random.default_rng(seed).integers(-20_000, 20_000, samples, "<i2").tobytes()


@virtual_time
async def test_the_lead_leaves_at_once_and_the_rest_in_real_time() -> None:
    speaker = Speaker()
    p = playout(speaker)
    p.put_sound(sound(1000))
    assert len(speaker.pcm) == (LEAD_MS + CHUNK_MS) * BYTES_PER_MS
    await asyncio.sleep(0.35)
    assert len(speaker.pcm) == (LEAD_MS + 4 * CHUNK_MS) * BYTES_PER_MS
    assert p.heard_ms() == pytest.approx(350)
    p.finish()
    assert speaker.drains == 0
    await asyncio.sleep(0.3)
    assert speaker.drains == 1
    assert speaker.pcm == sound(1000)


@virtual_time
async def test_after_a_stall_it_catches_up() -> None:
    speaker = Speaker()
    p = playout(speaker)
    p.put_sound(sound(100))
    await asyncio.sleep(1)  # the speaker ran dry
    assert p.heard_ms() == 100
    p.put_sound(sound(1000))
    assert len(speaker.pcm) == (100 + LEAD_MS + CHUNK_MS) * BYTES_PER_MS
    assert p.heard_ms() == 100


@virtual_time
async def test_words_leave_just_ahead_of_their_sound() -> None:
    speaker = Speaker()
    p = playout(speaker)
    p.put_words("One.")
    p.put_sound(sound(600))
    p.put_words(" Two.")
    p.put_sound(sound(600))
    p.put_words(" Three.")
    p.finish()
    await asyncio.sleep(2)
    at = {piece: at for at, piece in speaker.pieces if isinstance(piece, str)}
    kinds = "".join("w" if isinstance(piece, str) else "s" for _, piece in speaker.pieces)
    assert kinds == "w" + "s" * 6 + "w" + "s" * 6 + "w"
    assert at == {"One.": 0, " Two.": pytest.approx(300), " Three.": pytest.approx(900)}
    assert speaker.drains == 1


@virtual_time
async def test_the_first_sound_is_never_held_back() -> None:
    speaker = Speaker(congested=True)
    p = playout(speaker, at_ms=2_000)  # the reply before it still sounds
    p.put_sound(sound(50))
    assert len(speaker.pcm) == 50 * BYTES_PER_MS
    assert p.audible_until_ms == 2_050
    p.put_sound(sound(50, 1))
    await asyncio.sleep(2.02)
    assert len(speaker.pcm) == 50 * BYTES_PER_MS
    assert p.heard_ms() == pytest.approx(20)  # of its own, not of what came before
    speaker.congested = False
    await asyncio.sleep(CONGESTION_RETRY_MS / 1000)
    assert speaker.pcm == sound(50) + sound(50, 1)


@virtual_time
async def test_behind_the_gate_nothing_leaves() -> None:
    speaker = Speaker()
    p = playout(speaker, open_gate=False)
    p.put_words("One.")
    p.put_sound(sound(100))
    p.finish()
    await asyncio.sleep(1)
    assert (speaker.pieces, speaker.drains, p.heard_ms()) == ([], 0, 0)
    p.open_gate()
    assert (speaker.pcm, speaker.drains) == (sound(100), 1)


@virtual_time
async def test_backpressure() -> None:
    speaker = Speaker()
    p = playout(speaker, capacity_ms=1000)
    p.put_sound(sound(1400))  # 400 leave at once
    asking = asyncio.create_task(p.room())
    await asyncio.sleep(0)
    assert not asking.done()
    await asyncio.sleep(0.1)
    assert asking.done()
    p.put_sound(sound(500))
    p.flush()
    await p.room()  # whoever waits is let go


@virtual_time
async def test_gain() -> None:
    speaker = Speaker()
    p = playout(speaker)
    p.put_sound(sound(100))
    p.gain = 0.25
    p.put_sound(sound(100, 1))
    p.gain = 1.0
    p.put_sound(sound(100, 2))
    full, soft, again = (piece for _, piece in speaker.pieces)
    assert full == sound(100)  # bit by bit
    assert again == sound(100, 2)
    loud = np.frombuffer(sound(100, 1), "<i2").astype(float)
    assert np.abs(np.frombuffer(soft, "<i2") - loud / 4).max() <= 0.5


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 700)),
        st.tuples(st.just("wait"), st.integers(0, 900)),
        st.sampled_from([(verb, 0) for verb in ("pause", "resume", "congested", "free", "open")]),
    ),
    max_size=30,
)


@given(steps, st.booleans())
def test_each_sample_leaves_once_in_order_and_in_time(
    steps: list[tuple[str, int]], flushed: bool
) -> None:
    async def main() -> None:
        speaker = Speaker()
        p = playout(speaker, open_gate=False)
        put = b""
        for number, (verb, ms) in enumerate(steps):
            match verb:
                case "put":
                    put += sound(ms, number)
                    p.put_words(f"{number} ")
                    p.put_sound(sound(ms, number))
                case "wait":
                    await asyncio.sleep(ms / 1000)
                case "pause":
                    p.pause()
                case "resume":
                    p.resume()
                case "congested" | "free":
                    speaker.congested = verb == "congested"
                case _:
                    p.open_gate()
            assert put.startswith(speaker.pcm)
            assert 0 <= p.heard_ms() <= p.sent_ms == pytest.approx(len(speaker.pcm) / BYTES_PER_MS)
        if flushed:
            before = list(speaker.pieces)
            heard_ms = p.heard_ms()
            assert p.flush() == heard_ms
            p.put_words("late")
            p.put_sound(sound(100))
        p.finish()
        speaker.congested = False
        p.open_gate()
        p.resume()
        await asyncio.sleep(60)
        if flushed:
            assert speaker.pieces == before
            assert speaker.drains == 0
        else:
            assert speaker.pcm == put
            assert speaker.drains == 1
        free_ms = 0.0
        for at_ms, piece in speaker.pieces:
            if isinstance(piece, bytes):
                assert free_ms - at_ms <= LEAD_MS + 0.001
                assert len(piece) <= CHUNK_MS * BYTES_PER_MS
                free_ms = max(free_ms, at_ms) + len(piece) / BYTES_PER_MS

    run(main())
