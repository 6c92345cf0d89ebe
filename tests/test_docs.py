"""The documents say what the code does.

`.venv/bin/python tests/test_docs.py` writes what is made from the code anew.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ivas.models import shown_size
from ivas.models.catalogue import CATALOGUE, find
from ivas.settings import ALIASES, INSTRUCTIONS, all_settings

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = ROOT / "docs" / "configuration.md"
ENGINES = ROOT / "docs" / "engines.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
BEGIN = "<!-- made by tests/test_docs.py: {} -->\n"
END = "<!-- end -->"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def settings_table() -> str:
    rows = ["| Setting | Variable | Default | Takes | What it is |", "|---|---|---|---|---|"]
    for setting in all_settings().values():
        default = "unset" if setting.default is None else f"`{setting.default}`"
        if setting.default == INSTRUCTIONS:
            default = "see below"
        if isinstance(setting.default, bool):
            default = f"`{str(setting.default).lower()}`"
        cells = [f"`{setting.path}`", f"`{setting.variable}`", default, setting.accepts]
        rows.append(f"| {' | '.join(map(cell, [*cells, setting.description]))} |")
    return "\n".join(rows) + "\n"


def alias_table() -> str:
    rows = [f"| `{alias}` | `{path}` |" for alias, path in sorted(ALIASES.items())]
    return "\n".join(["| Variable | Setting |", "|---|---|", *rows]) + "\n"


def modules() -> list[str]:
    """Every module with code in it: `conversation/turn.py`."""
    package = ROOT / "ivas"
    files = [file for file in package.rglob("*.py") if file.read_text(encoding="utf-8").strip()]
    return sorted(str(file.relative_to(package)) for file in files if file.name != "_config.py")


def first_line(module: str) -> str:
    tree = ast.parse((ROOT / "ivas" / module).read_text(encoding="utf-8"))
    line = (ast.get_docstring(tree) or "").partition("\n")[0]
    assert line, f"ivas/{module} does not say what job it has"
    return line.removesuffix(".").replace("|", "\\|")


ROOMS = ["conversation", "engines", "audio", "text", "server", "client", "models", "doctor", "cli"]


def module_table(room: str) -> str:
    inside = [m for m in modules() if m.partition("/")[0] == room or ("/" not in m and not room)]
    rows = [f"| `{module}` | {first_line(module)} |" for module in inside]
    return "\n".join(["| Module | Its job |", "|---|---|", *rows]) + "\n"


def models_table() -> str:
    rows = ["| Model | What it does | On disk | Licence |", "|---|---|---|---|"]
    for model in CATALOGUE:
        licence = model.licence
        name = f"**{licence.name}, non-commercial**" if licence.non_commercial else licence.name
        note = f"; {licence.note}" if licence.note else ""
        cells = [f"`{model.id}`", model.purpose, shown_size(model.size_bytes), f"{name}{note}"]
        rows.append(f"| {' | '.join(map(cell, cells))} |")
    return "\n".join(rows) + "\n"


CONFIGURATION_PARTS = {
    "settings": settings_table,
    "aliases": alias_table,
    "instructions": lambda: f"> {INSTRUCTIONS}\n",
}
ARCHITECTURE_PARTS = {
    f"modules of {room or 'ivas'}": partial(module_table, room) for room in ["", *ROOMS]
}
PARTS = [
    *((CONFIGURATION, name, make) for name, make in CONFIGURATION_PARTS.items()),
    *((ARCHITECTURE, name, make) for name, make in ARCHITECTURE_PARTS.items()),
    (ENGINES, "models", models_table),
]


def split(text: str, name: str) -> tuple[str, str, str]:
    """What stands before, in, and after one of the made parts."""
    before, begin, rest = text.partition(BEGIN.format(name))
    made, end, after = rest.partition(END)
    assert begin, f"there is no part {name!r}"
    assert end, f"the part {name!r} does not end"
    return before + begin, made, end + after


@pytest.mark.parametrize(("document", "name", "make"), PARTS, ids=lambda part: str(part)[-30:])
def test_what_is_made_from_the_code_is_what_the_code_says(
    document: Path, name: str, make: Callable[[], str]
) -> None:
    _, made, _ = split(document.read_text(encoding="utf-8"), name)
    assert made == make(), "run: .venv/bin/python tests/test_docs.py"


def test_every_model_the_engines_page_names_can_be_had() -> None:
    text = ENGINES.read_text(encoding="utf-8")
    named = re.findall(r"models download (?!ollama:)([\w.-]+)", text)
    assert named
    for model_id in named:
        find(model_id)


def test_every_module_has_a_room() -> None:
    rooms = {module.partition("/")[0] for module in modules() if "/" in module}
    assert rooms == set(ROOMS)


if __name__ == "__main__":
    for document, name, make in PARTS:
        before, _, after = split(document.read_text(encoding="utf-8"), name)
        document.write_text(before + make() + after, encoding="utf-8")
