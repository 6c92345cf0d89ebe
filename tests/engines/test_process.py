"""Leased worker processes: what they promise when all is well, and when they die."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from worker_processes import templates

from ivas.engines.process import Workers
from ivas.errors import EngineError, EngineUnavailable

HERE = str(Path(__file__).parent)
BACKLOG = 1 << 20


@pytest.fixture(autouse=True)
def factories(monkeypatch):
    monkeypatch.syspath_prepend(HERE)


@pytest.fixture
async def workers(no_leaks):
    workers = Workers("process_factories:echo", name="echo", most=3)
    await workers.start()
    yield workers
    await workers.aclose()


def template() -> psutil.Process:
    (process,) = templates()
    return process


def gone(pid: int) -> bool:
    """Whether it has ended. Who has lost the template is reaped by init, whenever that likes."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def asked(workers: Workers, question: bytes = b"hello") -> bytes:
    lease = workers.lease(most_backlog_bytes=BACKLOG)
    answer = await lease.ask(question)
    lease.close()
    return answer


async def test_answers_with_what_was_posted_before(workers):
    lease = workers.lease(most_backlog_bytes=BACKLOG)
    lease.post(b"one ")
    lease.post(b"two ")
    assert await lease.ask(b"?") == b"one two ?"
    lease.post(b"three ")
    assert await asyncio.gather(lease.ask(b"a"), lease.ask(b"b")) == [
        b"one two three a",
        b"one two three b",
    ]
    lease.close()


async def test_leases_share_nothing(workers):
    one, two = (workers.lease(most_backlog_bytes=BACKLOG) for _ in range(2))
    one.post(b"secret")
    assert await two.ask(b"?") == b"?"
    assert await one.ask(b"pid") != await two.ask(b"pid")
    one.close()
    assert await two.ask(b"?") == b"?"
    two.close()


async def test_more_than_a_socket_holds_gets_through(workers):
    lease = workers.lease(most_backlog_bytes=4 << 20)
    big = os.urandom(3 << 20)
    lease.post(big)
    assert await lease.ask(b"?") == big + b"?"
    lease.close()


async def test_a_cancelled_question_leaves_the_lease_usable(workers):
    lease = workers.lease(most_backlog_bytes=BACKLOG)
    asking = asyncio.create_task(lease.ask(b"late"))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert await lease.ask(b"?") == b"?"
    lease.close()


async def test_no_more_leases_than_allowed(workers):
    leases = [workers.lease(most_backlog_bytes=BACKLOG) for _ in range(3)]
    with pytest.raises(EngineError, match="3 utterances already") as refused:
        workers.lease(most_backlog_bytes=BACKLOG)
    assert refused.value.code == "engine_busy"
    leases[0].close()
    assert await asked(workers) == b"hello"
    for lease in leases:
        lease.close()


@pytest.mark.parametrize("death", [b"crash", b"raise"])
async def test_a_crash_costs_one_lease(workers, death):
    other = workers.lease(most_backlog_bytes=BACKLOG)
    lease = workers.lease(most_backlog_bytes=BACKLOG)
    with pytest.raises(EngineError, match="worker process died") as failed:
        await lease.ask(death)
    assert failed.value.code == "engine_crashed"
    lease.post(b"into the void")
    with pytest.raises(EngineError, match="worker process died"):
        await lease.ask(b"?")
    lease.close()
    assert await other.ask(b"?") == b"?"
    other.close()
    assert await asked(workers) == b"hello"


async def test_a_hung_child_is_killed(workers, eventually):
    lease = workers.lease(most_backlog_bytes=BACKLOG)
    pid = int(await lease.ask(b"pid"))
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await lease.ask(b"?")
    lease.close()
    await eventually(lambda: gone(pid))
    assert await asked(workers) == b"hello"


async def test_what_a_child_forked_ends_with_its_lease(workers, eventually):
    lease = workers.lease(most_backlog_bytes=BACKLOG)
    pid, grandchild = int(await lease.ask(b"pid")), int(await lease.ask(b"fork"))
    assert not gone(grandchild)
    lease.close()
    await eventually(lambda: gone(pid) and gone(grandchild) and not template().children())


async def test_a_lease_that_falls_behind_fails(workers):
    lease = workers.lease(most_backlog_bytes=BACKLOG)
    os.kill(int(await lease.ask(b"pid")), signal.SIGSTOP)
    for _ in range(64):
        lease.post(bytes(1 << 16))
    with pytest.raises(EngineError, match="cannot keep up") as failed:
        await lease.ask(b"?")
    assert failed.value.code == "engine_overloaded"
    lease.close()


async def test_a_dead_template_is_replaced(workers, eventually):
    lease = workers.lease(most_backlog_bytes=BACKLOG)
    pid, old = int(await lease.ask(b"pid")), template().pid
    waiting = asyncio.create_task(lease.ask(b"silence"))
    await asyncio.sleep(0)
    os.kill(old, signal.SIGKILL)
    with pytest.raises(EngineError, match="worker process died"):
        await waiting
    lease.close()
    assert await asked(workers) == b"hello"
    assert template().pid != old
    await eventually(lambda: gone(pid))


