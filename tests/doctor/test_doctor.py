"""The runner: bounded, in order, and never a crash."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ivas.doctor import Check, Finding, blocking, examine, in_two

GOOD = Finding("good", "ok", "it is")


async def test_everything_is_found_in_its_order():
    started = asyncio.Event()

    async def late():
        await started.wait()
        return [Finding("late", "warn", "hm")]

    async def early():
        started.set()
        return [GOOD, GOOD]

    found = await examine([Check("late", late), Check("early", early)])
    assert [finding.name for finding in found] == ["late", "good", "good"]


async def test_a_check_that_raises_is_a_finding():
    def broken():
        raise KeyError("nothing there")

    async def broken_too():
        raise RuntimeError("oh")

    found = await examine(
        [blocking("one", broken), Check("two", broken_too), blocking("three", lambda: [GOOD])]
    )
    assert [(finding.name, finding.state) for finding in found] == [
        ("one", "fail"),
        ("two", "fail"),
        ("good", "ok"),
    ]
    assert "KeyError: 'nothing there'" in found[0].what


async def test_a_check_that_cannot_be_imported_says_where_to_look():
    def broken():
        raise ImportError("libx.so is gone")

    (found,) = await examine([blocking("one", broken)])
    assert found.state == "fail"
    assert "because a package is broken (libx.so is gone)" in found.what


async def test_a_check_that_hangs_keeps_nobody_waiting():
    forever = threading.Event()

    def hang():
        forever.wait()
        return [GOOD]

    async def hang_too():
        await asyncio.Event().wait()
        return [GOOD]

    found = await examine(
        [blocking("one", hang), Check("two", hang_too), blocking("three", lambda: [GOOD])],
        limit_s=0.05,
    )
    assert [finding.state for finding in found] == ["warn", "warn", "ok"]
    assert "could not be looked at within 0.05 s" in found[0].what
    forever.set()


async def test_blocking_checks_run_beside_each_other():
    meeting = threading.Barrier(3, timeout=5)

    def meet():
        meeting.wait()
        return [GOOD]

    found = await examine([blocking(str(number), meet) for number in range(3)])
    assert found == (GOOD, GOOD, GOOD)


@pytest.mark.parametrize(
    ("sentence", "parts"),
    [
        ("It is gone; get it.", ("It is gone.", "get it")),
        (
            "No key; make one with: python -c 'import secrets; print(1)'",
            ("No key.", "make one with: python -c 'import secrets; print(1)'"),
        ),
        ("It is loading.", ("It is loading.", None)),
        ("", ("", None)),
    ],
)
def test_a_sentence_in_two(sentence, parts):
    assert in_two(sentence) == parts
