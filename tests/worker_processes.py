"""The worker templates this test process has started, and no other child of it."""

from __future__ import annotations

import psutil


def templates() -> list[psutil.Process]:
    """Those that live. Browsers and servers of other tests are children too."""
    return [child for child in psutil.Process().children() if _is_template(child)]


def _is_template(child: psutil.Process) -> bool:
    try:
        return "ivas.engines.process_worker" in child.cmdline()
    except psutil.ZombieProcess:
        return False
