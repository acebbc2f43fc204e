"""docs/troubleshooting.md: what it quotes is what its commands say, and each row can be met."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import dask
import pytest
from click.testing import CliRunner

from sealwire.cli.main import main
from sealwire.cli.probe import connections
from sealwire.security import Security
from support import certs, certs_cli, joining
from support.aio import aio, until
from support.handshakes import security
from support.listeners import CA, CLIENT, GOOD, NODE, OTHER_CA, Here, at, listening, probe

pytestmark = pytest.mark.usefixtures("registry")

PAGE = (Path(__file__).resolve().parents[2] / "docs/troubleshooting.md").read_text("utf-8")
STEPS = dict(re.findall(r"^## (\d)\. .*?$(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL))
QUOTED = {step: re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE) for step, text in STEPS.items()}
COMMANDS = re.findall(r"^\$ (.*)$", PAGE, re.MULTILINE)
PAST = -certs.SECOND
LATER = certs.DAY

Scenario = Callable[[Here], Awaitable[str]]


def meets(server: Security, node: certs.Node = CLIENT, kind: str = "comm") -> Scenario:
    """A certificate is shown to a listener; `probe` tells."""

    async def scenario(here: Here) -> str:
        return str((await at(listening(kind, "tls", server), *here(node)))["words"])

    return scenario


def with_lists(server: Security, lists: str, node: certs.Node = CLIENT) -> Scenario:
    """The same where revocation lists are configured on our side."""

    async def scenario(here: Here) -> str:
        with dask.config.set({"sealwire.tls.crl-file": lists}):
            return await meets(server, node)(here)

    return scenario


async def unknown_name(here: Here) -> str:
    return str(probe("tls://no-such-host.invalid:8786", *here())["words"])


async def nothing_listens(here: Here) -> str:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return str(probe(f"tls://127.0.0.1:{bound.getsockname()[1]}", *here())["words"])


async def packets_are_dropped(here: Here) -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
        address = f"tls://127.0.0.1:{server.getsockname()[1]}"
        told = probe(address, "--timeout", "0.2", *here())
        for sock in waiting:
            sock.close()
    return str(told["words"])


def instead(answer: bytes) -> Scenario:
    """A program that is not of a cluster, and answers with these bytes."""

    async def scenario(here: Here) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(answer)
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            address = f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(connections, "_SNIFF", 0.1)  # it will say nothing before it is asked
                return str((await asyncio.to_thread(probe, address, *here()))["words"])

    return scenario


async def plain_listener(here: Here) -> str:
    async with listening("comm", "tcp", GOOD) as listener:
        address = listener.contact_address.replace("tcp://", "tls://")
        return str((await asyncio.to_thread(probe, address, *here()))["words"])


async def hanging(here: Here) -> str:
    """The kernel accepts for a process that does nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"tls://127.0.0.1:{server.getsockname()[1]}"
        told = await asyncio.to_thread(probe, address, "--timeout", "0.1", *here())
    return str(told["words"])


async def dialled_plain(here: Here) -> str:
    async with listening("comm", "tls", GOOD) as listener:
        address = listener.contact_address.replace("tls://", "tcp://")
        return str((await asyncio.to_thread(probe, address))["words"])


