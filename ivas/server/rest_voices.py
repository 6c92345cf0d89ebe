"""GET /v1/audio/voices and /v1/audio/models: what may be asked for in /v1/audio/speech.

Not in the OpenAI API, but Open WebUI asks every other server for both, and others have
followed: without them it offers the voices of OpenAI only.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from ivas.engines import TTS

from .rest_requests import Admit


def voices_router(tts: Callable[[], TTS], *, model: str, admit: Admit) -> APIRouter:
    """`tts`: the engine that serves now. `model`: what this server calls its pipeline."""
    router = APIRouter()

    @router.get("/v1/audio/voices")
    async def voices(request: Request) -> JSONResponse:
        return admit(request, "speech") or JSONResponse(
            {
                "voices": [
                    {"id": voice.id, "name": voice.name, "language": voice.language}
                    for voice in tts().voices
                ]
            }
        )

    @router.get("/v1/audio/models")
    async def models(request: Request) -> JSONResponse:
        card = {"id": model, "name": model}
        return admit(request, "speech") or JSONResponse({"models": [card]})

    return router
