"""Is it alive, is it ready, what does it serve: /health, /ready, /v1/models.

The rest of the OpenAI REST API is refused in its own envelope, which its clients show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from ivas import __version__
from ivas.engines import Engine

from .security import allowed, given_key, openai_error


def readiness(engines: dict[str, Engine]) -> dict[str, Any]:
    """The body of /ready: every engine by kind, with its reason when not ready."""
    states = {kind: (engine.name, engine.status()) for kind, engine in engines.items()}
    return {
        "ready": all(status.ready for _, status in states.values()),
        "engines": {
            kind: {"engine": name, "ready": status.ready}
            | ({} if status.ready else {"reason": status.reason})
            for kind, (name, status) in states.items()
        },
    }


def status_router(
    engines: Callable[[], dict[str, Engine]], *, model: str, started_at: int, key: str | None
) -> APIRouter:
    """`engines` gives the engines serving now, by kind."""
    router = APIRouter()
    card = {"id": model, "object": "model", "created": started_at, "owned_by": "ivas"}

    def refusal(request: Request) -> JSONResponse | None:
        if allowed(key, given_key(request.headers)):
            return None
        message = "Incorrect API key provided; use the key this server was started with."
        return JSONResponse(openai_error(message, code="invalid_api_key"), status_code=401)

    @router.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @router.get("/ready")
    async def ready() -> JSONResponse:
        body = readiness(engines())
        return JSONResponse(body, status_code=200 if body["ready"] else 503)

    @router.get("/v1/models")
    async def models(request: Request) -> JSONResponse:
        return refusal(request) or JSONResponse({"object": "list", "data": [card]})

    @router.get("/v1/models/{name}")
    async def one_model(request: Request, name: str) -> JSONResponse:
        if name == model:
            return refusal(request) or JSONResponse(card)
        message = f"The model '{name}' does not exist; this server serves '{model}'."
        envelope = openai_error(message, code="model_not_found")
        return refusal(request) or JSONResponse(envelope, status_code=404)

    @router.api_route("/v1/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def not_served(request: Request, path: str) -> JSONResponse:
        message = (
            f"{request.method} /v1/{path} is not served by this version; it has "
            "GET /v1/models and the WebSocket /v1/realtime."
        )
        envelope = openai_error(message, code="not_found")
        return refusal(request) or JSONResponse(envelope, status_code=404)

    return router
