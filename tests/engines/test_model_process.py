"""One model in a process of its own: what it promises when all is well, and when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator
from pathlib import Path

import psutil
import pytest

from ivas.engines.model_process import MOST_DEATHS, MOST_WAITING_CHUNKS, ModelProcess
from ivas.errors import EngineError, EngineTimeout, EngineUnavailable

HERE = str(Path(__file__).parent)


@pytest.fixture(autouse=True)
def factories(monkeypatch):
    monkeypatch.syspath_prepend(HERE)


def made(factory: str = "parrot", arguments=None, **options) -> ModelProcess:
    return ModelProcess(
        f"model_process_factories:{factory}", arguments or {}, name="parrot", **options
    )


@pytest.fixture
async def parrot(no_leaks):
    process = made()
    await process.start()
    yield process
    await process.aclose()


async def said(process: ModelProcess, *words: str, priority="later", **request) -> list[str]:
    stream = process.stream({"words": words, **request}, priority=priority)
    return [chunk.decode() async for chunk in stream if chunk]


async def heard(stream: AsyncGenerator[bytes, None]) -> bytes:
    """The first chunk of the answer, after the empty one that says that it was begun."""
    assert await anext(stream) == b""
    return await anext(stream)


async def state(process: ModelProcess) -> dict:
    return json.loads((await said(process, then="state"))[-1])


def gone(pid: int) -> bool:
    """Whether it has ended. Who has lost the server is reaped by init, whenever that likes."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_says_whether_it_is_ready(no_leaks):
    process = made()
    assert not process.status().ready
    assert "start()" in process.status().reason
    starting = asyncio.create_task(process.start())
    await asyncio.sleep(0)
    assert process.status().reason == "parrot is loading its model."
    assert (await starting)["language"] == "parrot"
    assert process.status().ready
    assert await process.start() == await starting
    await process.aclose()
    await process.aclose()
    assert not process.status().ready
    with pytest.raises(EngineUnavailable, match="not loaded"):
        await said(process, "hello")


async def test_streams_one_answer_after_the_other(parrot):
    assert await said(parrot, "a", "b", "c") == ["a", "b", "c"]
    assert await said(parrot) == []
    assert (await state(parrot))["closed"] == 2


async def test_starts_again_after_it_was_closed(parrot):
    await parrot.aclose()
    await parrot.start()
    assert await said(parrot, "again") == ["again"]


async def test_what_it_prints_does_no_harm(no_leaks):
    process = made("chatters")
    await process.start()
    assert await said(process, "a") == ["a"]
    await process.aclose()


async def test_requests_at_once_do_not_mix(parrot):
    words = [[f"{n}-{m}" for m in range(20)] for n in range(8)]
    assert await asyncio.gather(*(said(parrot, *w) for w in words)) == words


async def test_first_goes_before_later(parrot):
    busy = parrot.stream({"words": ["x"], "then": "for ever"})
    await heard(busy)
    order: list[str] = []

    async def ask(name: str, priority) -> None:
        await said(parrot, name, priority=priority)
        order.append(name)

    waiting = [
        asyncio.create_task(ask(name, priority))
        for name, priority in [("l1", "later"), ("l2", "later"), ("f1", "first"), ("f2", "first")]
    ]
    await asyncio.sleep(0)
    await busy.aclose()
    await asyncio.gather(*waiting)
    assert order == ["f1", "f2", "l1", "l2"]


async def test_cancels_at_once_and_closes_the_work(parrot):
    stream = parrot.stream({"words": ["x"], "then": "for ever"})
    await heard(stream)
    async with asyncio.timeout(0.05):
        await stream.aclose()
        await stream.aclose()
    assert (await state(parrot))["closed"] == 1


