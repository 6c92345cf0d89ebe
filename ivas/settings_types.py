"""The kinds of values a setting may have, and how each is said in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from annotated_types import Ge, Le, MaxLen
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True, slots=True)
class EngineName:
    """Marks a string as the name of an engine: a known one or `package.module:factory`."""

    known: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def check(self, name: str) -> str:
        module, colon, factory = name.partition(":")
        dotted = all(part.isidentifier() for part in [*module.split("."), factory])
        if name not in self.known and not (colon and dotted):
            raise ValueError("unknown engine")
        return name


def lowered(value: object) -> object:
    """For words that may be written in any case."""
    return value.lower() if isinstance(value, str) else value


def _fit_for_a_header(key: SecretStr) -> SecretStr:
    shown = key.get_secret_value()
    if not shown or not all("!" <= char <= "~" for char in shown):
        raise ValueError("no client could show this key")
    return key


ApiKey = Annotated[SecretStr, AfterValidator(_fit_for_a_header)]
LanguageCode = Annotated[str, Field(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")]
Name = Annotated[str, Field(min_length=1)]


def _expanded(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str) and value else value


Place = Annotated[Path, BeforeValidator(_expanded)]


def _web_address(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username or parts.query or parts.fragment:
        raise ValueError("no web address")
    return url.rstrip("/")


WebAddress = Annotated[str, AfterValidator(_web_address)]


def _listed(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        if _web_address(origin) != origin or urlsplit(origin).path:
            raise ValueError("no origin")
    return origins


Origins = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_origins)]


def accepted(field: FieldInfo) -> str:
    """The values a setting takes, in words: `a number from 0.25 to 4`."""
    for mark in field.metadata:
        if isinstance(mark, EngineName):
            return f"{', '.join(mark.known)} or package.module:factory"
    kind = next((k for k in get_args(field.annotation) if k is not type(None)), field.annotation)
    if get_origin(field.annotation) is Literal:
        words = get_args(field.annotation)
        return f"{', '.join(words[:-1])} or {words[-1]}"
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        low = next(m.ge for m in field.metadata if isinstance(m, Ge))
        high = next(m.le for m in field.metadata if isinstance(m, Le))
        return f"a {'whole ' if kind is int else ''}number from {low} to {high}"
    if kind == ApiKey:
        return "printable ASCII characters without spaces"
    if kind is Path:
        return "the path of a file or folder"
    if kind == WebAddress or AfterValidator(_web_address) in field.metadata:
        return "an address such as http://127.0.0.1:9000/v1"
    if get_origin(field.annotation) is tuple:
        return "origins such as https://app.example, separated by commas"
    if kind == LanguageCode:
        return "a language code such as en or pt-BR"
    longest = next((m.max_length for m in field.metadata if isinstance(m, MaxLen)), None)
    return f"text of at most {longest} characters" if longest else "text"
