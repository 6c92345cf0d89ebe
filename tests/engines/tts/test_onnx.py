"""The session of an ONNX voice: its options, its end, and what its errors say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_voices import write_kokoro

from ivas.engines import AudioChunk
from ivas.engines.threads import Slots
from ivas.engines.tts import onnx
from ivas.errors import EngineError, EngineUnavailable

INPUTS = ({"tokens", "style", "speed"},)
FEED = {
    "tokens": np.array([[0, 50, 60, 0]], np.int64),
    "style": np.full((1, 256), 0.02, np.float32),
    "speed": np.ones(1, np.float32),
}


@pytest.fixture
def session(tmp_path):
    path = write_kokoro(tmp_path) / "kokoro-v1.0.onnx"
    return onnx.open_session(path, threads=0, inputs=INPUTS, fix="mend it")


def test_its_threads_do_not_spin(session):
    options = session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.intra_op_num_threads >= 1


def test_a_call_ends_when_it_is_told_to(session):
    import onnxruntime

    speaking = onnx.SpeakingSession(session, name="Tiny", fix="mend it")
    speaking.options = onnxruntime.RunOptions()
    assert speaking.run(None, FEED)[0].size
    speaking.options.terminate = True
    with pytest.raises(Exception, match="terminate"):
        speaking.run(None, FEED)
    speaking.options = None
    assert speaking.run(None, FEED)[0].size


async def test_closing_the_stream_ends_the_call(no_leaks):
    seen = []

    def speak(emit, options):
        seen.append(options)
        for chunk in onnx.chunks_of(np.ones(100_000), 8000):
            if not emit(chunk):
                return

    speech = onnx.stream_speech(speak, rate_hz=8000, name="tiny", slots=Slots(1), priority="first")
    assert await anext(speech) == AudioChunk(b"", 8000)
    await anext(speech)
    assert not seen[0].terminate
    await speech.aclose()
    assert seen[0].terminate


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (MemoryError(), "out of memory", "out_of_memory"),
        (RuntimeError("std::bad_alloc"), "out of memory", "out_of_memory"),
        (ValueError("odd\nand more"), r"\(odd\)", "engine_failed"),
        (KeyError(), r"\(KeyError\)", "engine_failed"),
        (EngineError("My own words.", code="mine"), "^My own words.$", "mine"),
    ],
)
async def test_an_error_is_one_sentence(error, said, code, no_leaks):
    def speak(emit, options):
        raise error

    speech = onnx.stream_speech(speak, rate_hz=8000, name="tiny", slots=Slots(1), priority="first")
    with pytest.raises(EngineError, match=said) as caught:
        async for _ in speech:
            pass
    assert caught.value.code == code


def test_what_onnxruntime_puts_before_a_reason_is_left_out():
    error = RuntimeError("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model failed.\nmore")
    assert onnx.reason(error) == "Load model failed"
    assert onnx.reason(OSError()) == "OSError"


@given(
    st.lists(st.floats(-2, 2, width=32), max_size=400), st.sampled_from([0.0, 0.01]), st.booleans()
)
def test_chunks_are_the_whole_sound(samples, pause_s, double):
    made = np.array(samples, np.float64 if double else np.float32)
    chunks = list(onnx.chunks_of(made, 1000, pause_s=pause_s))
    assert all(chunk.rate_hz == 1000 and 0 < len(chunk.pcm) <= 200 for chunk in chunks)
    heard = np.frombuffer(b"".join(chunk.pcm for chunk in chunks), "<i2")
    assert len(heard) == len(samples) + round(pause_s * 1000)
    assert np.abs(heard[: len(samples)] - np.clip(made, -1, 1) * 32767).max(initial=0) < 1
    assert not heard[len(samples) :].any()


def test_a_fingerprint_changes_with_the_file(tmp_path):
    path = tmp_path / "model"
    nothing = onnx.fingerprint([path])
    path.write_bytes(b"1")
    one = onnx.fingerprint([path])
    assert onnx.fingerprint([path]) == one != nothing
    path.write_bytes(b"22")
    assert onnx.fingerprint([path]) != one


def test_what_is_broken_is_not_read_again_before_it_changes(tmp_path):
    path, broken, reads = tmp_path / "model", onnx.Broken(), []

    def load(code: str) -> None:
        reads.append(code)
        raise EngineUnavailable(f"It is {code}.", code=code)

    def fails(code: str) -> str:
        with pytest.raises(EngineUnavailable) as caught:
            broken.load([path], lambda: load(code))
        return caught.value.code

    assert [fails("gone"), fails("gone too")] == ["gone", "gone too"]  # there is no file yet
    path.write_bytes(b"one")
    assert [fails("out_of_memory"), fails("damaged"), fails("unread")] == [
        "out_of_memory",
        "damaged",
        "damaged",
    ]
    path.write_bytes(b"another")
    assert broken.load([path], lambda: "read") == "read"
    assert reads == ["gone", "gone too", "out_of_memory", "damaged"]


def test_a_package_that_does_not_load():
    error = onnx.cannot_import("piper-tts", ImportError("no\nreason"), extra="piper")
    assert str(error) == (
        "The package piper-tts does not load (no); install it anew with: pip install "
        "--force-reinstall 'ivas[piper]', then start IVAS again."
    )
