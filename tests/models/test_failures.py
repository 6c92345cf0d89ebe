"""Every failure is one sentence with what to do. Most are met in test_download.py."""

from __future__ import annotations

import errno
import ssl

import httpx
import pytest

from ivas.models import failures


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    """As httpx raises it: with what lies below as its cause."""
    error.__cause__ = cause
    return error


REQUEST = httpx.Request("GET", "https://hub.example/x")

ERRORS = [
    (
        raised(httpx.ConnectError("x"), raised(OSError(), ssl.SSLCertVerificationError("self"))),
        "The certificate of hub.example cannot be verified",
        False,
    ),
    (httpx.ProxyError("407 Proxy Authentication Required"), "The proxy in HTTPS_PROXY", False),
    (httpx.ConnectTimeout("x"), "cannot be reached", True),
    (httpx.ReadTimeout("x"), "has stopped sending", True),
    (httpx.WriteError("x"), "was cut; try again later", True),
    (httpx.RemoteProtocolError("x"), "was cut; try again later", True),
    (httpx.TooManyRedirects("x", request=REQUEST), "round in circles", False),
    (failures.Unencrypted("x"), "an address without encryption, which is not followed", False),
    (httpx.UnsupportedProtocol("x"), "The address of the hub is not usable", False),
    (httpx.InvalidURL("x"), "The address of the hub is not usable", False),
]


@pytest.mark.parametrize(("error", "words", "again"), ERRORS)
def test_an_error_of_the_connection(
    error: httpx.HTTPError | httpx.InvalidURL, words: str, again: bool
) -> None:
    failure = failures.of_error(error, "hub.example")
    assert words in failure.sentence
    assert failure.again is again


@pytest.mark.parametrize("status", [*range(300, 304), *range(400, 432), 451, *range(500, 512)])
def test_every_status_is_a_sentence(status: int) -> None:
    answer = httpx.Response(status, request=REQUEST)
    sentence = failures.of_answer(answer, "tiny").sentence
    assert "\n" not in sentence
    assert "IVAS_MODELS_HUB" in sentence or "again" in sentence or "HTTPS_PROXY" in sentence


@pytest.mark.parametrize(
    ("asked", "wait_s", "again"),
    [
        (None, None, True),
        ("0", 0.0, True),
        ("60", 60.0, True),
        ("61", 61.0, False),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None, True),
        ("-1", None, True),
        ("٣", 3.0, True),
    ],
)
def test_a_server_is_waited_for_as_long_as_it_asks_within_reason(
    asked: str | None, wait_s: float | None, again: bool
) -> None:
    headers = {} if asked is None else {"Retry-After": asked.encode()}
    failure = failures.of_answer(httpx.Response(429, headers=headers, request=REQUEST), "tiny")
    assert (failure.wait_s, failure.again) == (wait_s, again)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "The disk of /models is full: 2.0 GB more are needed"),
        (errno.EDQUOT, "The disk of /models is full"),
        (errno.EFBIG, "/models takes no file so large"),
        (errno.EROFS, "/models cannot be written to (Read-only file system)"),
    ],
)
def test_an_error_of_the_disk(code: int, words: str) -> None:
    import os

    error = failures.of_disk(OSError(code, os.strerror(code)), "/models", 2_000_000_000)
    assert words in str(error)


def test_a_disk_of_which_nothing_more_is_known() -> None:
    error = failures.of_disk(OSError(errno.ENOSPC, "full"), "/models", None)
    assert "is full: more is needed" in str(error)
