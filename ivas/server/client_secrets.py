"""POST /v1/realtime/client_secrets: keys that may be given to a browser.

An `ek_...` secret opens the WebSocket for some minutes, with a session its maker has
bound to it, and nothing else. Any number of conversations may begin until it expires;
one that runs outlives it. Secrets live in memory only: a restart ends them all. What
one key or address may have open is a sixteenth of the room for all.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect

from ivas.announcements import SessionSettings
from ivas.errors import ClientError
from ivas.keys import Scope, digest_of

from .protocol_session import SessionConfig
from .security import Caller, Refusal

SECRET_PREFIX = "ek_"
"""What openai-node and the agents SDK take for safe to have in a browser."""

MAX_SECRETS = 4096
MAX_KEPT_BYTES = 32 * 1024 * 1024
"""All bound sessions together."""
MAX_SECRETS_EACH = MAX_SECRETS // 16
MAX_KEPT_BYTES_EACH = MAX_KEPT_BYTES // 16
"""Of one key, or of one address without a key. Only the whole bounds the key of the settings."""
MAX_BODY_BYTES = 512 * 1024
"""The longest instructions there may be, with every character escaped as JSON allows."""


@dataclass(frozen=True, slots=True)
class Secret:
    """What a client secret stands for."""

    maker: Caller
    expires_at: int
    """Seconds since the epoch."""
    session: bytes
    """The bound session, JSON: every conversation gets a copy of its own."""

    @property
    def bound_session(self) -> dict[str, Any]:
        bound: dict[str, Any] = orjson.loads(self.session)
        return bound


class ClientSecrets:
    """The secrets that are open, by their SHA-256.

    They are looked up, not compared one by one: how long that takes depends on a hash
    nobody can aim at, since nobody can aim at 256 random bits.
    """

    def __init__(self, *, now_s: Callable[[], float] = time.time) -> None:
        """`now_s`: seconds since the epoch."""
        self._now_s = now_s
        self._open: dict[str, Secret] = {}

    def issue(
        self, maker: Caller, *, seconds: int, session: dict[str, Any]
    ) -> tuple[str, int] | None:
        """A new secret, and when it expires (seconds since the epoch); None: no room for it,
        or for more of this maker: see `retry_after_s`.

        Raises orjson.JSONEncodeError if `session` is nested too deeply.
        """
        kept = orjson.dumps(session)
        now_s = self._now_s()
        self._open = {d: secret for d, secret in self._open.items() if now_s < secret.expires_at}
        everybodys, own = list(self._open.values()), self._of(maker)
        if not (
            _room(everybodys, kept, MAX_SECRETS, MAX_KEPT_BYTES)
            and _room(own, kept, MAX_SECRETS_EACH, MAX_KEPT_BYTES_EACH)
        ):
            return None
        value = SECRET_PREFIX + secrets.token_urlsafe(32)
        expires_at = int(now_s) + seconds
        self._open[digest_of(value)] = Secret(maker, expires_at, kept)
        return value, expires_at

    def find(self, presented: str) -> Secret | None:
        """What `presented` stands for; None if it has expired or never was."""
        secret = self._open.get(digest_of(presented))
        return secret if secret is not None and self._now_s() < secret.expires_at else None

    def retry_after_s(self, maker: Caller) -> int:
        """How long until a secret expires, one of `maker` if it has its share; at least 1."""
        own = self._of(maker)
        shared = _room(own, b"", MAX_SECRETS_EACH, MAX_KEPT_BYTES_EACH)
        ends = (secret.expires_at for secret in (self._open.values() if shared else own))
        return max(1, math.ceil(min(ends, default=0) - self._now_s()))

    def _of(self, maker: Caller) -> list[Secret]:
        """What is counted in the name of this maker."""
        if maker.holder is None:
            return []
        return [secret for secret in self._open.values() if secret.maker.holder == maker.holder]


def _room(secrets: list[Secret], kept: bytes, most: int, most_bytes: int) -> bool:
    """Whether one more that keeps `kept` goes beside `secrets`."""
    size = len(kept) + sum(len(secret.session) for secret in secrets)
    return len(secrets) < most and size <= most_bytes


# --- the route ---------------------------------------------------------------


class _Expiry(BaseModel):
    model_config = ConfigDict(strict=True)

    anchor: Literal["created_at"] = "created_at"
    seconds: int = Field(600, ge=10, le=7200)


class _Wanted(BaseModel):
    model_config = ConfigDict(strict=True)

    expires_after: _Expiry | None = None
    session: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ClientSecretsOptions:
    """What the composition root decides."""

    admit: Callable[[Request, Scope], Caller | Refusal]
    secrets: ClientSecrets
    defaults: SessionSettings
    model: str


def client_secrets_router(options: ClientSecretsOptions) -> APIRouter:
    """The one route."""
    router = APIRouter()

    @router.post("/v1/realtime/client_secrets")
    async def client_secrets(request: Request) -> Response:
        caller = options.admit(request, "talk")
        if isinstance(caller, Refusal):
            return caller.response()
        try:
            answer = _issue(await _body(request), caller, options)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        if isinstance(answer, Refusal):
            return answer.response()
        headers = {"Cache-Control": "no-store"}
        return Response(answer, media_type="application/json", headers=headers)

    return router


async def _body(request: Request) -> bytes | None:
    """None if it is too large."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


def _issue(body: bytes | None, caller: Caller, options: ClientSecretsOptions) -> bytes | Refusal:
    if body is None:
        message = f"The request is larger than {MAX_BODY_BYTES // 1024} KiB; shorten the session."
        return Refusal(413, "request_too_large", message)
    try:
        wanted = _Wanted.model_validate(orjson.loads(body) if body.strip() else {})
    except orjson.JSONDecodeError:
        return Refusal(400, "invalid_json", "The request is not JSON; send an object.")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = ".".join(map(str, first["loc"]))
        message = f"Invalid value for '{param or 'body'}': {first['msg']}."
        return Refusal(400, "invalid_value", message, param=param or None)

    bound = {"type": "realtime"} if wanted.session is None else wanted.session
    model = bound.get("model")
    config = SessionConfig(
        session_id=f"sess_{uuid4().hex[:12]}",
        model=model if isinstance(model, str) and model else options.model,
        defaults=options.defaults,
    )
    expiry = wanted.expires_after or _Expiry()
    try:
        config.update(bound)
        # First: what cannot be echoed could not be used either.
        session = orjson.dumps(config.echo)
        issued = options.secrets.issue(caller, seconds=expiry.seconds, session=bound)
    except ClientError as error:
        return Refusal(400, error.code, str(error), param=error.param)
    except (orjson.JSONEncodeError, RecursionError):
        return Refusal(
            400, "invalid_value", "The session is nested too deeply; flatten it.", param="session"
        )
    if issued is None:
        return Refusal(
            429,
            "rate_limit_exceeded",
            "Too many client secrets are open; try again when some have expired.",
            retry_after_s=options.secrets.retry_after_s(caller),
        )
    value, expires_at = issued
    answer = {"value": value, "expires_at": expires_at, "session": orjson.Fragment(session)}
    return orjson.dumps(answer)
