"""The queue into a session: what is inside never waits, clients do, order is kept."""

from __future__ import annotations

import asyncio

from virtual_time import virtual_time

from ivas.inbox import Inbox


@virtual_time
async def test_a_client_waits_while_it_is_full_and_nothing_is_lost() -> None:
    inbox: Inbox[int] = Inbox(capacity=4)

    async def client() -> None:
        for number in range(20):
            await inbox.submit(number)

    task = asyncio.create_task(client())
    await asyncio.sleep(0)
    assert (len(inbox), task.done()) == (4, False)
    taken = []
    for _ in range(20):
        taken.append(await inbox.get())
        await asyncio.sleep(0)
        assert len(inbox) <= 4
    assert taken == list(range(20))
    assert task.done()


@virtual_time
async def test_what_happens_inside_never_waits() -> None:
    inbox: Inbox[str] = Inbox(capacity=2)
    for _ in range(5):
        inbox.post("inside")
    client = asyncio.create_task(inbox.submit("client"))
    await asyncio.sleep(0)
    assert len(inbox) == 5
    assert [await inbox.get() for _ in range(3)] == ["inside"] * 3
    await asyncio.sleep(0)
    assert not client.done()  # two are left: still full
    assert [await inbox.get() for _ in range(3)] == ["inside", "inside", "client"]


@virtual_time
async def test_the_reader_waits_for_the_next() -> None:
    inbox: Inbox[str] = Inbox()
    reader = asyncio.create_task(inbox.get())
    await asyncio.sleep(1)
    assert not reader.done()
    inbox.post("at last")
    assert await reader == "at last"


@virtual_time
async def test_two_clients_cannot_overfill_it() -> None:
    inbox: Inbox[int] = Inbox(capacity=1)
    tasks = [asyncio.create_task(inbox.submit(number)) for number in range(5)]
    for _ in range(5):
        await asyncio.sleep(0)
        assert len(inbox) == 1
        await inbox.get()
    await asyncio.gather(*tasks)


@virtual_time
async def test_a_reader_that_gave_up_takes_nothing_with_it() -> None:
    inbox: Inbox[str] = Inbox()
    reader = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    inbox.post("kept")
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    assert len(inbox) == 1
