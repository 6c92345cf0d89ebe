from __future__ import annotations

import os
import time

import pytest

from ivas.doctor import system
from ivas.hardware import Memory

GIB = 2**30


def only(findings):
    (finding,) = findings
    return finding


@pytest.mark.parametrize(
    ("version", "state", "said"),
    [
        ((3, 11), "ok", "Python 3.11 on"),
        ((3, 12), "ok", "no ready-made wheel"),
        ((3, 13), "ok", "Python 3.13 on"),
        ((3, 15), "warn", "newer than what IVAS was tested with"),
    ],
)
def test_python(version, state, said):
    finding = only(system.python(version))
    assert finding.state == state
    assert said in finding.what


def test_this_installation_is_known():
    finding = only(system.installation())
    assert finding.state == "ok"
    assert "IVAS 0." in finding.what


def test_a_checkout_that_was_never_installed(tmp_path):
    finding = only(system.installation([str(tmp_path)]))
    assert finding.state == "warn"
    assert "without being installed" in finding.what


def test_two_versions_over_each_other(site):
    site("ivas", "0.0.1")
    finding = only(system.installation([str(site)]))
    assert finding.state == "warn"
    assert "its package says 0.0.1" in finding.what


@pytest.mark.parametrize(
    ("free_gib", "state"), [(0.1, "fail"), (0.5, "warn"), (2.0, "warn"), (4.0, "ok"), (64.0, "ok")]
)
def test_memory(free_gib, state):
    finding = only(system.memory_left(Memory(64 * GIB, int(free_gib * GIB))))
    assert finding.state == state
    assert (finding.fix is None) == (state == "ok")


@pytest.mark.parametrize(
    ("free_gib", "state", "fix"),
    [(0.1, "warn", "free some space"), (2, "ok", "before XTTS"), (80, "ok", "None")],
)
def test_disk(monkeypatch, tmp_path, free_gib, state, fix):
    monkeypatch.setattr(system, "disk_free", lambda path: int(free_gib * GIB))
    models, temporary = system.disk(tmp_path / "models")
    assert (models.name, models.state) == ("models disk", state)
    assert fix in str(models.fix)
    assert temporary.state == ("warn" if free_gib < 0.2 else "ok")


def test_looking_at_the_disk_makes_no_folder(tmp_path):
    system.disk(tmp_path / "models/deep")
    assert list(tmp_path.iterdir()) == []


def test_models_where_a_file_is(tmp_path):
    (tmp_path / "models").write_text("")
    finding = system.disk(tmp_path / "models/x")[0]
    assert finding.state == "warn"
    assert "is no folder" in finding.what


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_models_where_nothing_may_be_written(tmp_path):
    tmp_path.chmod(0o500)
    finding = system.disk(tmp_path)[0]
    assert "refuses it" in finding.what


def test_no_place_for_temporary_files(monkeypatch, tmp_path):
    def refuse():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(system.tempfile, "gettempdir", refuse)
    finding = system.disk(tmp_path)[-1]
    assert finding.state == "fail"
    assert "TMPDIR" in str(finding.fix)


def test_the_clock():
    assert only(system.clock()).state == "ok"
    behind = only(system.clock(0.0))
    assert behind.state == "fail"
    assert "it is behind" in behind.what
    assert only(system.clock(time.time() + 1e8)).state == "ok"


def test_ffmpeg_is_not_needed():
    assert "not needed" in only(system.ffmpeg()).what
