from __future__ import annotations

import stat

import pytest

from ivas.doctor import sound


def answering(tmp_path, script):
    """A program that stands in for Python and says what `script` prints."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


@pytest.mark.parametrize(
    ("told", "state", "said"),
    [
        ('{"problem": "package"}', "ok", "not installed; the page in the browser"),
        ('{"problem": "portaudio"}', "warn", "The PortAudio library is missing"),
        ('{"microphone": null, "loudspeaker": null}', "ok", "no microphone or loudspeaker here"),
        (
            'ALSA lib confused\n{"microphone": "Yeti", "loudspeaker": null}',
            "ok",
            "microphone: Yeti, loudspeaker: none",
        ),
        ("Segmentation fault", "warn", "cannot be asked"),
        ("", "warn", "cannot be asked"),
    ],
)
def test_what_the_audio_system_says(tmp_path, told, state, said):
    (finding,) = sound.devices(python=answering(tmp_path, f"cat <<'X'\n{told}\nX"))
    assert finding.state == state
    assert said in finding.what


def test_an_audio_system_that_hangs(tmp_path):
    (finding,) = sound.devices(python=answering(tmp_path, "exec sleep 60"), limit_s=0.2)
    assert finding.state == "warn"
    assert "does not answer within 0.2 s" in finding.what


def test_this_machine_can_be_asked():
    (finding,) = sound.devices(limit_s=30)
    assert "cannot be asked" not in finding.what
