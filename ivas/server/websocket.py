"""uvicorn's WebSocket protocol, for clients that are there no more but never say so.

uvicorn closes a connection once all it has written was taken. A client that stops
reading, or whose network is gone, takes nothing: its connection, its buffers and,
after a ping without an answer, even its session would stay for ever (seen with
uvicorn 0.54). Here such a connection is cut.
"""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

GOODBYE_S = 5.0
"""How long a client may take to read what was written before the end."""


class CuttingProtocol(WebSocketsSansIOProtocol):
    """See the module."""

    async def run_asgi(self) -> None:
        await super().run_asgi()
        # Does nothing to a connection that is closed by then.
        self.loop.call_later(GOODBYE_S, self.transport.abort)

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()
