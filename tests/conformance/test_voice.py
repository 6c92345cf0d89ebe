"""Voice turns in every format, with every way to end a turn: what is heard, what is said.

The words come from a stand-in, the sound is real: a recorded question, found by the real
VAD, arrives at the ASR as it was spoken, and the reply sounds as the TTS made it.
"""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest
from conformance.driver import (
    CLIPS,
    COMMITTED,
    HEARD,
    REPLY,
    TRANSCRIPTION,
    Caller,
    caller,
    clip,
    in_order,
    silence,
)
from conformance.servers import Listener, Sound, serving

from ivas.audio.pcm import to_samples
from ivas.audio.resample import resample_pcm
from ivas.audio.wav import read_wav
from ivas.engines.fake import FakeLLM
from ivas.engines.vad.silero import SileroVAD

QUESTION = "what_time_is_it_slt"
WORDS = "what time is it"
RATES_HZ = {"audio/pcm": 24_000, "audio/pcmu": 8_000, "audio/pcma": 8_000}
CODECS = {"audio/pcmu": "pcm_mulaw", "audio/pcma": "pcm_alaw"}
"""FFmpeg's, which share no code with the server's."""
DETECTIONS: dict[str, Any] = {
    "server_vad": {"type": "server_vad", "silence_duration_ms": 500},
    "semantic_vad": {"type": "semantic_vad", "eagerness": "high"},
    "push_to_talk": None,
}


def encoded(pcm: bytes, kind: str) -> bytes:
    """PCM16 at 24 kHz as a client sends it in this format."""
    if kind == "audio/pcm":
        return pcm
    narrow = np.frombuffer(resample_pcm(to_samples(pcm), 24_000, 8_000), "<i2")
    codec = av.CodecContext.create(CODECS[kind], "w")
    codec.sample_rate, codec.layout, codec.format = 8_000, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(narrow.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = 8_000
    return b"".join(bytes(packet) for packet in codec.encode(frame))


def decoded(sound: bytes, kind: str) -> Sound:
    """What the client hears, -1 to 1, at the rate of the format."""
    if kind == "audio/pcm":
        return to_samples(sound).astype(np.float64)
    codec = av.CodecContext.create(CODECS[kind], "r")
    codec.sample_rate, codec.layout = 8_000, "mono"
    frames = codec.decode(av.Packet(sound))
    return np.concatenate([frame.to_ndarray().ravel() for frame in frames]) / 32768


def loudest_hz(sound: Sound, rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(spectrum.argmax() * rate_hz / len(sound))


async def ask(one: Caller, kind: str, detection: str) -> dict[str, Any]:
    """The recorded question, and the reply to it."""
    pcm = silence(400) + clip(QUESTION) + silence(800)
    frame = 160 if kind in CODECS else 960  # 20 ms
    await one.hear(encoded(pcm, kind), step=frame)
    if detection == "push_to_talk":
        await one.connection.input_audio_buffer.commit()
        await one.connection.response.create()
    return await one.done()


@pytest.mark.parametrize("detection", DETECTIONS)
@pytest.mark.parametrize("kind", RATES_HZ)
async def test_a_voice_turn_in_every_format(kind: str, detection: str) -> None:
    listener = Listener(WORDS)
    async with serving(vad=SileroVAD(), asr=listener) as url, caller(url) as one:
        used = {"type": kind} | ({"rate": 24_000} if kind == "audio/pcm" else {})
        session = await one.configure(
            audio={
                "input": {
                    "format": used,
                    "transcription": {"model": "whisper-1"},
                    "turn_detection": DETECTIONS[detection],
                },
                "output": {"format": used, "voice": "fake-middle"},
            }
        )
        assert session["audio"]["input"]["format"] == session["audio"]["output"]["format"] == used
        mark = len(one.events)
        response = await ask(one, kind, detection)
        heard = COMMITTED if detection == "push_to_talk" else HEARD
        in_order(one.since(mark), *heard, *REPLY)

        assert response["status"] == "completed"
        assert response["audio"]["output"]["format"] == used
        (completed,) = one.all(f"{TRANSCRIPTION}completed")
        assert completed["transcript"] == WORDS
        source = read_wav(CLIPS / f"{QUESTION}.wav", 16_000)
        assert listener.likeness(source) > 0.95

        sound = decoded(one.audio(response["id"]), kind)
        assert loudest_hz(sound, RATES_HZ[kind]) == pytest.approx(600, abs=5)
        assert np.sqrt(np.mean(sound**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.1)
        # The filter before G.711 is 1.4 ms late; what it still holds at the end comes too.
        seconds = len("One two three.") * 0.06 + (0.0014 if kind in CODECS else 0)
        assert len(sound) / RATES_HZ[kind] == pytest.approx(seconds, abs=0.0005)


async def test_each_way_has_a_format_of_its_own() -> None:
    """And one may change between two turns."""
    listener = Listener(WORDS)
    async with serving(vad=SileroVAD(), asr=listener) as url, caller(url) as one:
        await one.configure(audio={"input": {"format": {"type": "audio/pcma"}}})
        response = await ask(one, "audio/pcma", "server_vad")
        first = decoded(one.audio(response["id"]), "audio/pcm")
        assert loudest_hz(first, 24_000) == pytest.approx(300, abs=5)
        await one.configure(
            audio={
                "input": {"format": {"type": "audio/pcm", "rate": 24_000}},
                "output": {"format": {"type": "audio/pcmu"}},
            }
        )
        await one.connection.input_audio_buffer.clear()
        response = await ask(one, "audio/pcm", "server_vad")
        again = decoded(one.audio(response["id"]), "audio/pcmu")
        assert loudest_hz(again, 8_000) == pytest.approx(300, abs=5)
        assert len(first) / 24_000 == pytest.approx(len(again) / 8_000, abs=0.02)
        assert len(listener.sounds) == 2


async def test_a_response_may_have_a_format_of_its_own() -> None:
    async with serving() as url, caller(url) as one:
        await one.say("Hello.")
        response = await one.reply(audio={"output": {"format": {"type": "audio/pcmu"}}})
        assert response["audio"]["output"]["format"] == {"type": "audio/pcmu"}
        sound = decoded(one.audio(response["id"]), "audio/pcmu")
        assert loudest_hz(sound, 8_000) == pytest.approx(300, abs=5)


@pytest.mark.parametrize("kind", RATES_HZ)
async def test_an_interruption_in_every_format(kind: str) -> None:
    """What is cut off is counted in the time of the speaker, whatever carries it."""
    words = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen."
    llm = FakeLLM(first_ms=0, tokens_per_s=10_000, reply=words)
    async with serving(vad=SileroVAD(), asr=Listener(WORDS), llm=llm) as url, caller(url) as one:
        used = {"type": kind} | ({"rate": 24_000} if kind == "audio/pcm" else {})
        await one.configure(audio={"input": {"format": used}, "output": {"format": used}})
        await one.say("Count.")
        await one.connection.response.create()
        begun = await one.until("response.output_item.added")
        await one.until("response.output_audio.delta")
        frame = 160 if kind in CODECS else 960
        await one.hear(encoded(silence(400) + clip(QUESTION), kind), step=frame)
        await one.until("input_audio_buffer.speech_started")
        response = await one.done(begun["response_id"])
        assert response["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
        item_id = response["output"][0]["id"]
        await one.connection.conversation.item.truncate(
            item_id=item_id, content_index=0, audio_end_ms=900
        )
        await one.until("conversation.item.truncated")
        heard = (await one.retrieve(item_id))["content"][0]["transcript"]
        assert heard.strip() == "One two three"  # 60 ms a character
