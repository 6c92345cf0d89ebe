from __future__ import annotations

import asyncio
import base64
import socket
from typing import Any

import orjson
import pytest
from virtual_time import virtual_time
from websockets.asyncio.server import ServerConnection

from ivas.client.wire import (
    FRAME_BYTES,
    Connection,
    WireError,
    connect,
    on_this_machine,
    realtime_url,
)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:8000", "ws://127.0.0.1:8000/v1/realtime?model=ivas"),
        ("http://host:1", "ws://host:1/v1/realtime?model=ivas"),
        ("https://host/", "wss://host/v1/realtime?model=ivas"),
        ("ws://host/v1", "ws://host/v1/realtime?model=ivas"),
        ("wss://host/realtime?model=gpt", "wss://host/realtime?model=gpt"),
        ("ws://[::1]:80/openai/v1/realtime", "ws://[::1]:80/openai/v1/realtime?model=ivas"),
    ],
)
def test_an_address_becomes_a_realtime_url(address: str, url: str) -> None:
    assert realtime_url(address) == url


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("http://LOCALHOST:1/v1", True),
        ("wss://[::1]:80", True),
        ("192.168.0.2:8000", False),
        ("ws://localhost.example.com", False),
        ("ws://127.0.0.1@example.com", False),
    ],
)
def test_whether_an_address_is_on_this_machine(address: str, here: bool) -> None:
    assert on_this_machine(address) is here


@pytest.mark.parametrize("address", ["", "ftp://host", "ws://", "http:///v1", "ws://[::1"])
def test_what_is_no_address_is_refused_in_one_sentence(address: str) -> None:
    with pytest.raises(WireError, match="is no address of a server; give one like ws://"):
        realtime_url(address)


async def test_speaks_the_protocol(serving: Any) -> None:
    seen: list[Any] = []

    async def server(websocket: ServerConnection) -> None:
        seen.append(websocket.request.headers["Authorization"])
        seen.append(websocket.request.path)
        await websocket.send('{"type":"session.created","session":{}}')
        for _ in range(5):
            seen.append(orjson.loads(await websocket.recv()))
        await websocket.send('{"type":"response.done","response":{"id":"r"}}')
        await websocket.wait_closed()

    loop = asyncio.get_running_loop()
    async with serving(server) as url, connect(url, key="secret") as connection:
        before_s = loop.time()
        await connection.configure({"output_modalities": ["text"]})
        await connection.configure({"ivas": {"events": ["latency"]}}, event_id="e1")
        await connection.say_text("hello")
        await connection.append(b"\1\2")
        event = await connection.receive()

    assert seen == [
        "Bearer secret",
        "/v1/realtime?model=ivas",
        {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}},
        {
            "type": "session.update",
            "event_id": "e1",
            "session": {"type": "realtime", "ivas": {"events": ["latency"]}},
        },
        {
            "type": "conversation.item.create",
            "item": {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "hello"}],
            },
        },
        {"type": "response.create"},
        {"type": "input_audio_buffer.append", "audio": base64.b64encode(b"\1\2").decode()},
    ]
    assert event.type == "response.done"
    assert event.body["response"] == {"id": "r"}
    assert before_s <= event.at_s <= loop.time()


async def test_iterates_until_the_server_closes_and_says_why(serving: Any) -> None:
    async def server(websocket: ServerConnection) -> None:
        await websocket.send('{"type":"session.created"}')
        await websocket.send('{"type":"a"}')
        await websocket.send('{"type":"b"}')
        await websocket.close(1013, "too slow")

    async with serving(server) as url, connect(url) as connection:
        events = aiter(connection)
        types = [(await anext(events)).type, (await anext(events)).type]
        with pytest.raises(WireError, match=r"closed the connection \(1013: too slow\)"):
            await anext(events)
        with pytest.raises(WireError, match="1013"):
            await connection.append(bytes(2))
    assert types == ["a", "b"]


async def test_a_connection_that_breaks_off(serving: Any) -> None:
    async def server(websocket: ServerConnection) -> None:
        await websocket.send('{"type":"session.created"}')
        websocket.transport.abort()

    async with serving(server) as url, connect(url) as connection:
        with pytest.raises(WireError, match="broke off"):
            await connection.receive()


