"""What IVAS meets on the network: its own port, Ollama, certificates."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import httpx
import psutil

from . import Finding, State

TIMEOUT_S = 1.0


def port(host: str, number: int) -> list[Finding]:
    """Whether the server could listen; if not, whether it is IVAS itself that does already."""
    try:
        found = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the server will: a port that only waits out old connections is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return [_cannot_listen(host, number, error)]
    findings = [Finding("port", "ok", f"{number} on {host} is free")]
    if not _is_loopback(host):
        what = f"IVAS will listen on {host}: browsers give a page the microphone only over HTTPS"
        fix = "put a proxy with a certificate in front, or reach it by: ssh -L 8000:localhost:8000"
        findings.append(Finding("HTTPS", "warn", f"{what}, except on the machine itself.", fix))
    return findings


def _cannot_listen(host: str, number: int, error: OSError) -> Finding:
    if error.errno == errno.EACCES:
        what = f"Port {number} is reserved for the administrator."
        return Finding("port", "fail", what, "choose one above 1023: IVAS_SERVER__PORT=8000")
    if error.errno != errno.EADDRINUSE:
        what = f"The server cannot listen on {host} ({error.strerror})."
        return Finding("port", "fail", what, "set IVAS_SERVER__HOST=127.0.0.1")
    if version := _ivas_on(host, number):
        return Finding("port", "ok", f"{number} on {host} is in use by IVAS {version}, running now")
    what = f"Port {number} on {host} is taken by {_owner(number) or 'another program'}."
    fix = f"stop it, or choose another port: IVAS_SERVER__PORT={number % 65535 + 1}"
    return Finding("port", "fail", what, fix)


def _ivas_on(host: str, number: int) -> str | None:
    """The version of the IVAS that answers there; None if it is something else."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"http://[{here}]:{number}" if ":" in here else f"http://{here}:{number}"
    try:
        with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
            # Which engines it has, /ready tells only those who show its key.
            ready = client.get(f"{url}/ready").json()["ready"]
            version = client.get(f"{url}/health").json()["version"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None
    return version if isinstance(ready, bool) and isinstance(version, str) else None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _owner(number: int) -> str | None:
    """`nginx (pid 12)`, if this user may know."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and connection.laddr.port == number and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        return None
    return None


@dataclass(frozen=True, slots=True)
class Ollama:
    """What is expected of it."""

    host: str
    """Its address, with scheme and port."""
    model: str | None
    """The one that is to answer; None: any that is installed."""
    needed: bool
    """Named in the settings; else it is only better than the built-in answers."""


def ollama(expected: Ollama) -> list[Finding]:
    """Whether it runs, which version, and whether it has the model that is to answer."""
    amiss: State = "fail" if expected.needed else "warn"
    instead = "" if expected.needed else " Until it does, the built-in answers serve."
    try:
        with httpx.Client(base_url=expected.host, timeout=TIMEOUT_S) as client:
            version = client.get("/api/version").raise_for_status().json()["version"]
            tags = client.get("/api/tags").raise_for_status().json()["models"]
            models = [str(model["name"]) for model in tags]
    except httpx.TimeoutException:
        what = f"Ollama at {expected.host} does not answer within {TIMEOUT_S:g} s.{instead}"
        return [Finding("Ollama", amiss, what, "see what keeps it busy, or start it again")]
    except httpx.TransportError as error:
        if isinstance(error, httpx.ConnectError):
            what = f"Ollama does not run at {expected.host}.{instead}"
            fix = "start it with: ollama serve (get it from ollama.com), or set IVAS_LLM__HOST"
            return [Finding("Ollama", amiss, what, fix)]
        return [_not_ollama(expected.host, amiss)]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return [_not_ollama(expected.host, amiss)]
    return [_models(expected, str(version), models, amiss)]


def _not_ollama(host: str, amiss: State) -> Finding:
    what = f"Something answers at {host}, but it is not Ollama."
    return Finding("Ollama", amiss, what, "let IVAS_LLM__HOST name Ollama, such as 127.0.0.1:11434")


def _models(expected: Ollama, version: str, models: Sequence[str], amiss: State) -> Finding:
    said = f"Ollama {version} at {expected.host}"
    if not models:
        pull = expected.model or "llama3.2:3b"
        what = f"{said} has no model yet."
        return Finding("Ollama", amiss, what, f"get one with: ollama pull {pull}")
    listed = ", ".join(models[:6]) + (" and more" if len(models) > 6 else "")
    wanted = expected.model
    # Ollama's own rule: a name without a tag means the tag latest.
    if wanted is not None and not {wanted, f"{wanted}:latest"} & set(models):
        what = f"{said} has not the model {wanted}; it has {listed}."
        return Finding("Ollama", amiss, what, f"get it with: ollama pull {wanted}")
    return Finding("Ollama", "ok", f"{said}: {listed}")


def certificates() -> list[Finding]:
    """Whether the certificates of others can be checked, as every download needs it."""
    fix = "unset SSL_CERT_FILE and SSL_CERT_DIR, or: pip install --force-reinstall certifi"
    try:
        known: Any = httpx.create_ssl_context().cert_store_stats()["x509_ca"]
    except (OSError, ssl.SSLError, ImportError) as error:
        what = f"The certificates to trust cannot be read ({error}), so no download can work."
        return [Finding("certificates", "fail", what, fix)]
    if not known:
        what = "No certificate is trusted, so no download can work."
        return [Finding("certificates", "fail", what, fix)]
    return [Finding("certificates", "ok", f"{known} authorities are trusted")]
