"""Who may connect: what a client shows in its headers, and how it is turned away.

Without a key everybody on this machine may (the server then listens on loopback
only, see `settings.py`). With one, it comes as `Authorization: Bearer KEY`, or from
a browser's WebSocket, which cannot set headers, as the subprotocol
`openai-insecure-api-key.KEY`. Keys are never logged.

This file reads and words; `admission.py` compares and decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from ivas.keys import Key, Scope

from .limits import network_of

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


def browsers_origin(origin: str) -> str:
    """An origin as browsers write it: in lower case, without the port of its scheme."""
    origin = origin.strip().rstrip("/").lower()
    usual = {"http": ":80", "https": ":443"}.get(origin.partition(":")[0], "")
    return origin.removesuffix(usual)


def cors(origins: Collection[str]) -> Middleware:
    """What tells browsers that pages of these origins may read the answers.

    They bring their key in a header; no cookie or other credential of a browser counts.
    """
    return Middleware(
        CORSMiddleware,
        allow_origins=frozenset(map(browsers_origin, origins)),
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=("*",),  # SDKs send a dozen of their own
        expose_headers=("Retry-After",),
        allow_private_network=True,  # a site on the web and a server at home
    )


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


def foreign_page(headers: Mapping[str, str], origins: Collection[str], *, keyless: bool) -> bool:
    """Whether a page this server does not know is behind a request.

    `origins`: those of other sites that may be, in lower case; `keyless`: whether the
    server lets everybody on this machine in, so that pages must not pass for them.
    """
    if keyless and _may_be_rebound(headers):
        return True
    origin = headers.get("origin")
    if origin is None:
        # A picture or a sound of a page: no Origin, but browsers say where it is from
        # (Fetch Metadata, W3C).
        return headers.get("sec-fetch-site") == "cross-site"
    return not same_origin(headers) and origin.lower() not in origins


def _may_be_rebound(headers: Mapping[str, str]) -> bool:
    """Whether the Host may be a name somebody else made to mean this machine.

    With an Origin only a loopback name is ours. Without one it is a program, or a page
    fetching from "itself": any name is taken that no public name server can give away,
    such as that of a container or a neighbour (RFC 6761, RFC 6762; ICANN: .internal).
    """
    if names_this_machine(headers):
        return False
    if "origin" in headers:
        return True
    name = _hostname(headers)
    try:
        ip_address(name)
    except ValueError:
        return "." in name and not name.endswith((".localhost", ".local", ".internal"))
    return False  # an address needs no name server


def _hostname(headers: Mapping[str, str]) -> str:
    """Of the Host; one that nobody can mean is a name nobody has."""
    try:
        return (urlsplit(f"//{headers.get('host', '')}").hostname or "").rstrip(".")
    except ValueError:  # brackets that close nothing
        return "malformed.invalid"


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may come in."""

    name: str
    """Of the key; `API_KEY_NAME` for the one of the settings; without any, the address."""
    scopes: frozenset[Scope]
    key: Key | None = None
    """The named key it came with."""
    bound_session: dict[str, Any] | None = None
    """What its client secret makes the default: the changes a `session.update` would bring."""

    @property
    def holder(self) -> str | None:
        """In whose name is counted what this caller holds: the key, without one the network.

        None: the key of the settings, whose holder only the whole bounds.
        """
        if self.key is not None:
            return self.key.name
        return None if self.name == API_KEY_NAME else network_of(self.name)

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes


API_KEY_NAME = "server.api_key"
"""No named key can have a dot in its name."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why somebody is not served, as HTTP and the Realtime protocol say it."""

    status: int
    """HTTP."""
    code: str
    message: str
    """One plain ASCII sentence with what to do next."""
    param: str | None = None
    retry_after_s: int | None = None

    @property
    def kind(self) -> str:
        """The `type` of the error."""
        if self.status == 429:
            return "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def response(self) -> JSONResponse:
        """In the envelope of the OpenAI REST API."""
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        envelope = openai_error(self.message, code=self.code, kind=self.kind, param=self.param)
        return JSONResponse(envelope, status_code=self.status, headers=headers)


def openai_error(
    message: str,
    *,
    code: str | None,
    kind: str = "invalid_request_error",
    param: str | None = None,
) -> dict[str, object]:
    """The error envelope of the OpenAI REST API."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
