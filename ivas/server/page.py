"""The web client: static files, served with a strict Content-Security-Policy."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, JSONResponse, Response

_PACKAGED = Path(__file__).parent.parent / "_web_client"
_CHECKOUT = Path(__file__).parent.parent.parent / "web_client"

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; worker-src 'self'; manifest-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def page_router() -> APIRouter:
    """Serves `/` and every file of the web client."""
    root = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    router = APIRouter()

    @router.get("/{name:path}", include_in_schema=False)
    async def page(name: str) -> Response:
        path = files.get(name or "index.html")
        if path is None:
            return JSONResponse({"error": f"There is no page /{name}; go to /."}, 404)
        return FileResponse(path, headers=HEADERS)

    return router
