"""Is it alive, is it ready, what does it serve: /health, /ready, /v1/models.

What of the OpenAI REST API is not served is refused in its own envelope, which its
clients show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from ivas import __version__
from ivas.choice import Choice, Engines
from ivas.engines import Engine

from .admission import Admission
from .security import openai_error


def readiness(engines: Engines) -> dict[str, Any]:
    """The body of /ready: what serves, by kind, with its reason when it is not ready.

    `better`: what would serve instead if it could, and what it lacks.
    """
    states = {choice.kind: _state(choice) for choice in engines.choices}
    return {"ready": all(state["ready"] for state in states.values()), "engines": states}


def _state(choice: Choice[Engine]) -> dict[str, Any]:
    engine = choice.serving
    status = engine.status()
    state: dict[str, Any] = {"engine": engine.name, "ready": status.ready}
    if not status.ready:
        state["reason"] = status.reason
    if missing := choice.missing:
        state["better"] = missing
    return state


def status_router(
    engines: Engines,
    *,
    model: str,
    started_at: int,
    admission: Admission,
    unready: Callable[[], str | None] = lambda: None,
) -> APIRouter:
    """`started_at`: seconds since the epoch. `unready`: why nobody is served yet, or None."""
    router = APIRouter()
    card = {"id": model, "object": "model", "created": started_at, "owned_by": "ivas"}

    def refusal(request: Request) -> JSONResponse | None:
        return admission.admit_request(request, None)

    @router.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @router.get("/ready")
    async def ready(request: Request) -> JSONResponse:
        body = readiness(engines)
        if (reason := unready()) is not None:
            body |= {"ready": False, "reason": reason}
        status = 200 if body["ready"] else 503
        if refusal(request) is not None:
            body = {"ready": body["ready"]}  # what is installed here is not for everybody
        return JSONResponse(body, status_code=status)

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
            f"{request.method} /v1/{path} is not served; this server has /v1/models, /v1/audio "
            "and the WebSocket /v1/realtime."
        )
        envelope = openai_error(message, code="not_found")
        return refusal(request) or JSONResponse(envelope, status_code=404)

    return router
