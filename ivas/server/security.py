"""Who may connect.

Without a key everybody on this machine may (the server then listens on loopback
only, see `settings.py`). With one, it comes as `Authorization: Bearer KEY`, or from
a browser's WebSocket, which cannot set headers, as the subprotocol
`openai-insecure-api-key.KEY`. Keys are compared in constant time and never logged.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

KEY_SUBPROTOCOL = "openai-insecure-api-key."
SUBPROTOCOL = "realtime"
"""The one subprotocol the server ever selects: the key must not be echoed."""


def given_key(headers: Mapping[str, str], subprotocols: Iterable[str] = ()) -> str | None:
    """The key a client presented, if any."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key:
        return key.strip()
    for offered in subprotocols:
        if offered.startswith(KEY_SUBPROTOCOL):
            return offered.removeprefix(KEY_SUBPROTOCOL)
    return None


def allowed(key: str | None, presented: str | None) -> bool:
    """Whether `presented` opens a server whose key is `key` (None = open)."""
    if key is None:
        return True
    return presented is not None and hmac.compare_digest(presented.encode(), key.encode())


def same_origin(headers: Mapping[str, str]) -> bool:
    """Whether a browser's request comes from this server's own page.

    Other programs send no Origin and are let through: the check is against foreign
    web pages that would use the visitor's browser to talk to a server on loopback.
    """
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        netloc = urlsplit(origin).netloc
    except ValueError:  # brackets that close nothing
        return False
    return netloc != "" and netloc.lower() == headers.get("host", "").lower()


def names_this_machine(headers: Mapping[str, str]) -> bool:
    """Whether the Host a browser asked for is this machine's own name for itself.

    A server without a key listens on loopback; a foreign name that resolves to it is
    a page that wants to pass for this server's own (DNS rebinding).
    """
    try:
        name = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def openai_error(
    message: str, *, code: str | None, kind: str = "invalid_request_error"
) -> dict[str, object]:
    """The error envelope of the OpenAI REST API."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
