"""Which voice a client gets for the name it asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.engines import Voice
from ivas.engines.voices import OPENAI_VOICES, choose, fitting, gender

KOKORO = [
    *(Voice(f"af_{name}", name, "en-US") for name in ("heart", "bella", "nova", "sky")),
    *(Voice(f"am_{name}", name, "en-US") for name in ("adam", "echo", "puck")),
    *(Voice(f"bf_{name}", name, "en-GB") for name in ("emma", "lily")),
    *(Voice(f"bm_{name}", name, "en-GB") for name in ("george", "fable")),
    Voice("ff_siwis", "Siwis", "fr-FR"),
    Voice("hf_alpha", "Alpha", "hi"),
    Voice("hm_omega", "Omega", "hi"),
]
ESPEAK = [Voice("en-us", "English (America)", "en-US"), Voice("cmn", "Chinese", "cmn")]

ids = st.text("abfmn_-0 ", min_size=1, max_size=6)
a_voice = st.builds(
    Voice,
    id=ids,
    name=st.sampled_from(["Anna (female)", "Bert, male", "Voice"]),
    language=st.sampled_from(["en-US", "en-GB", "hi", "mul"]),
)
some_voices = st.lists(a_voice, min_size=1, max_size=30, unique_by=lambda voice: voice.id)


@pytest.mark.parametrize(
    ("wanted", "language", "chosen"),
    [
        ("bm_george", None, "bm_george"),
        ("bm_george", "hi", "bm_george"),  # who names a voice gets it
        ("BM_George ", None, "bm_george"),
        ("nova", None, "af_nova"),  # it bears the name
        ("Echo", "en", "am_echo"),
        ("fable", "en-US", "bm_fable"),
        ("nova", "fr", "ff_siwis"),
        ("onyx", "fr-CA", "ff_siwis"),
        ("nova", "hi", "hf_alpha"),
        ("onyx", "hi", "hm_omega"),
        ("alloy", None, "af_heart"),
        ("alloy", "en_GB", "bf_emma"),
        ("nobody", None, "af_heart"),
        ("nobody", "hi", "hf_alpha"),
        ("nobody", "en-GB", "bf_emma"),
        ("nobody", "tlh", "af_heart"),
        ("", None, "af_heart"),
    ],
)
def test_the_voice_for_a_name(wanted, language, chosen):
    assert choose(wanted, KOKORO, language=language) == chosen


def test_chinese_has_two_codes():
    assert choose("nobody", ESPEAK, language="zh-CN") == "cmn"


def test_a_model_of_many_speakers_is_its_first():
    voices = [Voice("a", "A", "en"), Voice("De#anna", "Anna", "de"), Voice("De#bert", "Bert", "de")]
    assert choose("De", voices, language=None) == "De#anna"
    assert choose("de#BERT", voices, language=None) == "De#bert"


def test_no_voices_leave_the_wish():
    assert choose("alloy", [], language="en") == "alloy"


@given(some_voices, st.sampled_from(list(OPENAI_VOICES)), st.sampled_from([None, "en", "hi", "fr"]))
def test_the_choice_exists_and_is_always_the_same(voices, wanted, language):
    chosen = choose(wanted, voices, language=language)
    assert chosen in {voice.id for voice in voices}
    assert choose(wanted, voices, language=language) == chosen


@given(some_voices)
def test_different_names_get_different_voices_while_there_are_enough(voices):
    spoken = [v for v in voices if v.language == "mul" or v.language.startswith("en")]
    chosen = {choose(name, voices, language="en") for name in OPENAI_VOICES}
    for each, names in (("female", 6), ("male", 7)):
        of_this = [v for v in spoken if gender(v) == each]
        if len(of_this) >= names:  # enough: no two names of a gender meet
            got = [
                choose(n, voices, language="en") for n in OPENAI_VOICES if OPENAI_VOICES[n] == each
            ]
            assert len(set(got)) == names
    if spoken and all(gender(v) is None for v in spoken):
        assert len(chosen) == min(len(spoken), len(OPENAI_VOICES))


@given(some_voices)
def test_the_gender_is_kept_where_it_is_known(voices):
    spoken = [v for v in voices if v.language == "mul" or v.language.startswith("en")]
    by_id = {voice.id: voice for voice in voices}
    for name, wanted in OPENAI_VOICES.items():
        bears = any(v.id.endswith(name) for v in spoken)
        if not bears and any(gender(v) in (wanted, None) for v in spoken):
            assert gender(by_id[choose(name, voices, language="en")]) in (wanted, None)


@pytest.mark.parametrize(
    ("voice", "is_"),
    [
        (Voice("af_heart", "Heart", "en"), "female"),
        (Voice("bm_george", "George", "en"), "male"),
        (Voice("x#p1", "Anna (female)", "en"), "female"),
        (Voice("en_US-hfc_male-medium", "x", "en"), "male"),
        (Voice("en_US-hfc_female-medium", "x", "en"), "female"),
        (Voice("en+m3", "x", "en"), "male"),
        (Voice("en_US-lessac-medium", "Lessac", "en"), None),
        (Voice("am", "Amharic", "am"), None),
    ],
)
def test_the_gender_a_name_tells(voice, is_):
    assert gender(voice) == is_


@pytest.mark.parametrize(
    ("wanted", "language", "chosen"),
    [
        ("bm_george", None, "bm_george"),
        ("bm_george", "en-US", "bm_george"),  # another region, but the same language
        ("bm_george", "hi", "hm_omega"),
        ("bf_emma", "hi_IN", "hf_alpha"),
        ("bm_george", "fr", "ff_siwis"),
        ("bm_george", "tlh", "bm_george"),
        ("nobody", None, "af_heart"),
        ("BF_Emma", "en", "bf_emma"),
    ],
)
def test_the_voice_that_fits_the_language(wanted, language, chosen):
    assert fitting(wanted, KOKORO, language).id == chosen
