"""The Realtime classes of openai-node, unchanged, against a real server behind TLS.

One is for servers and brings its key in a header, one is for browsers and brings it in the
subprotocols. Both know wss: only.
"""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from conformance.driver import REPLY, in_order
from conformance.node import require_node, run_script
from conformance.servers import serving
from pydantic import SecretStr


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of 127.0.0.1, signed by itself; and its key."""
    require_node()
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-out", files[0], "-keyout", files[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return files


@pytest.mark.parametrize("which", ["node", "browser"])
async def test_a_typed_turn(certificate: tuple[Path, Path], which: str) -> None:
    async with serving(api_key=SecretStr("sk-right"), tls=certificate) as url:
        trusted = {"NODE_EXTRA_CA_CERTS": str(certificate[0])}
        report = await run_script("openai.mjs", which, f"{url}/v1", "sk-right", **trusted)
    in_order(
        report["types"],
        "session.created",
        "session.updated",
        "conversation.item.added",
        "conversation.item.done",
        *REPLY,
    )
    response = report["response"]
    assert response["status"] == "completed"
    assert response["output"][0]["content"][0]["transcript"] == "One two three."
    seconds = len(base64.b64decode(report["sound"])) / 48_000
    assert seconds == pytest.approx(len("One two three.") * 0.06, abs=0.02)
