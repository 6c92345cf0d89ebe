"""The web client at `/`: its files, listed once at start, under a strict policy.

A name is looked up among those files and never becomes a path, so nothing outside
the web client can be asked for.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, PlainTextResponse, Response

_PACKAGED = Path(__file__).parent.parent / "_web_client"  # in the wheel
_CHECKOUT = Path(__file__).parent.parent.parent / "web_client"

HEADERS = {
    # 'self' only: no inline script or style, no other host, no frame around the page.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # a new version is seen at the next load
}

# Not from the system's table of types, which may be wrong or missing.
MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


def page_router(root: Path | None = None) -> APIRouter:
    """Serves `/` and every file below `root`, by default the web client of this installation.

    Takes every path that no router before it took; what it does not know is a plain 404.
    """
    if root is None:
        root = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT
    files = {
        path.relative_to(root).as_posix(): path
        for path in root.rglob("*")
        if path.is_file() and path.suffix in MEDIA_TYPES
    }
    names = {"": "index.html", "favicon.ico": "icon.svg"}  # what browsers ask for unbidden
    router = APIRouter()

    @router.api_route("/{name:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def page(name: str) -> Response:
        path = files.get(names.get(name, name))
        if path is None:
            return PlainTextResponse("There is nothing here; the page is at /.\n", 404, HEADERS)
        return FileResponse(path, headers=HEADERS, media_type=MEDIA_TYPES[path.suffix])

    return router
