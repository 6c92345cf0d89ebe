"""Ids nobody else has, as the Realtime API makes them."""

from __future__ import annotations

from uuid import uuid4


def new_id(prefix: str) -> str:
    """`item_5f0c...`: 80 random bits behind the prefix."""
    return f"{prefix}_{uuid4().hex[:20]}"
