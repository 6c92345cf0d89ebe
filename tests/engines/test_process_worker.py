"""The messages on a worker's sockets. The processes themselves: test_process.py."""

from __future__ import annotations

import itertools
import socket

from hypothesis import given
from hypothesis import strategies as st

from ivas.engines.process_worker import HEADER, Connection, take_message

Messages = list[tuple[int, bytes]]
messages = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=50)), max_size=8)


def on_the_wire(messages: Messages) -> bytes:
    return b"".join(HEADER.pack(ticket, len(body)) + body for ticket, body in messages)


@given(messages, st.lists(st.integers(0, 600), max_size=8))
def test_any_cut_of_the_stream_gives_the_same_messages(messages, cuts):
    stream = on_the_wire(messages)
    edges = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    received, taken = bytearray(), []
    for start, end in itertools.pairwise(edges):
        received += stream[start:end]
        while (message := take_message(received)) is not None:
            taken.append(message)
    assert taken == messages
    assert received == b""


def test_a_connection_reads_messages_until_the_end():
    ours, theirs = socket.socketpair()
    connection = Connection(theirs)
    with theirs:
        with ours:
            ours.sendall(on_the_wire([(0, b"one"), (7, b"")]))
            assert connection.receive() == (0, b"one")
            assert connection.receive() == (7, b"")
            connection.answer(7, b"two")
            assert take_message(bytearray(ours.recv(100))) == (7, b"two")
        assert connection.receive() is None
