"""One file over a real connection: resumed, proven, and started anew when it must be."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from file_server import FileServer, git_sha1
from hypothesis import given, settings
from hypothesis import strategies as st
from model_downloads import Downloader, content, model_of, serve

from ivas.models import ModelError
from ivas.models.transfer import read_content

DATA = content(3_000_000)
FILES = {"model.bin": DATA}
MODEL = model_of(FILES)
UNPUBLISHED = model_of(FILES, published=False)
PATH = f"/{MODEL.files[0].url_path}"


def begun(get: Downloader, size: int, **state: object) -> Path:
    """An interrupted download of the first `size` bytes."""
    path = get.root / "tiny"
    path.mkdir(parents=True)
    (path / "model.bin.part").write_bytes(DATA[:size])
    told = {"total_bytes": len(DATA), "validator": '"v1"', "sha256": None, "git_sha1": None}
    (path / "model.bin.part.json").write_text(json.dumps(told | state))
    return path


def arrived(get: Downloader) -> None:
    """The file is there, and nothing else but the manifest."""
    path = get.root / "tiny"
    assert sorted(file.name for file in path.iterdir()) == ["ivas-model.json", "model.bin"]
    assert (path / "model.bin").read_bytes() == DATA
    manifest = get.store(MODEL).manifest("tiny")
    assert manifest is not None
    assert manifest.files["model.bin"].sha256 == hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize("hub", [True, False])
@pytest.mark.parametrize("length", [True, False])
async def test_a_file_comes(server: FileServer, get: Downloader, hub: bool, length: bool) -> None:
    serve(server, MODEL, FILES, hub=hub, length=length)
    await get(MODEL)
    arrived(get)
    assert server.ranges(PATH) == [None]


async def test_an_answer_without_end_is_stopped(server: FileServer, get: Downloader) -> None:
    served = serve(server, UNPUBLISHED, FILES, length=False)
    served.content = content(len(DATA) * 6 // 5)
    with pytest.raises(ModelError, match="checksum"):  # a fifth more is let come
        await get(MODEL)
    served.content = content(20_000_000)
    with pytest.raises(
        ModelError, match=r"sent much more than the 3 MB that model\.bin has, so it was stopped"
    ) as caught:
        await get(UNPUBLISHED)
    assert str(caught.value).endswith("choose another hub: IVAS_MODELS_HUB")
    assert not list(get.root.glob("tiny/model.bin*"))
    assert not get.pauses_s
    assert max(progress.done_bytes for progress in get.progress) <= len(DATA) * 6 // 5


async def test_what_has_grown_comes_if_it_is_announced(server: FileServer, get: Downloader) -> None:
    serve(server, UNPUBLISHED, FILES).content = content(5_000_000)
    await get(UNPUBLISHED)
    assert (get.root / "tiny" / "model.bin").read_bytes() == content(5_000_000)


@pytest.mark.parametrize("hub", [True, False])
async def test_cut_connections_are_gone_on_from(
    server: FileServer, get: Downloader, hub: bool
) -> None:
    serve(server, MODEL, FILES, hub=hub, cuts=[1_000_000, 700_000])
    await get(MODEL)
    arrived(get)
    first, *others = server.ranges(PATH)
    assert first is None
    starts = [int((asked or "").removeprefix("bytes=").removesuffix("-")) for asked in others]
    assert starts == sorted(starts)
    assert len(starts) == 2
    assert 700_000 < starts[0] <= 1_000_000  # a block may be lost
    asked = server.seen[-1].headers
    assert asked["if-range"] == '"v1"'
    assert asked["accept-encoding"] == "identity"


async def test_another_process_goes_on_where_one_stopped(
    server: FileServer, get: Downloader
) -> None:
    begun(get, 1_234_567)
    serve(server, MODEL, FILES)
    await get(MODEL)
    arrived(get)
    assert server.ranges(PATH) == ["bytes=1234567-"]


async def test_a_finished_part_needs_no_network(server: FileServer, get: Downloader) -> None:
    begun(get, len(DATA))
    await get(MODEL)
    arrived(get)
    assert server.seen == []


@pytest.mark.parametrize(
    ("state", "serves"),
    [
        ({}, {"etag": '"v2"'}),  # the file has changed
        ({}, {"ranges": False}),
        ({"validator": None}, {}),  # nothing to ask with
        ({"validator": 7}, {}),
        ({"unknown": 1}, {}),
        ({}, {"etag": None}),
        ({}, {"etag": 'W/"v1"'}),
    ],
)
async def test_what_cannot_be_gone_on_from_starts_anew(
    server: FileServer, get: Downloader, state: dict[str, object], serves: dict[str, object]
) -> None:
    begun(get, 1_000_000, **state)
    serve(server, MODEL, FILES, **serves)
    await get(MODEL)
    arrived(get)


@pytest.mark.parametrize("size", [len(DATA) + 1, len(DATA) + 100_000])
async def test_a_part_longer_than_the_file_starts_anew(
    server: FileServer, get: Downloader, size: int
) -> None:
    path = begun(get, 10)
    (path / "model.bin.part").write_bytes(DATA + bytes(size - len(DATA)))
    serve(server, MODEL, FILES)
    await get(MODEL)
    arrived(get)


async def test_a_beginning_that_is_another_files_is_fetched_again(
    server: FileServer, get: Downloader
) -> None:
    path = begun(get, 10)
    (path / "model.bin.part").write_bytes(bytes(1_000_000))
    serve(server, MODEL, FILES)
    await get(MODEL)
    arrived(get)
    assert server.ranges(PATH) == ["bytes=1000000-", None]


@pytest.mark.parametrize("told", ["sha256", "git", "published"])
async def test_damaged_bytes_are_deleted(server: FileServer, get: Downloader, told: str) -> None:
    model = MODEL if told == "published" else UNPUBLISHED
    served = serve(server, model, FILES, hub=told == "sha256")
    served.content = DATA[:-1] + b"!"
    served.linked_sha256 = hashlib.sha256(DATA).hexdigest()
    if told == "git":
        served.headers["X-Repo-Commit"] = "1" * 40
        served.etag = f'"{git_sha1(DATA)}"'
    with pytest.raises(ModelError, match=r"model.bin came damaged.* choose another hub"):
        await get(model)
    assert not (get.root / "tiny").exists()
    assert get.pauses_s == []


async def test_the_checksum_of_the_server_counts_where_none_is_published(
    server: FileServer, get: Downloader
) -> None:
    served = serve(server, UNPUBLISHED, FILES)
    served.headers["X-Repo-Commit"] = "1" * 40
    served.etag = f'"{git_sha1(DATA)}"'
    await get(UNPUBLISHED)
    arrived(get)


async def test_the_etag_of_a_stranger_is_no_checksum(server: FileServer, get: Downloader) -> None:
    serve(server, UNPUBLISHED, FILES, etag=f'"{"a" * 64}"')
    await get(UNPUBLISHED)
    arrived(get)


async def test_another_file_is_refused_before_it_is_fetched(
    server: FileServer, get: Downloader
) -> None:
    serve(server, MODEL, FILES, hub=True, linked_sha256="0" * 64)
    with pytest.raises(ModelError, match=r"has another model.bin than the one that was published"):
        await get(MODEL)
    assert get.progress == []
    assert not (get.root / "tiny").exists()


async def test_a_pointer_is_no_model(server: FileServer, get: Downloader) -> None:
    served = serve(server, UNPUBLISHED, FILES)
    served.content = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n"
    with pytest.raises(ModelError, match="A Git LFS pointer came instead of model"):
        await get(UNPUBLISHED)
    assert not (get.root / "tiny").exists()


async def test_a_server_that_sends_the_wrong_range_is_asked_for_the_whole(
    server: FileServer, get: Downloader
) -> None:
    begun(get, 1_000_000)
    served = serve(server, MODEL, FILES)
    served.answers = [(206, {"Content-Range": f"bytes 5-{len(DATA) - 1}/{len(DATA)}"})]
    await get(MODEL)
    arrived(get)


@pytest.mark.parametrize("changed", [{"etag": '"v2"'}, {"content": DATA[1:] + b"!!"}])
async def test_a_server_that_heeds_no_if_range_does_not_mix_two_files(
    server: FileServer, get: Downloader, changed: dict[str, object]
) -> None:
    path = begun(get, 10)
    (path / "model.bin.part").write_bytes(bytes(1_000_000))
    served = serve(server, UNPUBLISHED, FILES, if_range=False, **changed)
    await get(UNPUBLISHED)
    assert (path / "model.bin").read_bytes() == served.content


async def test_an_end_that_came_too_early_is_noticed_without_a_length(
    server: FileServer, get: Downloader
) -> None:
    begun(get, 1_000_000)
    serve(server, UNPUBLISHED, FILES, length=False, cuts=[500_000])
    await get(UNPUBLISHED)
    arrived(get)
    assert server.ranges(PATH) == ["bytes=1000000-", "bytes=1500000-"]


async def test_a_weak_etag_is_nothing_to_go_on_with(server: FileServer, get: Downloader) -> None:
    serve(server, MODEL, FILES, etag='W/"v1"', cuts=[1_000_000])
    await get(MODEL)
    arrived(get)
    assert server.ranges(PATH) == [None, None]


async def test_the_time_of_the_last_change_is(server: FileServer, get: Downloader) -> None:
    when = "Wed, 21 Oct 2026 07:28:00 GMT"
    served = serve(server, MODEL, FILES, etag=None, if_range=False, cuts=[1_000_000])
    served.headers["Last-Modified"] = when
    await get(MODEL)
    arrived(get)
    assert server.seen[1].headers["if-range"] == when


@settings(max_examples=25)
@given(
    size=st.integers(1, 40_000),
    cuts=st.lists(st.integers(0, 40_000), max_size=4),
    hub=st.booleans(),
    ranges=st.booleans(),
    had=st.integers(0, 40_000),
)
async def test_whatever_happens_the_file_is_right_in_the_end(
    tmp_path_factory: pytest.TempPathFactory,
    size: int,
    cuts: list[int],
    hub: bool,
    ranges: bool,
    had: int,
) -> None:
    from file_server import file_server

    data = DATA[:size]
    model = model_of({"model.bin": data})
    with file_server() as files:
        get = Downloader(files, tmp_path_factory.mktemp("models"))
        serve(files, model, {"model.bin": data}, hub=hub, ranges=ranges, cuts=list(cuts))
        if had:
            begun(get, min(had, size), total_bytes=size)
        done = await get(model)
    assert (done.path / "model.bin").read_bytes() == data
    assert done.size_bytes == size


def test_a_content_has_both_its_names(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA)
    seen = read_content(tmp_path / "f")
    assert seen.git_sha1 == git_sha1(DATA)
    assert (seen.stored.size_bytes, seen.stored.sha256) == (
        len(DATA),
        hashlib.sha256(DATA).hexdigest(),
    )
