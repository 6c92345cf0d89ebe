"""Who comes in, and how many at once: the one door of REST and WebSocket.

In this order: a page of a foreign site is refused, then a wrong key, then a key that
may not do this, then one too many. What is looked at is the moment of entering: a key
that is revoked, or expires, begins nothing new, and what runs with it goes on.

The server is open to all (as a server on loopback may be) only if it has no key in its
settings, no key file, and never had one since it started. A key file that cannot be
used lets in nobody but the key of the settings.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hmac import compare_digest

from fastapi import Request, WebSocket
from fastapi.responses import JSONResponse
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect

from ivas.errors import SettingsError
from ivas.keys import Key, KeyRing, Scope, digest_of, find_key

from .client_secrets import SECRET_PREFIX, ClientSecrets
from .limits import Limits, Places
from .security import (
    API_KEY_NAME,
    SUBPROTOCOL,
    Caller,
    Refusal,
    browsers_origin,
    foreign_page,
    given_key,
)

log = logging.getLogger(__name__)

POLICY_VIOLATION = 1008
TRY_AGAIN_LATER = 1013
UNAUTHORIZED = 3000
_CLOSES = {401: UNAUTHORIZED, 429: TRY_AGAIN_LATER, 503: TRY_AGAIN_LATER}

MAX_REASON = 120
"""Of a closing frame, in characters: it may hold 123 bytes (RFC 6455, section 5.5)."""

SESSION_RETRY_S = 10
"""A guess: conversations last minutes, and nobody knows when one ends."""


class Admission:
    """The door. Belongs to the event loop; waits for nothing."""

    def __init__(
        self,
        *,
        api_key: str | None,
        keys: KeyRing,
        secrets: ClientSecrets,
        limits: Limits,
        allowed_origins: Collection[str] = (),
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """`allowed_origins`: of the sites whose pages may use this server, beside its own.

        `now_s`: seconds since the epoch.
        """
        self._api_key_digest = None if api_key is None else digest_of(api_key)
        self._ring = keys
        self._secrets = secrets
        self._limits = limits
        self._origins = frozenset(map(browsers_origin, allowed_origins))
        self._now_s = now_s
        self._complaint: str | None = None
        self.sessions = Places(limits.sessions)
        self.requests = Places(limits.requests)

    # --- the doors -----------------------------------------------------------

    def admit_request(self, request: Request, scope: Scope | None) -> JSONResponse | None:
        """None if this request may be served; else what it is answered.

        `scope`: what a key needs for it; None: any key will do. Leaves the caller in the
        state of the request, where `rest_requests.Served` finds whose place it holds.
        """
        caller = self.admit(request, scope)
        if isinstance(caller, Refusal):
            return caller.response()
        request.state.caller = caller
        return None

    @contextmanager
    def session(self, websocket: WebSocket) -> Iterator[Caller | Refusal]:
        """Hold a place for one conversation for the time of the `with`.

        Yields whose it is; or, holding nothing, why there is to be none: `turn_away`.
        """
        caller = self.admit(websocket, "talk")
        if isinstance(caller, Refusal):
            yield caller
            return
        named = caller.key is not None
        most = self._limits.sessions_per_key if named else self._limits.sessions_per_address
        with self.sessions.place(caller.holder, most) as full:
            match full:
                case None:
                    yield caller
                case "all":
                    yield Refusal(
                        503,
                        "session_limit_reached",
                        "All conversations this server can hold are taken; try again later.",
                        retry_after_s=SESSION_RETRY_S,
                    )
                case "holder":
                    yield Refusal(
                        429,
                        "rate_limit_exceeded",
                        f"There may be {most} conversations at once with this key or from this "
                        "address; end one, then try again.",
                        retry_after_s=SESSION_RETRY_S,
                    )

    # --- who it is -----------------------------------------------------------

    def admit(self, connection: HTTPConnection, scope: Scope | None) -> Caller | Refusal:
        """Who this is, if it may come in; counts nothing. See `admit_request`."""
        headers = connection.headers
        keys, broken = self._keys()
        keyless = self._api_key_digest is None and keys is None
        if foreign_page(headers, self._origins, keyless=keyless):
            return Refusal(
                403,
                "origin_not_allowed",
                "Web pages of other sites may not use this server; its operator can allow the "
                "origin of this one in the setting server.cors_origins.",
            )
        if len(headers.getlist("authorization")) > 1:
            # Whatever stands in front may have looked at the other one.
            return _unknown("There are several Authorization headers; send one.")
        presented = given_key(headers, connection.scope.get("subprotocols", ()))
        caller = self._caller(connection, presented, keys or (), keyless=keyless)
        if isinstance(caller, Refusal):
            if broken and caller.status == 401:
                return Refusal(
                    503,
                    "keys_unavailable",
                    "This server cannot read its keys; whoever runs it finds the reason in its "
                    "log.",
                )
            return caller
        if scope is not None and not caller.may(scope):
            return Refusal(
                403,
                "insufficient_scope",
                f"This key may {' and '.join(sorted(caller.scopes))} only, and this needs "
                f"{scope}; ask whoever runs this server for another key.",
            )
        return caller

    def _caller(
        self,
        connection: HTTPConnection,
        presented: str | None,
        keys: tuple[Key, ...],
        *,
        keyless: bool,
    ) -> Caller | Refusal:
        address = connection.client.host if connection.client is not None else "local"
        anybody = Caller(address, frozenset({"admin"}))
        if presented is None:
            if keyless:
                return anybody
            return _unknown("This server needs a key; send it as 'Authorization: Bearer KEY'.")
        key = find_key(keys, presented)
        if self._api_key_digest is not None and compare_digest(
            digest_of(presented), self._api_key_digest
        ):
            return Caller(API_KEY_NAME, frozenset({"admin"}))
        if key is not None:
            if key.expired(self._now_s()):
                return _unknown("This API key has expired; ask whoever runs this server for one.")
            return Caller(key.name, frozenset(key.scopes), key)
        if presented.startswith(SECRET_PREFIX):
            secret = self._secrets.find(presented)
            if secret is None or not self._still_in(secret.maker, keys, keyless=keyless):
                return _unknown("This client secret has expired or never was; get a new one.")
            if connection.scope["type"] != "websocket":
                return Refusal(
                    403,
                    "insufficient_scope",
                    "A client secret opens the WebSocket /v1/realtime only; use an API key here.",
                )
            maker = anybody if keyless else secret.maker
            return replace(
                maker, scopes=frozenset[Scope]({"talk"}), bound_session=secret.bound_session
            )
        return anybody if keyless else _unknown(_WRONG)

    def _still_in(self, maker: Caller, keys: tuple[Key, ...], *, keyless: bool) -> bool:
        """A secret ends with what its maker came in by, at the latest."""
        if maker.key is not None:
            return maker.key in keys and not maker.key.expired(self._now_s())
        return maker.name == API_KEY_NAME or keyless

    def _keys(self) -> tuple[tuple[Key, ...] | None, bool]:
        """The named keys, None if keys are not used; and whether they cannot be read."""
        try:
            keys = self._ring.keys()
        except SettingsError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.error("%s", error)
            return (), True
        self._complaint = None
        return keys, False


_WRONG = "Incorrect API key provided; ask whoever runs this server for one."


def _unknown(message: str) -> Refusal:
    return Refusal(401, "invalid_api_key", message)


async def turn_away(websocket: WebSocket, refusal: Refusal) -> None:
    """Tell a client that has not been accepted why it will not be."""
    try:
        if SUBPROTOCOL not in websocket.scope["subprotocols"]:
            await websocket.send_denial_response(refusal.response())
            return
        # A browser is not told why a handshake failed, so it is told afterwards.
        await websocket.accept(subprotocol=SUBPROTOCOL)
        error = {"type": refusal.kind, "code": refusal.code, "message": refusal.message}
        if refusal.param is not None:
            error["param"] = refusal.param
        await websocket.send_json({"type": "error", "event_id": "event_0", "error": error})
        close_code = _CLOSES.get(refusal.status, POLICY_VIOLATION)
        await websocket.close(close_code, refusal.message[:MAX_REASON])
    except (WebSocketDisconnect, OSError):
        log.debug("a client did not wait for its refusal")