async def test_a_cancelled_request_keeps_the_slot_until_the_worker_is_free(parrot):
    """While the model computes nobody else may start, but only he waits."""
    stream = parrot.stream({"words": ["x"], "then": "for ever"})
    await heard(stream)
    pid = (await parrot.start())["pid"]
    os.kill(pid, signal.SIGSTOP)  # as busy as can be: it sees no cancel
    await stream.aclose()
    next_one = asyncio.create_task(said(parrot, "next"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not next_one.done()
    os.kill(pid, signal.SIGCONT)
    assert await next_one == ["next"]


async def test_who_gives_up_while_waiting_takes_no_slot(parrot):
    busy = parrot.stream({"words": ["x"], "then": "for ever"})
    await heard(busy)
    waiting = asyncio.create_task(said(parrot, "never"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await busy.aclose()
    assert await said(parrot, "next") == ["next"]


async def test_a_slow_listener_holds_the_worker_back_and_loses_nothing(parrot):
    """Bounded: what waits for a listener fills the queue and two sockets, and no more."""
    chunks = 20 * MOST_WAITING_CHUNKS
    stream = parrot.stream({"then": "flood", "chunks": chunks})
    first = await heard(stream)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(first) == 1000
    assert 1 + len([chunk async for chunk in stream]) == chunks


async def test_a_listener_who_leaves_a_full_queue_frees_the_worker(parrot, eventually):
    stream = parrot.stream({"then": "flood", "chunks": 20 * MOST_WAITING_CHUNKS})
    await heard(stream)
    await asyncio.sleep(0.05)
    await stream.aclose()
    assert (await state(parrot))["made"] < 20 * MOST_WAITING_CHUNKS


async def test_an_error_fails_its_request_only(parrot):
    with pytest.raises(EngineError, match=r"parrot failed while working \(ValueError: the test"):
        await said(parrot, "a", then="raise")
    with pytest.raises(EngineError, match=r"The parrot does not want to\.") as refused:
        await said(parrot, then="refuse")
    assert refused.value.code == "stubborn"
    assert await said(parrot, "b") == ["b"]
    assert (await state(parrot))["closed"] == 3


@pytest.mark.parametrize(
    ("then", "sentence"),
    [
        ("die", "was killed from outside, most likely because the memory ran out; speak again"),
        ("exit", "ended with code 7; speak again, a new one is being started"),
        ("crash", "lost its feathers"),
    ],
)
async def test_a_death_costs_one_request(parrot, then, sentence):
    before = await state(parrot)
    stream = parrot.stream({"words": ["half a"], "then": then})
    assert await heard(stream) == b"half a"
    with pytest.raises(EngineError, match=sentence) as death:
        await heard(stream)
    assert death.value.code == "engine_crashed"
    assert await said(parrot, "next") == ["next"]
    assert (await state(parrot))["pid"] != before["pid"]
    assert parrot.status().ready


async def test_says_that_it_is_not_ready_while_it_is_replaced(parrot, eventually):
    os.kill((await parrot.start())["pid"], signal.SIGKILL)
    await eventually(lambda: not parrot.status().ready)
    assert parrot.status().reason == "parrot is loading its model."
    await eventually(lambda: parrot.status().ready)
    assert await said(parrot, "a") == ["a"]


async def test_a_death_between_two_requests_costs_none(parrot):
    pid = (await parrot.start())["pid"]
    os.kill(pid, signal.SIGKILL)
    while not gone(pid):  # dead, and nobody has been told yet
        pass
    with contextlib.suppress(EngineError):  # sent into the dying process
        await said(parrot, "a")
    assert await said(parrot, "b") == ["b"]


async def test_a_request_waits_for_the_new_worker_but_not_for_ever(no_leaks, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    process = made("slow", {"gate": str(gate)}, wait_s=0.05)
    await process.start()
    gate.unlink()
    with pytest.raises(EngineError, match="speak again"):
        await said(process, then="die")
    with pytest.raises(EngineUnavailable, match="parrot is still loading its model"):
        await said(process, "a")
    gate.touch()
    await process.start()
    assert await said(process, "b") == ["b"]
    await process.aclose()


async def test_gives_up_on_a_model_that_always_dies(no_leaks, tmp_path):
    process = made(arguments={"loads": str(tmp_path / "loads")}, retry_s=0.0)
    await process.start()
    for _ in range(MOST_DEATHS):
        with pytest.raises(EngineError):
            await said(process, then="die")
    assert f"died {MOST_DEATHS} times in a row; it is started again" in process.status().reason
    with pytest.raises(EngineUnavailable, match="out of service"):
        await said(process, "a")
    assert (tmp_path / "loads").read_text() == str(MOST_DEATHS)
    await process.start()  # retry_s have passed
    assert await said(process, "a") == ["a"]
    await process.aclose()


async def test_an_answer_forgives_the_deaths_before_it(parrot):
    for _ in range(MOST_DEATHS):
        with pytest.raises(EngineError):
            await said(parrot, then="die")
        assert await said(parrot, "well") == ["well"]


async def test_a_successor_that_cannot_load_is_said(no_leaks, tmp_path, eventually):
    process = made(arguments={"loads": str(tmp_path / "loads"), "die_at_load": 2})
    await process.start()
    with pytest.raises(EngineError, match="speak again"):
        await said(process, then="exit")
    await eventually(lambda: "while the model was loading" in process.status().reason)
    with pytest.raises(EngineUnavailable, match="the memory ran out"):
        await said(process, "a")
    await process.aclose()


async def test_a_hang_ends_the_worker(no_leaks):
    process = made(hang_s=0.2)
    pid = (await process.start())["pid"]
    with pytest.raises(EngineTimeout, match="no sign of life for 0 s"):
        await said(process, "a", then="hang")
    assert gone(pid)
    assert await said(process, "b") == ["b"]
    await process.aclose()


async def test_a_hang_after_a_cancel_ends_the_worker_too(no_leaks):
    process = made(hang_s=0.2)
    await process.start()
    stream = process.stream({"words": ["a"], "then": "hang"})
    await heard(stream)
    await stream.aclose()
    assert await said(process, "b") == ["b"]
    await process.aclose()


async def test_work_without_chunks_is_no_hang(no_leaks, monkeypatch):
    process = made(hang_s=2.0)
    await process.start()
    stream = process.stream({"then": "for ever"})
    assert await anext(stream) == b""
    waiting = asyncio.create_task(anext(stream))
    await asyncio.wait([waiting], timeout=2.5)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await process.aclose()


@pytest.mark.parametrize(
    ("factory", "sentence", "code"),
    [
        ("refuses", r"^The parrot has flown; buy another\.$", "flown"),
        ("fails", r"loading its model failed \(OSError: the file is damaged\)", ""),
        ("dies", "killed from outside, most likely because the memory ran out", "engine_crashed"),
        ("garbles", "worker process was ended by signal|killed from outside", "engine_crashed"),
        ("hangs", "did not load within 0 s", "engine_timeout"),
        ("nothing", "AttributeError", ""),
    ],
)
async def test_says_why_it_cannot_load(no_leaks, factory, sentence, code):
    process = made(factory, load_timeout_s=0.4 if factory == "hangs" else 30)
    with pytest.raises(EngineUnavailable, match=sentence) as refusal:
        await process.start()
    assert refusal.value.code == (code or "engine_unavailable")
    assert process.status().reason == str(refusal.value)
    with pytest.raises(EngineUnavailable, match=sentence):
        await said(process, "a")
    await process.aclose()


async def test_asking_again_after_a_failed_load_starts_no_process(no_leaks, tmp_path):
    process = made(arguments={"loads": str(tmp_path / "loads"), "die_at_load": 1})
    for _ in range(3):
        with pytest.raises(EngineUnavailable):
            await process.start()
    assert (tmp_path / "loads").read_text() == "1"
    await process.aclose()


async def test_asking_again_later_does(no_leaks, tmp_path):
    process = made(arguments={"loads": str(tmp_path / "loads"), "die_at_load": 1}, retry_s=0.0)
    for _ in range(2):
        with pytest.raises(EngineUnavailable):
            await process.start()
    assert (tmp_path / "loads").read_text() == "2"
    await process.aclose()


async def test_a_cancelled_start_goes_on(no_leaks, tmp_path):
    gate = tmp_path / "gate"
    process = made("slow", {"gate": str(gate)})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await process.start()
    gate.touch()
    await process.start()
    assert await said(process, "a") == ["a"]
    await process.aclose()


async def test_closes_while_it_loads_speaks_and_hangs(no_leaks):
    loading = made("hangs")
    starting = asyncio.create_task(loading.start())
    await asyncio.sleep(0)
    await loading.aclose()
    with pytest.raises(EngineUnavailable, match="parrot is closed"):
        await starting
    for then in ("for ever", "hang"):
        process = made()
        await process.start()
        stream = process.stream({"words": ["a"], "then": then})
        await heard(stream)
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        await process.aclose()
        with pytest.raises(EngineUnavailable, match="parrot is closed"):
            await waiting


async def test_says_when_there_are_no_more_processes(monkeypatch, no_leaks):
    def refuse(*_arguments, **_options):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    process = made()
    with pytest.raises(EngineUnavailable, match="no more processes or files") as refusal:
        await process.start()
    assert refusal.value.code == "engine_busy"


async def test_says_that_it_needs_posix(monkeypatch):
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(EngineUnavailable, match="run IVAS in WSL or Docker"):
        await made().start()


async def test_never_stalls_the_loop(parrot, never_stalls):
    await never_stalls(lambda: said(parrot, *("x" * 4000 for _ in range(200))))


async def test_the_worker_does_not_survive_its_server(eventually):
    """Not even its kill -9, and not even while it computes."""
    program = textwrap.dedent(
        """
        import asyncio
        from ivas.engines.model_process import ModelProcess

        async def main():
            process = ModelProcess("model_process_factories:parrot", {}, name="parrot")
            said = await process.start()
            stream = process.stream({"words": ["a"], "then": "hang"})
            await anext(stream)
            await anext(stream)
            print(said["pid"], flush=True)
            await asyncio.sleep(600)

        asyncio.run(main())
        """
    )
    path = os.pathsep.join([HERE, *(entry or os.getcwd() for entry in sys.path)])
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-c", program),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert server.stdout is not None
    pid = int(await server.stdout.readline())
    assert not gone(pid)
    server.kill()
    await server.wait()
    await eventually(lambda: gone(pid))
