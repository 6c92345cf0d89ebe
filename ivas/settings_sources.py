"""Finds the value of every setting: command line > environment > config.py > default.

The only file of the package that reads the environment, and the only one that
executes config.py. Each value is checked alone, while its source is still known, so
that every failure is one sentence naming the place to mend and what it accepts.
"""

from __future__ import annotations

import difflib
import os
import traceback
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from ivas.errors import SettingsError
from ivas.settings import ALIASES, Setting, Settings, all_settings

CONFIG_VARIABLE = "IVAS_CONFIG"

_PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Resolved:
    """The settings in effect and where they came from."""

    settings: Settings
    origins: Mapping[str, str]
    """Setting path -> `default`, the path of a config.py, a variable, or a flag."""
    config: Path | None
    """The config.py that was executed."""


@dataclass(frozen=True, slots=True)
class _Found:
    value: Any
    origin: str


def load(config: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in effect. Raises SettingsError; see `resolve`."""
    return resolve(config, environ).settings


def resolve(
    config: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, object] | None = None,
) -> Resolved:
    """Merge every source, setting by setting, and check the result.

    `config` is the file to execute; None means IVAS_CONFIG, else the shipped one.
    `flags` are values from the command line by setting path. An empty variable
    counts as unset. config.py is a program: what it reads itself is the environment
    of the process, whatever `environ` is. Raises SettingsError with one sentence.
    """
    _refuse_unknown_variables(environ)
    # Checked before config.py runs, so that a mistyped IVAS_ENV is not blamed on the file.
    from_environ = _from_environ(environ)
    path = find_config(config, environ)
    found = _from_config(path) if path is not None else {}
    found |= from_environ
    for name, value in (flags or {}).items():
        origin = f"--{name.rpartition('.')[2]}"
        found[name] = _Found(_checked(all_settings()[name], value, origin), origin)

    settings = Settings.model_validate(_nested(found))
    origins = {name: found[name].origin if name in found else "default" for name in all_settings()}
    if settings.tts.use_gpu is None:
        tts = settings.tts.model_copy(update={"use_gpu": settings.env == "production"})
        settings = settings.model_copy(update={"tts": tts})
        origins["tts.use_gpu"] = f"follows IVAS_ENV={settings.env}"
    settings = _at_home(settings, origins, environ)
    _refuse_guessing_in_production(settings)
    return Resolved(settings, origins, path)


def _at_home(settings: Settings, origins: dict[str, str], environ: Mapping[str, str]) -> Settings:
    """Files of the user go where XDG says, unless they were given a place."""
    changed: dict[str, Any] = {}
    for path, variable in _XDG.items():
        group, dot, key = path.rpartition(".")
        holder: Any = getattr(settings, group) if dot else settings
        place: Path = getattr(holder, key)
        base = environ.get(variable)
        if origins[path] == "default":
            if base and Path(base).is_absolute():
                place = Path(base, *place.parts[2:])  # "~", ".cache" or ".config"
                origins[path] = f"default, in {variable}"
            place = place.expanduser()
            if dot:
                changed[group] = changed.get(group, holder).model_copy(update={key: place})
            else:
                changed[key] = place
    return settings.model_copy(update=changed)


_XDG = {
    "models_dir": "XDG_CACHE_HOME",
    "server.keys_file": "XDG_CONFIG_HOME",
    "tts.voices_dir": "XDG_CONFIG_HOME",
}


def find_config(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The config.py to execute: `config`, else IVAS_CONFIG, else the shipped one.

    Never one of the working directory. Raises SettingsError if a named file is missing.
    """
    named = environ.get(CONFIG_VARIABLE)
    if config is not None or named:
        path = config if config is not None else Path(str(named))
        if not path.is_file():
            source = "--config" if config is not None else CONFIG_VARIABLE
            raise SettingsError(
                f"{source} names {path}, which is not a file; "
                f"correct the path, or write one with: ivas config --init {path}"
            )
        return path
    return shipped_config()


def shipped_config() -> Path | None:
    """The config.py that came with IVAS: the wheel's copy, else the checkout's."""
    in_wheel = _PACKAGE / "_config.py"
    checkout = _PACKAGE.parent
    if in_wheel.is_file():
        return in_wheel
    # Without pyproject.toml beside it, it is a stranger's file in site-packages.
    if (checkout / "pyproject.toml").is_file() and (checkout / "config.py").is_file():
        return checkout / "config.py"
    return None


def _from_environ(environ: Mapping[str, str]) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for path, setting in all_settings().items():
        names = [setting.variable, *(alias for alias, to in ALIASES.items() if to == path)]
        for name in (name for name in names if environ.get(name)):
            value = _checked(setting, environ[name], name)
            other = found.setdefault(path, _Found(value, name))
            if other.value != value:
                raise SettingsError(
                    f"{other.origin} and {name} are both set and contradict each other "
                    f"about {path}; unset one of them."
                )
    return found


def _from_config(path: Path) -> dict[str, _Found]:
    """Execute a config.py and read its public lower-case names.

    Names in capitals, names that begin with an underscore, imports and functions are
    the file's own business; but IVAS_ENV, by which it chooses, is what it runs.
    """
    known = all_settings()
    groups = {name.partition(".")[0] for name in known if "." in name}
    found: dict[str, _Found] = {}
    executed = _execute(path)
    env = _checked(known["env"], executed.get("IVAS_ENV", "development"), f"IVAS_ENV in {path}")
    if env != known["env"].default:
        found["env"] = _Found(env, str(path))
    for name, value in executed.items():
        own = name.startswith("_") or name.isupper()
        if own or callable(value) or isinstance(value, ModuleType):
            continue
        if name not in groups:
            _refuse_unknown_key(name, path, {n.partition(".")[0] for n in known})
            found[name] = _Found(_checked(known[name], value, f"{name} in {path}"), str(path))
            continue
        if not isinstance(value, Mapping):
            raise SettingsError(
                f"{name} in {path} is not a dict; write its settings as "
                f'{name} = {{"setting": value}}.'
            )
        for key, inner in value.items():
            leaf = f"{name}.{key}"
            _refuse_unknown_key(leaf, path, [n for n in known if n.startswith(f"{name}.")])
            found[leaf] = _Found(_checked(known[leaf], inner, f"{leaf} in {path}"), str(path))
    return found


def _execute(path: Path) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "ivas_config", "__file__": str(path)}
    try:
        source = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read ({error.strerror}); make it readable for this user."
        ) from error
    try:
        exec(compile(source, str(path), "exec"), namespace)
    except (Exception, SystemExit) as error:
        raise _broken(path, error) from error
    return namespace


