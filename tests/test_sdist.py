"""The source archive: what is in it, and that its tests run where there is no repository."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from email import message_from_bytes
from pathlib import Path

import pytest

from support.wheels import PATIENCE, ROOT, interpreter, released, run

FOLDERS = (
    *("comm", "security", "joining", "metrics", "dask_backend", "cli", "testing", "version"),
    *("tests", "docs", "examples", "benchmarks", "conda"),
)
# What reads sources, documents and examples.
TESTS = (
    "tests/test_architecture.py",
    "tests/test_site.py",
    "tests/test_release.py",
    "tests/comm/test_values_table.py",
    "tests/test_docs.py::test_a_page_shows_the_example",
)
# What runs where there is nothing but the wheel and the tests: bytes, sockets, TLS.
OUTSIDE = ("tests/comm/wire/test_framing.py", "tests/comm/test_tls.py")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive's content."""
    return released(tmp_path_factory) / "source"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the wheel that was made of the archive."""
    return interpreter(tmp_path_factory)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for name in FOLDERS
        for path in (folder / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def test_it_has_what_the_repository_has(source: Path) -> None:
    assert files(source) == files(source.parent / "copy")  # which nobody edits meanwhile
    assert files(source).keys() == files(ROOT).keys()
    above = {path.name for path in ROOT.iterdir() if path.is_file() and path.name[0] != "."}
    assert above <= {path.name for path in source.iterdir()}
    assert not [path for path in source.rglob("*") if path.name == "__pycache__"]


def passed(python: Path, tests: tuple[str, ...], folder: Path) -> int:
    """How many tests pass in a folder, with the wheel; none may fail or be skipped."""
    run_them = (
        f"import pytest, sys; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *{tests}]))"
    )
    done = subprocess.run(
        [python, "-I", "-B", "-c", run_them],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert "skipped" not in done.stdout
    return int(re.findall(r"(\d+) passed", done.stdout)[0])


def test_its_tests_run(source: Path, python: Path) -> None:
    assert passed(python, TESTS, source) > 300


def test_the_wheel_passes_tests_outside_of_any_tree(
    source: Path, python: Path, tmp_path: Path
) -> None:
    """Where the packages' sources are not, so that nothing can be found but what was installed."""
    for name in ("tests", "conftest.py", "setup.cfg"):
        path = source / name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / name)
    assert passed(python, OUTSIDE, tmp_path) > 200


def description(source: Path) -> str:
    message = message_from_bytes((source / "PKG-INFO").read_bytes())
    assert message["Description-Content-Type"] == "text/markdown"
    return str(message.get_payload(decode=True), "utf-8")


def test_links_of_the_description_lead_somewhere(source: Path) -> None:
    """An index shows it away from the repository: a relative link is a dead one."""
    text = description(source)
    assert text.startswith("# sealwire\n")
    assert "| docs/certificates.md | certificates, from the first to their renewal" in text
    assert "![" not in text
    assert "case by case" not in text
    assert re.findall(r"\]\((?!https://)[^)]*\)", text) == []


def test_links_are_absolute_once_the_address_is_known(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "tests"))
    settings = (copy / "setup.cfg").read_text(encoding="utf-8")
    address = "https://code.example/sealwire"
    urls = f"[metadata]\nproject_urls =\n    Source = {address}\n"
    (copy / "setup.cfg").write_text(settings.replace("[metadata]\n", urls), encoding="utf-8")
    print_it = "import setup; print(setup.long_description())"
    text = run(sys.executable, "-c", f"import sys; sys.argv[1:] = ['--name']; {print_it}", cwd=copy)
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    version = config["metadata"]["version"]
    shown = f"[docs/errors.md]({address}/blob/v{version}/docs/errors.md)"
    assert shown in text
    assert f"]({address}/raw/v{version}/docs/performance/in-dask.svg)\n\n" in text
    assert re.findall(r"\]\((?!https://)[^)]*\)", text) == []


def test_every_python_that_is_claimed_is_one_that_is_run() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    classifiers = config["metadata"]["classifiers"]
    claimed = re.findall(r"Python :: (3\.\d+)$", classifiers, re.MULTILINE)
    (pythons,) = re.findall(
        r"^PYTHONS = \[(.*)\]$", (ROOT / "noxfile.py").read_text(), re.MULTILINE
    )
    assert claimed == re.findall(r"[\d.]+", pythons)
    assert re.findall(r"Operating System :: (.*)$", classifiers, re.MULTILINE) == ["POSIX :: Linux"]
    assert "Linux is tested." in (ROOT / "README.md").read_text(encoding="utf-8")
