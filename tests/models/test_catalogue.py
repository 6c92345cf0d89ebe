"""The catalogue is data: these are the rules it keeps."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePosixPath

import pytest

from ivas.models import Model, ModelError, shown_size
from ivas.models.catalogue import CATALOGUE, find

LAYOUTS = {
    "whisper": {"model.bin", "config.json", "tokenizer.json"},
    "kokoro": {"voices-v1.0.bin"},
    "xtts": {"config.json", "model.pth", "vocab.json", "speakers_xtts.pth"},
}
PINNED = re.compile(r"[^/]+/[^/]+/(resolve/[0-9a-f]{40}|releases/download/[^/]+)/.+")

each = pytest.mark.parametrize("model", CATALOGUE, ids=lambda model: model.id)


def test_every_id_is_there_once() -> None:
    assert [name for name, count in Counter(m.id for m in CATALOGUE).items() if count > 1] == []


@each
def test_the_files_are_those_its_engine_looks_for(model: Model) -> None:
    names = [file.name for file in model.files]
    assert len(set(names)) == len(names)
    if model.engine == "piper":
        voice = model.id.removeprefix("piper-")
        assert names == [f"{voice}.onnx", f"{voice}.onnx.json"]
    else:
        assert LAYOUTS[model.engine] <= set(names)
    if model.engine == "whisper":
        assert any(name.startswith("vocabulary.") for name in names)
    if model.engine == "kokoro":
        assert any(name.startswith("kokoro-v1.0") for name in names)


@each
def test_every_file_is_pinned_and_stays_in_its_directory(model: Model) -> None:
    for file in model.files:
        assert PINNED.fullmatch(file.url_path), file.url_path
        assert file.name == PurePosixPath(file.name).name
        assert file.size_bytes > 0
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)


@each
def test_every_model_says_what_it_is_for_and_whose(model: Model) -> None:
    assert model.purpose
    assert model.languages
    assert model.licence.name
    assert model.licence.url.startswith("https://")
    assert model.ram_bytes > 0


def test_a_checksum_belongs_to_one_content_only() -> None:
    sizes: dict[str, set[int]] = {}
    for model in CATALOGUE:
        for file in model.files:
            if file.sha256:
                sizes.setdefault(file.sha256, set()).add(file.size_bytes)
    assert {sha: size for sha, size in sizes.items() if len(size) > 1} == {}


def test_what_is_for_non_commercial_use_says_so() -> None:
    for model in CATALOGUE:
        if "-NC-" in model.licence.name or model.licence.name == "CPML":
            assert model.licence.non_commercial, model.id
    assert find("xtts-v2").licence.non_commercial
    assert not find("whisper-base").licence.non_commercial


def test_a_dozen_languages_can_be_spoken_by_piper() -> None:
    spoken = {m.languages[0].partition("-")[0] for m in CATALOGUE if m.engine == "piper"}
    assert len(spoken) >= 12


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"'whisper-bas' \(did you mean whisper-base\?\)"):
        find("whisper-bas")
    with pytest.raises(ModelError, match="did you mean piper-de_DE-thorsten-medium"):
        find("thorsten")
    with pytest.raises(ModelError, match="ivas models list"):
        find("")


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 kB"),
        (4_885, "5 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (147_882_941, "148 MB"),
        (999_400_000, "999 MB"),
        (999_600_000, "1.0 GB"),
        (3_090_835_702, "3.1 GB"),
    ],
)
def test_sizes_are_shown_as_disks_are_sold(size_bytes: int, shown: str) -> None:
    assert shown_size(size_bytes) == shown
