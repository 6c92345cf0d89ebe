"""Runs the application: the socket, the log, and what the terminal says."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from functools import partial

import uvicorn
from fastapi import FastAPI

from .app import Startup, build
from .composition import choose_engines
from .devices import settled
from .errors import SettingsError
from .fetching import fetch_ears
from .server.websocket import CuttingProtocol
from .settings import Settings


def _is_news(record: logging.LogRecord) -> bool:
    """Not what uvicorn 0.54 says of every handshake that was refused as it should be."""
    return "without completing handshake" not in record.getMessage()


def uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn is to serve the application."""
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    return uvicorn.Config(
        app,
        host=settings.server.host,
        port=settings.server.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # else any program here may say it is somebody else
        ws=CuttingProtocol,
        # Twice what is accepted, so that too large an event is answered with an error.
        ws_max_size=settings.server.max_message_mib * 2**21,
        # Deflate would only undo the base64, for twenty times the cost of the JSON.
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=2,
    )


def serve(settings: Settings) -> None:
    """Run the server until it is stopped. Raises SettingsError if it cannot start."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if settings.log_level == "info":  # it tells of every request, and `auto` asks every 5 s
        logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = settled(settings, lambda warning: print(f"ivas: {warning}", file=sys.stderr))
    startup = Startup()

    def say(sentence: str) -> None:
        with suppress(OSError):  # a terminal that is gone; ivas serve | head
            print(f"ivas: {sentence}", flush=True)

    engines = choose_engines(settings)
    engines.listeners.add(lambda change: say(change.reason))
    startup.beside = partial(fetch_ears, settings, say)
    app = build(settings, engines=engines, startup=startup)
    host, port = settings.server.host, settings.server.port
    server = uvicorn.Server(uvicorn_config(app, settings))

    def say_ready() -> None:
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # "everywhere" is no address
        shown = f"[{here}]" if ":" in here else here
        print(f"IVAS is ready: open http://{shown}:{port}/ and talk. Ctrl-C ends it.", flush=True)

    def stop() -> None:
        server.should_exit = True

    startup.on_ready, startup.on_failure = say_ready, stop
    startup.listening = lambda: server.started  # engines may be quicker than the socket
    try:
        server.run()
    except KeyboardInterrupt:
        print("\nIVAS has ended.", file=sys.stderr)
    if startup.failure is not None:
        raise SettingsError(startup.failure)
