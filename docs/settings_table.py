"""Writes the tables of configuration.md from the schema: python docs/settings_table.py."""

from __future__ import annotations

import re
from pathlib import Path

from sealwire.security import schema

PAGE = Path(__file__).with_name("configuration.md")
BEGIN, END = "<!-- settings: made by docs/settings_table.py -->\n", "<!-- end of settings -->\n"


def tables() -> str:
    """Return a heading, a text and a table for each section."""
    made, every = [], schema.settings()
    for section, about in schema.sections().items():
        made += [f"### `sealwire.{section}`\n", f"{about['description']}\n"]
        made += ["| key | default | meaning |", "|---|---|---|"]
        made += [_row(every[f"sealwire.{section}.{key}"]) for key in about["properties"]]
        made.append("")
    return "\n".join(made)


def _row(setting: schema.Setting) -> str:
    name = setting.key.rpartition(".")[2]
    meaning = setting.about["description"]
    for word, key in (("Parameter of `Security`", "x-parameter"), ("Variable", "x-variable")):
        if key in setting.about:
            meaning += f" {word}: `{setting.about[key]}`."
    return f"| `{name}` | {setting.effective} | {meaning} |"


def written(page: str) -> str:
    """Return the page with the tables as they are now."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    assert pattern.search(page), f"{PAGE.name} has no place for the tables"
    return pattern.sub(lambda _: f"{BEGIN}\n{tables()}{END}", page)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
