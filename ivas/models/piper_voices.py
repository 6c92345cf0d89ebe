"""The Piper voices of the catalogue: a part of it, in a file of its own for its length.

All from one revision of rhasspy/piper-voices. The licence of each is that of the speech
it was trained on, as its model card names it: the repository as a whole says MIT.
"""

from __future__ import annotations

from ivas.models import Licence, Model, ModelFile

_REPOSITORY = "rhasspy/piper-voices"
_REVISION = "c10ece1aade47bb51c153c893d14e5bf8e5b7117"

_FROM_LESSAC = "fine-tuned from the voice lessac, whose speech is for research only"
_SEE_CARD = "see model card"
_UNNAMED = "the model card names no licence of the speech"


def _voice(
    voice: str,
    speaks: str,
    size_bytes: int,
    sha256: str | None,
    config_bytes: int,
    licence: str,
    *,
    note: str = "",
    non_commercial: bool = False,
) -> Model:
    """`voice` is named as Piper does, `en_US-lessac-medium`; that is also its place."""
    locale, name, quality = voice.split("-")
    language = locale.partition("_")[0]
    folder = f"{language}/{locale}/{name}/{quality}"
    files = ((f"{voice}.onnx", size_bytes, sha256), (f"{voice}.onnx.json", config_bytes, None))
    return Model(
        id=f"piper-{voice}",
        engine="piper",
        purpose=f"speaks {speaks}",
        languages=(locale.replace("_", "-"),),
        licence=Licence(
            licence,
            f"https://huggingface.co/{_REPOSITORY}/blob/{_REVISION}/{folder}/MODEL_CARD",
            non_commercial,
            note,
        ),
        files=tuple(
            ModelFile(file, "hub", f"{_REPOSITORY}/resolve/{_REVISION}/{folder}/{file}", size, sha)
            for file, size, sha in files
        ),
        ram_bytes=250_000_000,
    )