def _broken(path: Path, error: BaseException) -> SettingsError:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else next(reversed(lines), None)
    where = f"{path}, line {line}," if line else str(path)
    what = error.msg if isinstance(error, SyntaxError) else str(error)
    return SettingsError(
        f"{where} cannot be executed ({type(error).__name__}: {what}); correct it, "
        "or write a fresh one with: ivas config --init"
    )


def _checked(setting: Setting, value: object, source: str) -> Any:
    try:
        return setting.adapter.validate_python(value)
    except ValidationError:
        # Not chained: pydantic's text quotes the value, which may be a secret.
        shown = "a value that does not fit" if setting.secret else f"{value!r:.80}"
        raise SettingsError(f"{source} is {shown}; it takes {setting.accepts}.") from None


def _nested(found: Mapping[str, _Found]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, item in found.items():
        group, dot, key = path.partition(".")
        if dot:
            nested.setdefault(group, {})[key] = item.value
        else:
            nested[path] = item.value
    return nested


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = {setting.variable for setting in all_settings().values()} | {CONFIG_VARIABLE}
    for name in sorted(environ):
        if name.startswith("IVAS_") and name not in known:
            raise SettingsError(
                f"The variable {name} is unknown{_did_you_mean(name, known)}; rename or unset it, "
                "then run `ivas config` without it to see every variable."
            )


def _refuse_unknown_key(name: str, path: Path, known: Collection[str]) -> None:
    if name not in known:
        raise SettingsError(
            f"{path} sets {name}, which is unknown{_did_you_mean(name, known)}; "
            "rename or remove it (names in capitals are the file's own)."
        )


def _did_you_mean(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f" (did you mean {close[0]}?)" if close else ""


def _refuse_guessing_in_production(settings: Settings) -> None:
    engines = {"ASR": settings.asr.engine, "LLM": settings.llm.engine, "TTS": settings.tts.engine}
    guessed = [f"IVAS_{kind}__ENGINE" for kind, engine in engines.items() if engine == "auto"]
    if settings.env == "production" and guessed:
        raise SettingsError(
            "IVAS_ENV=production guesses nothing, so auto is no engine for it; name one in "
            f"{', '.join(guessed)}, or take the three that config.py has: whisper, ollama, xtts."
        )
