"""The directory of models: what counts as installed, what is wrong, and taking it away."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_downloads import model_of

from ivas.models import ModelError
from ivas.models.store import MANIFEST, Manifest, ModelStore, StoredFile

FILES = {"model.bin": b"weights" * 100, "config.json": b"{}"}
MODEL = model_of(FILES)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models", (MODEL,))


def put(store: ModelStore, *, manifest: bool = True, model_id: str = "tiny") -> Path:
    """The model as a download leaves it; or, without a manifest, as a hand does."""
    path = store.path(model_id)
    path.mkdir(parents=True)
    for name, data in FILES.items():
        (path / name).write_bytes(data)
    if manifest:
        files = {n: StoredFile(len(d), hashlib.sha256(d).hexdigest()) for n, d in FILES.items()}
        store.write_manifest(Manifest(model_id, files, "https://hub.example", "MIT", False))
    return path


def kinds(store: ModelStore) -> list[tuple[str, str]]:
    return [(problem.file, problem.kind) for problem in store.check("tiny")]


def test_nothing_is_installed_where_nothing_is(store: ModelStore) -> None:
    assert store.installed() == ()
    assert store.present() == ()
    assert store.find_installed("tiny") is None


@pytest.mark.parametrize("manifest", [True, False])
def test_a_complete_model_is_installed(store: ModelStore, manifest: bool) -> None:
    path = put(store, manifest=manifest)
    (model,) = store.installed()
    assert (model.model_id, model.path, model.by_hand) == ("tiny", path, not manifest)
    assert model.size_bytes == sum(map(len, FILES.values()))
    assert kinds(store) == []


@pytest.mark.parametrize("manifest", [True, False])
@pytest.mark.parametrize("data", [None, b"", POINTER])
def test_a_model_with_a_hole_is_not(store: ModelStore, manifest: bool, data: bytes | None) -> None:
    file = put(store, manifest=manifest) / "model.bin"
    file.unlink()
    if data is not None:
        file.write_bytes(data)
    assert store.installed() == ()
    assert store.present() == ("tiny",)


def test_a_model_the_catalogue_no_longer_knows_stays_installed(store: ModelStore) -> None:
    put(store, model_id="former")
    assert [model.model_id for model in store.installed()] == ["former"]
    assert store.check("former") == ()


def test_a_strange_directory_is_nobodys_model(store: ModelStore) -> None:
    (store.root / "holiday pictures").mkdir(parents=True)
    (store.root / "other").mkdir()
    assert store.installed() == ()
    with pytest.raises(ModelError, match="nothing to check it against"):
        store.check("other")


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda path: (path / "model.bin").unlink(), ("model.bin", "missing")),
        (lambda path: (path / "model.bin").write_bytes(b"short"), ("model.bin", "size")),
        (lambda path: (path / "model.bin").write_bytes(b""), ("model.bin", "size")),
        (lambda path: (path / "model.bin").write_bytes(b"WEIGHTS" * 100), ("model.bin", "sha256")),
        (lambda path: (path / "model.bin").write_bytes(POINTER), ("model.bin", "lfs_pointer")),
        (lambda path: (path / "config.json").write_bytes(b"[]"), ("config.json", "sha256")),
        (lambda path: (path / "x.part").write_bytes(b"123"), ("x.part", "part")),
        (lambda path: (path / MANIFEST).write_text("{"), (MANIFEST, "manifest")),
    ],
)
def test_check_finds(store: ModelStore, spoil: object, found: tuple[str, str]) -> None:
    path = put(store)
    assert callable(spoil)
    spoil(path)
    (problem,) = store.check("tiny")
    assert (problem.file, problem.kind) == found
    assert str(path / found[0]) in problem.sentence
    assert "ivas models download tiny" in problem.sentence


def test_what_was_put_there_by_hand_is_held_to_the_published_checksums(store: ModelStore) -> None:
    path = put(store, manifest=False)
    (path / "model.bin").write_bytes(b"my own model")
    assert kinds(store) == [("model.bin", "sha256")]


@given(st.binary(max_size=2000))
def test_no_manifest_however_broken_stops_the_store(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    store = ModelStore(tmp_path_factory.mktemp("store"), (MODEL,))
    path = put(store)
    (path / MANIFEST).write_bytes(data)
    assert store.manifest("tiny") is None
    assert [model.by_hand for model in store.installed()] == [True]
    assert (MANIFEST, "manifest") in kinds(store)


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "sub/file", ".hidden", ""])
def test_a_manifest_cannot_name_files_elsewhere(store: ModelStore, name: str) -> None:
    path = put(store)
    content = json.loads((path / MANIFEST).read_text())
    content["files"][name] = {"size_bytes": 1, "sha256": "0" * 64}
    (path / MANIFEST).write_text(json.dumps(content))
    assert store.manifest("tiny") is None


def test_a_manifest_is_read_as_it_was_written(store: ModelStore) -> None:
    put(store)
    manifest = Manifest("tiny", {"a.bin": StoredFile(3, "f" * 64)}, "https://x", "CPML", True)
    assert not store.licence_accepted("tiny")
    store.write_manifest(manifest)
    assert store.manifest("tiny") == manifest
    assert store.licence_accepted("tiny")


def test_remove_frees_what_it_says(store: ModelStore) -> None:
    path = put(store)
    size = sum(file.stat().st_size for file in path.iterdir())
    assert store.remove("tiny") == size
    assert not path.exists()
    assert list(store.root.iterdir()) == []
    with pytest.raises(ModelError, match="There is no model tiny"):
        store.remove("tiny")


def test_remove_leaves_alone_what_a_link_points_to(store: ModelStore, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "model.bin").write_bytes(b"mine")
    store.root.mkdir()
    store.path("tiny").symlink_to(elsewhere)
    assert store.remove("tiny") == 0
    assert (elsewhere / "model.bin").read_bytes() == b"mine"
    path = put(store)
    (path / "linked").symlink_to(elsewhere)
    store.remove("tiny")
    assert (elsewhere / "model.bin").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "name", ["..", ".", "", "../tiny", "tiny/..", "/tmp", "a/b", ".lock", "a\0b", "a..b", "-rf"]
)
def test_no_name_leads_out_of_the_root(store: ModelStore, name: str) -> None:
    put(store)
    for action in (store.path, store.remove, store.check, store.find_installed):
        with pytest.raises(ModelError, match="is no name of a model"):
            action(name)
    assert store.installed()


def test_remove_waits_for_nobody(store: ModelStore) -> None:
    put(store)
    with store.lock("tiny"), pytest.raises(ModelError, match=r"Another process \(\d+\) is down"):
        store.remove("tiny")
    assert store.installed()


def test_an_error_inside_the_lock_is_its_own(store: ModelStore) -> None:
    with pytest.raises(OSError, match="mine"), store.lock("tiny"):
        raise OSError("mine")


def test_a_root_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = ModelStore(tmp_path / "file" / "models", (MODEL,))
    assert store.installed() == ()
    with pytest.raises(ModelError, match="IVAS_MODELS_DIR"), store.lock("tiny"):
        pass
