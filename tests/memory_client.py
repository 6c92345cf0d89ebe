"""A session without a server: an in-memory client, a microphone and the four fakes.

`talk()` runs one session on the running loop, made for virtual time (`virtual_time.py`):
what a client is told is kept with the moment it was told, and at the end nothing may
be left behind: no task, no open utterance, no live stream, no exception unheard.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from ivas import announcements as say
from ivas.announcements import Announcement, SessionSettings
from ivas.choice import Engines
from ivas.conversation.events import ReplyOptions, TurnSettings
from ivas.conversation.history import Item, Part
from ivas.engines import Message, Token, Tool, ToolCall
from ivas.engines.fake import FakeASR, FakeLLM, FakeTTS, FakeVAD
from ivas.reply import ReplyLimits
from ivas.session import Session
from ivas.session_limits import SessionLimits

A = TypeVar("A")

RATE_HZ = 24_000
PIECE_MS = 20
"""What a microphone sends at once."""
PIECE_BYTES = RATE_HZ * PIECE_MS // 1000 * 2

VOICE = np.round(
    np.sin(2 * math.pi * 400 * np.arange(PIECE_BYTES // 2) / RATE_HZ) * 10_000
).astype("<i2").tobytes()  # fmt: skip
"""20 ms of a tone with whole periods: speech to the fake VAD."""
SILENCE = bytes(PIECE_BYTES)


class MemoryClient:
    """Keeps what it is told, with the moment in milliseconds."""

    def __init__(self, now_ms: Callable[[], float]) -> None:
        self.told: list[tuple[float, Announcement]] = []
        self.purged: list[tuple[float, int]] = []
        self.congested = False
        self._now_ms = now_ms
        self._news = asyncio.Event()
        self.unsent_ms = 0.0
        """What a purge finds still waiting here."""

    def send(self, announcement: Announcement) -> None:
        # Items change after they were announced; what was told does not.
        self.told.append((round(self._now_ms(), 3), deepcopy(announcement)))
        self._news.set()

    def purge(self, generation: int) -> float:
        self.purged.append((round(self._now_ms(), 3), generation))
        return self.unsent_ms

    def all(self, kind: type[A]) -> list[A]:
        """Everything of one kind, in order."""
        return [told for _, told in self.told if isinstance(told, kind)]

    def at_ms(self, kind: type[Any], number: int = 0) -> float:
        """When the `number`th of a kind was told."""
        return [at for at, told in self.told if isinstance(told, kind)][number]

    async def next(self, kind: type[A], count: int = 1) -> A:
        """Wait until `count` of a kind have been told; returns the last of them."""
        while len(self.all(kind)) < count:
            self._news.clear()
            await self._news.wait()
        return self.all(kind)[count - 1]

    def kinds(self) -> list[str]:
        """The names of what was told, runs of sound and words shortened to one each."""
        names: list[str] = []
        for _, told in self.told:
            name = type(told).__name__
            if not names or names[-1] != name:
                names.append(name)
        return names

    def sound(self, generation: int | None = None) -> bytes:
        """All sound told, of one generation or of all."""
        return b"".join(
            spoken.pcm
            for spoken in self.all(say.AudioSpoken)
            if generation in (None, spoken.reply.generation)
        )

    def words(self) -> str:
        return "".join(spoken.delta for spoken in self.all(say.WordsSpoken))


@dataclass
class Talk:
    """One session that runs, and the hands that work it."""

    session: Session
    client: MemoryClient
    engines: Engines
    running: asyncio.Task[None]
    settings: SessionSettings = field(default_factory=SessionSettings)

    def swap(self, **engines: Any) -> None:
        """Other engines serve from now on."""
        for kind, engine in engines.items():
            choice = next(c for c in self.engines.choices if c.kind == kind)
            choice.candidates, choice._last = (engine,), None

    async def speak(self, ms: float) -> None:
        """The user makes a sound, in real time."""
        await self._microphone(VOICE, ms)

    async def rest(self, ms: float) -> None:
        """The microphone hears nothing, in real time."""
        await self._microphone(SILENCE, ms)

    async def turn(self, ms: float = 600) -> None:
        """Something said and the silence that ends it."""
        await self.speak(ms)
        await self.rest(620)

    async def configure(self, **changes: Any) -> None:
        """New settings; those of `TurnSettings` may be among them."""
        turn_names = TurnSettings.__dataclass_fields__
        turn = {name: changes.pop(name) for name in list(changes) if name in turn_names}
        changes["turn"] = replace(self.settings.turn, **turn)
        self.settings = replace(self.settings, **changes)
        await self.session.submit(say.Configure(self.settings, {}))

    async def ask(self, text: str, item_id: str = "") -> None:
        """A typed turn."""
        item_id = item_id or f"typed_{len(self.client.all(say.ItemAdded))}"
        await self.session.submit(say.AddItem(Item(item_id, "user", [Part("input_text", text)])))
        await self.session.submit(say.CreateReply())

    async def create_reply(self, **options: Any) -> None:
        await self.session.submit(say.CreateReply(ReplyOptions(**options)))

    async def item(self, item_id: str) -> Item:
        """An item as it is now in the history."""
        await self.session.submit(say.RetrieveItem(item_id))
        return (await self.client.next(say.ItemRetrieved, self._retrieved())).item

    def _retrieved(self) -> int:
        return len(self.client.all(say.ItemRetrieved)) + 1

    async def _microphone(self, piece: bytes, ms: float) -> None:
        for _ in range(round(ms / PIECE_MS)):
            await asyncio.sleep(PIECE_MS / 1000)
            await self.session.submit(say.AppendAudio(piece))


class NotingLLM(FakeLLM):
    """Keeps the prompts it was given."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.prompts: list[list[Message]] = []

    def stream(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        tool_choice: str = "auto",
        max_tokens: int | None = None,
    ) -> AsyncGenerator[Token | ToolCall, None]:
        self.prompts.append(list(messages))
        return super().stream(messages, tools=tools, tool_choice=tool_choice, max_tokens=max_tokens)


