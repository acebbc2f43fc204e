"""The site of the documentation: every page is reached, every link and anchor of it is there."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
ABOVE = sorted(ROOT.glob("*.md"))
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def slug(heading: str) -> str:
    """The anchor that a heading has, on the site as where the repository is browsed."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {slug(found) for found in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def links(page: Path) -> list[str]:
    """Where a page links to, within the repository."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[.*\]: (\S+)$", text, re.M)
    return [link for link in found if not link.startswith(("http://", "https://"))]


def leads(page: Path) -> set[Path]:
    """The pages that a click leads to from `page`, its tables of contents included."""
    text = page.read_text(encoding="utf-8")
    named = [
        page.parent / f"{entry}.md"
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for entry in tree.splitlines()
        if entry and not entry.startswith(":")
    ]
    linked = [page.parent / link.partition("#")[0] for link in links(page) if link[0] != "#"]
    return {path.resolve() for path in named + linked if path.suffix == ".md" and path.exists()}


@pytest.mark.parametrize("page", [*PAGES, *ABOVE], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        where, _, anchor = link.partition("#")
        target = (page.parent / where).resolve() if where else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_within_two_clicks_of_the_first() -> None:
    near = leads(DOCS / "index.md")
    further = {path for page in near for path in leads(page)}
    assert set(PAGES) - near - further - {DOCS / "index.md"} == set()


def test_ten_questions_are_answered_within_two_clicks() -> None:
    """The anchor stands on its page, and in a link on the first page or on one that it leads to."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    answers = re.findall(r"^\| .*\? \| \[.*\]\((docs/[\w.]+)#([\w-]+)\) \|$", text, re.MULTILINE)
    assert len(answers) == 10
    index = DOCS / "index.md"
    for name, anchor in answers:
        page = ROOT / name
        assert anchor in anchors(page), anchor
        links_to_it = {(index.parent / link).resolve() for link in links(index) if "#" in link}
        assert Path(f"{page}#{anchor}") in links_to_it, anchor
        assert len(section(page, anchor).split()) > 40, "an answer, not a heading"


def section(page: Path, anchor: str) -> str:
    """What stands below a heading, up to the next one that is not below it."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        level = len(line) - len(line.lstrip("#"))
        if level and slug(line[level + 1 :]) == anchor:
            body = lines[number + 1 :]
            ends = (n for n, each in enumerate(body) if re.match(rf"#{{1,{level}}} ", each))
            return "\n".join(body[: next(ends, len(body))])
    return ""


def test_a_site_is_made_of_it_by_every_make_test() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^test: .*\n\t.*\$\(MAKE\) .*\bdocs\b", makefile, re.MULTILINE)
    assert re.search(r"^\t.*sphinx-build .*-W\b.* docs build/site$", makefile, re.MULTILINE)


def test_the_versions_are_those_that_are_declared() -> None:
    page = (DOCS / "versions.md").read_text(encoding="utf-8")
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = settings["options.extras_require"]
    declared = "\n".join(
        [
            settings["options"]["install_requires"],
            *(extras[x] for x in ("dask", "metrics", "uvloop")),
        ]
    )
    wanted = dict(re.findall(r"^([\w-]+)>=([\d.]+)", declared, re.MULTILINE))
    rows = re.findall(r"^\| ([\w, -]+?)(?: \(.*\))? \| ([\d.]+) \| (.*) \|$", page, re.MULTILINE)
    shown = {name: oldest for names, oldest, _ in rows for name in names.split(", ")}
    assert shown.pop("Python") == settings["options"]["python_requires"].removeprefix(">=")
    assert shown == wanted
    (pythons,) = re.findall(r"^PYTHONS = (\[.*\])$", (ROOT / "noxfile.py").read_text(), re.M)
    assert f"| Python | {min_max(pythons)} |" in page


def min_max(pythons: str) -> str:
    found = re.findall(r"3\.\d+", pythons)
    return f"{found[0]} | {found[-1]}"
