"""Whatever goes wrong below /v1 is answered in the error envelope of the OpenAI API.

Its clients show the envelope's message to people; of FastAPI's own `{"detail": ...}`
they understand nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from fastapi.exception_handlers import (
    http_exception_handler,
    request_validation_exception_handler,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException

from ivas.errors import ClientError, EngineError, IvasError

from .security import Refusal

API = "/v1/"

NOT_POSSIBLE = {"unsupported_language": "language"}
"""Codes of engine errors which are about what was asked for -> the field that asked for it."""


class RequestRefused(IvasError):
    """A request is not served; `refusal` says why, and with which status."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def refusal_of(error: IvasError) -> Refusal:
    """What a client is told of an error raised on purpose."""
    match error:
        case RequestRefused():
            return error.refusal
        case ClientError():
            return Refusal(400, error.code, str(error), error.param)
        case EngineError() if error.code in NOT_POSSIBLE:
            return Refusal(400, error.code, str(error), NOT_POSSIBLE[error.code])
        case EngineError():
            return Refusal(503, error.code, str(error))
        case _:
            return Refusal(500, "internal_error", str(error))


FAILED = Refusal(
    500,
    "internal_error",
    "The server failed unexpectedly; please try again (the server's log has more).",
)


def install_rest_errors(app: FastAPI) -> None:
    """Give every error below /v1 its envelope; what is not below it stays as it was."""
    # As the functions themselves are typed; Starlette wants them to take any exception.
    handlers: dict[type[Exception], Callable[..., Awaitable[Response]]] = {
        HTTPException: _on_http_exception,
        RequestValidationError: _on_invalid_request,
        IvasError: _on_ivas_error,
        Exception: _on_anything_else,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _on_ivas_error(request: Request, error: IvasError) -> Response:
    if not request.url.path.startswith(API):
        raise error
    return refusal_of(error).response()


async def _on_anything_else(request: Request, error: Exception) -> Response:
    """Whoever serves the application logs the exception: it is raised again behind this."""
    if not request.url.path.startswith(API):
        return PlainTextResponse("Internal Server Error", 500)
    return FAILED.response()


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    if not request.url.path.startswith(API):
        return await http_exception_handler(request, error)
    path, method = request.url.path, request.method
    match error.status_code:
        case 404:
            refusal = Refusal(
                404,
                "not_found",
                f"{method} {_ascii(path)} is not served here; GET /v1/models lists what this "
                "server has, and the address of its API ends with /v1.",
            )
        case 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            refusal = Refusal(
                405, "method_not_allowed", f"{_ascii(path)} takes {allowed}, not {method}."
            )
        case status:
            refusal = Refusal(status, f"http_{status}", f"{_ascii(error.detail)}.")
    response = refusal.response()
    response.headers.update(error.headers or {})
    return response


async def _on_invalid_request(request: Request, error: RequestValidationError) -> Response:
    """400, where FastAPI has 422: OpenAI's clients know no 422."""
    if not request.url.path.startswith(API):
        return await request_validation_exception_handler(request, error)
    first = error.errors()[0]
    _source, *path = first["loc"]
    param = ".".join(map(str, path)) or None
    what = f"'{_ascii(param)}' is wrong" if param else "The request is wrong"
    message = f"{what}: {_ascii(first['msg'])}; correct it, then send it again."
    return Refusal(400, "invalid_value", message, param).response()


def _ascii(text: object) -> str:
    """As a sentence that any terminal shows, whatever a client put into it."""
    return str(text).encode("ascii", "backslashreplace").decode().rstrip(".")
