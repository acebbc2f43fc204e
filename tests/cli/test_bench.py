"""`sealwire bench`, as a user runs it: both sides here, and to a server that was started."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from sealwire.cli.bench import client
from sealwire.cli.bench import server as bench_server
from sealwire.cli.bench.report import table
from sealwire.cli.demo.identities import IdentityFiles, write_roles
from sealwire.cli.main import main
from sealwire.comm import connect, listen
from sealwire.security import Authority
from support.aio import aio, until
from support.forking import sealwire
from support.processes import Program

PROMPTLY = 120  # seconds until a command counts as hung
SECONDS = "0.01"  # of a measurement, the least
UNITS = {
    "round trip of 100 B, median": "µs",
    "round trip of 100 B, 99 %": "µs",
    "messages of 100 B, one way": "/s",
    "upload, 64 KiB": "MB/s",
    "download, 64 KiB": "MB/s",
}


def bench(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code, output, errors = sealwire("bench", *arguments, folder=cwd)
    return subprocess.CompletedProcess(arguments, code, output.decode(), errors.decode())


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> dict[str, IdentityFiles]:
    return write_roles(tmp_path_factory.mktemp("certs"), Authority.create("ours"))


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start `sealwire bench --serve` with arguments; returns the program and its address."""
    started: list[Program] = []
    folder = tmp_path_factory.mktemp("serving")

    def serve(*arguments: str) -> tuple[Program, str]:
        command = [sys.executable, "-m", "sealwire.cli", "bench", "--serve", *arguments]
        program = Program(command, folder)
        started.append(program)
        return program, program.wait_for(r"serving on (\S+) for").group(1)

    yield serve
    for program in started:
        program.process.terminate()
        program.process.wait(PROMPTLY)
        program.finish()


@pytest.fixture(scope="module")
def tls_address(serving: Any, identities: dict[str, IdentityFiles]) -> str:
    """Of a server over TLS."""
    return str(serving("tls://127.0.0.1:0", *identities["scheduler"].dask_options())[1])


def check_figures(written: dict[str, Any], link: str) -> None:
    """Everything is there, but for large payloads that would have taken too long."""
    figures = {figure["what"]: figure for figure in written["results"][link]}
    assert len(figures) == len(written["results"][link])
    for what, unit in UNITS.items():
        assert figures[what]["unit"] == unit
    for what, figure in figures.items():
        assert figure["value"] > 0
        assert what in UNITS or what.partition(" ")[0] in ("upload,", "download,")


