"""Leased worker processes for engines that hold the GIL: the server's side.

One *template* process is started and loads the model once. For every lease it
forks a child, which has the model at once (2 ms) and shares its memory until it
writes to it. A child serves one lease and dies with it: a crash costs one
utterance, memory comes back, and there is nothing to reset.

    server --control socket--> template --fork--> child
       +------------- one socketpair a lease ---------+

The server never waits: what the socket does not take at once lies in a bounded
backlog. The template owns the children's pids: it alone kills and reaps them,
so no signal can hit a stranger. Nobody survives the server, not even its
`kill -9`: the sockets end, and with them the template and every child.

POSIX only (fork, passing of file descriptors): Linux and macOS. The other side
and the messages between the two: `process_worker.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable

from ivas.engines.process_worker import CONTROL, END, HEADER, LEASE, READY, take_message
from ivas.errors import EngineError, EngineUnavailable

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 2.0


class Workers:
    """The template of one engine and the leases that live in it.

    `factory` is `package.module:function`, called once in the template. It loads
    the model and returns `serve(connection)`, which is called in each child and
    returns when `connection.receive()` gives None. It must start no thread.
    """

    def __init__(self, factory: str, *, name: str, most: int | None = None) -> None:
        """`name` is the engine's, for error sentences; at most `most` leases at once."""
        self.name = name
        self._factory = factory
        self._most = most or max(2, (os.cpu_count() or 1) * 4)
        self._template: _Template | None = None
        self._started = False

    @property
    def ready(self) -> bool:
        """Whether leases can be had (a template that died comes back with the next one)."""
        return self._started

    async def start(self) -> None:
        """Start the template and wait until its model is loaded. Safe to call again.

        Raises EngineUnavailable.
        """
        if os.name != "posix":
            raise EngineUnavailable(
                f"{self.name} runs on Linux and macOS only, because it needs fork(); "
                "on Windows run IVAS in WSL or Docker, or choose another engine."
            )
        try:
            template = self._running_template()
        except OSError as error:
            raise self._refused(error) from error
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await asyncio.shield(template.ready)
        except TimeoutError:
            await self.aclose()
            raise EngineUnavailable(
                f"{self.name} cannot start because its worker did not load the model within "
                f"{START_TIMEOUT_S:.0f} s; see whether the machine is overloaded, then try again."
            ) from None
        self._started = True

    def lease(self, *, most_backlog_bytes: int) -> Lease:
        """A child of its own, usable at once. Never blocks.

        A lease that falls more than `most_backlog_bytes` behind fails.
        Raises EngineError when too many are open or `start` was not called.
        """
        if not self._started:
            raise EngineUnavailable(f"{self.name} is not started; start() starts it.")
        if self._template is not None and len(self._template.leases) >= self._most:
            raise EngineError(
                f"{self.name} serves {self._most} utterances already, as many as it may at "
                "once; speak again in a moment.",
                code="engine_busy",
            )
        try:
            return self._running_template().lease(most_backlog_bytes)
        except OSError as error:
            raise self._refused(error) from error

    async def aclose(self) -> None:
        """End every lease and the template. Safe to call again."""
        self._started = False
        template, self._template = self._template, None
        if template is not None:
            await template.aclose()

    def _refused(self, error: OSError) -> EngineUnavailable:
        return EngineUnavailable(
            f"{self.name} cannot work because the system gives out no more processes or files "
            f"({error.strerror}); speak again when the server is less busy.",
            code="engine_busy",
        )

    def _running_template(self) -> _Template:
        if self._template is None or self._template.gone.done():
            self._template = _Template(self._factory, self.name)
        return self._template


