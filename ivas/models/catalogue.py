"""Every model IVAS can fetch: what it is for, whose it is, how big, from where.

Each is pinned to one revision of its repository, so that what was checked here is what
arrives. Sizes and checksums are those published for that revision; where nobody has
published a checksum there is none, and the one the server sends along counts.

Memory is "about". Whisper: faster-whisper's own table for small and large, the others in
proportion to their file. XTTS: 5.0 GB was measured with full-size weights on a processor.
"""

from __future__ import annotations

from difflib import get_close_matches

from ivas.models import Licence, Model, ModelError, ModelFile

from .piper_voices import PIPER_VOICES

_MB = 1_000_000

# --- Whisper, converted for CTranslate2 -----------------------------------------

_WHISPER_LICENCE = Licence("MIT", "https://github.com/openai/whisper/blob/main/LICENSE")

# Files that several of the repositories share, byte for byte: name, size, sha256.
_TOKENIZER = (
    "tokenizer.json",
    2_203_239,
    "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
)
_VOCABULARY = (
    "vocabulary.txt",
    459_861,
    "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
)
_EN_TOKENIZER = (
    "tokenizer.json",
    2_128_466,
    "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
)
_EN_VOCABULARY = (
    "vocabulary.txt",
    422_309,
    "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
)
_V3_TOKENIZER = (
    "tokenizer.json",
    2_480_617,
    "6d8cbd7cd0d8d5815e478dac67b85a26bbe77c1f5e0c6d76d1ce2abc0e5f21ca",
)
_TURBO_TOKENIZER = (
    "tokenizer.json",
    2_710_337,
    "297b13372ac43916285644fb9687add3cc62ee2a1adb60da3dc25cc94c1871fd",
)
_V3_VOCABULARY = (
    "vocabulary.json",
    1_068_114,
    "c69260f2ab26d659b7c398f9a2b2b48ed0df16c3b47d7326782fd9cba71690c1",
)
_V3_PREPROCESSOR = (
    "preprocessor_config.json",
    340,
    "7ccc62c6f2765af1f3b46c00c9b5894426835a05021c8b9c01eecb6dfb542711",
)


def _whisper(
    name: str,
    purpose: str,
    repository: str,
    *files: tuple[str, int, str | None],
    ram_mb: int,
    vram_mb: int,
    language: str = "multi",
    live_on_cpu: bool = True,
) -> Model:
    """`repository` is `owner/name/resolve/revision`."""
    return Model(
        id=f"whisper-{name}",
        engine="whisper",
        purpose=purpose,
        languages=(language,),
        licence=_WHISPER_LICENCE,
        files=tuple(
            ModelFile(file, "hub", f"{repository}/{file}", size_bytes, sha256)
            for file, size_bytes, sha256 in files
        ),
        ram_bytes=ram_mb * _MB,
        vram_bytes=vram_mb * _MB,
        live_on_cpu=live_on_cpu,
    )


