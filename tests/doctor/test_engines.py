from __future__ import annotations

import asyncio

import pytest

from ivas.doctor.engines import Kind, examined
from ivas.engines import Status
from ivas.errors import EngineUnavailable, SettingsError

MISSING = EngineUnavailable("The model is missing; run: ivas models download it.")


class Engine:
    def __init__(self, name="one", *, error=None, reason=None, hangs=False):
        self.name = name
        self.error, self.reason, self.hangs = error, reason, hangs
        self.closed = 0

    def status(self):
        return Status(self.reason is None, self.reason or "")

    async def start(self):
        if self.hangs:
            await asyncio.Event().wait()
        if self.error:
            raise self.error

    async def aclose(self):
        self.closed += 1


async def found(*engines, limit_s=5.0):
    findings = await examined(Kind("asr", lambda: engines), limit_s=limit_s)
    assert all(engine.closed == 1 for engine in engines)
    return findings


async def test_an_engine_that_starts():
    (finding,) = await found(Engine())
    assert (finding.name, finding.state, finding.what) == ("asr engine", "ok", "one is ready")


async def test_the_best_serves():
    (finding,) = await found(Engine("best"), Engine("next"))
    assert finding.what == "best is ready (chosen by auto)"


async def test_what_a_better_engine_lacks():
    serves, better = await found(Engine("best", error=MISSING), Engine("next"))
    assert serves.what == "next is ready (chosen by auto)"
    assert better.state == "ok"
    assert better.what == "best would be better: The model is missing."
    assert better.fix == "run: ivas models download it"


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        (Engine(error=MISSING), "The model is missing."),
        (Engine(reason="It is tired."), "It is tired."),
        (Engine(error=ZeroDivisionError("oh")), "one failed (ZeroDivisionError: oh)."),
    ],
)
async def test_an_engine_that_does_not_start(engine, said):
    (finding,) = await found(engine)
    assert (finding.state, finding.what) == ("fail", said)


async def test_none_starts():
    findings = await found(Engine("a", error=MISSING), Engine("b", error=MISSING))
    assert [finding.state for finding in findings] == ["fail", "fail"]


async def test_a_large_model_is_no_fault():
    (finding,) = await found(Engine(hangs=True), limit_s=0.02)
    assert finding.state == "warn"
    assert "is still loading after 0.02 s" in finding.what


async def test_an_engine_that_cannot_be_made():
    def make():
        raise SettingsError("The engine x:y could not be made; correct the name.")

    (finding,) = await examined(Kind("tts", make))
    assert (finding.name, finding.state) == ("tts engine", "fail")
    assert finding.fix == "correct the name"
