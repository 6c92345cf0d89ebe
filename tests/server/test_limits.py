"""Places are taken once, given back once, and never more than there are."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.server.limits import Places, network_of


def test_a_place_is_held_for_the_time_of_the_with() -> None:
    places = Places(2)
    with places.place() as first, places.place() as second:
        assert (first, second, places.taken) == (None, None, 2)
        with places.place("anybody", 5) as third:
            assert (third, places.taken) == ("all", 2)
        assert places.taken == 2
    assert places.taken == 0


@given(st.integers(1, 10_000))
def test_half_leaves_room_for_one_more_unless_there_is_one_only(most: int) -> None:
    assert Places(most).half == (most // 2 if most % 2 == 0 else most // 2 + 1)
    assert 1 <= Places(most).half <= most


def test_one_holder_leaves_room_for_others() -> None:
    places = Places(3)
    with places.place("a", 1), places.place("a", 1) as again, places.place("b", 1) as other:
        assert (again, other, places.taken) == ("holder", None, 2)
    with places.place("a", 1) as again:
        assert again is None


def test_who_has_gone_leaves_nothing_behind() -> None:
    places = Places(3)
    for number in range(100):
        with places.place(str(number), 1) as full:
            assert full is None
    assert not places._held


def test_an_error_gives_the_place_back() -> None:
    places = Places(1)
    with pytest.raises(RuntimeError), places.place("a", 1):
        raise RuntimeError
    with places.place("a", 1) as full:
        assert full is None


async def test_a_cancelled_task_gives_its_place_back_whenever_it_is_cancelled() -> None:
    places = Places(4)

    async def hold(gate: asyncio.Event) -> None:
        with places.place("a", 4) as full:
            assert full is None
            await gate.wait()

    gate = asyncio.Event()
    tasks = [asyncio.create_task(hold(gate)) for _ in range(4)]
    tasks[0].cancel()  # before its first step
    await asyncio.sleep(0)
    assert places.taken == 3
    tasks[1].cancel()
    tasks[1].cancel()
    await asyncio.gather(*tasks[:2], return_exceptions=True)
    assert places.taken == 2
    gate.set()
    tasks[2].cancel()  # it is about to end by itself
    await asyncio.gather(*tasks, return_exceptions=True)
    assert places.taken == 0
    assert not places._held


def test_what_was_never_entered_holds_nothing() -> None:
    places = Places(1)
    places.place()
    assert places.taken == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans())), st.integers(0, 4))
def test_never_more_than_there_are_and_every_one_comes_back(
    steps: list[tuple[str, bool]], most: int
) -> None:
    places = Places(most)
    held: list[tuple[str, ExitStack]] = []
    for holder, come in steps:
        if not come:
            if held:
                held.pop(0)[1].close()
            continue
        stack = ExitStack()
        full = stack.enter_context(places.place(holder, 2))
        mine = sum(one == holder for one, _ in held)
        assert full == ("all" if len(held) >= most else "holder" if mine >= 2 else None)
        if full is None:
            held.append((holder, stack))
        else:
            stack.close()
        assert places.taken == len(held)
    for _, stack in held:
        stack.close()
    assert places.taken == 0
    assert not places._held


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("local", "local"),
        ("", ""),
    ],
)
def test_who_is_behind_an_address(address: str, network: str) -> None:
    assert network_of(address) == network


@given(st.text())
def test_any_text_may_stand_for_an_address(text: str) -> None:
    network_of(text)
