"""Runs the JavaScript clients of tests/node, and reads what they report."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

NODE = Path(__file__).resolve().parents[1] / "node"
OLDEST_NODE = 20
LIMIT_S = 90.0


def require_node() -> None:
    """Skip the test where node or the clients are missing. In CI that is a failure."""
    reason = _missing()
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@cache
def _missing() -> str | None:
    """What is, and what to do about it; None: nothing."""
    node = shutil.which("node")
    if node is None:
        return f"node is not installed; OpenAI's JavaScript clients need {OLDEST_NODE} or newer"
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(said.lstrip("v").split(".")[0]) < OLDEST_NODE:
        return f"node {said.strip()} is too old; OpenAI's JavaScript clients need {OLDEST_NODE}"
    if not (NODE / "node_modules").is_dir():
        return "OpenAI's JavaScript clients are not installed; type: npm ci --prefix tests/node"
    return None


async def run_script(script: str, *arguments: str | Path, **environ: str) -> dict[str, Any]:
    """Run a script of tests/node to its end; returns its report, in which nothing failed."""
    node = await asyncio.create_subprocess_exec(
        "node", script, *arguments,
        cwd=NODE, env=os.environ | environ, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LIMIT_S):
            said, wrong = await node.communicate()
    finally:
        if node.returncode is None:
            node.kill()
            await node.wait()
    if node.returncode != 0 or wrong:
        pytest.fail(f"{script} ended with {node.returncode}: {wrong.decode()}")
    report: dict[str, Any] = json.loads(said)
    if report["failures"]:
        shown = "\n".join([*report["failures"], "after:", *report["types"][-40:]])
        pytest.fail(f"{script}: {shown}")
    return report
