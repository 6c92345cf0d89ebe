"""A real HTTP server of files on 127.0.0.1, as good and as bad as those models come from.

As the hub does, it can send a client on to another place and tell the checksum before. It
can also cut the connection, send other bytes, know no ranges, or answer anything else.
"""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast


@dataclass
class Served:
    """What lies at a path, and how it is sent. May be changed between requests."""

    content: bytes
    etag: str | None = '"v1"'
    ranges: bool = True
    if_range: bool = True
    """Heed it, as one must."""
    length: bool = True
    """Tell the length; else the end of the connection is the end of the file."""
    content_type: str = "application/octet-stream"
    headers: dict[str, str] = field(default_factory=dict)
    """Sent along with the file."""
    hub: bool = False
    """Redirect to another place first, and tell the SHA-256 with that, as the hub does."""
    linked_sha256: str | None = None
    """What the hub tells; None is the truth."""
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Status and headers to answer with instead, one a request, before the file is sent."""
    cuts: list[int] = field(default_factory=list)
    """After so many bytes the connection ends, one a request."""
    pause_at: int | None = None
    """After so many bytes nothing comes until `go_on`."""
    go_on: threading.Event = field(default_factory=threading.Event)


@dataclass
class Seen:
    """A request."""

    path: str
    headers: dict[str, str]


class FileServer:
    """What is served, at which address, and what was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, Served] = {}
        self.seen: list[Seen] = []

    def ranges(self, path: str) -> list[str | None]:
        """The Range of every request for the bytes at `path`; None where it was the whole."""
        served = self.files[path]
        where = _cdn(path) if served.hub else path
        return [seen.headers.get("range") for seen in self.seen if seen.path == where]


@contextmanager
def file_server() -> Iterator[FileServer]:
    """Serves until the block ends."""
    server = _Server(("127.0.0.1", 0), _Handler)
    files = FileServer(f"http://127.0.0.1:{server.server_address[1]}")
    server.files = files
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield files
    finally:
        for served in files.files.values():
            served.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()


def git_sha1(content: bytes) -> str:
    """The name git gives a content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _cdn(path: str) -> str:
    return f"/cdn{path}"


class _Server(ThreadingHTTPServer):
    files: FileServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        files = cast(_Server, self.server).files
        headers = {name.lower(): value for name, value in self.headers.items()}
        files.seen.append(Seen(self.path, headers))
        on_cdn = self.path.startswith("/cdn/")
        path = self.path.removeprefix("/cdn")
        served = files.files.get(path)
        if served is None:
            self._answer(404, {})
        elif served.answers:
            self._answer(*served.answers.pop(0))
        elif served.hub and not on_cdn:
            sha256 = served.linked_sha256 or hashlib.sha256(served.content).hexdigest()
            told = {"X-Repo-Commit": "1" * 40, "X-Linked-Etag": f'"{sha256}"'}
            self._answer(302, {"Location": _cdn(path), "ETag": '"of-the-redirect"', **told})
        else:
            self._send(served, headers)

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self._end()

    def _send(self, served: Served, headers: dict[str, str]) -> None:
        content, start = served.content, 0
        asked = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
        same = headers.get("if-range", served.etag) == served.etag or not served.if_range
        if asked and served.ranges and same:
            start = int(asked[1])
            if start >= len(content):
                self._answer(416, {"Content-Range": f"bytes */{len(content)}"})
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if served.etag is not None:
            self.send_header("ETag", served.etag)
        if served.length:
            self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Content-Type", served.content_type)
        for name, value in served.headers.items():
            self.send_header(name, value)
        self._end()
        end = start + served.cuts.pop(0) if served.cuts else len(content)
        if served.pause_at is not None and start < served.pause_at < end:
            self.wfile.write(content[start : served.pause_at])
            start = served.pause_at
            served.go_on.wait()
        self.wfile.write(content[start:end])
        self.wfile.flush()
        if end < len(content):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _end(self) -> None:
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""