@pytest.mark.parametrize("raw", ["[]", "no json", '{"session":{}}'])
async def test_what_is_no_event(serving: Any, raw: str) -> None:
    async def server(websocket: ServerConnection) -> None:
        await websocket.send('{"type":"session.created"}')
        await websocket.send(raw)
        await websocket.wait_closed()

    async with serving(server) as url, connect(url) as connection:
        with pytest.raises(WireError, match="no Realtime event"):
            await connection.receive()


async def refusal(address: str, *, timeout_s: float = 10.0) -> str:
    with pytest.raises(WireError) as caught:
        async with connect(address, timeout_s=timeout_s):
            pass
    return str(caught.value)


ENVELOPE = '{"error":{"message":"Say why.","code":"c"}}'


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (401, ENVELOPE, "lets us in only with the right key (HTTP 401: Say why); use --key."),
        (403, "", "lets us in only with the right key (HTTP 403); use --key."),
        (404, "", "has no Realtime protocol at this path (HTTP 404); correct the address."),
        (503, ENVELOPE, "is not ready yet: Say why."),
        (503, "<html>", "is not ready yet; try again in a moment."),
        (500, "[]", "refused the connection (HTTP 500)."),
    ],
)
async def test_a_refusal_says_why(serving: Any, status: int, body: str, sentence: str) -> None:
    async with serving(status=status, body=body) as url:
        assert sentence in await refusal(url)


async def test_nothing_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        said = await refusal(f"127.0.0.1:{probe.getsockname()[1]}")
    assert "Nothing listens at ws://127.0.0.1:" in said


async def test_something_else_listens() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert "is no Realtime server" in await refusal(f"127.0.0.1:{port}")


async def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        said = await refusal(f"127.0.0.1:{deaf.getsockname()[1]}", timeout_s=0.05)
    assert "did not answer within 0.05 s" in said


async def test_let_in_but_not_greeted(serving: Any) -> None:
    async def server(websocket: ServerConnection) -> None:
        await websocket.wait_closed()

    async with serving(server) as url:
        assert "did not greet" in await refusal(url, timeout_s=0.2)


async def test_refused_after_being_let_in(serving: Any) -> None:
    async def server(websocket: ServerConnection) -> None:
        await websocket.send('{"type":"error","error":{"message":"Wrong key."}}')
        await websocket.close(3000)

    async with serving(server) as url:
        assert await refusal(url) == f"{realtime_url(url)} refused: Wrong key."


class Recorder:
    """In place of a WebSocket: notes when each frame was sent; some take long."""

    def __init__(self, slow: dict[int, float]) -> None:
        self.slow = slow
        self.sent_s: list[float] = []

    async def send(self, text: str) -> None:
        number = len(self.sent_s)
        self.sent_s.append(round(asyncio.get_running_loop().time(), 6))
        await asyncio.sleep(self.slow.get(number, 0.0))


@virtual_time
async def test_audio_keeps_an_absolute_schedule() -> None:
    recorder = Recorder({2: 0.045})  # the machine was busy: frames 3 and 4 are late
    connection = Connection(recorder, "ws://test")  # type: ignore[arg-type]
    sent: list[tuple[int, float]] = []
    frames = iter([bytes(FRAME_BYTES)] * 7)
    await connection.stream(frames, start_s=1.0, on_sent=lambda k, at_s: sent.append((k, at_s)))
    assert recorder.sent_s == pytest.approx([1.0, 1.02, 1.04, 1.085, 1.085, 1.1, 1.12])
    assert [number for number, _ in sent] == list(range(7))
    assert [at_s for _, at_s in sent] == pytest.approx(recorder.sent_s)


@virtual_time
async def test_each_frame_is_asked_for_when_it_is_due() -> None:
    connection = Connection(Recorder({}), "ws://test")  # type: ignore[arg-type]
    asked_s = []

    def frames() -> Any:
        for _ in range(3):
            asked_s.append(asyncio.get_running_loop().time())
            yield bytes(FRAME_BYTES)

    await connection.stream(frames(), start_s=0.5)
    assert asked_s == pytest.approx([0.5, 0.52, 0.54])
