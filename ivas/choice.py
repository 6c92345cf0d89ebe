"""Which engine serves: the best of its kind that is ready, asked anew each time.

A kind has candidates, the best first. One that was named outright has no rival. With
`auto`, whatever becomes ready later serves from the next utterance or reply on, and
one that fails says so in its `status`, so that the next best serves at once. Nothing
is ever swapped under a reply in progress: who has an engine in hand keeps it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from .engines import ASR, LLM, TTS, VAD, Engine
from .errors import EngineError

log = logging.getLogger(__name__)

E = TypeVar("E", bound=Engine)

DOUBT_S = 60.0
"""How long one that did not answer in time is passed over."""
PROBE_EVERY_S = 5.0
"""How often an engine that is not ready is asked to start again."""


BROKEN = frozenset({"device_unavailable", "model_broken", "package_broken"})
"""Codes of engines that are there but cannot work."""


@dataclass(frozen=True, slots=True)
class Change:
    """Another engine serves from now on; `reason` is one sentence for people."""

    kind: str
    engine: str
    before: str
    reason: str


class Choice(Generic[E]):
    """The candidates of one kind, the best first; never empty."""

    def __init__(self, kind: str, candidates: Sequence[E]) -> None:
        self.kind = kind
        self.candidates = tuple(candidates)
        self.on_change: Callable[[Change], None] = lambda change: None
        self._last: E | None = None
        self._complained: set[str] = set()
        self._doubted: dict[str, float] = {}  # until when, on the monotonic clock
        # Why each does not serve; at first because nobody has asked it yet.
        self._why = {c.name: f"{c.name} is being tried; look again soon." for c in candidates}

    @property
    def serving(self) -> E:
        """The best that is ready and not in doubt; the last one if none is."""
        best = next((c for c in self.candidates if self._can_serve(c)), self.candidates[-1])
        last, self._last = self._last, best
        if last is not None and last is not best:
            self.on_change(Change(self.kind, best.name, last.name, self._reason(best, last)))
        return best

    def _can_serve(self, candidate: E) -> bool:
        return candidate.status().ready and time.monotonic() >= self._doubted.get(
            candidate.name, 0.0
        )

    def doubt(self, candidate: E) -> None:
        """It says that it is ready, and did not answer: the others serve for a while."""
        if candidate in self.candidates[:-1]:
            self._doubted[candidate.name] = time.monotonic() + DOUBT_S

    def _reason(self, best: E, last: E) -> str:
        if self.candidates.index(best) < self.candidates.index(last):
            return f"{best.name} is ready and takes over from {last.name}."
        why = last.status().reason.rstrip(".") or "it did not answer in time"
        return f"{best.name} takes over, because {last.name} cannot serve: {why}."

    async def start(self) -> None:
        """Start the surest candidate, the last; the others only if it cannot.

        `probe` starts what is better: nobody is kept waiting for it.
        Raises EngineError if none is ready then.
        """
        try:
            await self._try(self.candidates[-1])
        except EngineError:
            for candidate in reversed(self.candidates[:-1]):
                with suppress(EngineError):
                    await self._try(candidate)
                    return
            raise

    async def probe(self) -> None:
        """Ask each that would be better than what serves to start, until one can; what
        serves itself too, should it not be ready: something may have changed."""
        for candidate in self.candidates:
            if candidate.status().ready:
                break
            try:
                await self._try(candidate)
                break
            except EngineError as error:
                self._complain(error)
            except Exception:
                log.exception("the engine %s failed to start", candidate.name)
        _ = self.serving  # tells of a change although nobody asks

    def _complain(self, error: EngineError) -> None:
        """What is merely absent is nobody's fault; what is there and broken is said once."""
        if error.code in BROKEN and str(error) not in self._complained:
            self._complained.add(str(error))
            log.warning("%s", error)

    async def _try(self, candidate: E) -> None:
        try:
            await candidate.start()
        except EngineError as error:
            self._why[candidate.name] = str(error)
            raise
        self._why.pop(candidate.name, None)

    @property
    def missing(self) -> dict[str, str]:
        """What would be better than what serves, and why it does not: name -> sentence."""
        better = self.candidates[: self.candidates.index(self.serving)]
        return {c.name: self._why.get(c.name, c.status().reason) for c in better}


class Engines:
    """What serves now. A session asks anew for every utterance and every reply."""

    def __init__(
        self,
        *,
        vad: VAD | Choice[VAD],
        asr: ASR | Choice[ASR],
        llm: LLM | Choice[LLM],
        tts: TTS | Choice[TTS],
    ) -> None:
        self._vad = vad if isinstance(vad, Choice) else Choice[VAD]("vad", [vad])
        self._asr = asr if isinstance(asr, Choice) else Choice[ASR]("asr", [asr])
        self._llm = llm if isinstance(llm, Choice) else Choice[LLM]("llm", [llm])
        self._tts = tts if isinstance(tts, Choice) else Choice[TTS]("tts", [tts])
        self.listeners: set[Callable[[Change], None]] = set()
        """Told of every change."""
        for choice in self.choices:
            choice.on_change = self._tell

    def _tell(self, change: Change) -> None:
        log.debug("%s", change.reason)  # the terminal says it
        for listener in list(self.listeners):
            try:
                listener(change)
            except Exception:  # whoever asked for an engine has no part in it
                log.exception("a change of engines could not be told")

    @property
    def vad(self) -> VAD:
        return self._vad.serving

    @property
    def asr(self) -> ASR:
        return self._asr.serving

    @property
    def llm(self) -> LLM:
        return self._llm.serving

    @property
    def tts(self) -> TTS:
        return self._tts.serving

    def doubt(self, engine: Engine) -> None:
        """An engine did not answer in time: another of its kind serves for a while."""
        for choice in self.choices:
            if engine in choice.candidates:
                choice.doubt(engine)

    @property
    def choices(self) -> tuple[Choice[Engine], ...]:
        """The four kinds, in the order of the cascade."""
        return cast("tuple[Choice[Engine], ...]", (self._vad, self._asr, self._llm, self._tts))

    def by_kind(self) -> dict[str, Engine]:
        """What serves now, under the names the settings have for the kinds."""
        return {choice.kind: choice.serving for choice in self.choices}

    def __iter__(self) -> Iterator[Engine]:
        """Every candidate of every kind."""
        return (engine for choice in self.choices for engine in choice.candidates)


async def improve(engines: Engines, *, every_s: float = PROBE_EVERY_S) -> None:
    """Probe for better engines until cancelled.

    Each kind by itself: nobody waits for an Ollama because a voice is being loaded.
    """

    async def look(choice: Choice[Engine]) -> None:
        while True:
            await choice.probe()
            await asyncio.sleep(every_s)

    await asyncio.gather(*map(look, engines.choices))
