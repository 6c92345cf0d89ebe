from __future__ import annotations

import hashlib

import pytest

from ivas.doctor import models
from ivas.models.store import Manifest, ModelStore, StoredFile


@pytest.fixture
def keep(tmp_path):
    """`keep("id", b"weights")` stores a model of one file."""

    def make(model_id, content):
        store = ModelStore(tmp_path)
        folder = store.path(model_id)
        folder.mkdir()
        (folder / "model.bin").write_bytes(content)
        file = StoredFile(len(content), hashlib.sha256(content).hexdigest())
        store.write_manifest(Manifest(model_id, {"model.bin": file}, "test", "MIT", False))
        return folder

    return make


def test_no_models(tmp_path):
    (finding,) = models.check(tmp_path / "none")
    assert finding.state == "ok"
    assert "ivas models list" in finding.fix


def test_models_that_are_whole(tmp_path, keep):
    keep("one", b"x" * 2000)
    keep("two", b"y" * 1000)
    (finding,) = models.check(tmp_path)
    assert (finding.state, finding.what) == ("ok", "two (1 kB), one (2 kB): whole")


def test_a_model_that_was_changed(tmp_path, keep):
    (keep("one", b"x" * 2000) / "model.bin").write_bytes(b"z" * 2000)
    (finding,) = models.check(tmp_path)
    assert finding.state == "warn"
    assert "ivas models download one" in finding.fix


def test_a_download_that_was_ended(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "model.bin.part").write_bytes(b"x")
    (finding,) = models.check(tmp_path)
    assert finding.state == "warn"
    assert finding.what == "The model one is not complete."
    assert finding.fix == "finish it with: ivas models download one"


def test_an_empty_folder_and_a_stranger_are_no_models(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / ".locks").mkdir()
    (tmp_path / ".locks" / "x").write_text("")
    (tmp_path / "readme.txt").write_text("")
    (finding,) = models.check(tmp_path)
    assert finding.what.startswith("none in")


def test_what_is_too_large_is_not_read(tmp_path, keep):
    (keep("large", b"x" * 2000) / "model.bin").write_bytes(b"z" * 2000)
    keep("small", b"y")
    unread, sound = models.check(tmp_path, read_for_s=1e-6, clock=lambda: 0.0)
    assert unread.what.startswith("large (2 kB): there, but too large")
    assert unread.fix == "to be sure: ivas models check"
    assert sound.what.startswith("small")
