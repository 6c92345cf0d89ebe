"""A whole model: what is kept, mended and refused, and what an interruption leaves behind."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from file_server import FileServer
from model_downloads import Downloader, content, model_of, serve

from ivas.models import Model, ModelError
from ivas.models.download import MOST_FAILURES, RESERVE_BYTES, http_client
from ivas.models.store import MANIFEST
from ivas.models.transfer import on_thread

FILES = {"model.bin": content(2_000_000, 1), "config.json": content(500, 2)}
MODEL = model_of(FILES)
UNPUBLISHED = model_of(FILES, published=False)
BIN, CONFIG = (f"/{file.url_path}" for file in MODEL.files)


TESTS = str(Path(__file__).parents[1])
CHILD = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import httpx
from model_downloads import content, model_of
from ivas.models.download import download
from ivas.models.store import ModelStore

model = model_of({"model.bin": content(2_000_000, 1), "config.json": content(500, 2)})

async def main():
    async with httpx.AsyncClient(trust_env=False) as client:
        await download(
            model, ModelStore(Path(sys.argv[2]), (model,)), client=client,
            base_urls={"hub": sys.argv[3], "github": sys.argv[3]},
        )

asyncio.run(main())
"""


def put(get: Downloader, **files: bytes) -> Path:
    path = get.root / "tiny"
    path.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (path / name.replace("_", ".")).write_bytes(data)
    return path


def names(get: Downloader) -> list[str]:
    return sorted(path.name for path in (get.root / "tiny").iterdir())


def whole(get: Downloader) -> None:
    assert names(get) == ["config.json", MANIFEST, "model.bin"]
    for name, data in FILES.items():
        assert (get.root / "tiny" / name).read_bytes() == data
    assert get.store(MODEL).check("tiny") == ()
    assert [path.name for path in get.root.iterdir()] == ["tiny"]  # no lock is left


async def test_a_model_comes_whole(server: FileServer, get: Downloader) -> None:
    serve(server, MODEL, FILES)
    done = await get(MODEL)
    whole(get)
    assert done.path == get.root / "tiny"
    assert not done.by_hand
    assert not get.store(MODEL).licence_accepted("tiny")


async def test_a_model_that_is_here_is_verified_not_fetched(
    server: FileServer, get: Downloader
) -> None:
    serve(server, UNPUBLISHED, FILES)
    await get(UNPUBLISHED)
    before = len(server.seen)
    await get(UNPUBLISHED)
    assert len(server.seen) == before
    whole(get)


async def test_a_damaged_model_is_mended(server: FileServer, get: Downloader) -> None:
    serve(server, UNPUBLISHED, FILES)
    await get(UNPUBLISHED)
    put(get, model_bin=bytes(2_000_000))
    assert [problem.kind for problem in get.store(UNPUBLISHED).check("tiny")] == ["sha256"]
    await get(UNPUBLISHED)
    whole(get)
    assert [seen.path for seen in server.seen] == [BIN, CONFIG, BIN]


async def test_what_was_put_there_by_hand_and_is_right_is_kept(
    server: FileServer, get: Downloader
) -> None:
    put(get, model_bin=FILES["model.bin"])
    serve(server, MODEL, FILES)
    await get(MODEL)
    whole(get)
    assert [seen.path for seen in server.seen] == [CONFIG]


@pytest.mark.parametrize("model", [MODEL, UNPUBLISHED], ids=["published", "unpublished"])
async def test_what_was_put_there_by_hand_and_is_other_is_left_alone(
    server: FileServer, get: Downloader, model: Model
) -> None:
    put(get, model_bin=b"my own")
    serve(server, model, FILES, hub=True)
    with pytest.raises(ModelError, match=r"by hand .* ivas models remove tiny"):
        await get(model)
    assert names(get) == ["model.bin"]
    assert (get.root / "tiny" / "model.bin").read_bytes() == b"my own"


async def test_what_a_hand_put_there_is_kept_where_the_server_tells_the_same(
    server: FileServer, get: Downloader
) -> None:
    put(get, model_bin=FILES["model.bin"])
    serve(server, UNPUBLISHED, FILES, hub=True)
    await get(UNPUBLISHED)
    whole(get)


async def test_an_old_part_goes_once_its_file_is_there(server: FileServer, get: Downloader) -> None:
    path = put(get, model_bin=FILES["model.bin"])
    (path / "model.bin.part").write_bytes(b"old")
    (path / "model.bin.part.json").write_text("{}")
    serve(server, MODEL, FILES)
    await get(MODEL)
    whole(get)


