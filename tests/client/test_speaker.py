from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from ivas.client.speaker import open_speaker


class Stream:
    """As sounddevice's: calls back for samples, here when the test says so."""

    def __init__(self, **how: Any) -> None:
        self.how = how
        self.state = "made"

    def start(self) -> None:
        self.state = "started"

    def stop(self) -> None:
        self.state = "stopped"

    def close(self) -> None:
        assert self.state == "stopped"
        self.state = "closed"

    def pull(self, samples: int) -> bytes:
        out = bytearray(2 * samples)
        self.how["callback"](memoryview(out), samples, None, None)
        return bytes(out)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[Stream]:
    made: list[Stream] = []

    def output(**how: Any) -> Stream:
        made.append(Stream(**how))
        return made[-1]

    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(RawOutputStream=output))
    return made


def test_plays_in_order_then_silence(streams: list[Stream]) -> None:
    speaker = open_speaker()
    assert speaker is not None
    (stream,) = streams
    assert (stream.how["samplerate"], stream.how["channels"]) == (24_000, 1)
    speaker.play(b"\1\2\3\4")
    speaker.play(b"\5\6")
    assert stream.pull(2) == b"\1\2\3\4"
    assert stream.pull(2) == b"\5\6\0\0"
    speaker.play(b"\7\7")
    speaker.flush()
    assert stream.pull(1) == b"\0\0"
    speaker.close()
    assert stream.state == "closed"


def test_no_device_no_library_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_device(**how: Any) -> None:
        raise RuntimeError("Error querying device -1")

    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(RawOutputStream=no_device))
    assert open_speaker() is None
    monkeypatch.setitem(sys.modules, "sounddevice", None)  # as if it were not installed
    assert open_speaker() is None
