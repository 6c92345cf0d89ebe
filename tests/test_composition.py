"""What the settings leave open is asked anew each time an engine starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_voices import write_kokoro

from ivas.composition import XTTS, make_tts
from ivas.errors import EngineUnavailable
from ivas.models.store import ModelStore
from ivas.settings import Settings


async def test_a_kokoro_that_comes_later_is_found(tmp_path: Path) -> None:
    tts = make_tts("kokoro", Settings(models_dir=tmp_path))
    with pytest.raises(EngineUnavailable, match="models download kokoro"):
        await tts.start()
    write_kokoro(tmp_path / "kokoro-int8", model="kokoro-v1.0.int8.onnx")
    (tmp_path / "kokoro").mkdir()
    (tmp_path / "kokoro" / "kokoro-v1.0.onnx.part").touch()  # on its way
    await tts.start()
    assert tts.status().ready
    await tts.aclose()
    write_kokoro(tmp_path / "kokoro", voices=["bf_emma"])
    await tts.start()
    assert [voice.id for voice in tts.voices] == ["bf_emma"]
    await tts.aclose()


async def test_a_licence_that_is_accepted_later_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tts = make_tts("xtts", Settings(models_dir=tmp_path))
    with pytest.raises(EngineUnavailable) as refused:
        await tts.start()
    assert refused.value.code == "licence_not_accepted"
    monkeypatch.setattr(ModelStore, "licence_accepted", lambda self, model: model == XTTS)
    with pytest.raises(EngineUnavailable) as refused:
        await tts.start()
    assert refused.value.code != "licence_not_accepted"
