"""The wheel: what is in it, and what it can do in an environment without Dask and numpy."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sealwire
from support.once import once
from support.wheels import PATIENCE, PYTHON, ROOT, built, run

PACKAGES = ("comm", "security", "joining", "metrics", "dask_backend", "cli", "testing")

ECHO = """
import asyncio, os
from sealwire.comm import connect, listen
from sealwire.security import Security

async def echo(comm):
    async for message in comm:
        await comm.write(message)

async def main():
    security = Security.temporary()
    sent = bytearray(os.urandom(1024)) * (64 * 1024)
    async with listen("tls://127.0.0.1:0", echo, **security.get_listen_args("scheduler")) as server:
        args = security.get_connection_args("worker")
        comm = await connect(server.contact_address, timeout=30, **args)
        await comm.write({"op": "put", "data": sent})
        reply = await comm.read()
        assert reply["op"] == "put"
        assert memoryview(reply["data"]).nbytes == 64 * 2**20
        assert reply["data"] == sent
        assert not memoryview(reply["data"]).readonly
        print(comm.extra_info["protocol"], comm.extra_info["peercert"]["subject"])
        await comm.close()

asyncio.run(main())
"""

USE = """
import asyncio, io, contextlib

class Point:
    def __init__(self, x):
        self.x = x

c.register_type(Point, lambda point: {"x": point.x}, lambda fields: Point(fields["x"]))

async def handler(comm):
    async for message in comm:
        await comm.write(message)

async def main():
    async with c.listen("127.0.0.1:0", handler) as listener, c.connect(
        listener.contact_address, timeout=30
    ) as comm:
        await comm.write({"\\xfc": Point(b"x" * 10_000), "n": 1 << 70})
        message = await comm.read()
        assert type(message["\\xfc"]) is Point and message["n"] == 1 << 70
        for wrong, text in (({"\\xfc": {1}}, "cannot encode set"), ({(1,): 1}, "dict key")):
            try:
                await comm.write(wrong)
            except c.EncodeError as error:
                if text not in str(error):
                    raise
            else:
                raise SystemExit("nothing was raised")
    for call in (c.connect, lambda *a, **k: c.listen(*a, handler, **k)):
        try:
            call("tcp://127.0.0.1:1", contxt=1)
        except TypeError as error:
            if "contxt" not in str(error):
                raise
        else:
            raise SystemExit("nothing was raised")

asyncio.run(main())
with contextlib.redirect_stdout(io.StringIO()):
    for name in c.__all__:
        help(getattr(c, name))