class _Template:
    """The server's hold on one template process."""

    def __init__(self, factory: str, name: str) -> None:
        self._name = name
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self.leases: dict[int, Lease] = {}
        self._last_number = 0
        self._said = b""
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        # The template must find the same modules as this process, and no numeric
        # library may start threads in it. The rest of the environment is handed on.
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        with theirs, contextlib.ExitStack() as on_failure:
            on_failure.callback(self._control.close)
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "ivas.engines.process_worker",
                    str(theirs.fileno()),
                    factory,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in the terminal is not for it
                env=environment,
            )
            on_failure.pop_all()
        self._loop.add_reader(self._control, self._on_readable)

    def lease(self, most_backlog_bytes: int) -> Lease:
        self._last_number = number = self._last_number + 1
        ours, theirs = socket.socketpair()
        lease = Lease(
            ours,
            name=self._name,
            most_backlog_bytes=most_backlog_bytes,
            on_end=lambda: self._end_lease(number),
        )
        self.leases[number] = lease
        with theirs:
            # Read by the template when it has loaded, so a lease need not wait for that.
            self._send(CONTROL.pack(LEASE, number), [theirs.fileno()])
        return lease

    async def aclose(self) -> None:
        for lease in list(self.leases.values()):
            lease.close()
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await asyncio.shield(self.gone)
        except TimeoutError:
            self._lost()

    def _end_lease(self, number: int) -> None:
        if self.leases.pop(number, None) and not self.gone.done():
            self._send(CONTROL.pack(END, number), [])

    def _send(self, message: bytes, fds: list[int]) -> None:
        try:
            socket.send_fds(self._control, [message], fds)
        except OSError:  # gone, or so stuck that hundreds of messages lie unread
            self._lost()

    def _on_readable(self) -> None:
        try:
            data = self._control.recv(4096)
        except OSError:
            data = b""
        self._said += data
        if not data:
            self._lost()
        elif self._said == READY and not self.ready.done():
            self.ready.set_result(None)

    def _lost(self) -> None:
        """The template has ended, or must: reap it, and fail what lived in it."""
        if self.gone.done():
            return
        self.gone.set_result(None)
        self._loop.remove_reader(self._control)
        self._control.close()
        self._process.kill()
        code = self._process.wait()  # dead already: this only reaps
        if not self.ready.done():
            reason = self._said.decode(errors="replace") or f"its worker exited with code {code}"
            self.ready.set_exception(
                EngineUnavailable(f"{self._name} cannot start: {reason.rstrip('. ')}.")
            )
            self.ready.exception()  # nobody waits for it when a lease restarted the template
        for lease in list(self.leases.values()):
            lease.fail(_died(self._name))


class Lease:
    """One child process, for one piece of work. Made by `Workers.lease`."""

    def __init__(
        self,
        connection: socket.socket,
        *,
        name: str,
        most_backlog_bytes: int,
        on_end: Callable[[], None],
    ) -> None:
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._socket = connection
        self._on_end = on_end
        self._most_backlog_bytes = most_backlog_bytes
        self._backlog = bytearray()
        self._received = bytearray()
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._last_ticket = 0
        self._failure: EngineError | None = None
        connection.setblocking(False)
        self._loop.add_reader(connection, self._on_readable)

    def post(self, payload: bytes) -> None:
        """Send work that has no answer. Never blocks, never raises.

        Policy of the backlog: when it is full the lease fails, and the next `ask`
        says so; a gap in the work would falsify the answer silently.
        """
        self._send(0, payload)

    async def ask(self, payload: bytes = b"") -> bytes:
        """Send work and wait for its answer. Cancellable; raises EngineError."""
        self._last_ticket = ticket = self._last_ticket + 1
        self._send(ticket, payload)
        if self._failure is not None:
            raise self._failure
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._answers[ticket] = answer
        try:
            return await answer
        finally:
            self._answers.pop(ticket, None)

    def close(self) -> None:
        """Kill the child, at once. Safe to call again."""
        self.fail(EngineError(f"This {self._name} utterance is closed; open a new one."))

    def fail(self, failure: EngineError) -> None:
        """End the lease; whoever waits for an answer gets `failure`. Once."""
        if self._failure is not None:
            return
        self._failure = failure
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._backlog.clear()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(failure)
        self._on_end()

    def _send(self, ticket: int, payload: bytes) -> None:
        if self._failure is not None:
            return
        waited = bool(self._backlog)
        self._backlog += HEADER.pack(ticket, len(payload)) + payload
        if not waited:
            self._on_writable()
        if self._failure is None and len(self._backlog) > self._most_backlog_bytes:
            self.fail(
                EngineError(
                    f"{self._name} cannot keep up with the speech because this machine is "
                    "overloaded; speak again when fewer people use it.",
                    code="engine_overloaded",
                )
            )

    def _on_writable(self) -> None:
        try:
            sent = self._socket.send(self._backlog)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.fail(_died(self._name))
            return
        del self._backlog[:sent]
        if self._backlog:
            self._loop.add_writer(self._socket, self._on_writable)
        else:
            self._loop.remove_writer(self._socket)

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.fail(_died(self._name))
            return
        self._received += data
        while (message := take_message(self._received)) is not None:
            ticket, payload = message
            answer = self._answers.get(ticket)
            if answer is not None and not answer.done():
                answer.set_result(payload)


def _died(name: str) -> EngineError:
    return EngineError(
        f"{name} lost this utterance because its worker process died; speak again, the next "
        "utterance gets a new worker.",
        code="engine_crashed",
    )
