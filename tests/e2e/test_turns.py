"""Spoken turns through Whisper, Ollama and each voice: real code, tiny models, a real socket.

Whisper and the voices run their own libraries; what is small is the model. Ollama is the
official client against a server that speaks its protocol and says what a test tells it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from conformance.driver import (
    CALL,
    HEARD,
    RATE_HZ,
    REPLY,
    TRANSCRIPTION,
    Caller,
    caller,
    clip,
    in_order,
)
from ollama_server import LLAMA, Call, Die, OllamaServer, Wait

from ivas.choice import Choice, Engines
from ivas.composition import choose_asr, choose_llm, choose_vad, make_tts
from ivas.engines.tts.xtts import XttsTTS
from ivas.settings import Settings

from .stage import Stage, changes, heard, is_sound, opt_in, question, room, said, stage, turn

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

QUESTION, WORDS = "can_you_hear_me_slt", "can you hear me"
PIECE = RATE_HZ // 10 * 2
"""Bytes of 100 ms of sound."""
WORKER = "tiny_xtts:faulty"
"""The real one, which dies in the middle of a text that asks it to."""
BROKEN = " Sorry, I lost my thread. Please ask me again."
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


@dataclass(frozen=True, slots=True)
class Cascade:
    """A server with Whisper, Ollama and a voice, and the Ollama behind it."""

    stage: Stage
    ollama: OllamaServer


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["kokoro", "piper", "xtts"])
async def cascade(request: pytest.FixtureRequest, models_dir: Path) -> AsyncIterator[Cascade]:
    how: dict[str, Any] = {"tts": {"engine": request.param}}
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "xtts":
            with suppress(FileExistsError):
                (models_dir / "xtts-v2").symlink_to(request.getfixturevalue("xtts"))
            # Its vocoder is smaller than any setting can make it.
            patch.setitem(XttsTTS.__init__.__kwdefaults__, "worker", WORKER)
            how = {"tts": {"engine": "auto", "xtts_licence_accepted": True}, "choose": as_on_a_card}
        async with AsyncExitStack() as stack:
            ollama = OllamaServer()
            await stack.enter_async_context(ollama)
            llm = {"engine": "ollama", "host": ollama.url}
            serving = stage(models_dir, asr={"engine": "whisper"}, llm=llm, **how)
            on_stage = await stack.enter_async_context(serving)
            await on_stage.probe("tts")
            assert (await on_stage.ready())["tts"] == {"engine": request.param, "ready": True}
            yield Cascade(on_stage, ollama)


def as_on_a_card(settings: Settings) -> Engines:
    """What `auto` chooses among where there is a card: there XTTS is the best voice."""
    voices = [make_tts(name, settings) for name in ("xtts", "espeak")]
    asr, llm = choose_asr(settings), choose_llm(settings)
    return Engines(vad=choose_vad(settings), asr=asr, llm=llm, tts=Choice("tts", voices))


@pytest_asyncio.fixture(loop_scope="module")
async def one(cascade: Cascade) -> AsyncIterator[Caller]:
    async with caller(cascade.stage.url) as connected:
        await opt_in(connected)
        yield connected


async def test_a_spoken_turn(cascade: Cascade, one: Caller) -> None:
    mark = len(one.events)
    response = await turn(one, QUESTION)
    in_order(one.since(mark), *HEARD, *REPLY)
    assert response["status"] == "completed"
    assert heard(one) == [WORDS]
    assert said(response) == f"You said: {WORDS}."
    assert is_sound(one.audio(response["id"]))
    asked = cascade.ollama.chats[-1]
    assert asked["model"] == LLAMA.name
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]


async def test_the_words_appear_while_they_are_spoken(one: Caller) -> None:
    """Whoever speaks goes on, saying the same again, until the words are there."""
    await one.hear(room(400))
    said_again = clip(QUESTION) * 10
    captions = ""
    for at in range(0, len(said_again), PIECE):
        await one.hear(said_again[at : at + PIECE])
        await one.settle()  # as time passes between two pieces of a microphone
        captions = "".join(event["delta"] for event in one.all(f"{TRANSCRIPTION}delta"))
        if captions == WORDS:
            break
    assert captions == WORDS
    assert not one.all("input_audio_buffer.speech_stopped")
    await one.hear(room(900))
    response = await one.done()
    assert heard(one) == [WORDS]
    (item,) = {event["item_id"] for event in one.all(f"{TRANSCRIPTION}delta")}
    assert one.all("input_audio_buffer.committed")[0]["item_id"] == item
    assert response["status"] == "completed"


async def test_speaks_before_the_last_token_has_come(cascade: Cascade, one: Caller) -> None:
    go = asyncio.Event()
    cascade.ollama.replies.append(["Of course", " I can.", " Shall", Wait(go), " I go on?"])
    await one.hear(question(QUESTION))
    await one.until("response.output_audio.delta")
    assert cascade.ollama.open_chats == 1
    go.set()
    response = await one.done()
    assert said(response) == "Of course I can. Shall I go on?"
    assert is_sound(one.audio(response["id"]))


async def test_a_function_is_called_and_its_result_spoken(cascade: Cascade, one: Caller) -> None:
    await one.configure(tools=[WEATHER])
    cascade.ollama.replies += [[Call("weather", {"city": "Paris"})], ["It is", " sunny."]]
    mark = len(one.events)
    response = await turn(one, QUESTION)
    in_order(one.since(mark), *HEARD, "response.created", *CALL, "response.done")
    (call,) = response["output"]
    assert (call["name"], json.loads(call["arguments"])) == ("weather", {"city": "Paris"})
    item: Any = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
    await one.connection.conversation.item.create(item=item)
    await one.until("conversation.item.done")
    response = await one.reply()
    assert said(response) == "It is sunny."
    assert is_sound(one.audio(response["id"]))
    called, result = cascade.ollama.chats[-1]["messages"][-2:]
    assert called["tool_calls"][0]["function"]["name"] == "weather"
    assert (result["role"], result["content"]) == ("tool", "sunny")


async def test_ollama_dies_in_the_middle_and_the_next_turn_works(
    cascade: Cascade, one: Caller
) -> None:
    cascade.ollama.replies.append(["I will", " tell you. ", "And", Die()])
    response = await turn(one, QUESTION)
    assert response["status"] == "failed"
    error = response["status_details"]["error"]
    assert error["code"] == "llm_unreachable"
    assert "broke off in the middle of its answer" in error["message"]
    assert said(response) == f"I will tell you. And{BROKEN}"
    assert is_sound(one.audio(response["id"]))
    response = await turn(one, QUESTION)
    assert (response["status"], said(response)) == ("completed", f"You said: {WORDS}.")


async def test_the_user_interrupts_and_is_answered(cascade: Cascade, one: Caller) -> None:
    never = asyncio.Event()
    story = [f"This is sentence number {number}. " for number in range(1, 9)]
    cascade.ollama.replies.append([*story, Wait(never)])
    cascade.ollama.chat_left.clear()
    await one.hear(question(QUESTION))
    await one.until("response.output_audio.delta")
    await one.hear(question("what_time_is_it_slt"))
    response = await one.done()
    assert response["status"] == "cancelled"
    assert response["status_details"]["reason"] == "turn_detected"
    async with asyncio.timeout(10):
        await cascade.ollama.chat_left.wait()  # nobody writes on for nobody
    response = await one.done()
    assert response["status"] == "completed"
    assert said(response).endswith("what time is it.")  # and before it, what was cut off unheard
    assert is_sound(one.audio(response["id"]))
    assert heard(one) == [WORDS, "what time is it"]


@pytest.mark.parametrize("cascade", ["xtts"], indirect=True, scope="module")
async def test_xtts_dies_in_the_middle_of_a_word_and_the_next_turn_works(
    cascade: Cascade, one: Caller
) -> None:
    cascade.ollama.replies.append(["Let me think. ", "please die"])
    response = await turn(one, QUESTION)
    assert response["status"] == "failed"
    error = response["status_details"]["error"]
    assert error["code"] == "engine_crashed"
    assert error["message"].startswith("xtts lost what it was saying because its worker process ")
    assert is_sound(one.audio(response["id"]))  # what came before it was heard
    response = await turn(one, QUESTION)
    assert (response["status"], said(response)) == ("completed", f"You said: {WORDS}.")
    assert is_sound(one.audio(response["id"]))
    assert changes(one) == [("tts", "espeak")]  # nobody waits until it has loaded again
    await cascade.stage.probe("tts")
    await one.until("ivas.engines")
    assert changes(one)[1:] == [("tts", "xtts")]
    response = await turn(one, QUESTION)
    assert response["status"] == "completed"
    assert is_sound(one.audio(response["id"]))
