from __future__ import annotations

import pytest

from ivas.doctor import packages


def found(site, **how):
    return {finding.name: finding for finding in packages.check(search=[str(site)], **how)}


def test_nothing_but_the_core(ivas_site):
    findings = found(ivas_site)
    assert set(findings) == set(packages.EXTRAS)
    assert {finding.state for finding in findings.values()} == {"ok"}
    assert findings["whisper"].fix == "install it with: pip install 'ivas[whisper]'"


def test_an_extra_that_the_settings_name(ivas_site):
    finding = found(ivas_site, needed=["whisper"])["whisper"]
    assert finding.state == "fail"
    assert "which is not installed" in finding.what


def test_an_extra_that_is_there(ivas_site):
    ivas_site("faster-whisper", "1.2.1")
    finding = found(ivas_site, needed=["whisper"])["whisper"]
    assert (finding.state, finding.fix) == ("ok", None)
    assert "faster-whisper 1.2.1" in finding.what


def test_a_version_that_somebody_further_down_cannot_use(ivas_site):
    ivas_site("faster-whisper", "1.2.1", requires=["ctranslate2<5,>=4.0"])
    ivas_site("ctranslate2", "5.1.0")
    finding = found(ivas_site)["ctranslate2"]
    assert finding.state == "fail"
    assert finding.what == "faster-whisper needs ctranslate2<5,>=4.0, but 5.1.0 is installed."
    assert finding.fix == "pip install 'ctranslate2<5,>=4.0'"


def test_a_package_of_the_core_that_is_gone(site):
    site("ivas", "0.1.0", requires=["httpx>=0.28"])
    finding = found(site)["httpx"]
    assert finding.state == "fail"
    assert "which is not installed" in finding.what


def test_half_an_extra(ivas_site):
    ivas_site("coqui-tts", "0.28.0")
    findings = found(ivas_site)
    assert findings["xtts"].state == "ok"
    assert findings["six"].what == "ivas needs six>=1.17, which is not installed."


def test_an_extra_that_is_not_there_is_not_looked_into(ivas_site):
    ivas_site("six", "1.0")
    assert "six" not in found(ivas_site)


def test_a_local_version_fits(site):
    site("ivas", "0.1.0", requires=["torch==2.13.0"])
    site("torch", "2.13.0+cpu")
    assert "torch" not in found(site)


def test_the_extras_of_what_is_needed_are_followed(site):
    site("ivas", "0.1.0", requires=["uvicorn[standard]>=0.5"])
    site("uvicorn", "0.54", requires=["websockets>=15; extra == 'standard'"], extras=["standard"])
    site("websockets", "13.1")
    assert found(site)["websockets"].what == "uvicorn needs websockets>=15, but 13.1 is installed."


def test_a_stranger_in_whose_way_ivas_stands(ivas_site):
    ivas_site("gradio-client", "1.0", requires=["httpx<0.28", "nothing-of-ours"])
    findings = found(ivas_site)
    assert findings["httpx"].state == "warn"
    assert "gradio-client needs httpx<0.28, but 0.28.1 is installed." in findings["httpx"].what
    assert "nothing-of-ours" not in findings


@pytest.mark.parametrize("line", ["((", "httpx>=oldest", ""])
def test_metadata_that_is_no_metadata(site, line):
    site("ivas", "0.1.0", requires=[line])
    assert found(site)


def test_a_ring_of_wants_comes_to_an_end(site):
    site("ivas", "0.1.0", requires=["a"])
    site("a", "1", requires=["b"])
    site("b", "1", requires=["a", "ivas"])
    assert found(site)


def test_without_ivas(site):
    (finding,) = packages.check(search=[str(site)])
    assert finding.state == "warn"


def test_this_environment_is_looked_through():
    findings = packages.check()
    assert {finding.name for finding in findings} >= set(packages.EXTRAS)
