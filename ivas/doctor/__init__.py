"""What a doctor finds, and how all of it is looked at: at once, bounded, whatever happens.

Each other file of this room looks at one kind of thing and imports nothing of settings
or engines; `ivas/cli/doctor.py` tells them what this installation is set to.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]
"""`warn`: something is missing that nobody asked for by name. `fail`: IVAS, as it is set,
does not work."""

LIMIT_S = 8.0
"""How long one check may take; all run at once."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: State
    what: str
    """What is so, as one plain sentence or a few words."""
    fix: str | None = None
    """What to do next: an imperative, often a command to type. May be a hint beside an ok."""


def in_two(sentence: str) -> tuple[str, str | None]:
    """A sentence of IVAS, "what and why; what to do.", as a finding has it."""
    what, semicolon, fix = sentence.partition("; ")
    return (f"{what}.", fix.rstrip(".")) if semicolon else (sentence, None)


Look = Callable[[], Sequence[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """One look at one kind of thing."""

    name: str
    look: Callable[[], Awaitable[Sequence[Finding]]]


def blocking(name: str, look: Look) -> Check:
    """A check that blocks. Its thread is a daemon: one that hangs keeps nobody waiting."""

    async def run() -> Sequence[Finding]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Sequence[Finding]] = loop.create_future()

        def settle(found: Sequence[Finding] | None, error: Exception | None) -> None:
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(found or ())

        def work() -> None:
            found, failed = None, None
            try:
                found = look()
            except Exception as error:
                failed = error
            try:
                loop.call_soon_threadsafe(settle, found, failed)
            except RuntimeError:  # the doctor has left already
                return

        threading.Thread(target=work, name=f"ivas-doctor-{name}", daemon=True).start()
        return await done

    return Check(name, run)


async def examine(checks: Sequence[Check], *, limit_s: float = LIMIT_S) -> tuple[Finding, ...]:
    """Everything the checks find, in their order. Never raises: a check that does is a finding."""
    found = await asyncio.gather(*(_one(check, limit_s) for check in checks))
    return tuple(finding for findings in found for finding in findings)


async def _one(check: Check, limit_s: float) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(limit_s):
            return await check.look()
    except TimeoutError:
        what = f"This could not be looked at within {limit_s:g} s."
        return [Finding(check.name, "warn", what, "look again when the machine is less busy")]
    except ImportError as error:
        what = f"This could not be looked at because a package is broken ({error})."
        return [Finding(check.name, "fail", what, "mend what is said about packages first")]
    except Exception as error:
        what = f"This check failed itself ({type(error).__name__}: {error})."
        return [Finding(check.name, "fail", what, "report it with this sentence")]