@pytest.mark.parametrize("options", [("--plot", "figures.svg"), ("--uvloop",)])
def test_both_sides_here(options: tuple[str, ...], tmp_path: Path) -> None:
    files = ("--json", "figures.json")
    done = bench("--seconds", SECONDS, *files, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    written = json.loads((tmp_path / "figures.json").read_text())
    assert list(written["results"]) == ["tcp", "tls"]
    assert written["uvloop"] == ("--uvloop" in options)
    for link in ("tcp", "tls"):
        check_figures(written, link)
        assert f"measuring {link}: 10 of 10 measurements" in done.stdout
    for figure in written["results"]["tls"]:
        assert f"\n{figure['what']} " in done.stdout
    assert (tmp_path / "figures.svg").exists() == ("--plot" in options)
    if "--plot" in options:
        picture = (tmp_path / "figures.svg").read_text()
        for words in ("<svg", "tls download", "64 MiB", "a process of this machine"):
            assert words in picture


def test_to_a_server_over_tls(
    tls_address: str, identities: dict[str, IdentityFiles], tmp_path: Path
) -> None:
    address = tls_address
    options = identities["client"].dask_options()
    for _ in range(2):  # the server is there for more than one client
        done = bench(
            address, "--seconds", SECONDS, "--json", "figures.json", *options, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        written = json.loads((tmp_path / "figures.json").read_text())
        assert (written["peer"], list(written["results"])) == (address, ["tls"])
        check_figures(written, "tls")


def test_an_unauthorized_peer_is_not_served(
    tls_address: str, identities: dict[str, IdentityFiles], tmp_path: Path
) -> None:
    address = tls_address
    folder = tmp_path / "other"
    folder.mkdir()
    foreign = write_roles(folder, Authority.create("another CA"))["client"]
    done = bench(address, "--seconds", SECONDS, *foreign.dask_options(), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: TLS handshake with {address} failed")
    done = bench(address, "--seconds", SECONDS, cwd=tmp_path)
    assert done.returncode == 1
    assert "no CA and certificate for role client" in done.stderr


def test_a_plain_server_only_if_asked_for(serving: Any, tmp_path: Path) -> None:
    for arguments in ((), ("tls://127.0.0.1:0",), ("127.0.0.1:0",)):
        done = bench("--serve", *arguments, cwd=tmp_path)
        assert done.returncode == 1
        assert "no CA and certificate for role scheduler" in done.stderr
        assert "serving" not in done.stdout
    _, address = serving("tcp://127.0.0.1:0")
    done = bench(address, "--seconds", SECONDS, "--json", "figures.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_figures(json.loads((tmp_path / "figures.json").read_text()), "tcp")


def test_required_encryption_refuses_a_plain_server(
    identities: dict[str, IdentityFiles], tmp_path: Path
) -> None:
    options = identities["scheduler"].dask_options()
    done = bench("--serve", "tcp://127.0.0.1:0", *options, cwd=tmp_path)
    assert done.returncode == 1
    assert "encryption is required" in done.stderr


def test_a_server_ends_by_itself(serving: Any) -> None:
    program, _ = serving("tcp://127.0.0.1:0", "--duration", "1")
    assert program.process.wait(PROMPTLY) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tcp://127.0.0.1"], "no port"),
        (["udp://127.0.0.1:8788"], "unknown scheme udp"),
        (["--plot", "figures.xyz"], "cannot draw figures.xyz: unknown kind of picture '.xyz'"),
        (["--serve", "tcp://192.0.2.1:8788"], "cannot listen on tcp://192.0.2.1:8788"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = bench(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert "round trip" not in done.stdout


@pytest.mark.parametrize(
    ("module", "option", "extra"),
    [("matplotlib", "--plot=x.png", "benchmark"), ("uvloop", "--uvloop", "uvloop")],
)
def test_a_missing_library_is_named_first(
    module: str, option: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (module, *(name for name in sys.modules if name.startswith(f"{module}."))):
        monkeypatch.setitem(sys.modules, name, None)
    done = CliRunner().invoke(main, ["bench", option])
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"pip install 'sealwire[{extra}]'" in done.stderr


@aio
async def test_a_server_has_a_limit_of_comms_and_of_sizes() -> None:
    server = bench_server.Server()
    async with listen("tcp://127.0.0.1:0", server.attend, limits=bench_server.LIMITS) as listener:
        address = listener.contact_address
        comms = [await connect(address, timeout=30) for _ in range(bench_server.COMMS)]
        for comm in comms:
            assert await client.ask(comm, client.MESSAGE) == client.MESSAGE
        more = await connect(address, timeout=30)
        with pytest.raises(client.Busy):
            await client.ask(more, client.MESSAGE)
        await more.close()
        more = await connect(address, timeout=30)
        await until(more.closed)  # said, and closed, before anything was asked
        with pytest.raises(client.Busy):
            await client.ask(more, client.MESSAGE)
        await comms.pop().close()
        await until(lambda: server.comms < bench_server.COMMS)
        more = await connect(address, timeout=30)
        for size, sent in ((1000, 1000), (bench_server.LARGEST + 1, 0), (-1, 0), ("x", 0)):
            answer = await client.ask(more, {"op": "send", "size": size})
            assert memoryview(answer["data"]).nbytes == sent
        for odd in (None, 7, [], {"op": []}):  # whatever is sent, the server lives on
            await more.write(odd)
            assert await more.read() == {"op": "ok"}
        for comm in (more, *comms):
            await comm.close()


@aio
async def test_what_takes_too_long_is_left_out() -> None:
    async with listen("tcp://127.0.0.1:0", bench_server.Server().attend) as listener:
        comm = await connect(listener.contact_address, timeout=30)
        steps = [figures async for figures in client.measure(comm, 1e-6)]
        await comm.close()
    assert [len(figures) for figures in steps] == [2, 1, 1, 0, 0, 0, 1, 0, 0, 0]
    found = {"tcp": [figure for figures in steps for figure in figures]}
    shown = Console(width=100)
    with shown.capture() as captured:
        shown.print(table(found))
    assert "upload, 64 KiB" in captured.get()
    assert "1 MiB" not in captured.get()
