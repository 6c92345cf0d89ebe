"""One loaded model in a process of its own: the server's side.

For a model that holds the GIL or burns whole cores, is too big to be loaded twice, and
cannot be forked once it lives on a GPU. The process loads it once and streams the answers
to one request after the other. (`process.py` is for the opposite: many small states at
once, each in a fork of its own.)

    server --socket--> worker      request, cancel
    server <--socket-- worker      chunks, end or failure

* One request at a time; who waits is served fairly, `first` before `later`.
* To cancel returns at once. The slot stays counted until the worker has really stopped.
* A worker that dies or gives no sign of life fails the request it was at, with one
  sentence. It is replaced in the background; the next request waits for that, not for ever.
* The worker ends with the server, even with its `kill -9`: the socket ends.

POSIX only (passing of file descriptors): Linux and macOS. The other side and the messages
between the two: `model_process_worker.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from ivas.engines import Priority, Status
from ivas.engines.model_process_worker import ALIVE, CRASHED, DATA, NO_TICKET, READY
from ivas.engines.process_worker import HEADER
from ivas.engines.threads import Slots
from ivas.errors import EngineError, EngineTimeout, EngineUnavailable

MOST_WAITING_CHUNKS = 256
"""So many chunks may wait for their listener; then the worker waits, and with it the model."""
MOST_DEATHS = 3
"""So many workers in a row may die without having finished a request; then none is started
until `retry_s` have passed."""
STOP_TIMEOUT_S = 5.0

_log = logging.getLogger(__name__)


class ModelProcess:
    """The process of one model, and its successors when it dies.

    `factory` is `package.module:function`, called in the process with `arguments` (which
    must be JSON). It loads the model and returns `(work, said)`: `work(request)` yields
    the chunks of the answer, and b"" wherever it can be cancelled meanwhile; `said` is
    what `start` returns. Both raise EngineError with a sentence of their own.
    """

    def __init__(
        self,
        factory: str,
        arguments: Mapping[str, Any],
        *,
        name: str,
        load_timeout_s: float = 300.0,
        hang_s: float = 30.0,
        wait_s: float = 20.0,
        retry_s: float = 60.0,
    ) -> None:
        """`name` is the engine's, for error sentences.

        A worker that takes longer than `load_timeout_s` to load, or is silent for `hang_s`
        while it works, is killed. A request waits at most `wait_s` for a new one. After a
        failed load the same failure is given for `retry_s`, so that asking is cheap.
        """
        self.name = name
        self._factory = factory
        self._arguments = dict(arguments)
        self._load_timeout_s = load_timeout_s
        self._hang_s = hang_s
        self._wait_s = wait_s
        self._retry_s = retry_s
        self._slots = Slots(1)
        self._process: _Process | None = None
        self._failure: EngineUnavailable | None = None
        self._failed_at_s = 0.0
        self._deaths = 0

    def status(self) -> Status:
        """Whether a request would be served, if need be after those before it."""
        if self._process is None:
            return Status(ready=False, reason=str(self._unavailable()))
        if not self._process.serves:
            return Status(ready=False, reason=f"{self.name} is loading its model.")
        return Status(ready=True)

    async def start(self) -> Mapping[str, Any]:
        """Load the model; what it says of itself. Safe to call again, and cheap.

        A cancelled start goes on in the background. Raises EngineUnavailable.
        """
        if os.name != "posix":
            raise EngineUnavailable(
                f"{self.name} runs on Linux and macOS only, because its model needs a process "
                "of its own; on Windows run IVAS in WSL or Docker, or choose another engine."
            )
        if self._process is None:
            since_s = asyncio.get_running_loop().time() - self._failed_at_s
            if self._failure is None or since_s >= self._retry_s:
                self._deaths = 0
                self._launch()
        if self._process is None:
            raise self._unavailable()
        return await asyncio.shield(self._process.ready)

    async def stream(
        self, request: Mapping[str, Any], *, priority: Priority = "later"
    ) -> AsyncGenerator[bytes, None]:
        """b"" as soon as the worker has the request, then the chunks of its answer.

        Raises EngineError while iterating.
        """
        await self._slots.acquire(priority)
        try:
            process = await self._serving()
            call = process.begin(request, self._slots.release)
        except BaseException:
            self._slots.release()
            raise
        try:
            yield b""
            while (chunk := await call.chunks.get()) is not None:
                yield chunk
        finally:
            process.leave(call)
        if call.failure is not None:
            raise call.failure

    async def aclose(self) -> None:
        """End the process. Safe to call again."""
        self._failure = None
        process, self._process = self._process, None
        if process is not None:
            await process.aclose()

    async def _serving(self) -> _Process:
        """The process, its model loaded; waits for one that is being replaced."""
        try:
            async with asyncio.timeout(self._wait_s):
                while True:
                    process = self._process
                    if process is None:
                        raise self._unavailable()
                    await asyncio.shield(process.ready)
                    if process.serves:
                        return process
                    await asyncio.shield(process.gone)
        except TimeoutError:
            raise EngineUnavailable(
                f"{self.name} is still loading its model; speak again in a moment."
            ) from None

    def _launch(self) -> None:
        try:
            self._process = _Process(
                self._factory,
                self._arguments,
                name=self.name,
                load_timeout_s=self._load_timeout_s,
                hang_s=self._hang_s,
                on_gone=self._on_gone,
            )
        except OSError as error:
            self._failed(
                EngineUnavailable(
                    f"{self.name} cannot start because the system gives out no more processes "
                    f"or files ({error.strerror}); try again when the machine is less busy.",
                    code="engine_busy",
                )
            )

    def _on_gone(self, process: _Process, failure: EngineError) -> None:
        if process is not self._process:  # closed
            return
        self._process = None
        self._deaths = 1 if process.finished else self._deaths + 1
        if isinstance(failure, EngineUnavailable):
            self._failed(failure)
        elif self._deaths >= MOST_DEATHS:
            self._failed(
                EngineUnavailable(
                    f"{self.name} is out of service because its worker process died "
                    f"{self._deaths} times in a row; it is started again after "
                    f"{self._retry_s:g} s, and the server's log says why it died.",
                    code=CRASHED,
                )
            )
        else:
            _log.warning("%s", failure)
            self._launch()

    def _failed(self, failure: EngineUnavailable) -> None:
        self._failure = failure
        self._failed_at_s = asyncio.get_running_loop().time()

    def _unavailable(self) -> EngineUnavailable:
        """Why there is no process; a new error each time, because it is raised often."""
        if self._failure is None:
            return EngineUnavailable(f"{self.name} is not loaded; start() loads it.")
        return EngineUnavailable(str(self._failure), code=self._failure.code)


class _Call:
    """One request, from when the worker gets it until it has ended there."""

    def __init__(self, ticket: int, on_end: Callable[[], None]) -> None:
        self.ticket = ticket
        self.on_end = on_end
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue(MOST_WAITING_CHUNKS)
        """None: no more come; `failure` says whether that is well."""
        self.failure: EngineError | None = None
        self.unwanted = False


class _Process:
    """One process, from its start until it is reaped."""

    def __init__(
        self,
        factory: str,
        arguments: Mapping[str, Any],
        *,
        name: str,
        load_timeout_s: float,
        hang_s: float,
        on_gone: Callable[[_Process, EngineError], None],
    ) -> None:
        self._name = name
        self._load_timeout_s = load_timeout_s
        self._hang_s = hang_s
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[Mapping[str, Any]] = self._loop.create_future()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self.finished = 0
        """Requests it brought to their end."""
        self._ending = self._closed = False
        self._call: _Call | None = None
        self._last_ticket = NO_TICKET
        self._deadline = asyncio.timeout(load_timeout_s)
        self._writer: asyncio.StreamWriter | None = None
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as on_failure:
            on_failure.callback(ours.close)
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "ivas.engines.model_process_worker",
                    str(theirs.fileno()),
                    factory,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in the terminal is not for it
                # It must find the same modules as this process; the rest is handed on.
                env=os.environ  # noqa: TID251
                | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)},
            )
            on_failure.pop_all()
        self._task = self._loop.create_task(self._run(ours, json.dumps(arguments).encode()))

    @property
    def serves(self) -> bool:
        loaded = self.ready.done() and self.ready.exception() is None
        return loaded and not self._ending

    def begin(self, request: Mapping[str, Any], on_end: Callable[[], None]) -> _Call:
        """Send a request. `on_end` is called once, when the worker is free again."""
        self._last_ticket += 1
        self._call = call = _Call(self._last_ticket, on_end)
        self._send(call.ticket, json.dumps(request).encode())
        self._expect_sign()
        return call

    def leave(self, call: _Call) -> None:
        """Nobody listens to `call` any more; if it still runs, the worker is told."""
        call.unwanted = True
        if self._call is call:
            self._send(NO_TICKET, str(call.ticket).encode())
        while not call.chunks.empty():  # a `_take` may be waiting for room
            call.chunks.get_nowait()

    async def aclose(self) -> None:
        """Kill the process and wait for its end."""
        self._ending = self._closed = True
        self._process.kill()  # `_run` sees the socket end
        done, _ = await asyncio.wait([self._task], timeout=STOP_TIMEOUT_S)
        if not done:  # stuck in the kernel
            self._task.cancel()
            self._over(self._lost(0, hung=False))

    async def _run(self, ours: socket.socket, arguments: bytes) -> None:
        """Read what the worker sends until it is gone, then reap it and say so."""
        hung = False
        refused: EngineUnavailable | None = None
        try:
            async with self._deadline:
                reader, self._writer = await asyncio.open_unix_connection(sock=ours)
                self._send(NO_TICKET, arguments)
                while True:
                    ticket, size = HEADER.unpack(await reader.readexactly(HEADER.size))
                    payload = await reader.readexactly(size)
                    await self._take(ticket, payload[:1], payload[1:])
        except TimeoutError:
            hung = True
        except EngineUnavailable as error:
            refused = error
        except (OSError, asyncio.IncompleteReadError):
            pass
        except Exception:
            _log.exception("%s: what its worker process sent makes no sense.", self._name)
        self._ending = True
        with contextlib.suppress(OSError):  # it is not reaped yet, so the number is still its
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._writer is None:
            ours.close()
        else:
            self._writer.close()
        # On a thread: a process that frees gigabytes takes its time to end.
        code = await self._loop.run_in_executor(None, self._process.wait)
        self._over(refused or self._lost(code, hung=hung))

    async def _take(self, ticket: int, kind: bytes, payload: bytes) -> None:
        """One message of the worker."""
        call = self._call
        if not self.ready.done():
            said = json.loads(payload)
            if kind != READY:
                raise self._refusal(said["message"], said["code"])
            self._deadline.reschedule(None)
            self.ready.set_result(said)
        elif call is not None and call.ticket == ticket:
            self._deadline.reschedule(None)  # while there is no room, the worker waits for us
            if kind in (DATA, ALIVE):
                if kind == DATA and not call.unwanted:
                    await call.chunks.put(payload)
                self._expect_sign()
                return
            if payload:
                said = json.loads(payload)
                call.failure = self._failure(said["message"], said["code"])
                if said["code"] == CRASHED:  # it is about to exit; the call ends with it
                    self._ending = True
                    self._expect_sign()
                    return
            self._call = None
            self.finished += 1
            call.on_end()
            if not call.unwanted:
                await call.chunks.put(None)

    def _expect_sign(self) -> None:
        """From now on the worker may be silent for `hang_s`."""
        self._deadline.reschedule(self._loop.time() + self._hang_s)

    def _send(self, ticket: int, payload: bytes) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(HEADER.pack(ticket, len(payload)) + payload)

    def _over(self, failure: EngineError) -> None:
        """It is reaped: tell everybody who waits."""
        if not self.ready.done():
            self.ready.set_exception(failure)
            self.ready.exception()  # nobody may be waiting for it
        self._on_gone(self, failure)
        self.gone.set_result(None)
        call, self._call = self._call, None
        if call is not None:
            call.failure = call.failure or failure
            call.on_end()
            while call.chunks.full():
                call.chunks.get_nowait()
            call.chunks.put_nowait(None)

    def _refusal(self, message: str, code: str) -> EngineUnavailable:
        """Why it could not load; `code` is empty for an error that is not ours."""
        if code:
            return EngineUnavailable(message, code=code)
        return EngineUnavailable(
            f"{self._name} cannot start because loading its model failed ({message}); see the "
            "server's log for the whole error."
        )

    def _failure(self, message: str, code: str) -> EngineError:
        if code:
            return EngineError(message, code=code)
        return EngineError(
            f"{self._name} failed while working ({message}); try again, and if it stays so "
            "restart the server."
        )

    def _lost(self, code: int, *, hung: bool) -> EngineError:
        """Why it is gone, of whatever it died."""
        name = self._name
        loading = not self.ready.done()
        if self._closed:
            return EngineUnavailable(f"{name} is closed; start() loads it again.")
        if hung and loading:
            return EngineUnavailable(
                f"{name} cannot start because its model did not load within "
                f"{self._load_timeout_s:.0f} s; see whether the machine is overloaded or the "
                "disk slow, then try again.",
                code="engine_timeout",
            )
        if hung:
            return EngineTimeout(
                f"{name} gave no sign of life for {self._hang_s:.0f} s, so its worker process "
                "was ended; speak again, a new one is being started."
            )
        why = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        if code == -signal.SIGKILL:
            why = "was killed from outside, most likely because the memory ran out"
        if loading:
            return EngineUnavailable(
                f"{name} cannot start because its worker process {why} while the model was "
                "loading; free some memory or choose a smaller engine, then try again.",
                code=CRASHED,
            )
        return EngineError(
            f"{name} lost what it was saying because its worker process {why}; speak again, a "
            "new one is being started.",
            code=CRASHED,
        )