print("done")
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory)


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel, what it needs, and Jupyter's comm.

    What it needs, by its metadata and theirs, is there as it is here: nothing else is.
    """

    def install(folder: Path) -> None:
        venv.create(folder, symlinks=os.name != "nt")
        pip = (sys.executable, "-m", "pip", "--python", folder / PYTHON, "install", "--quiet")
        run(*pip, "--no-compile", "--no-deps", wheel, "comm", cwd=folder)
        (packages,) = folder.rglob("site-packages")
        with zipfile.ZipFile(wheel) as archive:
            path = zipfile.Path(archive, f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/")
            wanted = PathDistribution(path).requires or []
        for needed in all_needed(wanted):
            tops = {file.parts[0] for file in needed.files or () if file.parts[0] != ".."}
            for top in tops - {"__pycache__"}:
                (packages / top).symlink_to(Path(str(needed.locate_file(top))))

    return once(tmp_path_factory, "environment", install) / PYTHON


def all_needed(requirements: list[str]) -> list[Distribution]:
    """What these ask for without any extra, and what that asks for in turn."""
    found: dict[str, Distribution] = {}
    wanted = [Requirement(each) for each in requirements]
    while wanted:
        one = wanted.pop()
        name = canonicalize_name(one.name)
        if name not in found and (one.marker is None or one.marker.evaluate({"extra": ""})):
            assert not one.extras, f"{one}: which of its requirements are its extras'?"
            found[name] = distribution(name)
            wanted += [Requirement(each) for each in found[name].requires or ()]
    return list(found.values())


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        scripts = archive.read(entry_points).decode()
        metadata = archive.read(entry_points.replace("entry_points.txt", "METADATA")).decode()
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"sealwire"}
    inside = {name.split("/")[1] for name in names if name.startswith("sealwire/")}
    settings = {"sealwire.yaml", "sealwire-schema.yaml"}
    assert inside == {"__init__.py", "py.typed", *settings, *PACKAGES}
    for package in PACKAGES:
        assert f"sealwire/{package}/py.typed" in names
        sources = {f"sealwire/{package}/{path.name}" for path in (ROOT / package).glob("*.py")}
        assert sources <= names
    assert "sealwire = sealwire.cli.main:main" in scripts
    required = [
        line.removeprefix("Requires-Dist: ").replace(" ", "")
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist:") and "extra==" not in line.replace(" ", "")
    ]
    assert {name.split(">")[0] for name in required} == {
        "tornado",
        "cryptography",
        "msgpack",
        "click",
        "rich",
        "donfig",
        "pyyaml",
    }


def test_there_is_no_dask_and_no_numpy(python: Path, tmp_path: Path) -> None:
    """The other tests here mean something only because of this."""
    script = (
        "from importlib.util import find_spec\n"
        "print([find_spec(name) for name in ('dask', 'distributed', 'numpy')])"
    )
    assert run(python, "-c", script, cwd=tmp_path) == "[None, None, None]\n"


def test_comm_and_security_import_without_dask(python: Path, tmp_path: Path) -> None:
    script = (
        "import sealwire.comm, sealwire.security\n"
        "from sealwire.comm import *\n"
        "from sealwire.security import *\n"
        "print(sealwire.comm.__file__)"
    )
    where = Path(run(python, "-c", script, cwd=tmp_path).strip())
    assert python.parent.parent in where.parents


def test_import_comm_finds_jupyters_package(python: Path, tmp_path: Path) -> None:
    script = (
        "import comm, sealwire.comm, importlib.metadata as m\n"
        "files = [f.locate() for f in m.files('comm')]\n"
        "import pathlib; print(pathlib.Path(comm.__file__) in files, comm is sealwire.comm)"
    )
    assert run(python, "-c", script, cwd=tmp_path) == "True False\n"


def test_a_tls_echo_of_64_mib_without_dask(python: Path, tmp_path: Path) -> None:
    printed = run(python, "-W", "error", "-c", ECHO, cwd=tmp_path)
    assert printed.startswith("TLSv1.3 ")
    assert "scheduler" in printed


def test_the_command_says_its_version(python: Path, wheel: Path, tmp_path: Path) -> None:
    version = wheel.name.split("-")[1]
    for command in ([python.with_name("sealwire")], [python, "-m", "sealwire.cli"]):
        assert run(*command, "--version", cwd=tmp_path) == f"sealwire {version}\n"


def test_the_demo_says_that_it_needs_dask(python: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [python, "-m", "sealwire.cli", "demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'sealwire[dask]'" in done.stderr


def test_metrics_need_prometheus_client_when_they_are_exported(
    python: Path, tmp_path: Path
) -> None:
    script = (
        "from importlib.util import find_spec\n"
        "from sealwire import metrics\n"
        "assert find_spec('prometheus_client') is None\n"
        "assert 'sealwire_info' in metrics.SERIES\n"
        "try:\n    metrics.register()\n"
        "except ModuleNotFoundError as error:\n    print(error)"
    )
    assert "pip install 'sealwire[metrics]'" in run(python, "-c", script, cwd=tmp_path)


def test_versions_are_read_when_asked_for(python: Path, tmp_path: Path) -> None:
    """Reading metadata takes as long as all other imports together."""
    script = (
        "import sys, sealwire, sealwire.comm, sealwire.security\n"
        "assert 'importlib.metadata' not in sys.modules\n"
        "import importlib.metadata as m\n"
        "print({m.version('sealwire'), sealwire.__version__, sealwire.comm.__version__})"
    )
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    version = config["metadata"]["version"]
    assert run(python, "-c", script, cwd=tmp_path) == f"{{{version!r}}}\n"
    with pytest.raises(AttributeError, match="has no attribute '__verion__'"):
        sealwire.__verion__  # type: ignore[attr-defined]  # noqa: B018


FLAGS = (("-OO", "-I"), ("-X", "dev", "-X", "utf8=0", "-b", "-W", "error"))


@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
def test_it_works_in_odd_interpreters(flags: tuple[str, ...], python: Path, tmp_path: Path) -> None:
    """Without assertions and docstrings, with every warning an error, in the C locale."""
    echo = ECHO.replace("64 *", "4 *")  # MiB
    code = f"{echo}\nimport sealwire.comm as c\n{USE}"
    printed = run(python, *flags, "-c", code, cwd=tmp_path, LC_ALL="C", PYTHONIOENCODING="ascii")
    assert printed.startswith("TLSv1.3 ")
    assert printed.endswith("\ndone\n")