_WHISPER = (
    _whisper(
        "tiny",
        "hears 99 languages, roughly; for the weakest machines",
        "Systran/faster-whisper-tiny/resolve/d90ca5fe260221311c53c58e660288d3deb8d356",
        (
            "model.bin",
            75_538_270,
            "dcb76c6586fc06cbdac6dd21f14cfd129cc4cdd9dce19bf4ffa62e59cbe6e6d1",
        ),
        ("config.json", 2_249, "a73a28cdfe1c43ccc7202fa333d1f89c202477271407ae9a7f19afa52039cac8"),
        _TOKENIZER,
        _VOCABULARY,
        ram_mb=500,
        vram_mb=600,
    ),
    _whisper(
        "base",
        "hears 99 languages; quick on any laptop",
        "Systran/faster-whisper-base/resolve/ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
        (
            "model.bin",
            145_217_532,
            "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        ),
        ("config.json", 2_309, "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"),
        _TOKENIZER,
        _VOCABULARY,
        ram_mb=700,
        vram_mb=800,
    ),
    _whisper(
        "small",
        "hears 99 languages well; for a good processor",
        "Systran/faster-whisper-small/resolve/536b0662742c02347bc0e980a01041f333bce120",
        (
            "model.bin",
            483_546_902,
            "3e305921506d8872816023e4c273e75d2419fb89b24da97b4fe7bce14170d671",
        ),
        ("config.json", 2_370, "b55496ac7940a7ae47d2c01eab40edfd8701feec1229d9cce3b40014383fb828"),
        _TOKENIZER,
        _VOCABULARY,
        ram_mb=1_500,
        vram_mb=1_300,
    ),
    _whisper(
        "medium",
        "hears 99 languages better; for a strong processor or a card",
        "Systran/faster-whisper-medium/resolve/08e178d48790749d25932bbc082711ddcfdfbc4f",
        (
            "model.bin",
            1_527_906_378,
            "9b45e1009dcc4ab601eff815b61d80e60ce3fd8c74c1a14f4a282258286b51ae",
        ),
        ("config.json", 2_257, None),
        ("tokenizer.json", 2_203_239, None),
        ("vocabulary.txt", 459_861, None),
        ram_mb=2_700,
        vram_mb=2_600,
    ),
    _whisper(
        "large-v3",
        "hears 99 languages best; for an NVIDIA card",
        "Systran/faster-whisper-large-v3/resolve/edaa852ec7e145841d8ffdb056a99866b5f0a478",
        (
            "model.bin",
            3_087_284_237,
            "69f74147e3334731bc3a76048724833325d2ec74642fb52620eda87352e3d4f1",
        ),
        ("config.json", 2_394, "a9306624f5ec14270a014b647e5c316b6e03a662c369758d1b90697a7b0655b9"),
        _V3_PREPROCESSOR,
        _V3_TOKENIZER,
        _V3_VOCABULARY,
        ram_mb=4_800,
        vram_mb=4_700,
        live_on_cpu=False,
    ),
    _whisper(
        "large-v3-turbo",
        "hears 99 languages nearly as well as large-v3, much faster",
        "mobiuslabsgmbh/faster-whisper-large-v3-turbo/resolve/"
        "0a363e9161cbc7ed1431c9597a8ceaf0c4f78fcf",
        (
            "model.bin",
            1_617_884_929,
            "e76620f83d5f5b69efd3d87e3dc180c1bd21df9fbebacfd4335e5e1efcc018da",
        ),
        ("config.json", 2_263, "b0253ea6c0d3bea6b1e19e91a02acfd3b53f4467362efcb5a3e6b16c9b3a9b7e"),
        _V3_PREPROCESSOR,
        _TURBO_TOKENIZER,
        _V3_VOCABULARY,
        ram_mb=2_800,
        vram_mb=2_600,
    ),
    _whisper(
        "distil-large-v3",
        "hears English nearly as well as large-v3, much faster",
        "Systran/faster-distil-whisper-large-v3/resolve/c3058b475261292e64a0412df1d2681c06260fab",
        (
            "model.bin",
            1_512_927_867,
            "b79368e19b6623813609431a6e5ee309a71506701ebc49fd7820e692dec7c5f5",
        ),
        ("config.json", 2_690, None),
        ("preprocessor_config.json", 340, None),
        ("tokenizer.json", 2_480_617, None),
        ("vocabulary.json", 1_068_114, None),
        ram_mb=2_700,
        vram_mb=2_500,
        language="en",
    ),
    _whisper(
        "tiny.en",
        "hears English, roughly; for the weakest machines",
        "Systran/faster-whisper-tiny.en/resolve/0d3d19a32d3338f10357c0889762bd8d64bbdeba",
        (
            "model.bin",
            75_537_502,
            "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        ),
        ("config.json", 2_317, "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5"),
        _EN_TOKENIZER,
        _EN_VOCABULARY,
        ram_mb=500,
        vram_mb=600,
        language="en",
    ),
    _whisper(
        "base.en",
        "hears English; quick on any laptop",
        "Systran/faster-whisper-base.en/resolve/3d3d5dee26484f91867d81cb899cfcf72b96be6c",
        (
            "model.bin",
            145_216_508,
            "2a166925539a16005f14ff328359f9b9adb9dc4fb631bb3b227526862e93e2ef",
        ),
        ("config.json", 2_227, "f3bc3821e9fc76a27bae538e11ae5b677dcdd352b4600429ce7951d398569aeb"),
        _EN_TOKENIZER,
        _EN_VOCABULARY,
        ram_mb=700,
        vram_mb=800,
        language="en",
    ),
    _whisper(
        "small.en",
        "hears English well; for a good processor",
        "Systran/faster-whisper-small.en/resolve/d1d751a5f8271d482d14ca55d9e2deeebbae577f",
        (
            "model.bin",
            483_545_366,
            "62b2a45b05ee59acb4a5341b33ee35e041395d378d418a18acfe4c9e768ee37a",
        ),
        ("config.json", 2_657, "666a9605530ac1f61fa8177f3702b4dacec9966749e42610839fcc32661d5fae"),
        _EN_TOKENIZER,
        _EN_VOCABULARY,
        ram_mb=1_500,
        vram_mb=1_300,
        language="en",
    ),
)

# --- Kokoro, exported to ONNX ---------------------------------------------------

_KOKORO_LICENCE = Licence("Apache-2.0", "https://huggingface.co/hexgrad/Kokoro-82M")
_KOKORO_RELEASE = "thewh1teagle/kokoro-onnx/releases/download/model-files-v1.0"
_KOKORO_VOICES = ModelFile(
    "voices-v1.0.bin",
    "github",
    f"{_KOKORO_RELEASE}/voices-v1.0.bin",
    28_214_398,
    "bca610b8308e8d99f32e6fe4197e7ec01679264efed0cac9140fe9c29f1fbf7d",
)
_KOKORO_LANGUAGES = ("en-US", "en-GB", "es", "fr", "hi", "it", "ja", "pt-BR", "zh")
_KOKORO = (
    Model(
        id="kokoro",
        engine="kokoro",
        purpose="speaks naturally on a processor; 54 voices",
        languages=_KOKORO_LANGUAGES,
        licence=_KOKORO_LICENCE,
        files=(
            ModelFile(
                "kokoro-v1.0.onnx",
                "github",
                f"{_KOKORO_RELEASE}/kokoro-v1.0.onnx",
                325_532_387,
                "7d5df8ecf7d4b1878015a32686053fd0eebe2bc377234608764cc0ef3636a6c5",
            ),
            _KOKORO_VOICES,
        ),
        ram_bytes=1_000 * _MB,
    ),
    Model(
        id="kokoro-int8",
        engine="kokoro",
        purpose="the same voices, smaller, on many processors slower",
        languages=_KOKORO_LANGUAGES,
        licence=_KOKORO_LICENCE,
        files=(
            ModelFile(
                "kokoro-v1.0.int8.onnx",
                "github",
                f"{_KOKORO_RELEASE}/kokoro-v1.0.int8.onnx",
                92_361_271,
                "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
            ),
            _KOKORO_VOICES,
        ),
        ram_bytes=600 * _MB,
    ),
)

# --- XTTS -----------------------------------------------------------------------

_XTTS_REPOSITORY = "coqui/XTTS-v2/resolve/6c2b0d75eae4b7047358e3b6bd9325f857d43f77"
_XTTS = Model(
    id="xtts-v2",
    engine="xtts",
    purpose="speaks in any voice it has heard for six seconds; for an NVIDIA card",
    languages=(
        *("en", "es", "fr", "de", "it", "pt", "pl", "tr", "ru"),
        *("nl", "cs", "ar", "zh-CN", "hu", "ko", "ja", "hi"),
    ),
    licence=Licence(
        "CPML",
        "https://huggingface.co/coqui/XTTS-v2/blob/main/LICENSE.txt",
        non_commercial=True,
        note="Coqui Public Model License 1.0.0: non-commercial use only",
    ),
    files=tuple(
        ModelFile(name, "hub", f"{_XTTS_REPOSITORY}/{name}", size_bytes, sha256)
        for name, size_bytes, sha256 in (
            (
                "model.pth",
                1_867_929_118,
                "c7ea20001c6a0a841c77e252d8409f6a74fb423e79b3206a0771ba5989776187",
            ),
            (
                "speakers_xtts.pth",
                7_754_818,
                "f0f6137c19a4eab0cbbe4c99b5babacf68b1746e50da90807708c10e645b943b",
            ),
            (
                "vocab.json",
                361_219,
                "928260878a59da8a72a2a5b7687fea29d5106137669d90945430fe17e415304a",
            ),
            (
                "config.json",
                4_368,
                "ef262b1454dd2a77e1461b0b2cd53e19b8a7624cc131b837d36df67356bc75e8",
            ),
        )
    ),
    ram_bytes=5_000 * _MB,
    vram_bytes=4_000 * _MB,
    live_on_cpu=False,
)

CATALOGUE: tuple[Model, ...] = (*_WHISPER, *_KOKORO, *PIPER_VOICES, _XTTS)
"""In the order they are listed."""

_BY_ID = {model.id: model for model in CATALOGUE}


def find(model_id: str) -> Model:
    """The model of that id. Raises ModelError with the nearest name if there is none."""
    if model := _BY_ID.get(model_id):
        return model
    near = get_close_matches(model_id, _BY_ID, n=1, cutoff=0.6) or [
        known for known in _BY_ID if model_id and model_id in known
    ]
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ModelError(f"There is no model {model_id!r:.80}{hint}; list them with: ivas models list")
