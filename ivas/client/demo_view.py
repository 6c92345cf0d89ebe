"""What `ivas demo` shows a person: the conversation as it happens, then the times."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ivas.latency import SPANS

from .exchange import Exchange, Moment
from .wire import RATE_HZ

_SPANS = {
    "endpoint": "waited to be sure you had finished",
    "asr": "until the transcript",
    "llm_first_token": "until the first token",
    "llm_first_clause": "until the first clause",
    "tts_first_audio": "until the first audio",
}
_MOMENTS: dict[Moment, str] = {
    "speech_stopped": "the server noticed the end of the speech",
    "transcript": "the transcript came",
    "response": "the reply began",
    "first_text": "its first words came",
}


class View:
    """A live view while entered; `summary` afterwards. Shows nothing unless `shown`."""

    def __init__(self, question: str, *, shown: bool) -> None:
        self._console = Console(highlight=False, quiet=not shown)
        self._question = question
        self._state = "Starting"
        self._exchange: Exchange | None = None
        self._live = Live(
            console=self._console, get_renderable=self._render, refresh_per_second=8, transient=True
        )

    def __enter__(self) -> View:
        if self._console.is_terminal and not self._console.quiet:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def say(self, state: str) -> None:
        """What is going on, in a few words."""
        if state != self._state and not self._console.is_terminal:
            self._console.print(f"{state} ...")
        self._state = state

    def show(self, exchange: Exchange) -> None:
        """The conversation so far."""
        self._exchange = exchange
        self._state = "Answering" if exchange.pcm else f"Waiting for {exchange.awaited()}"

    def summary(self, exchange: Exchange, out: Path | None) -> None:
        """The conversation, where the time went, and where the sound is."""
        self._console.print(self._conversation(exchange))
        self._console.print()
        self._console.print(stages(exchange))
        self._console.print()
        length_s = len(exchange.pcm) / 2 / RATE_HZ
        if out is None:
            self._console.print(f"You have heard the reply: {length_s:.1f} s.")
        else:
            self._console.print(
                f"The reply, {length_s:.1f} s, was written to {out}.", soft_wrap=True
            )

    def _render(self) -> Group:
        return Group(self._conversation(self._exchange), Spinner("dots", self._state, style="dim"))

    def _conversation(self, exchange: Exchange | None) -> Table:
        lines = Table.grid(padding=(0, 2))
        lines.add_column(style="dim", no_wrap=True)
        lines.add_column()
        lines.add_row("question", Text(self._question))
        if exchange is not None and exchange.transcript:
            lines.add_row("heard", Text(exchange.transcript))
        if exchange is not None and exchange.reply:
            lines.add_row("reply", Text(exchange.reply.strip(), style="bold"))
        return lines


def stages(exchange: Exchange) -> Table:
    """A row a stage. With an IVAS server its own spans, one after the other; with a
    foreign one what the wire shows, each from the last speech sample on."""
    times = exchange.times_ms()
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right")
    table.add_column()
    if exchange.spans_ms:
        for name, *_ in SPANS:
            if name in _SPANS and name in exchange.spans_ms:
                table.add_row(_ms(exchange.spans_ms[name]), _SPANS[name])
    else:
        for moment, words in _MOMENTS.items():
            if moment in times:
                table.add_row(_ms(times[moment]), words)
    table.add_section()
    table.add_row(
        Text(_ms(times["first_audio"]), style="bold"), "from the last speech sample to first audio"
    )
    table.add_row(
        Text(_ms(times["first_audible"]), style="bold"),
        "from the last speech sample to the first audible sample",
    )
    return table


def _ms(value: float) -> str:
    return f"{value:.0f} ms"