async def no_hello(here: Here) -> str:
    """TLS by another program, which then says nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    context = GOOD.get_listen_args("scheduler")["ssl_context"]
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        address = f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        told = await asyncio.to_thread(probe, address, "--timeout", "0.5", *here())
    return str(told["words"])


async def service_to_join(here: Here) -> str:
    ca = joining.CA(Path(here()[-1]).with_name("ca"))
    files = ("--ca", str(ca.path / "ca.pem"), "--cert", str(ca.path / "worker.pem"))
    async with ca.service() as address:
        told = await asyncio.to_thread(probe, str(address), *files)
    return str(told["words"])


def spoiled(*change: Callable[[Path], object]) -> Scenario:
    """Our own file is changed first."""

    async def scenario(here: Here) -> str:
        options = here()
        for each in change:
            each(Path(options[-1]))
        return str(probe("tls://127.0.0.1:1", "--as", "worker", *options)["words"])

    return scenario


async def nothing_configured(here: Here) -> str:
    return str(probe("tls://127.0.0.1:1", "--as", "worker")["words"])


async def no_certificate(here: Here) -> str:
    """The listener's log has it."""
    bare = ssl.create_default_context(cadata=CA.pem)
    bare.check_hostname = False
    lines: list[str] = []
    async with listening("comm", "tls", GOOD) as listener:
        host, _, port = listener.contact_address.removeprefix("tls://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=bare)
        try:
            await reader.read()
        except OSError:
            pass
        writer.close()
        await until(lambda: bool(listener.stats.refused))
        lines += listener.stats.refused
    return " ".join(lines)


def expired_list() -> Scenario:
    lists = certs.crl(CA, start=-2 * certs.DAY, end=PAST)
    return with_lists(GOOD, lists)


SCENARIOS: dict[str, Scenario] = {
    "does not resolve": unknown_name,
    "connection refused": nothing_listens,
    "no answer within": packets_are_dropped,
    "speaks plain TCP there": plain_listener,
    "has not answered a TLS ClientHello": hanging,
    "it does not speak TLS": instead(b"220 ready\r\n"),
    "a web server (HTTP) listens there": instead(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "TLS is spoken there; use tls://": dialled_plain,
    "and no process of the cluster": service_to_join,
    "no hello came within": no_hello,
    "cannot read tls_worker_cert": spoiled(Path.unlink),
    "no certificate for role worker": nothing_configured,
    "the private key does not belong to the first certificate": spoiled(
        lambda file: file.write_text(CLIENT.pem + NODE.key_pem)
    ),
    "its private key is encrypted and no password was given": spoiled(
        lambda file: file.write_text(CLIENT.pem + CLIENT.encrypted_key_pem(b"x"))
    ),
    "it has expired": meets(security(certs.leaf(CA, "node", end=PAST), [CA])),
    "expired or not valid yet": meets(GOOD, certs.leaf(CA, "client", end=PAST)),
    "it is not valid yet": meets(
        security(certs.leaf(CA, "node", start=LATER, end=2 * LATER), [CA])
    ),
    "not signed by its CA": meets(GOOD, certs.leaf(OTHER_CA, "client")),
    "it is not signed by our CA": meets(security(certs.leaf(OTHER_CA, "node"), [CA])),
    "it is self-signed": meets(security(certs.make("node", names=["node"]), [CA])),
    "match none of the peers that are allowed here": meets(
        security(NODE, [CA], tls_allowed_peers=["worker*"])
    ),
    "does not allow": meets(GOOD, certs.leaf(CA, "client", purposes=[certs.SERVER])),
    "our own certificate is revoked": with_lists(GOOD, certs.crl(CA, CLIENT)),
    "refused our certificate: revoked": meets(
        security(NODE, [CA], tls_crl_file=certs.crl(CA, CLIENT))
    ),
    "it has been revoked": with_lists(GOOD, certs.crl(CA, NODE)),
    "the revocation list of its CA has expired": expired_list(),
    "we have no revocation list of a CA above it": with_lists(GOOD, certs.crl(OTHER_CA)),
}


async def not_on_our_list(here: Here) -> str:
    with dask.config.set({"sealwire.tls.allowed-peers": ["scheduler*"]}):
        return await meets(GOOD)(here)


SCENARIOS["match none of the allowed peers"] = not_on_our_list
IN_THE_LOG = {"it sent no certificate": ("no-certificate", no_certificate)}


def test_every_row_is_tried() -> None:
    rows = [words for found in QUOTED.values() for words in found]
    assert len(rows) > 20
    assert set(rows) == SCENARIOS.keys() | IN_THE_LOG.keys()


@pytest.mark.parametrize("words", SCENARIOS)
@aio
async def test_it_is_what_the_command_says(words: str, here: Here) -> None:
    assert words in await SCENARIOS[words](here)


@aio
async def test_it_is_what_the_log_says(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sealwire.comm")
    ((words, (kind, scenario)),) = IN_THE_LOG.items()
    assert await scenario(here) == kind
    assert words in caplog.text
    assert "listener on" in caplog.text


@pytest.mark.parametrize(
    ("step", "codes"), [("2", {1}), ("3", {4}), ("4", {3}), ("5", {5}), ("6", {5}), ("7", {5})]
)
@aio
async def test_the_exit_codes(step: str, codes: set[int], here: Here) -> None:
    """Of the first row of each step, by the words: `at` and `probe` compare them with the JSON."""
    said: list[int] = []
    genuine = CliRunner.invoke

    def noted(*args: Any, **kwargs: Any) -> Any:
        done = genuine(*args, **kwargs)
        said.append(done.exit_code)
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CliRunner, "invoke", noted)
        await SCENARIOS[QUOTED[step][0]](here)
    assert set(said) == codes
    before = "4" if step in "567" else step
    assert re.search(rf"[Ee]xit code {codes.pop()}\b", STEPS[before])


@aio
async def test_its_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the page, with a folder of its own, and listeners in place of addresses."""
    folder = tmp_path / "certs"
    certs_cli.good("init", str(folder))
    (tmp_path / "scheduler.log").write_text("listener on tls://10.0.0.5:8786: …\n")
    monkeypatch.chdir(tmp_path)
    export, *commands = COMMANDS
    name, _, value = export.removeprefix("export ").partition("=")
    settings = value.replace("/etc/sealwire", str(folder))
    monkeypatch.setenv(name, settings)
    ran = []
    with dask.config.set(dask.config.collect([settings], {})):
        for line in commands:
            program, *arguments = (
                line.replace('"$DASK_CONFIG"', value).replace("/etc/sealwire", str(folder)).split()
            )
            if program == "sealwire":
                ran.append(arguments[0])
                assert await outcome(arguments, folder) == 0, line
            else:
                assert line == "grep 'listener on' scheduler.log"
    assert sorted(ran) == ["certs"] * 4 + ["probe"] * 2


async def outcome(arguments: list[str], folder: Path) -> int:
    """The exit code of a command, with a listener at the address that it names."""
    addresses = [each for each in arguments if each.startswith("tls://")]
    if not addresses:
        return (await asyncio.to_thread(CliRunner().invoke, main, arguments)).exit_code
    (address,) = addresses
    role = {"8786": "scheduler", "40331": "worker"}[address.rpartition(":")[2]]
    own = str(folder / f"{role}.pem")
    there = Security(tls_ca_file=folder / "ca.pem", tls_scheduler_cert=own, tls_allowed_peers=["*"])
    async with listening("comm", "tls", there) as listener:
        told = [listener.contact_address if each == address else each for each in arguments]
        return (await asyncio.to_thread(CliRunner().invoke, main, told)).exit_code


def test_what_check_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0, 1 and 2, as in the table."""
    folder = tmp_path / "certs"
    certs_cli.good("init", str(folder))
    assert certs_cli.run("check", str(folder)).exit_code == 0
    assert certs_cli.run("check", str(folder), "--soon", "400d").exit_code == 1
    (folder / "crl.pem").write_text("nothing")
    assert certs_cli.run("check", str(folder)).exit_code == 2
    assert re.findall(r"^\| ([012]) \|", STEPS["1"], re.MULTILINE) == ["0", "1", "2"]
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    nowhere = certs_cli.run("check")
    assert nowhere.exit_code == 2
    (quoted,) = re.findall(r"If that says `(.*?)`", STEPS["1"])
    assert quoted in nowhere.output
