"""Runs the page's own tests in node, which needs nothing installed beside it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
OLDEST_NODE = 20


def _node() -> str:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed; the page's own tests need node 20 or newer")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    major = re.match(r"v(\d+)\.", said)
    if major is None or int(major[1]) < OLDEST_NODE:
        pytest.skip(f"node {said.strip()} is too old; the page's own tests need node 20 or newer")
    return node


def test_page_modules() -> None:
    files = sorted(str(path) for path in HERE.glob("*.test.mjs"))
    assert files
    ran = subprocess.run(
        [_node(), "--test", "--test-reporter=spec", *files],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    # A runner that finds nothing also ends well.
    count = re.search(r"pass (\d+)", ran.stdout)
    assert count is not None
    assert int(count[1]) > 50