def fakes(
    *,
    vad: FakeVAD | None = None,
    asr: FakeASR | None = None,
    llm: FakeLLM | None = None,
    tts: FakeTTS | None = None,
) -> Engines:
    return Engines(
        vad=vad or FakeVAD(), asr=asr or FakeASR(), llm=llm or FakeLLM(), tts=tts or FakeTTS()
    )


LIMITS = SessionLimits(
    transcript_s=5.0,
    reply=ReplyLimits(first_token_s=15, token_stall_s=5, first_audio_s=5, audio_stall_s=5),
)


@asynccontextmanager
async def talk(
    engines: Engines | None = None,
    *,
    limits: SessionLimits = LIMITS,
    leave: bool = True,
    **settings: Any,
) -> AsyncIterator[Talk]:
    """A session with the fakes. `settings` are those of SessionSettings and TurnSettings.

    At the end the client goes away and nothing may be left (`leave` False: the
    session was ended inside).
    """
    loop = asyncio.get_running_loop()
    unheard: list[str] = []
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: unheard.append(str(context)))
    before = asyncio.all_tasks()
    engines = engines or fakes()

    def now_ms() -> float:
        return loop.time() * 1000

    turn_names = TurnSettings.__dataclass_fields__
    turn = TurnSettings(**{n: settings.pop(n) for n in list(settings) if n in turn_names})
    chosen = SessionSettings(turn=turn, **({"transcribe": True} | settings))
    client = MemoryClient(now_ms)
    session = Session(engines=engines, client=client, settings=chosen, limits=limits, now_ms=now_ms)
    running = asyncio.create_task(session.run())
    talking = Talk(session, client, engines, running, chosen)
    await asyncio.sleep(0)
    try:
        yield talking
    finally:
        if leave:
            assert not running.done(), "the session ended by itself"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        told = len(client.told)
        await asyncio.sleep(0)
        await asyncio.sleep(1)  # whatever is left behind shows itself
        loop.set_exception_handler(handler)
    assert asyncio.all_tasks() == before
    assert len(client.told) == told, "a session spoke after its end"
    assert getattr(engines.asr, "open_utterances", 0) == 0
    assert getattr(engines.llm, "live_streams", 0) == 0
    assert getattr(engines.tts, "live_streams", 0) == 0
    assert unheard == []
