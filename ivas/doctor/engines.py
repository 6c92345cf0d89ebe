"""The engines the settings choose: what each says when it is started for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ivas.engines import Engine
from ivas.errors import IvasError

from . import Finding, in_two

LIMIT_S = 6.0
"""Loading a large model takes longer; that is said, and is no fault."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The engines of one kind."""

    name: str
    """`vad`, `asr`, `llm`, `tts`"""
    make: Callable[[], Sequence[Engine]]
    """The candidates, the best first; several with `auto`. Nothing is loaded yet."""


@dataclass(frozen=True, slots=True)
class _Tried:
    """How it went with one engine."""

    name: str
    problem: str | None
    """The sentence why it cannot serve."""
    late: bool = False
    """It was still loading when the time was up."""


async def examined(kind: Kind, *, limit_s: float = LIMIT_S) -> list[Finding]:
    """Which engine would serve, and with `auto` what a better one lacks."""
    name = f"{kind.name} engine"
    try:
        engines = await asyncio.to_thread(kind.make)
    except IvasError as error:
        return [Finding(name, "fail", *in_two(str(error)))]
    tried = await asyncio.gather(*(_try(engine, limit_s) for engine in engines))
    best = next((one for one in tried if one.problem is None), None)
    if best is None:
        return [Finding(name, "fail", *in_two(one.problem or "")) for one in tried]
    auto = " (chosen by auto)" if len(tried) > 1 else ""
    findings = [_served(name, best, auto, limit_s)]
    for better in tried[: tried.index(best)]:
        what, fix = in_two(better.problem or "")
        findings.append(Finding(name, "ok", f"{better.name} would be better: {what}", fix))
    return findings


def _served(name: str, best: _Tried, auto: str, limit_s: float) -> Finding:
    if not best.late:
        return Finding(name, "ok", f"{best.name} is ready{auto}")
    what = f"{best.name} is still loading after {limit_s:g} s{auto}; a large model may take longer."
    return Finding(name, "warn", what, "start it on its own to see: ivas serve")


async def _try(engine: Engine, limit_s: float) -> _Tried:
    try:
        async with asyncio.timeout(limit_s):
            await engine.start()
        status = engine.status()
        return _Tried(engine.name, None if status.ready else status.reason)
    except TimeoutError:
        return _Tried(engine.name, None, late=True)
    except IvasError as error:
        return _Tried(engine.name, str(error))
    except Exception as error:  # a third party's
        return _Tried(engine.name, f"{engine.name} failed ({type(error).__name__}: {error}).")
    finally:
        await engine.aclose()
