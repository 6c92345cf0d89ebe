"""The documents say what the code does.

`.venv/bin/python tests/test_docs.py` writes the tables of docs/configuration.md anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ivas.settings import ALIASES, INSTRUCTIONS, all_settings

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = ROOT / "docs" / "configuration.md"
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


TABLES = {
    "settings": settings_table(),
    "aliases": alias_table(),
    "instructions": f"> {INSTRUCTIONS}\n",
}


def split(text: str, name: str) -> tuple[str, str, str]:
    """What stands before, in, and after one of the made parts."""
    before, begin, rest = text.partition(BEGIN.format(name))
    made, end, after = rest.partition(END)
    assert begin, f"docs/configuration.md has no part {name!r}"
    assert end, f"the part {name!r} of docs/configuration.md does not end"
    return before + begin, made, end + after


@pytest.mark.parametrize("name", TABLES)
def test_configuration_lists_exactly_the_settings(name: str) -> None:
    _, made, _ = split(CONFIGURATION.read_text(encoding="utf-8"), name)
    assert made == TABLES[name], "run: .venv/bin/python tests/test_docs.py"


def modules() -> list[str]:
    """Every module with code in it, as docs/architecture.md writes it: `conversation/turn.py`."""
    package = ROOT / "ivas"
    files = [file for file in package.rglob("*.py") if file.read_text(encoding="utf-8").strip()]
    return sorted(str(file.relative_to(package)) for file in files if file.name != "_config.py")


@pytest.mark.parametrize("module", modules())
def test_architecture_names_every_module(module: str) -> None:
    assert f"`{module}`" in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_architecture_names_no_module_that_does_not_exist() -> None:
    lines = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines()
    rows = [line.split("`")[1] for line in lines if line.startswith("| `") and ".py`" in line]
    assert rows, "the tables of modules are gone"
    assert [row for row in rows if row not in modules()] == []


if __name__ == "__main__":
    text = CONFIGURATION.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        before, _, after = split(text, name)
        text = before + table + after
    CONFIGURATION.write_text(text, encoding="utf-8")