# --- licence, room ---------------------------------------------------------------


async def test_a_licence_is_accepted_once(server: FileServer, get: Downloader) -> None:
    model = model_of(FILES, non_commercial=True)
    serve(server, model, FILES)
    with pytest.raises(ModelError, match=r"non-commercial use only \(CPML, .*--accept-licence"):
        await get(model)
    assert server.seen == []
    await get(model, licence_accepted=True)
    assert get.store(model).licence_accepted("tiny")
    (get.root / "tiny" / "config.json").unlink()
    await get(model)  # not asked again
    whole(get)


async def test_room_is_looked_for_first(server: FileServer, get: Downloader) -> None:
    serve(server, MODEL, FILES)
    get.free_bytes = RESERVE_BYTES + 1_000_000
    with pytest.raises(ModelError, match=r"tiny needs 2 MB in .*, where only 65 MB are free; free"):
        await get(MODEL)
    assert server.seen == []
    assert not (get.root / "tiny").exists()


async def test_what_is_there_already_needs_no_room(server: FileServer, get: Downloader) -> None:
    serve(server, MODEL, FILES)
    put(get, model_bin=FILES["model.bin"])
    get.free_bytes = RESERVE_BYTES + 1_000
    await get(MODEL)
    whole(get)


async def test_what_comes_later_and_is_there_needs_no_room_either(
    server: FileServer, get: Downloader
) -> None:
    files = dict(reversed(FILES.items()))
    model = model_of(files)
    serve(server, model, files)
    put(get, model_bin=FILES["model.bin"])
    get.free_bytes = RESERVE_BYTES + 1_000
    await get(model)
    whole(get)


async def test_the_size_the_server_tells_counts(server: FileServer, get: Downloader) -> None:
    served = serve(server, UNPUBLISHED, FILES)
    served.content = bytes(3_000_000)
    get.free_bytes = RESERVE_BYTES + 2_500_000
    with pytest.raises(ModelError, match="needs 3 MB"):
        await get(UNPUBLISHED)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
async def test_a_disk_that_fills_up_keeps_what_came(
    server: FileServer, get: Downloader, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ivas.models.transfer import _Part

    serve(server, MODEL, FILES)
    write, full = _Part.write, True

    def fills_up(part: _Part, block: bytes) -> None:
        if full and part.done_bytes > 1_000_000:
            raise OSError(code, os.strerror(code))
        write(part, block)

    monkeypatch.setattr(_Part, "write", fills_up)
    with pytest.raises(ModelError, match=r"is full: (9\d\d kB|1 MB) more are needed; free them"):
        await get(MODEL)
    part = get.root / "tiny" / "model.bin.part"
    here = part.stat().st_size
    assert here > 1_000_000
    full = False
    await get(MODEL)
    whole(get)
    assert server.ranges(BIN) == [None, f"bytes={here}-"]


async def test_a_limit_of_the_file_size_is_one_sentence(
    server: FileServer, get: Downloader
) -> None:
    """A real refusal of the system, in the middle of a file: only a part of a block is taken."""
    serve(server, MODEL, FILES)
    limited = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_100_000, 1_100_000))\n"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", limited + CHILD, TESTS, get.root, server.url],
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(r"takes no file so large: 9\d\d kB more are needed", done.stderr)
    assert (get.root / "tiny" / "model.bin.part").stat().st_size == 1_100_000
    await get(MODEL)
    whole(get)
    assert server.ranges(BIN) == [None, "bytes=1100000-"]


async def test_a_directory_that_cannot_be_written_is_one_sentence(
    server: FileServer, get: Downloader
) -> None:
    serve(server, MODEL, FILES)
    get.root.mkdir()
    (get.root / "tiny").write_text("a file where the directory would go")
    with pytest.raises(ModelError, match=r"cannot be written to \(File exists\).*IVAS_MODELS_DIR"):
        await get(MODEL)


