"""The tests on every supported Python, with the oldest and newest Tornado and distributed.

    nox --list
    nox -s "tests-3.12(tornado='oldest', distributed='newest')"
    nox -s tests-3.10 -- tests/comm           # arguments after -- are pytest's
    nox -s coverage

What is oldest stands in setup.cfg. Installing needs a package index; the tests themselves use
nothing but the loopback interface.
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import nox

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
AGES = ["oldest", "newest"]
PACKAGES = ("comm", "security", "joining", "dask_backend", "cli")

nox.options.sessions = ["tests"]
nox.options.reuse_existing_virtualenvs = True


def requirement(library: str, age: str) -> str:
    """What to install of `library`: the lowest version that setup.cfg allows, or the highest."""
    if age == "newest":
        return library
    config = configparser.ConfigParser()
    config.read(Path(__file__).with_name("setup.cfg"), encoding="utf-8")
    options = config["options"]["install_requires"] + config["options.extras_require"]["dask"]
    (lowest,) = re.findall(rf"^{library}>=([\d.]+)$", options, re.MULTILINE)
    return f"{library}=={lowest}"


def install(session: nox.Session, *requirements: str) -> None:
    """The project as `make install` does it, but with these versions."""
    session.install("--editable", ".[dask,uvloop,test]", *requirements)


@nox.session(python=PYTHONS)
@nox.parametrize("distributed", AGES)
@nox.parametrize("tornado", AGES)
def tests(session: nox.Session, tornado: str, distributed: str) -> None:
    """Run the tests."""
    install(
        session,
        requirement("tornado", tornado),
        requirement("dask", distributed),  # each distributed goes with one dask
        requirement("distributed", distributed),
    )
    arguments = session.posargs or ["-n", "2", "--dist", "worksteal"]
    # Not python -m pytest, which would put the repository's root on sys.path; see conftest.py.
    session.run("pytest", "-p", "no:cacheprovider", *arguments)


@nox.session(python="3.12")
def coverage(session: nox.Session) -> None:
    """Run the tests and tell which lines none of them reaches; processes they start count not."""
    install(session, "pytest-cov>=5")
    arguments = session.posargs or ["-n", "2", "--dist", "worksteal"]
    measured = [f"--cov={package}" for package in PACKAGES]
    reports = ["--cov-branch", "--cov-report=term:skip-covered", "--cov-report=html:build/coverage"]
    session.run("pytest", "-p", "no:cacheprovider", *measured, *reports, *arguments)