async def test_a_hung_template_does_not_keep_the_server_from_stopping(workers, monkeypatch):
    monkeypatch.setattr("ivas.engines.process.STOP_TIMEOUT_S", 0.05)
    os.kill(template().pid, signal.SIGSTOP)
    await workers.aclose()
    assert templates() == []


async def test_ctrl_c_and_terminate_are_left_to_the_server(workers):
    for asking in (signal.SIGINT, signal.SIGTERM):
        os.kill(template().pid, asking)
        assert await asked(workers) == b"hello"


async def test_workers_hold_no_file_of_the_server(workers):
    read, write = os.pipe()
    os.set_inheritable(write, True)
    lease = workers.lease(most_backlog_bytes=BACKLOG)
    await lease.ask(b"?")
    child = psutil.Process(int(await lease.ask(b"pid")))
    files = os.listdir(f"/proc/{child.pid}/fd") if sys.platform == "linux" else range(4)
    assert len(files) == 4  # stdin, stdout, stderr and its lease
    lease.close()
    os.close(read)
    os.close(write)


async def test_start_and_close_are_safe_to_repeat(no_leaks):
    workers = Workers("process_factories:echo", name="echo")
    with pytest.raises(EngineUnavailable, match="not started"):
        workers.lease(most_backlog_bytes=BACKLOG)
    for _ in range(2):
        await asyncio.gather(workers.start(), workers.start())
        assert workers.ready
        assert await asked(workers) == b"hello"
        await workers.aclose()
        await workers.aclose()
        assert not workers.ready


async def test_closing_ends_every_lease(workers):
    lease = workers.lease(most_backlog_bytes=BACKLOG)
    waiting = asyncio.create_task(lease.ask(b"silence"))
    await asyncio.sleep(0)
    await workers.aclose()
    with pytest.raises(EngineError, match="closed"):
        await waiting


@pytest.mark.parametrize(
    ("factory", "why"),
    [
        ("process_factories:cannot_load", "the model file is damaged"),
        ("process_factories:dies_while_loading", "exited with code 3"),
        ("no_such_module:at_all", "No module named 'no_such_module'"),
    ],
)
async def test_what_cannot_load_says_why(no_leaks, factory, why):
    workers = Workers(factory, name="echo")
    for _ in range(2):
        with pytest.raises(EngineUnavailable, match=f"echo cannot start: .*{why}"):
            await workers.start()
    assert not workers.ready
    await workers.aclose()


async def test_a_model_that_loads_for_ever_is_given_up(no_leaks, monkeypatch):
    monkeypatch.setattr("ivas.engines.process.START_TIMEOUT_S", 0.01)
    workers = Workers("process_factories:echo", name="echo")
    with pytest.raises(EngineUnavailable, match="did not load"):
        await workers.start()


async def test_a_system_that_is_full_is_a_plain_error(no_leaks, monkeypatch):
    def refuse(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    workers = Workers("process_factories:echo", name="echo")
    with monkeypatch.context() as patch:
        patch.setattr("ivas.engines.process.subprocess.Popen", refuse)
        with pytest.raises(EngineError, match=r"no more processes or files \(Resource"):
            await workers.start()
    await workers.start()
    with monkeypatch.context() as patch:
        patch.setattr("ivas.engines.process.socket.socketpair", refuse)
        with pytest.raises(EngineError, match="no more processes"):
            workers.lease(most_backlog_bytes=BACKLOG)
    assert await asked(workers) == b"hello"
    await workers.aclose()


async def test_says_so_where_there_is_no_fork(monkeypatch):
    workers = Workers("process_factories:echo", name="echo")
    with monkeypatch.context() as patch:
        patch.setattr("ivas.engines.process.os.name", "nt")
        with pytest.raises(EngineUnavailable, match="Linux and macOS only"):
            await workers.start()


SERVER = """
import asyncio, sys
from ivas.engines.process import Workers

async def main():
    workers = Workers("process_factories:echo", name="echo")
    await workers.start()
    leases = [workers.lease(most_backlog_bytes=1 << 20) for _ in range(2)]
    print(*[(await lease.ask(b"pid")).decode() for lease in leases], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_nobody_survives_a_killed_server(eventually):
    server = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", SERVER],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([HERE, *sys.path])},
    )
    with server:
        pids = [int(pid) for pid in server.stdout.readline().split()]
        family = [child.pid for child in psutil.Process(server.pid).children(recursive=True)]
        assert set(pids) < set(family)
        os.kill(pids[0], signal.SIGSTOP)  # not even a hung child
        server.kill()
    assert pids
    await eventually(lambda: all(gone(pid) for pid in family))