# --- the network -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "sentence", "attempts"),
    [
        ((401, {}), r"asks for a login, .* \(401\); choose another hub: IVAS_MODELS_HUB", 1),
        ((403, {}), r"forbids fetching tiny \(403\); a firewall or proxy", 1),
        ((404, {}), r"does not have tiny \(404\).* update IVAS", 1),
        ((407, {}), r"The proxy in HTTPS_PROXY cannot be used", 1),
        ((418, {}), r"answered 418 instead of sending tiny", 1),
        ((429, {}), r"asked too much at the moment \(429\); try again soon", MOST_FAILURES),
        ((429, {"Retry-After": "600"}), r"\(429\); try again in 10 minutes", 1),
        ((500, {}), r"has a fault of its own \(500\); try again later", MOST_FAILURES),
        ((502, {}), r"has a fault of its own \(502\)", MOST_FAILURES),
        ((503, {}), r"asked too much at the moment \(503\)", MOST_FAILURES),
        ((511, {}), r"A web page came instead .* open a browser to log in", 1),
    ],
)
async def test_an_answer_that_is_not_the_file(
    server: FileServer,
    get: Downloader,
    answer: tuple[int, dict[str, str]],
    sentence: str,
    attempts: int,
) -> None:
    serve(server, MODEL, FILES)
    server.files[BIN].answers = [answer] * 50
    with pytest.raises(ModelError, match=sentence) as caught:
        await get(MODEL)
    assert "\n" not in str(caught.value)
    assert len(server.seen) == attempts
    assert len(get.pauses_s) == attempts - 1
    assert not (get.root / "tiny").exists()


async def test_a_server_that_recovers_is_forgiven(server: FileServer, get: Downloader) -> None:
    serve(server, MODEL, FILES)
    server.files[BIN].answers = [(503, {"Retry-After": "7"}), (500, {}), (429, {})]
    await get(MODEL)
    whole(get)
    assert get.pauses_s == [7.0, 2.0, 4.0]


async def test_a_web_page_is_no_model(server: FileServer, get: Downloader) -> None:
    serve(server, UNPUBLISHED, FILES, content_type="text/html; charset=utf-8")
    with pytest.raises(ModelError, match="A web page came instead of the file from 127"):
        await get(UNPUBLISHED)
    assert not (get.root / "tiny").exists()


async def test_a_line_that_gets_on_is_never_given_up(server: FileServer, get: Downloader) -> None:
    data = {"model.bin": content(12_000_000)}
    model = model_of(data)
    serve(server, model, data, cuts=[1_400_000] * 8)
    await get(model)
    assert (get.root / "tiny" / "model.bin").read_bytes() == data["model.bin"]
    assert set(get.pauses_s) == {1.0}


async def test_a_line_that_does_not_is(server: FileServer, get: Downloader) -> None:
    serve(server, MODEL, FILES)
    server.files[BIN].cuts = [10] * 50
    with pytest.raises(ModelError, match=r"was cut; try again later; it goes on"):
        await get(MODEL)
    assert get.pauses_s == [1.0, 2.0, 4.0, 8.0, 16.0]


async def test_nobody_there_is_said_at_once(get: Downloader) -> None:
    with pytest.raises(ModelError, match=r"127.0.0.1 cannot be reached; check the network"):
        await get(MODEL, hub="http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"hub.invalid cannot be found: .* no network"):
        await get(MODEL, hub="http://hub.invalid")
    assert get.pauses_s == []


async def test_a_silent_server_is_left(server: FileServer, get: Downloader) -> None:
    serve(server, MODEL, FILES)
    server.files[BIN].pause_at = 1_000
    silent = httpx.AsyncClient(trust_env=False, timeout=0.05)
    with pytest.raises(ModelError, match=r"127.0.0.1 has stopped sending; try again later"):
        await get(MODEL, client=silent)


@pytest.mark.parametrize(
    ("location", "followed"),
    [
        ("http://cdn.example/x", False),
        ("http://hub.example/x", False),
        ("//cdn.example/x", True),
        ("/x", True),
        ("https://cdn.example/x", True),
    ],
)
async def test_what_began_encrypted_stays_so(
    get: Downloader, location: str, followed: bool
) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        if len(asked) == 1:
            return httpx.Response(302, headers={"Location": location})
        return httpx.Response(404)

    async with http_client() as usual:
        hooks = usual.event_hooks
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer), event_hooks=hooks)
    why = "does not have tiny" if followed else r"hub\.example sends .* without encryption"
    with pytest.raises(ModelError, match=why):
        await get(MODEL, client=client, hub="https://hub.example")
    assert len(asked) == (2 if followed else 1)


async def test_a_proxy_that_is_not_there(get: Downloader) -> None:
    through = httpx.AsyncClient(proxy="http://127.0.0.1:9", trust_env=False)
    with pytest.raises(ModelError, match=r"cannot be reached; check .* HTTPS_PROXY"):
        await get(MODEL, hub="http://hub.example", client=through)


async def test_a_server_in_circles(server: FileServer, get: Downloader) -> None:
    serve(server, MODEL, FILES)
    server.files[BIN].answers = [(302, {"Location": BIN})] * 50
    with pytest.raises(ModelError, match="round in circles"):
        await get(MODEL)


