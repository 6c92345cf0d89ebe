"""An ONNX voice on the processor: its session, what can be wrong with it, and stopping it.

onnxruntime releases the GIL while it loads and while it runs, so both belong on a
thread (measured: a model of 240 MB loads in 1.1 s and nothing else waits for more
than 7 ms). Its threads do not spin: a voice that does not speak costs nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence, Set
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ivas.engines import AudioChunk, Priority
from ivas.engines.threads import Emit, Slots, stream_from_thread
from ivas.errors import EngineError, EngineUnavailable, IvasError
from ivas.hardware import physical_cores

CHUNK_MS = 100
"""Speech is handed on in chunks of this length: a cancel between them costs nothing."""
MOST_CHUNKS = 60_000 // CHUNK_MS
"""A minute of speech may wait for its listener; only a longer one keeps the slot meanwhile."""

_ERRORS_ONLY = 3
_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "allocate memory", "Failed to allocate")


T = TypeVar("T")


class Broken:
    """The files that did not load, and why: none is read again before it changes."""

    def __init__(self) -> None:
        self._found: dict[object, tuple[str, str]] = {}

    def load(self, paths: Sequence[Path], load: Callable[[], T]) -> T:
        """What `load()` makes of the files at `paths`. Raises EngineUnavailable."""
        files = fingerprint(paths)
        if files in self._found:
            sentence, code = self._found[files]
            raise EngineUnavailable(sentence, code=code)
        try:
            return load()
        except EngineUnavailable as error:
            if files and error.code != "out_of_memory":
                self._found[files] = str(error), error.code
            raise


class SpeakingSession:
    """An onnxruntime session whose first output is sound, and of which a call can be ended.

    `options` is the onnxruntime.RunOptions of the next calls: set its `terminate` from
    any thread and they fail within one operator of the model. `name` and `fix` are for
    the sentence about a model that makes no sound.
    """

    def __init__(self, session: Any, *, name: str, fix: str) -> None:
        self._session = session
        self._name = name
        self._fix = fix
        self.options: Any = None

    def run(self, outputs: Any, inputs: Any) -> Any:
        """Raises EngineError unless the sound is numbers, and there are some."""
        made = self._session.run(outputs, inputs, self.options)
        if not made[0].size or not np.isfinite(made[0]).all():
            found = "sound that is no sound" if made[0].size else "no sound"
            raise EngineError(
                f"{self._name} made {found} of a text; {self._fix}.", code="tts_garbled"
            )
        return made


async def stream_speech(
    speak: Callable[[Emit[AudioChunk], Any], None],
    *,
    rate_hz: int,
    name: str,
    slots: Slots,
    priority: Priority,
) -> AsyncGenerator[AudioChunk, None]:
    """What `speak(emit, options)` emits on a thread, as in `stream_from_thread`.

    Before that an empty chunk, which says that its turn has come. `options` are for a
    SpeakingSession: closing the generator stops the call that runs.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()

    def work(emit: Emit[AudioChunk]) -> None:
        try:
            if emit(AudioChunk(b"", rate_hz)):
                speak(emit, options)
        except IvasError:
            raise
        except Exception as error:
            raise cannot_speak(name, error) from error

    chunks = stream_from_thread(
        work, name=name, slots=slots, priority=priority, most_chunks=MOST_CHUNKS
    )
    async with aclosing(chunks):
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            options.terminate = True


def open_session(path: Path, *, threads: int, inputs: Sequence[Set[str]], fix: str) -> Any:
    """Load the model at `path`, which must take one of the sets of `inputs`. Blocks.

    `threads` for one call, 0 = one a physical core. `fix` is an imperative, as in
    `need_files`. Raises EngineUnavailable.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or physical_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its exceptions have no common base but this
        raise cannot_load(path, error, fix) from error
    given = {each.name for each in session.get_inputs()}
    if given not in inputs:
        raise EngineUnavailable(
            f"The model file {path} is another kind of model (its inputs are "
            f"{', '.join(sorted(given))}, not {', '.join(sorted(inputs[0]))}); {fix}.",
            code="model_broken",
        )
    return session


def cannot_import(package: str, error: Exception, *, extra: str) -> EngineUnavailable:
    """The sentence for a package that is installed and does not load because of `error`."""
    return EngineUnavailable(
        f"The package {package} does not load ({reason(error)}); install it anew with: "
        f"pip install --force-reinstall 'ivas[{extra}]', then start IVAS again.",
        code="package_broken",
    )


def cannot_load(path: Path, error: Exception, fix: str) -> EngineUnavailable:
    """The sentence for a model file that does not load because of `error`."""
    if is_out_of_memory(error):
        return EngineUnavailable(
            f"There is not enough free memory for the model {path} "
            f"({_megabytes(path)} MB); close other programs, or choose a smaller model.",
            code="out_of_memory",
        )
    return EngineUnavailable(
        f"The model file {path} is damaged ({reason(error)}); {fix}.", code="model_broken"
    )


def cannot_speak(name: str, error: Exception) -> EngineError:
    """The sentence for an engine `name` whose call failed with `error`."""
    if is_out_of_memory(error):
        return EngineError(
            f"{name} ran out of memory while speaking; close other programs, or choose "
            "a lighter voice with IVAS_TTS__ENGINE.",
            code="out_of_memory",
        )
    return EngineError(
        f"{name} could not speak this ({reason(error)}); try again, or choose another voice."
    )


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY)


def reason(error: Exception) -> str:
    """The first line of an error, without what onnxruntime puts before it."""
    line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return line.rpartition(" : ")[2][:160].rstrip(". ")


def chunks_of(
    samples: npt.NDArray[np.floating[Any]], rate_hz: int, *, pause_s: float = 0.0
) -> Iterator[AudioChunk]:
    """Float samples in [-1, 1] as PCM16 chunks of `CHUNK_MS`, `pause_s` of silence behind."""
    pcm = np.zeros(len(samples) + round(pause_s * rate_hz), "<i2")
    pcm[: len(samples)] = np.clip(samples, -1, 1) * 32767
    size = rate_hz * CHUNK_MS // 1000
    for start in range(0, len(pcm), size):
        yield AudioChunk(pcm[start : start + size].tobytes(), rate_hz)


def fingerprint(paths: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    """Changes when one of the files does: what was found broken is not read again before."""
    found = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append((str(path), stat.st_size, stat.st_mtime_ns))
    return tuple(found)


def _megabytes(path: Path) -> int:
    try:
        return round(path.stat().st_size / 1e6)
    except OSError:
        return 0
