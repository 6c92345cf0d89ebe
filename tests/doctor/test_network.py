from __future__ import annotations

import asyncio
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ollama_server import LLAMA, Model, OllamaServer

from ivas.doctor import network
from ivas.doctor.network import Ollama


@pytest.fixture
def answering():
    """`answering({"/path": body})` serves these, as JSON unless they are text; the port."""
    servers = []

    def serve(bodies):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = bodies.get(self.path)
                text = body if isinstance(body, str) else json.dumps(body)
                self.send_response(404 if body is None else 200)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        servers.append((server, thread))
        return server.server_port

    yield serve
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def silent():
    """The port of a program that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def free():
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(network, "TIMEOUT_S", 0.3)


def only(findings):
    (finding,) = findings
    return finding


# --- the port ------------------------------------------------------------------


def test_a_free_port(free):
    assert only(network.port("127.0.0.1", free)).what == f"{free} on 127.0.0.1 is free"


def test_a_port_that_another_program_has(silent):
    finding = only(network.port("127.0.0.1", silent))
    assert finding.state == "fail"
    assert finding.what.startswith(f"Port {silent} on 127.0.0.1 is taken by ")
    assert finding.fix == f"stop it, or choose another port: IVAS_SERVER__PORT={silent + 1}"


READY = {"ready": True, "engines": {"vad": {}, "asr": {}, "llm": {}, "tts": {}}}
LOCKED = {"ready": False}
"""All that one is told who shows no key."""


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("ready", [READY, LOCKED])
def test_a_port_that_ivas_has(answering, host, ready):
    port = answering({"/ready": ready, "/health": {"status": "ok", "version": "1.2.3"}})
    finding = only(network.port(host, port))
    assert finding.state == "ok"
    assert "in use by IVAS 1.2.3" in finding.what


@pytest.mark.parametrize(
    "bodies",
    [
        {"/ready": {"engines": {}}, "/health": {"version": "1"}},
        {"/ready": [], "/health": []},
        {"/ready": "<html>", "/health": "<html>"},
        {"/ready": READY, "/health": "<html>"},
        {"/ready": READY, "/health": {"status": "ok"}},
        {"/ready": {"ready": "yes"}, "/health": {"version": "1"}},
        {"/ready": {"ready": True}, "/health": {"version": 1}},
        {"/ready": {"engines": 7}},
        {},
    ],
)
def test_a_web_server_is_not_ivas(answering, bodies):
    finding = only(network.port("127.0.0.1", answering(bodies)))
    assert finding.state == "fail"


def test_an_address_of_another_machine():
    # 192.0.2.0/24 is kept for documentation (RFC 5737): no machine has it.
    finding = only(network.port("192.0.2.1", 8000))
    assert (finding.state, finding.fix) == ("fail", "set IVAS_SERVER__HOST=127.0.0.1")


def test_a_name_that_is_none():
    assert only(network.port("no-such-host.invalid", 8000)).state == "fail"


def test_a_port_of_the_administrator():
    refused = network._cannot_listen("127.0.0.1", 80, PermissionError(13, "Permission denied"))
    assert refused.fix == "choose one above 1023: IVAS_SERVER__PORT=8000"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2"])
def test_on_this_machine_a_page_needs_no_https(free, host):
    assert only(network.port(host, free)).state == "ok"


def test_beyond_this_machine_a_page_needs_https(free):
    port, https = network.port("0.0.0.0", free)
    assert port.state == "ok"
    assert https.state == "warn"
    assert "only over HTTPS" in https.what


# --- Ollama --------------------------------------------------------------------


async def asked(server, model=None, *, needed=False):
    host = f"http://127.0.0.1:{server.port}"
    return only(await asyncio.to_thread(network.ollama, Ollama(host, model, needed)))


async def test_ollama_that_runs():
    async with OllamaServer(models=[LLAMA]) as server:
        finding = await asked(server)
        assert finding.state == "ok"
        assert finding.what.endswith(": llama3.2:3b")
        assert (await asked(server, "llama3.2:3b")).state == "ok"


async def test_ollama_without_the_model():
    async with OllamaServer(models=[LLAMA]) as server:
        finding = await asked(server, "mistral", needed=True)
    assert finding.state == "fail"
    assert "has not the model mistral; it has llama3.2:3b." in finding.what
    assert finding.fix == "get it with: ollama pull mistral"


async def test_a_name_without_a_tag_means_latest():
    async with OllamaServer(models=[Model("mistral:latest")]) as server:
        assert (await asked(server, "mistral")).state == "ok"


async def test_ollama_without_any_model():
    async with OllamaServer(models=[]) as server:
        assert (await asked(server)).fix == "get one with: ollama pull llama3.2:3b"
        assert (await asked(server, "phi4")).fix == "get one with: ollama pull phi4"


@pytest.mark.parametrize(("needed", "state"), [(True, "fail"), (False, "warn")])
def test_ollama_that_does_not_run(free, needed, state):
    finding = only(network.ollama(Ollama(f"http://127.0.0.1:{free}", None, needed)))
    assert finding.state == state
    assert "does not run at" in finding.what
    assert ("built-in answers serve" in finding.what) == (not needed)
    assert "ollama serve" in finding.fix


def test_ollama_that_hangs(silent):
    finding = only(network.ollama(Ollama(f"http://127.0.0.1:{silent}", None, True)))
    assert "does not answer within" in finding.what


@pytest.mark.parametrize(
    "bodies",
    [
        {},
        {"/api/version": "<html>"},
        {"/api/version": []},
        {"/api/version": {"version": "1"}, "/api/tags": {"models": None}},
        {"/api/version": {"version": "1"}, "/api/tags": {"models": [{}]}},
    ],
)
def test_something_that_is_not_ollama(answering, bodies):
    finding = only(network.ollama(Ollama(f"http://127.0.0.1:{answering(bodies)}", None, True)))
    assert "it is not Ollama" in finding.what
    assert "IVAS_LLM__HOST" in finding.fix


@pytest.mark.parametrize("host", ["", "ftp://box", "http://", "http://[::"])
def test_an_address_that_is_none(host):
    assert only(network.ollama(Ollama(host, None, True))).state == "fail"


# --- certificates --------------------------------------------------------------


def test_certificates_are_trusted():
    finding = only(network.certificates())
    assert finding.state == "ok"
    assert "authorities are trusted" in finding.what


def test_certificates_that_are_none(tmp_path, monkeypatch):
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(broken))
    finding = only(network.certificates())
    assert finding.state == "fail"
    assert "SSL_CERT_FILE" in finding.fix
