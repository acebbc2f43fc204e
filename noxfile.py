"""The tests on every supported Python, with the oldest and newest Tornado and distributed.

    nox --list
    nox -s "tests-3.12(tornado='oldest', distributed='newest')"
    nox -s tests-3.10 -- tests/comm           # arguments after -- are pytest's
    nox -s lowest                             # the lowest version of every dependency
    nox -s coverage
    nox -s release                            # builds dist/, and examines it

What is oldest stands in setup.cfg. Installing needs a package index; the tests themselves use
nothing but the loopback interface.
"""

from __future__ import annotations

import configparser
import re
import shutil
from pathlib import Path

import nox

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
AGES = ["oldest", "newest"]
COVERED = ("comm/wire/*", "comm/transport/*", "security/contexts/*")

nox.options.sessions = ["tests"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True  # what is not run must not look as if it were


def declared() -> list[str]:
    """Every requirement of a user's installation, as setup.cfg has it."""
    config = configparser.ConfigParser()
    config.read(Path(__file__).with_name("setup.cfg"), encoding="utf-8")
    extras = config["options.extras_require"]
    texts = config["options"]["install_requires"], *map(extras.get, ("dask", "metrics", "uvloop"))
    return [line.partition(";")[0].strip() for text in texts for line in text.strip().splitlines()]


def requirement(library: str, age: str) -> str:
    """What to install of `library`: the lowest version that setup.cfg allows, or the highest."""
    if age == "newest":
        return library
    (lowest,) = re.findall(rf"^{library}>=([\d.]+)$", "\n".join(declared()), re.MULTILINE)
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
    reports = ["--cov", "--cov-report=html:build/coverage"]
    session.run("pytest", "-p", "no:cacheprovider", *reports, *arguments)
    # Where every promise is kept or broken, file by file.
    session.run("coverage", "report", f"--include={','.join(COVERED)}")


@nox.session(python="3.10")
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest version of every dependency, on the oldest Python.

    Of click, they need a newer one, to run commands in their own process; the oldest is tried after
    them, by the commands alone.
    """
    pinned = [each.replace(">=", "==") for each in declared()]
    install(session, *(each for each in pinned if not each.startswith("click==")), "click==8.2")
    session.run("pip", "list")
    arguments = session.posargs or ["-n", "2", "--dist", "worksteal"]
    session.run("pytest", "-p", "no:cacheprovider", *arguments)
    folder = Path(session.create_tmp()).resolve()
    shutil.rmtree(folder / "certs", ignore_errors=True)
    session.install("--target", str(folder / "click"), requirement("click", "oldest"))
    for words in ("--version", "certs init", "certs list", "certs check", "config", "probe --help"):
        command = ("python", "-m", "sealwire.cli", *words.split())
        with session.chdir(folder):
            session.run(*command, env={"PYTHONPATH": str(folder / "click")})


@nox.session(python="3.12")
def release(session: nox.Session) -> None:
    """Build dist/, and examine it: metadata, what is installed with it, what is known of that.

    Writes a Software Bill of Materials beside it, of an environment with the wheel and what it
    needs, which is made for it and has nothing else in it.
    """
    # First and alone: it needs an old jsonschema, which the others replace.
    session.install("cffconvert>=2")
    session.run("cffconvert", "--validate", "-i", "CITATION.cff")
    session.install("build>=1", "twine>=6", "cyclonedx-bom>=5", "pip-audit>=2.7")
    dist = Path("dist")
    for left in dist.glob("sealwire-*"):
        left.unlink()
    # Whoever builds the wheel of this commit again has the same one, byte by byte.
    when = session.run("git", "log", "-1", "--format=%ct", external=True, silent=True)
    session.run("python", "-m", "build", env={"SOURCE_DATE_EPOCH": str(when).strip()})
    (archive,) = map(str, dist.glob("sealwire-*.tar.gz"))
    (wheel,) = map(str, dist.glob("sealwire-*.whl"))
    session.run("twine", "check", "--strict", archive, wheel)
    place = Path(session.create_tmp()) / "users"
    session.run("python", "-m", "venv", "--clear", str(place))
    python = str(place / "bin" / "python")
    session.run(python, "-m", "pip", "install", f"{wheel}[dask,metrics,uvloop]", external=True)
    session.run(python, "-m", "sealwire.cli", "--version", external=True)
    session.run(python, "-m", "pip", "uninstall", "-y", "pip", "setuptools", external=True)
    bill = wheel.replace("-py3-none-any.whl", ".cdx.json")
    session.run(
        *("cyclonedx-py", "environment", "--of", "JSON", "--output-reproducible"),
        *("-o", bill, python),
    )
    # Strictly: what its database does not know would be passed over. We are not in it.
    (packages,) = place.glob("lib/*/site-packages")
    for left in packages.glob("sealwire-*.dist-info"):
        shutil.rmtree(left)
    session.run("pip-audit", "--strict", "--path", str(packages))
