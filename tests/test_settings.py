"""Where a setting's value comes from, and that every mistake is one useful sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.errors import SettingsError
from ivas.settings import ALIASES, all_settings
from ivas.settings_sources import Resolved, load, resolve, shipped_config


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IVAS_ENV", "TTS_USE_GPU"):  # what the shipped config.py reads by itself
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """An empty config.py."""
    path = tmp_path / "config.py"
    path.write_text("")
    return path


def sentence(
    config: Path | None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> str:
    with pytest.raises(SettingsError) as caught:
        resolve(config, environ or {}, flags)
    text = str(caught.value)
    assert "\n" not in text
    assert "pydantic" not in text
    return text


# Merging


def test_defaults_stand_where_nothing_is_set(config: Path) -> None:
    resolved = resolve(config, {})
    assert resolved.settings.server.port == 8000
    assert resolved.origins["server.port"] == "default"


def test_config_beats_default_and_environment_beats_config(config: Path) -> None:
    config.write_text('tts = {"speed": 1.5, "voice": "en-gb"}')
    resolved = resolve(config, {"IVAS_TTS__SPEED": "2"})
    assert resolved.settings.tts.speed == 2
    assert resolved.origins["tts.speed"] == "IVAS_TTS__SPEED"
    assert resolved.settings.tts.voice == "en-gb"
    assert resolved.origins["tts.voice"] == str(config)


def test_a_flag_beats_the_environment(config: Path) -> None:
    resolved = resolve(config, {"IVAS_SERVER__PORT": "81"}, {"server.port": 82})
    assert resolved.settings.server.port == 82
    assert resolved.origins["server.port"] == "--port"


PATHS = st.sampled_from(["turn.silence_ms", "turn.onset_ms", "fake.asr_ms", "llm.max_tokens"])


@given(
    st.dictionaries(PATHS, st.integers(100, 1000)), st.dictionaries(PATHS, st.integers(100, 999))
)
def test_one_value_never_resets_its_siblings(
    tmp_path_factory: pytest.TempPathFactory, in_config: dict[str, int], in_environ: dict[str, int]
) -> None:
    path = tmp_path_factory.mktemp("config") / "config.py"
    lines = ["turn = {}", "fake = {}", "llm = {}"]
    for name, value in in_config.items():
        group, _, key = name.partition(".")
        lines.append(f"{group}[{key!r}] = {value}")
    path.write_text("\n".join(lines))
    environ = {all_settings()[name].variable: str(value) for name, value in in_environ.items()}

    settings = load(path, environ).model_dump()

    expected = {name: item.default for name, item in all_settings().items()}
    expected |= in_config | in_environ | {"tts.use_gpu": False}
    expected = {n: v.expanduser() if isinstance(v, Path) else v for n, v in expected.items()}
    for name, value in expected.items():
        group, dot, key = name.partition(".")
        assert (settings[group][key] if dot else settings[name]) == value, name


def test_an_empty_variable_counts_as_unset(config: Path) -> None:
    environ = {"IVAS_SERVER__PORT": "", "TTS_USE_GPU": "", "IVAS_ENV": ""}
    assert load(config, environ) == load(config, {})


# Aliases and the GPU


@pytest.mark.parametrize("alias", ALIASES)
def test_every_alias_leads_to_a_setting(alias: str) -> None:
    assert ALIASES[alias] in all_settings()


def test_port_and_log_level_of_a_hosting_platform(config: Path) -> None:
    resolved = resolve(config, {"PORT": "10000", "TTS_LOG_LEVEL": "DEBUG"})
    assert resolved.settings.server.port == 10000
    assert resolved.settings.log_level == "debug"
    assert resolved.origins["server.port"] == "PORT"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"TTS_USE_GPU": "true"}, True),
        ({"TTS_ENABLE_GPU": "1"}, True),
        ({"TTS_USE_GPU": "true", "TTS_ENABLE_GPU": "yes"}, True),
        ({"IVAS_TTS__USE_GPU": "false"}, False),
    ],
)
def test_gpu_switches(config: Path, environ: dict[str, str], expected: bool) -> None:
    assert load(config, environ).tts.use_gpu is expected


def test_contradicting_gpu_switches_are_refused(config: Path) -> None:
    text = sentence(config, {"TTS_USE_GPU": "true", "TTS_ENABLE_GPU": "false"})
    assert "TTS_USE_GPU" in text
    assert "TTS_ENABLE_GPU" in text


NAMED = {"IVAS_ASR__ENGINE": "fake", "IVAS_LLM__ENGINE": "fake", "IVAS_TTS__ENGINE": "fake"}


def test_the_gpu_follows_production_unless_it_is_set(config: Path) -> None:
    production = {"IVAS_ENV": "production", **NAMED}
    resolved = resolve(config, production)
    assert resolved.settings.tts.use_gpu is True
    assert resolved.origins["tts.use_gpu"] == "follows IVAS_ENV=production"
    assert load(config, {**production, "TTS_USE_GPU": "false"}).tts.use_gpu is False


# The shipped config.py


def load_shipped(monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str]) -> Resolved:
    # config.py reads the process's own environment, so that is where it must be.
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return resolve(shipped_config(), environ)


def test_the_shipped_config_changes_no_default(
    monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    resolved = load_shipped(monkeypatch, {})
    assert resolved.settings == load(config, {})
    assert resolved.config == shipped_config()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"IVAS_ENV": "production", **NAMED}, True),
        ({"IVAS_ENV": "production", "TTS_USE_GPU": "false", **NAMED}, False),
        ({"IVAS_ENV": "development", "TTS_USE_GPU": "true"}, True),
        ({"IVAS_ENV": "development", "TTS_ENABLE_GPU": "true"}, True),
    ],
)
def test_the_shipped_config_leaves_the_gpu_to_the_environment(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], expected: bool
) -> None:
    assert load_shipped(monkeypatch, environ).settings.tts.use_gpu is expected


def test_the_shipped_config_names_every_engine_of_production(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = load_shipped(monkeypatch, {"IVAS_ENV": "production"}).settings
    engines = (settings.asr.engine, settings.llm.engine, settings.tts.engine)
    assert engines == ("whisper", "ollama", "xtts")


def test_files_of_the_user_go_where_xdg_says(config: Path, tmp_path: Path) -> None:
    plain = load(config, {})
    assert plain.models_dir == Path.home() / ".cache/ivas/models"
    moved = resolve(config, {"XDG_CACHE_HOME": str(tmp_path), "XDG_CONFIG_HOME": "not/absolute"})
    assert moved.settings.models_dir == tmp_path / "ivas/models"
    assert moved.origins["models_dir"] == "default, in XDG_CACHE_HOME"
    assert moved.settings.server.keys_file == plain.server.keys_file
    given = {"XDG_CACHE_HOME": str(tmp_path), "IVAS_MODELS_DIR": "~/models"}
    assert load(config, given).models_dir == Path.home() / "models"


def test_origins_are_a_list(config: Path) -> None:
    listed = {"IVAS_SERVER__CORS_ORIGINS": "https://a.example, http://localhost:5173"}
    origins = load(config, listed).server.cors_origins
    assert origins == ("https://a.example", "http://localhost:5173")


def test_the_working_directory_is_never_searched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    assert resolve(environ={}).config == shipped_config()


def test_ivas_config_names_the_file_and_the_argument_beats_it(config: Path) -> None:
    environ = {"IVAS_CONFIG": str(config)}
    assert resolve(environ=environ).config == config
    assert resolve(config, {"IVAS_CONFIG": "/nowhere"}).config == config


def test_a_config_is_a_program_with_its_own_names(config: Path) -> None:
    config.write_text(
        "import os\n"
        "from pathlib import Path\n"
        "_here = Path(__file__).parent\n"
        "MODEL = 'tiny'\n"
        "def twice(text): return text * 2\n"
        "llm = {'instructions': twice(MODEL)}\n"
    )
    assert load(config, {}).llm.instructions == "tinytiny"


# Refusals


def test_an_unknown_variable_is_refused_with_the_likely_one(config: Path) -> None:
    text = sentence(config, {"IVAS_TTS_ENGINE": "espeak"})
    assert "IVAS_TTS_ENGINE is unknown (did you mean IVAS_TTS__ENGINE?)" in text


def test_an_unknown_environment_is_not_blamed_on_the_config(config: Path) -> None:
    config.write_text("raise RuntimeError('not reached')")
    text = sentence(config, {"IVAS_ENV": "staging"})
    assert text == "IVAS_ENV is 'staging'; it takes development or production."


ASR_ENGINES = "auto, whisper, openai, pocketsphinx, fake or package.module:factory"


@pytest.mark.parametrize(
    ("variable", "value", "takes"),
    [
        ("PORT", "eighty", "a whole number from 1 to 65535"),
        ("IVAS_SERVER__PORT", "65536", "a whole number from 1 to 65535"),
        ("IVAS_TTS__SPEED", "0.2", "a number from 0.25 to 4"),
        ("IVAS_TTS__SPEED", "nan", "a number from 0.25 to 4"),
        ("IVAS_OFFLINE", "perhaps", "true or false"),
        ("IVAS_LOG_LEVEL", "loud", "debug, info, warning or error"),
        ("IVAS_ASR__ENGINE", "Fake", ASR_ENGINES),
        ("IVAS_ASR__ENGINE", "os.system", ASR_ENGINES),
        ("IVAS_ASR__ENGINE", "my-pkg:make", ASR_ENGINES),
        ("IVAS_LLM__URL", "localhost:1234", "an address such as http://127.0.0.1:9000/v1"),
        ("IVAS_LLM__URL", "http://me:secret@host", "an address such as http://127.0.0.1:9000/v1"),
        ("IVAS_MODELS_HUB", "ftp://hub", "an address such as http://127.0.0.1:9000/v1"),
        (
            "IVAS_SERVER__CORS_ORIGINS",
            "*",
            "origins such as https://app.example, separated by commas",
        ),
        (
            "IVAS_SERVER__CORS_ORIGINS",
            "https://app.example/page",
            "origins such as https://app.example, separated by commas",
        ),
        ("IVAS_TTS__LANGUAGE", "British English", "a language code such as en or pt-BR"),
        ("IVAS_FAKE__TRANSCRIPT", "x" * 10_001, "text of at most 10000 characters"),
    ],
)
def test_a_value_that_does_not_fit(config: Path, variable: str, value: str, takes: str) -> None:
    text = sentence(config, {variable: value})
    assert text.startswith(f"{variable} is ")
    assert text.endswith(f"it takes {takes}.")
    assert len(text) < 250


def test_a_third_party_engine_is_let_through(config: Path) -> None:
    engine = "their_package.asr:make"
    assert load(config, {"IVAS_ASR__ENGINE": engine}).asr.engine == engine


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("ttts = {}", "sets ttts, which is unknown (did you mean tts?)"),
        ('tts = {"sped": 1}', "sets tts.sped, which is unknown (did you mean tts.speed?)"),
        ('tts = "espeak"', "tts in {path} is not a dict"),
        ('tts = {"speed": 9}', "tts.speed in {path} is 9; it takes a number from 0.25 to 4."),
        ('tts = {"use_gpu": "maybe"}', "tts.use_gpu in {path} is 'maybe'; it takes true or false."),
        ("tts = {", "{path}, line 1, cannot be executed (SyntaxError: "),
        ("\n\n1 / 0", "{path}, line 3, cannot be executed (ZeroDivisionError: division by zero)"),
        ("import sys\nsys.exit(3)", "{path}, line 2, cannot be executed (SystemExit: 3)"),
        ("x = '\x00'", "{path}"),
    ],
)
def test_a_config_that_is_wrong(config: Path, source: str, expected: str) -> None:
    config.write_text(source)
    assert expected.format(path=config) in sentence(config)


def test_a_config_that_is_missing(tmp_path: Path) -> None:
    missing = tmp_path / "none.py"
    assert sentence(missing).startswith(f"--config names {missing}, which is not a file")
    text = sentence(None, {"IVAS_CONFIG": str(missing)})
    assert text.startswith(f"IVAS_CONFIG names {missing}, which is not a file")
    assert sentence(tmp_path).startswith(f"--config names {tmp_path}, which is not a file")


def test_production_guesses_nothing(config: Path) -> None:
    text = sentence(config, {"IVAS_ENV": "production"})
    assert "whisper, ollama, xtts" in text
    environ = {"IVAS_ENV": "production", **NAMED, "IVAS_LLM__ENGINE": "auto"}
    text = sentence(config, environ)
    assert "IVAS_LLM__ENGINE" in text
    assert "IVAS_ASR__ENGINE" not in text
    assert load(config, {**environ, **NAMED}).env == "production"


@pytest.mark.parametrize("key", ["", " hunter2", "hunter 2", "hünter2"])
def test_a_key_that_opens_to_all_or_to_nobody_is_refused(config: Path, key: str) -> None:
    config.write_text(f'server = {{"host": "0.0.0.0", "api_key": {key!r}}}')
    text = sentence(config)
    assert "it takes printable ASCII characters without spaces" in text
    assert key.strip() == "" or key not in text


def test_a_secret_is_never_echoed(config: Path) -> None:
    config.write_text('server = {"api_key": ["hunter2"]}')
    assert "hunter2" not in sentence(config)
    config.write_text("")
    resolved = resolve(config, {"IVAS_SERVER__API_KEY": "hunter2"})
    assert "hunter2" not in repr(resolved)
    assert resolved.settings.server.api_key is not None
    assert resolved.settings.server.api_key.get_secret_value() == "hunter2"


def test_the_ivas_env_a_config_chooses_is_what_runs(config: Path) -> None:
    config.write_text(
        'IVAS_ENV = "production"\n'
        'asr = {"engine": "fake"}\nllm = {"engine": "fake"}\ntts = {"engine": "fake"}\n'
    )
    assert load(config, {}).env == "production"
    assert load(config, {"IVAS_ENV": "development"}).env == "development"
    config.write_text('IVAS_ENV = "prod"\n')
    with pytest.raises(SettingsError, match=r"IVAS_ENV in .* development or production"):
        load(config, {})