PIPER_VOICES: tuple[Model, ...] = (
    _voice(
        "en_US-kristin-medium",
        "English (America), a woman",
        63_531_379,
        "5849957f929cbf720c258f8458692d6103fff2f0e3d3b19c8259474bb06a18d4",
        4_900,
        "public domain",
    ),
    _voice(
        "en_US-ljspeech-medium",
        "English (America), a woman",
        63_531_379,
        None,
        4_900,
        "public domain",
    ),
    _voice(
        "en_US-lessac-medium",
        "English (America), a woman",
        63_201_294,
        "5efe09e69902187827af646e1a6e9d269dee769f9877d17b16b1b46eeaaf019f",
        4_885,
        "Blizzard 2013 Lessac",
        note="its speech is for research only",
        non_commercial=True,
    ),
    _voice(
        "en_US-ryan-medium",
        "English (America), a man",
        63_201_294,
        "abf4c274862564ed647ba0d2c47f8ee7c9b717d27bdad9219100eb310db4047a",
        4_883,
        "CC-BY-NC-SA-4.0",
        non_commercial=True,
    ),
    _voice(
        "en_GB-alba-medium",
        "English (Scotland), a woman",
        63_201_294,
        "401369c4a81d09fdd86c32c5c864440811dbdcc66466cde2d64f7133a66ad03b",
        4_888,
        _SEE_CARD,
        note=_FROM_LESSAC,
    ),
    _voice(
        "en_GB-alan-medium",
        "English (Britain), a man",
        63_201_294,
        "0a309668932205e762801f1efc2736cd4b0120329622adf62be09e56339d3330",
        4_888,
        _SEE_CARD,
        note=_FROM_LESSAC,
    ),
    _voice(
        "ar_JO-kareem-medium",
        "Arabic, a man",
        63_201_294,
        "9e95cab07b679da603bba17c4dec7ab3111320571964ee95c0379603c086491e",
        5_024,
        _SEE_CARD,
        note=f"{_UNNAMED}; {_FROM_LESSAC}",
    ),
    _voice(
        "cs_CZ-jirka-medium",
        "Czech, a man",
        63_201_294,
        None,
        5_000,
        "CC0-1.0",
    ),
    _voice(
        "de_DE-thorsten-medium",
        "German, a man",
        63_201_294,
        "7e64762d8e5118bb578f2eea6207e1a35a8e0c30595010b666f983fc87bb7819",
        4_819,
        "CC0-1.0",
        note=_FROM_LESSAC,
    ),
    _voice(
        "es_ES-davefx-medium",
        "Spanish (Spain), a man",
        63_201_294,
        "6658b03b1a6c316ee4c265a9896abc1393353c2d9e1bca7d66c2c442e222a917",
        4_817,
        "CC0-1.0",
        note=_FROM_LESSAC,
    ),
    _voice(
        "fr_FR-siwis-medium",
        "French, a woman",
        63_201_294,
        "641d1ab097da2b81128c076810edb052b385decc8be3381814802a64a73baf99",
        4_875,
        "CC-BY-4.0",
        note=_FROM_LESSAC,
    ),
    _voice(
        "hi_IN-pratham-medium",
        "Hindi, a man",
        63_516_050,
        "169964b0871667f6793416d4b35e97357a68ba1ad01df8580c28048989ee7693",
        5_000,
        "CC-BY-NC-SA-4.0",
        non_commercial=True,
    ),
    _voice(
        "it_IT-serena-medium",
        "Italian, a woman",
        63_511_037,
        "3f1493311db17fec0e95cdf3c92f82b5006159b7743e057a749187469dfa7cf0",
        7_100,
        "CC-BY-4.0",
    ),
    _voice(
        "it_IT-paola-medium",
        "Italian, a woman",
        63_511_038,
        "6fc918b5a0ea6137382833dddfa567bffbe6a5060c02043c87192ee59c04210c",
        7_099,
        _SEE_CARD,
        note=_FROM_LESSAC,
    ),
    _voice(
        "ko_KR-kss-medium",
        "Korean, a woman",
        63_221_984,
        "624fd774e26895f24bebae1bd9a3379e3394baeade4b584924f83e414096e2c9",
        5_232,
        "CC-BY-NC-SA-4.0",
        non_commercial=True,
    ),
    _voice(
        "nl_NL-mls-medium",
        "Dutch, several speakers",
        76_584_246,
        "88312e0fbf505b87caf2373d94c1384892e86b1bf2ee482cf65dc8ba179cc7d3",
        5_856,
        "CC-BY-4.0",
    ),
    _voice(
        "pl_PL-gosia-medium",
        "Polish, a woman",
        63_201_294,
        None,
        5_000,
        "CC0-1.0",
    ),
    _voice(
        "pl_PL-darkman-medium",
        "Polish, a man",
        63_201_294,
        "db505438a5364e8e2e0242c4324130a873ed660dfbe8d9689cef428ffb1b645f",
        4_816,
        _SEE_CARD,
    ),
    _voice(
        "pt_BR-faber-medium",
        "Portuguese (Brazil), a man",
        63_201_294,
        "858555e3a064209c57088fe6bd70c4c3dc54d03eaa00c45d5ecaf43a33f95aa7",
        4_855,
        "CC0-1.0",
        note=_FROM_LESSAC,
    ),
    _voice(
        "ro_RO-mihai-medium",
        "Romanian, a man",
        63_201_294,
        None,
        5_000,
        "CC0-1.0",
        note=_FROM_LESSAC,
    ),
    _voice(
        "ru_RU-denis-medium",
        "Russian, a man",
        63_201_294,
        None,
        5_000,
        "CC0-1.0",
        note=_FROM_LESSAC,
    ),
    _voice(
        "ru_RU-irina-medium",
        "Russian, a woman",
        63_201_294,
        "8ff38212d23da300bbe3705c645e6e5b9475f0bfde01558eb17813e22acaaaaa",
        4_765,
        _SEE_CARD,
        note=f"{_UNNAMED}; {_FROM_LESSAC}",
    ),
    _voice(
        "sv_SE-nst-medium",
        "Swedish, a man",
        63_201_294,
        None,
        4_997,
        "CC0-1.0",
    ),
    _voice(
        "tr_TR-dfki-medium",
        "Turkish, a man",
        63_201_294,
        "2844717f524ab965d3fe86e60562cbb601d3e456836efcc2196cc3a14112a8fb",
        4_960,
        "CC-BY-NC-SA-4.0",
        note=_FROM_LESSAC,
        non_commercial=True,
    ),
    _voice(
        "uk_UA-ukrainian_tts-medium",
        "Ukrainian, three speakers",
        76_735_663,
        "7920419ac5f6fd8b6450520f24b52ed5a319cb53dd018fbcd71c9e079cbac84f",
        2_002,
        "CC0-1.0",
    ),
    _voice(
        "vi_VN-vais1000-medium",
        "Vietnamese",
        63_201_294,
        "ec7c89e2c85f4d1edc24b6120c18aaf1bda614f06b511567eb9c7c0de15e2dab",
        4_860,
        "CC-BY-4.0",
        note=_FROM_LESSAC,
    ),
    _voice(
        "zh_CN-huayan-medium",
        "Chinese (Mandarin), a woman",
        63_201_294,
        "9929917bf8cabb26fd528ea44d3a6699c11e87317a14765312420be230be0f3d",
        4_822,
        _SEE_CARD,
        note=f"{_UNNAMED}; {_FROM_LESSAC}",
    ),
)
