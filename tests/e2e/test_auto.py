"""`auto` improves and falls back while one conversation goes on, on one connection.

The server starts on what every installation has. Ollama comes, goes in the middle of a reply
and comes back; Whisper and two voices arrive on the disk. Nobody reconnects.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from conformance.driver import TRANSCRIPTION, Caller, caller
from ollama_server import LLAMA, OllamaServer, Wait
from tiny_whisper import TONE, tone

from ivas.audio.resample import resample_pcm

from .stage import (
    Stage,
    changes,
    heard,
    is_sound,
    listen,
    loudest_hz,
    opt_in,
    question,
    said,
    stage,
    turn,
)

pytestmark = pytest.mark.slow

PIPER_HZ, KOKORO_HZ = 175.5, 76.4
"""The pitch of the first voice of each tiny model; espeak sounds like neither."""
BUILTIN = "It is "
BROKEN = " Sorry, I lost my thread. Please ask me again."


@asynccontextmanager
async def conversation(
    models_dir: Path, ollama: OllamaServer
) -> AsyncIterator[tuple[Stage, Caller]]:
    async with stage(models_dir, llm={"host": ollama.url}) as on_stage, caller(on_stage.url) as one:
        await opt_in(one)
        yield on_stage, one


async def test_one_conversation_while_everything_comes_and_goes(
    whisper: Path, voices: Path, tmp_path: Path
) -> None:
    async with OllamaServer() as ollama:
        await ollama.stop()  # its port is known, and nothing listens there
        async with conversation(tmp_path, ollama) as (on_stage, one):
            await _starts_on_what_is_always_there(on_stage, one)
            await _ollama_comes(on_stage, one, ollama)
            await _ollama_goes_in_the_middle_of_a_reply(on_stage, one, ollama)
            await _ollama_comes_back(on_stage, one, ollama)
            await _whisper_arrives_while_somebody_speaks(on_stage, one, whisper, tmp_path)
            await _piper_arrives_while_a_reply_sounds(on_stage, one, ollama, voices, tmp_path)
            await _kokoro_arrives(on_stage, one, voices, tmp_path)
            assert [(event["kind"], event["before"]) for event in one.all("ivas.engines")] == [
                ("llm", "builtin"),
                ("llm", "ollama"),
                ("llm", "builtin"),
                ("asr", "pocketsphinx"),
                ("tts", "espeak"),
                ("tts", "piper"),
            ]
            assert len(one.all("session.created")) == 1
            assert not one.all("error")


async def _starts_on_what_is_always_there(on_stage: Stage, one: Caller) -> None:
    for kind in ("asr", "llm", "tts"):
        await on_stage.probe(kind)
    ready = await on_stage.ready()
    assert {kind: state["engine"] for kind, state in ready.items()} == {
        "vad": "silero",
        "asr": "pocketsphinx",
        "llm": "builtin",
        "tts": "espeak",
    }
    assert "ivas models download whisper-base" in ready["asr"]["better"]["whisper"]
    assert "ollama serve" in ready["llm"]["better"]["ollama"]
    assert "ivas models download kokoro" in ready["tts"]["better"]["kokoro"]
    assert "ivas models download piper-" in ready["tts"]["better"]["piper"]
    response = await turn(one, "what_time_is_it_slt")
    assert response["status"] == "completed"
    assert said(response).startswith(BUILTIN)
    assert is_sound(one.audio(response["id"]))
    assert heard(one) == ["what time is it"]
    assert changes(one) == []
    await listen(one, response)


async def _ollama_comes(on_stage: Stage, one: Caller, ollama: OllamaServer) -> None:
    await ollama.start()
    await on_stage.probe("llm")
    told = await one.until("ivas.engines")
    assert told["reason"] == "ollama is ready and takes over from builtin."
    assert (await on_stage.ready())["llm"] == {"engine": "ollama", "ready": True}
    response = await turn(one, "what_time_is_it_slt")
    assert (response["status"], said(response)) == ("completed", "You said: what time is it.")
    # It knows what was said, and heard, before it came.
    roles = [message["role"] for message in ollama.chats[-1]["messages"]]
    assert (ollama.chats[-1]["model"], roles) == (
        LLAMA.name,
        ["system", "user", "assistant", "user"],
    )


async def _ollama_goes_in_the_middle_of_a_reply(
    on_stage: Stage, one: Caller, ollama: OllamaServer
) -> None:
    ollama.replies.append(["I will tell you", " a story. ", "Once", Wait(asyncio.Event())])
    await one.hear(question("what_time_is_it_slt"))
    await one.until("response.output_audio.delta")
    await ollama.stop()
    response = await one.done()
    assert response["status"] == "failed"
    assert response["status_details"]["error"]["code"] == "llm_unreachable"
    assert said(response) == f"I will tell you a story. Once{BROKEN}"
    assert is_sound(one.audio(response["id"]))
    response = await turn(one, "what_time_is_it_slt")
    assert response["status"] == "completed"
    assert said(response).startswith(BUILTIN)
    told = one.all("ivas.engines")[-1]
    assert (told["kind"], told["engine"], told["before"]) == ("llm", "builtin", "ollama")
    assert told["reason"].startswith("builtin takes over, because ollama cannot serve: Ollama ")
    await on_stage.probe("llm")
    missing = (await on_stage.ready())["llm"]["better"]["ollama"]
    assert f"does not answer at {ollama.url}; start it with: ollama serve" in missing


async def _ollama_comes_back(on_stage: Stage, one: Caller, ollama: OllamaServer) -> None:
    await ollama.start()
    await on_stage.probe("llm")
    assert (await one.until("ivas.engines"))["engine"] == "ollama"
    response = await turn(one, "what_time_is_it_slt")
    assert response["status"] == "completed"
    assert said(response).endswith("what time is it.")


async def _whisper_arrives_while_somebody_speaks(
    on_stage: Stage, one: Caller, whisper: Path, models_dir: Path
) -> None:
    sound = question("what_time_is_it_slt")
    await one.hear(sound[: len(sound) // 2])
    await one.until("input_audio_buffer.speech_started")
    shutil.copytree(whisper, models_dir / "whisper-base")
    await on_stage.probe("asr")
    assert (await one.until("ivas.engines"))["engine"] == "whisper"
    await one.hear(sound[len(sound) // 2 :])
    assert (await one.done())["status"] == "completed"
    assert heard(one)[-1] == "what time is it"  # whoever began to listen listens to the end
    assert (await on_stage.ready())["asr"] == {"engine": "whisper", "ready": True}
    response = await turn(one, "can_you_hear_me_slt")
    assert said(response).endswith("can you hear me.")
    # Only this Whisper hears words in a tone.
    audio = {"input": {"transcription": {"model": "whisper-1"}, "turn_detection": None}}
    echo = await one.configure(audio=audio)
    await one.hear(resample_pcm(tone(1.2), 16_000, 24_000))
    await one.connection.input_audio_buffer.commit()
    completed = await one.until(f"{TRANSCRIPTION}completed")
    assert completed["transcript"] == TONE
    assert echo["audio"]["input"]["turn_detection"] is None
    await opt_in(one)
    await one.configure(audio={"input": {"turn_detection": {"type": "server_vad"}}})


async def _piper_arrives_while_a_reply_sounds(
    on_stage: Stage, one: Caller, ollama: OllamaServer, voices: Path, models_dir: Path
) -> None:
    go = asyncio.Event()
    ollama.replies.append(["I go on", " with my voice. ", Wait(go), "Whatever comes."])
    await one.hear(question("can_you_hear_me_slt"))
    await one.until("response.output_audio.delta")
    shutil.copytree(voices / "piper-en_US-lessac-medium", models_dir / "piper-en_US-lessac-medium")
    await on_stage.probe("tts")
    assert (await one.until("ivas.engines"))["engine"] == "piper"
    go.set()
    response = await one.done()
    assert said(response) == "I go on with my voice. Whatever comes."
    assert loudest_hz(one.audio(response["id"])) != pytest.approx(PIPER_HZ, abs=2)
    response = await turn(one, "can_you_hear_me_slt")
    assert response["status"] == "completed"
    assert loudest_hz(one.audio(response["id"])) == pytest.approx(PIPER_HZ, abs=2)


async def _kokoro_arrives(on_stage: Stage, one: Caller, voices: Path, models_dir: Path) -> None:
    shutil.copytree(voices / "kokoro", models_dir / "kokoro")
    await on_stage.probe("tts")
    assert (await one.until("ivas.engines"))["engine"] == "kokoro"
    ready = await on_stage.ready()
    assert {kind: state["engine"] for kind, state in ready.items()} == {
        "vad": "silero",
        "asr": "whisper",
        "llm": "ollama",
        "tts": "kokoro",
    }
    assert not any("better" in state for state in ready.values())
    response = await turn(one, "can_you_hear_me_slt")
    assert response["status"] == "completed"
    assert loudest_hz(one.audio(response["id"])) == pytest.approx(KOKORO_HZ, abs=2)
