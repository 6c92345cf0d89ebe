"""uvicorn's WebSocket protocol, for clients that are there no more but never say so.

uvicorn closes a connection once all it has written was taken. A client that stops
reading, or whose network is gone, takes nothing: its connection, its buffers and,
after a ping without an answer, even its session would stay for ever (seen with
uvicorn 0.54). Here such a connection is cut.
"""

from __future__ import annotations

from asyncio import TimerHandle

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

GOODBYE_S = 5.0
"""How long a client may take to read what was written before the end."""


class CuttingProtocol(WebSocketsSansIOProtocol):
    """See the module."""

    _cut: TimerHandle | None = None

    async def run_asgi(self) -> None:
        await super().run_asgi()
        if not self.disconnected:
            self._cut = self.loop.call_later(GOODBYE_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._cut is not None:
            self._cut.cancel()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # A handshake that cannot be read (too large a header, say) is answered by the
            # library, but uvicorn neither sends the answer nor closes the socket.
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()
