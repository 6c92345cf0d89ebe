"""The replies of one session: opening, starting and ending generations.

Two ways lead here. The turn controller's actions make the replies of the conversation,
one at a time. Beside them run the written replies a client asks for outside of the
conversation: they make no sound, change nobody's turn, and so never reach the
controller; their engines' own deadlines end them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, assert_never

from . import announcements as say
from .choice import Engines
from .conversation import events as ev
from .conversation.budget import estimate, trimmed
from .conversation.history import History
from .engines import Message
from .engines.voices import choose
from .generation import Generation
from .ids import new_id
from .latency import Marks
from .reply import Producer, Speech
from .session_limits import SessionLimits
from .text.notices import notices

log = logging.getLogger(__name__)

DUCKED_GAIN = 0.25
"""-12 dB: clearly lower, still there."""
MOST_BESIDE = 4
"""Written replies beside the conversation at once: what a client needs, not what it can ask."""

ReplyAction = (
    ev.StartReply
    | ev.OpenGate
    | ev.Duck
    | ev.Unduck
    | ev.Pause
    | ev.Resume
    | ev.Flush
    | ev.CancelReply
    | ev.FinishReply
)


class Replies:
    """See the module. `settings` and `marks` give what is in force when a reply opens."""

    def __init__(
        self,
        *,
        engines: Engines,
        client: say.Client,
        history: History,
        limits: SessionLimits,
        settings: Callable[[], say.SessionSettings],
        take_marks: Callable[[], Marks],
        post: Callable[[ev.Event], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        now_ms: Callable[[], float],
    ) -> None:
        self._engines = engines
        self._client = client
        self._history = history
        self._limits = limits
        self._settings = settings
        self._take_marks = take_marks
        self._post = post
        self._spawn = spawn
        self._now_ms = now_ms
        self._generations: dict[int, Generation] = {}
        self._options: dict[int, ev.ReplyOptions] = {}  # of those not yet started
        self._beside: dict[int, Generation] = {}
        self._beside_number = 0

    # --- the controller's replies --------------------------------------------

    def perform(self, action: ReplyAction) -> None:
        match action:
            case ev.StartReply(number):
                self._start(self._generations[number], self._options.pop(number))
            case ev.OpenGate(number, options):
                self._forget_old()
                generation = self._make(number, options, self._take_marks(), self._post)
                self._generations[number] = generation
                self._options[number] = options
                generation.open()
            case ev.Duck(number):
                self._generations[number].playout.gain = DUCKED_GAIN
            case ev.Unduck(number):
                self._generations[number].playout.gain = 1.0
            case ev.Pause(number):
                self._generations[number].playout.pause()
            case ev.Resume(number):
                self._generations[number].playout.resume()
            case ev.Flush(number):
                self._generations[number].flush()
            case ev.CancelReply(number, reason):
                self._end(number, reason)
            case ev.FinishReply(number, outcome):
                self._end(number, outcome)
                generation = self._generations[number]
                log.info("turn %s: %s", generation.view.id, generation.marks.spans_ms())
            case _:
                assert_never(action)

    def _end(self, number: int, outcome: ev.Outcome | ev.Failure | ev.CancelReason) -> None:
        self._options.pop(number, None)  # one that never started
        self._generations[number].end(outcome)

    def number_of(self, reply_id: str | None) -> int | None:
        """The controller's number for it; None = whichever is active, 0 = unknown."""
        if reply_id is None:
            return None
        for number, generation in self._generations.items():
            if generation.view.id == reply_id:
                return number
        return 0

    def stopped_by_client(self, item_id: str) -> list[int]:
        """The client has cut this item; returns the ended replies whose sound so stopped."""
        stopped = []
        for number, generation in self._generations.items():
            if generation.view.item_id == item_id:
                generation.heard_is_known = True
                if generation.ended:
                    generation.silence()
                    stopped.append(number)
        return stopped

    def close(self) -> None:
        """The session is over: nothing sounds any more."""
        for generation in [*self._generations.values(), *self._beside.values()]:
            generation.playout.flush()

    def _forget_old(self) -> None:
        now_ms = self._now_ms()
        for number, generation in list(self._generations.items()):
            # A second later than needed: the controller's own clock was read before this one.
            if generation.ended and generation.playout.audible_until_ms <= now_ms - 1_000:
                del self._generations[number]

    # --- beside the conversation ---------------------------------------------

    def write_beside(self, command: say.CreateReply) -> None:
        """A written reply outside of the conversation, while that goes on."""
        if len(self._beside) >= MOST_BESIDE:
            message = (
                f"{MOST_BESIDE} responses outside of the conversation are in progress; "
                "wait until one is done."
            )
            failure = ev.Failure("conversation_already_has_active_response", message)
            self._client.send(say.Refused(failure, event_id=command.event_id))
            return
        self._beside_number -= 1  # negative: never one of the controller's
        number = self._beside_number

        def post(event: ev.Event) -> None:
            match event:
                case ev.ReplySent(_, outcome):
                    loop.call_soon(self._end_beside, number, outcome)
                case ev.ReplyFailed(_, failure):
                    loop.call_soon(self._end_beside, number, failure)
                case _:
                    pass

        loop = asyncio.get_running_loop()
        generation = self._make(number, command.options, Marks(self._now_ms), post)
        self._beside[number] = generation
        generation.open()
        self._start(generation, command.options)

    def cancel_beside(self, reply_id: str | None) -> bool:
        """Whether it was one of these."""
        for number, generation in self._beside.items():
            if generation.view.id == reply_id:
                generation.flush()
                self._end_beside(number, "client_cancelled")
                return True
        return False

    def _end_beside(self, number: int, outcome: ev.Outcome | ev.Failure | ev.CancelReason) -> None:
        generation = self._beside.pop(number, None)
        if generation is not None:
            generation.end(outcome)

    # --- both ----------------------------------------------------------------

    def _make(
        self,
        number: int,
        options: ev.ReplyOptions,
        marks: Marks,
        post: Callable[[ev.Event], None],
    ) -> Generation:
        settings = self._settings()
        given = options.instructions
        limit = options.max_tokens or settings.max_tokens
        view = say.ReplyView(
            id=new_id("resp"),
            item_id=new_id("item"),
            generation=number,
            modality=reply_modality(options, settings),
            voice=options.voice or settings.voice,
            max_tokens=None if limit == "inf" else limit,
            metadata=options.metadata,
            audio_format=options.audio_format or settings.audio_format,
            in_conversation=options.in_conversation,
        )
        before = [g.playout.audible_until_ms for g in self._generations.values()]
        return Generation(
            view,
            instructions=settings.instructions if given is None else given,
            client=self._client,
            history=self._history if options.in_conversation else History(),
            marks=marks,
            post=post,
            now_ms=self._now_ms,
            lead_ms=self._limits.lead_ms,
            starts_at_ms=max(before, default=0.0),
            reports_latency=settings.reports_latency,
            speed=settings.speed,
        )

    def _start(self, generation: Generation, options: ev.ReplyOptions) -> None:
        settings, limits, view = self._settings(), self._limits, generation.view
        max_tokens = min(view.max_tokens or limits.max_tokens, limits.max_tokens)
        speech = self._speech(view.voice) if view.modality == "audio" else None
        messages = self._prompt(generation.instructions, options)
        if settings.trims:
            budget = max(limits.context_tokens - max_tokens, limits.context_tokens // 2)
            messages = trimmed(messages, budget_tokens=budget)
        generation.input_tokens = sum(estimate(message) for message in messages)
        generation.marks.mark("started")
        producer = Producer(
            llm=lambda: self._engines.llm,
            on_timeout=self._engines.doubt,
            speech=speech,
            messages=messages,
            tools=settings.tools if options.tools is None else options.tools,
            tool_choice=options.tool_choice or settings.tool_choice,
            max_tokens=max_tokens,
            playout=generation.playout,
            spoken=generation.spoken,
            limits=limits.reply,
            marks=generation.marks,
            on_progress=generation.on_progress,
        )
        generation.task = self._spawn(generation.produce(producer))

    def _speech(self, wanted: str) -> Speech:
        settings, tts = self._settings(), self._engines.tts
        language, voices = settings.spoken_language, tts.voices
        voice = choose(wanted, voices, language=language)
        spoken = language or next((v.language for v in voices if v.id == voice), None)
        return Speech(tts, voice, language, settings.speed, notices(spoken))

    def _prompt(self, instructions: str, options: ev.ReplyOptions) -> list[Message]:
        if options.context is None:
            return self._history.prompt(instructions)
        context = History()
        for entry in options.context:
            item = self._history.get(entry) if isinstance(entry, str) else entry
            if item is not None and context.get(item.id) is None:
                context.add(item)
        return context.prompt(instructions)


def reply_modality(options: ev.ReplyOptions, settings: say.SessionSettings) -> ev.Modality:
    """What kind of reply it is. Outside of the conversation text, unless sound is asked for."""
    if options.modality is not None:
        return options.modality
    return settings.modality if options.in_conversation else "text"
