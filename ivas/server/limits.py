"""How many may be served at once: places, taken and given back.

Pure counting, without a clock and without a lock: all of it happens on the event loop,
and nothing here awaits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Literal

Full = Literal["all", "holder"]
"""What there is no place left for: anybody, or this one who holds the most already."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the operator allows at once."""

    sessions: int
    """Conversations."""
    sessions_per_key: int
    """Conversations with one named key."""
    sessions_per_address: int
    """Conversations from one address without a key."""
    requests: int
    """REST requests that an engine works for; one key or address may have half of them."""


class Places:
    """A number of places, some of which are held."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Counter[str] = Counter()
        self._taken = 0

    @property
    def taken(self) -> int:
        """How many are held now, by all together."""
        return self._taken

    @property
    def half(self) -> int:
        """Half of all, rounded up: for one who is to leave room for others."""
        return -(-self._most // 2)

    @contextmanager
    def place(self, holder: str | None = None, most: int | None = None) -> Iterator[Full | None]:
        """Hold a place for the time of the `with`; yields why there is none, else None.

        `holder` may hold `most` at the same time; either None: as many as there are.
        """
        if self._taken >= self._most:
            yield "all"
            return
        if holder is not None and most is not None and self._held[holder] >= most:
            yield "holder"
            return
        self._taken += 1
        if holder is not None:
            self._held[holder] += 1
        try:
            yield None
        finally:
            self._taken -= 1
            if holder is not None:
                self._held[holder] -= 1
                if not self._held[holder]:
                    del self._held[holder]  # who has gone leaves nothing behind


def network_of(address: str) -> str:
    """The one behind an address, as far as addresses tell.

    IPv6 by its /64 network: every household has at least one and all its 2^64
    addresses to choose from (RFC 6177, RFC 4291 section 2.5.1). IPv4 in IPv6 clothes
    is IPv4. What is no address, a proxy's word perhaps, stands for itself.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return f"{IPv6Address(int(found) >> 64 << 64)}/64"
    return str(found)
