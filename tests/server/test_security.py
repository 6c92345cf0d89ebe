"""Who is let in, and who is not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.server.security import (
    Refusal,
    browsers_origin,
    foreign_page,
    given_key,
    names_this_machine,
    openai_error,
    same_origin,
)

KEY_ENTRY = "openai-insecure-api-key.sk-1"


@pytest.mark.parametrize(
    ("headers", "subprotocols", "key"),
    [
        ({}, [], None),
        ({"authorization": "Bearer sk-1"}, [], "sk-1"),
        ({"authorization": "bearer  sk-1 "}, [], "sk-1"),
        ({"authorization": "Basic sk-1"}, [], None),
        ({"authorization": "Bearer "}, [], None),
        ({"authorization": "Bearer"}, [KEY_ENTRY], "sk-1"),
        ({}, ["realtime", KEY_ENTRY, "openai-beta.realtime-v1"], "sk-1"),
        ({}, ["realtime", "openai-insecure-api-key.a.b"], "a.b"),
        ({}, ["realtime", "sk-1"], None),
        ({"authorization": "Bearer sk-2"}, ["realtime", KEY_ENTRY], "sk-2"),
    ],
)
def test_a_key_is_a_header_or_a_subprotocol(
    headers: dict[str, str], subprotocols: list[str], key: str | None
) -> None:
    assert given_key(headers, subprotocols) == key


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({"host": "127.0.0.1:8000"}, True),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}, True),
        ({"host": "ivas.example", "origin": "https://IVAS.example"}, True),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:9000"}, False),
        ({"host": "127.0.0.1:8000", "origin": "https://evil.example"}, False),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000.evil.example"}, False),
        ({"host": "127.0.0.1:8000", "origin": "null"}, False),
        ({"origin": "null"}, False),
        ({"host": "a", "origin": "http://[a"}, False),
        ({"host": "", "origin": ""}, False),
    ],
)
def test_a_page_of_another_site_may_not_use_the_visitors_browser(
    headers: dict[str, str], same: bool
) -> None:
    assert same_origin(headers) is same


@given(st.text(), st.text())
def test_any_origin_is_the_same_or_not(origin: str, host: str) -> None:
    assert same_origin({"origin": origin, "host": host}) in (True, False)


def test_the_error_envelope_is_that_of_openai() -> None:
    assert openai_error("No.", code="invalid_api_key") == {
        "error": {
            "message": "No.",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_api_key",
        }
    }
    assert openai_error("No.", code=None, kind="server_error")["error"] == {
        "message": "No.",
        "type": "server_error",
        "param": None,
        "code": None,
    }


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("localhost:8000", True),
        ("127.0.0.1:8000", True),
        ("127.9.9.9", True),
        ("[::1]:8000", True),
        ("evil.example:8000", False),
        ("192.168.1.5:8000", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_a_foreign_name_for_this_machine_is_not_its_own(host: str, ours: bool) -> None:
    assert names_this_machine({"host": host}) is ours


@pytest.mark.parametrize("host", ["evil.example", "[::1", "a.b", "malformed.invalid"])
def test_a_keyless_server_takes_no_public_name(host: str) -> None:
    assert foreign_page({"host": host}, (), keyless=True)
    assert not foreign_page({"host": host}, (), keyless=False)


@given(
    st.dictionaries(st.sampled_from(["host", "origin", "sec-fetch-site"]), st.text()),
    st.booleans(),
)
def test_any_headers_are_foreign_or_not(headers: dict[str, str], keyless: bool) -> None:
    assert foreign_page(headers, ["https://app.example"], keyless=keyless) in (True, False)


@pytest.mark.parametrize(
    ("origin", "written"),
    [
        ("https://App.Example", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("https://app.example:443/", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("https://app.example:8443", "https://app.example:8443"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_an_origin_is_compared_as_browsers_write_it(origin: str, written: str) -> None:
    assert browsers_origin(origin) == written


@pytest.mark.parametrize(
    ("refusal", "kind", "headers"),
    [
        (Refusal(401, "invalid_api_key", "No."), "invalid_request_error", {"www-authenticate"}),
        (Refusal(403, "insufficient_scope", "No."), "invalid_request_error", set()),
        (
            Refusal(429, "rate_limit_exceeded", "No.", retry_after_s=3),
            "rate_limit_error",
            {"retry-after"},
        ),
        (Refusal(503, "not_ready", "No.", param="p"), "server_error", set()),
    ],
)
def test_a_refusal_is_an_error_of_the_openai_api(
    refusal: Refusal, kind: str, headers: set[str]
) -> None:
    answer = refusal.response()
    assert answer.status_code == refusal.status
    assert set(answer.headers) - {"content-length", "content-type"} == headers
    error = json.loads(bytes(answer.body))["error"]
    assert error == {
        "message": "No.",
        "type": kind,
        "param": refusal.param,
        "code": refusal.code,
    }