async def test_no_secret_of_an_address_is_said(server: FileServer, get: Downloader) -> None:
    serve(server, MODEL, FILES)
    server.files[BIN].answers = [(302, {"Location": "/signed?token=secret"})]
    with pytest.raises(ModelError) as caught:
        await get(MODEL, hub=server.url.replace("://", "://user:secret@"))
    assert "secret" not in str(caught.value)


async def test_the_client_of_its_own(server: FileServer, get: Downloader) -> None:
    serve(server, MODEL, FILES)
    await get(MODEL, client=http_client())
    assert server.seen[0].headers["user-agent"].startswith("ivas/")


# --- progress ----------------------------------------------------------------------


async def test_progress_only_rises_and_ends_at_the_whole(
    server: FileServer, get: Downloader
) -> None:
    serve(server, MODEL, FILES)
    await get(MODEL)
    done = [now.model_done_bytes for now in get.progress]
    assert done == sorted(done)
    last = get.progress[-1]
    assert last.model_done_bytes == last.model_total_bytes == 2_000_500
    assert (last.file, last.done_bytes, last.total_bytes) == ("config.json", 500, 500)
    assert any(now.bytes_per_s > 0 for now in get.progress)


async def test_progress_is_not_told_more_often_than_anybody_looks(
    server: FileServer, get: Downloader
) -> None:
    serve(server, MODEL, FILES)
    get.tick_s = 0.0
    await get(MODEL)
    assert len(get.progress) == 4  # the start and the end of two files


# --- interruptions -----------------------------------------------------------------


async def test_cancelling_keeps_what_came_and_lets_go(server: FileServer, get: Downloader) -> None:
    serve(server, MODEL, FILES)
    server.files[BIN].pause_at = 1_000_000
    came = asyncio.Event()
    task = asyncio.create_task(
        get(MODEL, on_progress=lambda now: came.set() if now.done_bytes > 500_000 else None)
    )
    await asyncio.wait_for(came.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(get) == ["model.bin.part", "model.bin.part.json"]
    server.files[BIN].pause_at = None
    await get(MODEL)
    whole(get)
    assert server.ranges(BIN)[1] is not None


async def test_one_download_of_a_model_at_a_time(server: FileServer, get: Downloader) -> None:
    serve(server, MODEL, FILES)
    server.files[BIN].pause_at = 1_000_000
    came = asyncio.Event()
    first = asyncio.create_task(get(MODEL, on_progress=lambda _: came.set()))
    await asyncio.wait_for(came.wait(), 5)
    with pytest.raises(ModelError, match=rf"Another process \({os.getpid()}\) is downloading"):
        await get(MODEL)
    server.files[BIN].go_on.set()
    await first
    whole(get)


async def test_a_cancelled_call_on_a_thread_has_ended() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        go_on.wait(5)
        ended.set()

    task = asyncio.create_task(on_thread(call))
    await asyncio.to_thread(begun.wait, 5)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not met():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_a_killed_download_is_gone_on_from(server: FileServer, get: Downloader) -> None:
    """SIGKILL: no handler, no clean-up; the lock of the dead process is in the way of nobody."""
    serve(server, MODEL, FILES, hub=True)
    server.files[BIN].pause_at = 1_500_000
    part = get.root / "tiny" / "model.bin.part"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, TESTS, str(get.root), server.url
    )
    try:
        await until(lambda: part.exists() and part.stat().st_size > 1_000_000)
        with pytest.raises(ModelError, match=rf"Another process \({child.pid}\)"):
            await get(MODEL)
    finally:
        child.kill()
        await child.wait()
    assert not (get.root / "tiny" / MANIFEST).exists()
    assert get.store(MODEL).installed() == ()
    here = part.stat().st_size
    server.files[BIN].pause_at = None
    await get(MODEL)
    whole(get)
    assert server.ranges(BIN)[-1] == f"bytes={here}-"


async def test_a_large_file_never_holds_up_the_loop(server: FileServer, get: Downloader) -> None:
    data = {"model.bin": content(40_000_000)}
    model = model_of(data)
    serve(server, model, data)
    path = put(get)
    (path / "model.bin.part").write_bytes(data["model.bin"][:30_000_000])
    told = '{"total_bytes": 40000000, "validator": "\\"v1\\"", "sha256": null, "git_sha1": null}'
    (path / "model.bin.part.json").write_text(told)
    task = asyncio.create_task(get(model))
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 50  # 30 MB hashed and 10 MB written meanwhile, all of it elsewhere
    await task
