"""Why a download failed, in one sentence with what to do.

An answer or an error of the network goes in; a Failure comes out, which also says whether
trying again may help. No address is ever quoted in full: a signed one is a secret.
"""

from __future__ import annotations

import errno
import socket
import ssl
from dataclasses import dataclass

import httpx

from ivas.models import ModelError, shown_size

MOST_PATIENCE_S = 60.0
"""A server that asks for a longer pause is not waited for."""

_OTHER_HUB = "choose another hub: IVAS_MODELS_HUB"
_LATER = "try again later; it goes on where it stopped."


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt."""

    sentence: str
    again: bool
    """Trying once more may help."""
    wait_s: float | None = None
    """How long the server asks to wait first."""
    unreachable: bool = False
    """Nothing has answered."""


class Unencrypted(httpx.HTTPError):
    """An encrypted address sends on to one that is not, which is not followed."""


def of_answer(response: httpx.Response, model_id: str) -> Failure:
    """What an answer means that is not the file."""
    status, host = response.status_code, response.url.host
    blocked = f"a firewall or proxy may stand in between; use another network, or {_OTHER_HUB}"
    match status:
        case 401:
            why = "asks for a login, which this model should not need"
            return Failure(f"{host} {why} (401); {_OTHER_HUB}", again=False)
        case 403 | 451:
            return Failure(f"{host} forbids fetching {model_id} ({status}); {blocked}", again=False)
        case 404 | 410:
            return Failure(
                f"{host} does not have {model_id} ({status}); if that is a mirror, {_OTHER_HUB}, "
                "else update IVAS.",
                again=False,
            )
        case 407:
            return _proxy("it asks for a login (407)")
        case 429 | 503:
            return _busy(response, status, host)
        case 511:
            return login_page(host)
        case _ if status >= 500 or status == 408:
            return Failure(f"{host} has a fault of its own ({status}); {_LATER}", again=True)
    return Failure(
        f"{host} answered {status} instead of sending {model_id}; {blocked}", again=False
    )


def of_error(error: httpx.HTTPError | httpx.InvalidURL, host: str) -> Failure:
    """What an error of the connection means."""
    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return Failure(
            f"The certificate of {host} cannot be verified: the clock of this machine is wrong, or "
            "a proxy or virus scanner reads along; set the clock, or give its certificate in "
            "SSL_CERT_FILE.",
            again=False,
        )
    if isinstance(error, httpx.ProxyError):
        return _proxy(str(error) or "it refuses the connection")
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return Failure(
            f"{host} cannot be found: this machine seems to have no network; connect it and try "
            "again, or put the files into their directory by hand.",
            again=True,
            unreachable=True,
        )
    if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
        return Failure(
            f"{host} cannot be reached; check the network of this machine, its firewall and "
            f"HTTPS_PROXY, or {_OTHER_HUB}",
            again=True,
            unreachable=True,
        )
    if isinstance(error, httpx.TimeoutException):
        return Failure(f"{host} has stopped sending; {_LATER}", again=True)
    if isinstance(error, Unencrypted):
        return Failure(
            f"{host} sends this machine on to an address without encryption, which is not "
            f"followed; {_OTHER_HUB}",
            again=False,
        )
    if isinstance(error, httpx.TooManyRedirects):
        return Failure(f"{host} sends this machine round in circles; {_OTHER_HUB}", again=False)
    if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
        return Failure(f"The address of the hub is not usable; {_OTHER_HUB}", again=False)
    return cut(host)


def cut(host: str) -> Failure:
    """The connection ended before the file did."""
    return Failure(f"The connection to {host} was cut; {_LATER}", again=True)


def too_long(host: str, name: str, size_bytes: int) -> Failure:
    """More came than the file can have, and there was no end to it."""
    return Failure(
        f"{host} sent much more than the {shown_size(size_bytes)} that {name} has, so it was "
        f"stopped; {_OTHER_HUB}",
        again=False,
    )


def login_page(host: str) -> Failure:
    """A web page came instead of the file."""
    return Failure(
        f"A web page came instead of the file from {host}, as networks send that want a login; "
        "open a browser to log in, then try again.",
        again=False,
    )


def of_disk(error: OSError, place: str, missing_bytes: int | None) -> ModelError:
    """What an error of writing means. `missing_bytes` is what is still to come."""
    rest = f"{shown_size(missing_bytes)} more are" if missing_bytes else "more is"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return ModelError(
                f"The disk of {place} is full: {rest} needed; free them and type the same again, "
                "it goes on where it stopped."
            )
        case errno.EFBIG:
            return ModelError(
                f"{place} takes no file so large: {rest} needed, but its file system or a limit of "
                "this user forbids it; choose another directory: IVAS_MODELS_DIR"
            )
    return ModelError(
        f"{place} cannot be written to ({error.strerror}); make it writable for this user, or "
        "choose another directory: IVAS_MODELS_DIR"
    )


def _busy(response: httpx.Response, status: int, host: str) -> Failure:
    asked = response.headers.get("retry-after", "")
    wait_s = float(asked) if asked.isdecimal() else None
    when = f"try again in {wait_s / 60:.0f} minutes" if wait_s and wait_s > 90 else "try again soon"
    return Failure(
        f"{host} is asked too much at the moment ({status}); {when}, it goes on where it stopped.",
        again=wait_s is None or wait_s <= MOST_PATIENCE_S,
        wait_s=wait_s,
    )


def _proxy(why: str) -> Failure:
    return Failure(
        f"The proxy in HTTPS_PROXY cannot be used: {why}; correct or unset that variable.",
        again=False,
    )


def _causes(error: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes
