"""The doctor, at doors of every kind: each explanation comes from breaking what it explains."""

from __future__ import annotations

import asyncio
import functools
import http.server
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import certs
import dask
import distributed
import pytest
from aio import aio
from click.testing import CliRunner
from handshakes import foreign_context, security

from sealwire.cli.doctor import Outcome
from sealwire.cli.main import main
from sealwire.comm import listen
from sealwire.dask_backend import install, installed, uninstall
from sealwire.security import Security

CA, OTHER_CA = certs.root("our ca"), certs.root("other ca")
NODE = certs.leaf(CA, "node")
CLIENT = certs.leaf(CA, "client")
FAST = ("--timeout", "0.5")


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    before = installed()
    yield
    (install if before else uninstall)()


@pytest.fixture
def here(tmp_path: Path) -> Callable[..., list[str]]:
    """Options that name an identity, ours if none is given, and the CA."""

    def options(node: certs.Node = CLIENT, ca: certs.Node = CA) -> list[str]:
        for name, text in (("ca.pem", ca.pem), ("client.pem", node.pem + node.key_pem)):
            path = tmp_path / name
            path.touch(mode=0o600)
            path.write_text(text)
        return ["--ca", str(tmp_path / "ca.pem"), "--cert", str(tmp_path / "client.pem")]

    return options


def probe(*arguments: str) -> dict[str, Any]:
    """What it says in JSON; the exit code goes with it."""
    done = CliRunner().invoke(main, ["probe", "--json", *arguments], catch_exceptions=False)
    assert done.output.startswith("{"), done.output
    told = json.loads(done.output)
    assert isinstance(told, dict)
    assert told["exit_code"] == done.exit_code
    return told


async def at(listening: Any, *arguments: str) -> dict[str, Any]:
    """`probe` in a thread, with the address of a listener."""
    async with listening as listener:
        return await asyncio.to_thread(probe, listener.contact_address, *arguments)


async def hold(comm: Any) -> None:
    """A handler that waits until the other side is gone."""
    try:
        await comm.read()
    except OSError:
        pass


def door(kind: str, scheme: str, one: Security) -> Any:
    """A listener of the standalone comm, of our Dask backend, or of distributed's own."""
    address = f"{scheme}://127.0.0.1:0"
    args = one.get_listen_args("scheduler") if scheme == "tls" else {}
    if kind == "comm":
        return listen(address, hold, **args)
    (install if kind == "ours" else uninstall)()
    return distributed.comm.listen(address, hold, **args)


KINDS = pytest.mark.parametrize("kind", ["comm", "ours", "stock"])
GOOD = security(NODE, [CA])


# As it should be


@KINDS
@pytest.mark.parametrize("version", ["1.2", "1.3"])
@aio
async def test_over_tls(kind: str, version: str, here: Callable[..., list[str]]) -> None:
    one = security(NODE, [CA], tls_max_version=version)
    told = await at(door(kind, "tls", one), *here())
    assert told["outcome"] == "ok"
    assert told["exit_code"] == 0
    assert told["words"] == "it speaks our protocol; each side accepts the other's certificate"
    assert [step["name"] for step in told["steps"]] == ["resolve", "connect", "TLS", "hello"]
    assert all(0 < step["ms"] < 60_000 for step in told["steps"])
    assert told["steps"][0]["detail"] == "127.0.0.1"
    assert told["protocol"] == f"TLSv{version}"
    assert told["cipher"] in told["steps"][2]["detail"]
    python = ".".join(map(str, sys.version_info[:3]))
    who = "sealwire comm" if kind == "comm" else "Dask"
    assert told["steps"][3]["detail"] == f"{who}, python {python}"
    assert ("sealwire" in told["hello"]) is (kind == "comm")
    known = told["certificates"]
    assert known["ours"]["subject"] == "CN=client"
    assert known["theirs"]["subject"] == "CN=node"
    assert known["theirs"]["issuer"] == known["our_ca"]["subject"] == "CN=our ca"
    assert known["theirs"]["serial"] == f"{NODE.certificate.serial_number:x}"


@KINDS
@aio
async def test_in_plain_text(kind: str) -> None:
    told = await at(door(kind, "tcp", GOOD))
    assert told["outcome"] == "ok"
    assert told["words"] == "it speaks our protocol, in plain text: nothing is protected"
    assert [step["name"] for step in told["steps"]] == ["resolve", "connect", "hello"]
    assert told["certificates"] == {}
    assert told["protocol"] is None


@pytest.mark.parametrize("role", ["client", "scheduler", "worker"])
@aio
async def test_the_configured_identity_of_a_role(role: str) -> None:
    node = certs.leaf(CA, f"my {role}", names=["x"])
    tree = f"distributed.comm.tls.{role}"
    values = {"distributed.comm.tls.ca-file": CA.pem, f"{tree}.cert": node.pem}
    with dask.config.set({**values, f"{tree}.key": node.key_pem}):
        async with door("comm", "tls", GOOD) as listener:
            bare = listener.contact_address.removeprefix("tls://")  # TLS, as there are certificates
            told = await asyncio.to_thread(probe, bare, "--as", role)
            other = "worker" if role != "worker" else "client"
            refused = await asyncio.to_thread(probe, listener.contact_address, "--as", other)
    assert told["outcome"] == "ok"
    assert told["role"] == role
    assert told["certificates"]["ours"]["subject"] == f"CN=my {role}"
    assert refused["outcome"] == "here"
    assert f"no certificate for role {other}; give --ca and --cert, or set" in refused["words"]


# Not reachable


def test_no_such_name() -> None:
    told = probe("tcp://no-such-host.invalid:8786")
    assert told["exit_code"] == Outcome.UNREACHABLE.value == 1
    assert "the host name no-such-host.invalid does not resolve" in told["words"]
    assert told["words"].endswith("check its spelling and this machine's DNS")
    assert [(step["name"], step["detail"]) for step in told["steps"]] == [("resolve", "failed")]


@contextmanager
def closed_port() -> Iterator[int]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_nothing_listens(scheme: str, here: Callable[..., list[str]]) -> None:
    with closed_port() as port:
        told = probe(f"{scheme}://127.0.0.1:{port}", *here())
    assert told["exit_code"] == 1
    assert told["words"] == (
        f"cannot connect to {scheme}://127.0.0.1:{port}: connection refused; the host is up and "
        "nothing listens on that port: check the port, and that the process runs"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="others answer when the backlog is full")
def test_packets_are_dropped() -> None:
    """By a kernel whose backlog is full."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
        told = probe(f"tcp://127.0.0.1:{server.getsockname()[1]}", *FAST)
        for sock in waiting:
            sock.close()
    assert told["exit_code"] == 1
    assert "no answer within 0.5 s; the host is down, or a firewall between drops" in told["words"]


# Something else


@KINDS
@aio
async def test_plain_to_a_tls_listener(kind: str) -> None:
    async with door(kind, "tls", GOOD) as listener:
        secure = listener.contact_address
        plain = secure.replace("tls", "tcp")
        told = await asyncio.to_thread(probe, plain, *FAST)
    assert told["exit_code"] == Outcome.STRANGE.value == 4
    assert told["words"] == (f"{plain} is not what it should be: TLS is spoken there; use {secure}")


@KINDS
@aio
async def test_tls_to_a_plain_listener(kind: str, here: Callable[..., list[str]]) -> None:
    async with door(kind, "tcp", GOOD) as listener:
        plain = listener.contact_address
        secure = plain.replace("tcp", "tls")
        told = await asyncio.to_thread(probe, secure, *FAST, *here())
    assert told["exit_code"] == 4
    assert told["words"] == (
        f"{secure} is not what it should be: a Dask or sealwire process speaks plain TCP there; "
        f"use {plain}, or give it certificates"
    )


class Web(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def web(context: ssl.SSLContext | None = None) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    server.handle_error = lambda *args: None  # type: ignore[method-assign]
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=functools.partial(server.serve_forever, 0.01))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_a_web_server(scheme: str, here: Callable[..., list[str]]) -> None:
    with web() as port:
        told = probe(f"{scheme}://127.0.0.1:{port}", *FAST, *here())
    assert told["exit_code"] == 4
    assert "a web server (HTTP) listens there: perhaps it is the dashboard's port" in told["words"]


def test_a_web_server_over_tls(here: Callable[..., list[str]]) -> None:
    with web(foreign_context("server", NODE, [CA])) as port:
        told = probe(f"tls://127.0.0.1:{port}", *FAST, *here())
        plain = probe(f"tcp://127.0.0.1:{port}", *FAST)
    assert told["exit_code"] == plain["exit_code"] == 4
    assert "a web server over TLS (HTTPS) listens there" in told["words"]
    assert f"TLS is spoken there; use tls://127.0.0.1:{port}" in plain["words"]


@contextmanager
def raw(serve: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server that does something with each connection, and holds it until the end."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.append(connection)
                try:
                    serve(connection)
                except OSError:
                    pass

        thread = threading.Thread(target=run)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in held:
        connection.close()


RAW: dict[str, tuple[Callable[[socket.socket], object], str, str]] = {
    "silent": (
        lambda sock: None,
        "it accepts connections, but says nothing within 0.5 s, neither a hello nor TLS; check",
        "it accepts connections, but has not answered a TLS ClientHello within 0.5 s; it speaks",
    ),
    "closes": (
        lambda sock: sock.close(),
        "it closed the connection before its hello; check the address and the port, and its log",
        "it closes the connection when a TLS handshake begins; check the address and the port, and",
    ),
    "another protocol": (
        lambda sock: sock.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"),
        r"it does not speak our protocol: its first bytes are b'SSH-2\.0-OpenSSH_9\.2p1 De'; che",
        r"it does not speak TLS; its first bytes are b'SSH-2\.0-OpenSSH_9\.2p1 De'; check the",
    ),
}


@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_other_doors(name: str, scheme: str, here: Callable[..., list[str]]) -> None:
    serve, plain, secure = RAW[name]
    with raw(serve) as port:
        told = probe(f"{scheme}://127.0.0.1:{port}", *FAST, *here())
    assert re.search(plain if scheme == "tcp" else secure, told["words"]), told["words"]
    assert told["exit_code"] == 4


def talk_tls(then: Callable[[ssl.SSLSocket], object]) -> Callable[[socket.socket], object]:
    context = foreign_context("server", NODE, [CA])

    def serve(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            then(tls)

    return serve


def test_tls_without_a_hello(here: Callable[..., list[str]]) -> None:
    with raw(talk_tls(lambda tls: tls.recv(1000) and tls.recv(1000))) as port:
        told = probe(f"tls://127.0.0.1:{port}", *FAST, *here())
    assert told["exit_code"] == 4
    assert "TLS is fine, but no hello came within 0.5 s; it is no Dask or sealwire" in told["words"]

    def speak_first(tls: ssl.SSLSocket) -> None:
        tls.sendall(b"220 mail.example ESMTP\r\n" * 3)
        while tls.recv(1000):  # to close with bytes unread would reset the connection
            pass

    with raw(talk_tls(speak_first)) as port:
        told = probe(f"tls://127.0.0.1:{port}", *FAST, *here())
    assert told["exit_code"] == 4
    assert "it speaks TLS, but not our protocol: its first bytes are b'220 mail" in told["words"]


# Refused, by either side


@KINDS
@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize(
    ("node", "words"),
    [
        (certs.leaf(OTHER_CA, "client"), "it refused our certificate: not signed by its CA; give"),
        (certs.leaf(CA, "client", end=-certs.SECOND), "it refused our certificate: expired or not"),
        (
            certs.leaf(CA, "client", purposes=[certs.SERVER]),
            "its extended key usage does not allow",
        ),
    ],
    ids=["other CA", "expired", "purpose"],
)
@aio
async def test_it_refuses_us(
    kind: str, version: str, node: certs.Node, words: str, here: Callable[..., list[str]]
) -> None:
    one = security(NODE, [CA], tls_max_version=version)
    told = await at(door(kind, "tls", one), *here(node))
    assert told["exit_code"] == Outcome.REFUSED.value == 5
    assert words in told["words"]
    assert told["words"].startswith(f"TLS handshake with {told['address']} failed: ")
    assert told["certificates"]["ours"]["issuer"] == node.certificate.issuer.rfc4514_string()
    if version == "1.3":
        assert told["certificates"]["theirs"]["subject"] == "CN=node"


@aio
async def test_it_has_revoked_us(here: Callable[..., list[str]]) -> None:
    one = security(NODE, [CA], tls_crl_file=certs.crl(CA, CLIENT))
    told = await at(door("comm", "tls", one), *here())
    assert told["exit_code"] == 5
    assert "it refused our certificate: revoked; issue a new one" in told["words"]


@KINDS
@aio
async def test_it_does_not_list_us(kind: str, here: Callable[..., list[str]]) -> None:
    one = security(NODE, [CA], tls_allowed_peers=["worker*"])
    told = await at(door(kind, "tls", one), *here())
    assert told["exit_code"] == 5
    assert (
        "closed the connection after the TLS handshake and before its hello; its log says why: "
        in (told["words"])
    )
    assert "our certificate may not be among its allowed peers (tls_allowed_peers)" in told["words"]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (certs.leaf(OTHER_CA, "node"), "we refused its certificate: it is not signed by our CA"),
        (certs.leaf(CA, "node", end=-certs.SECOND), "we refused its certificate: it has expired"),
        (certs.make("node", names=["node"]), "we refused its certificate: it is self-signed"),
    ],
    ids=["other CA", "expired", "self-signed"],
)
@KINDS
@aio
async def test_we_refuse_it(
    kind: str, node: certs.Node, words: str, here: Callable[..., list[str]]
) -> None:
    """And show the certificate that was refused."""
    told = await at(door(kind, "tls", security(node, [CA])), *here())
    assert told["exit_code"] == 5
    assert words in told["words"]
    theirs = told["certificates"]["theirs"]
    assert theirs["serial"] == f"{node.certificate.serial_number:x}"
    assert theirs["issuer"] == node.certificate.issuer.rfc4514_string()
    assert told["certificates"]["our_ca"]["subject"] == "CN=our ca"


@aio
async def test_we_do_not_list_it(here: Callable[..., list[str]]) -> None:
    with dask.config.set({"sealwire.tls.allowed-peers": ["scheduler*"]}):
        told = await at(door("comm", "tls", GOOD), *here())
    assert told["exit_code"] == 5
    assert "its names (CN=node, DNS node) match none of the allowed peers" in told["words"]


@aio
async def test_no_version_in_common(here: Callable[..., list[str]]) -> None:
    older = security(NODE, [CA], tls_max_version="1.2")
    with dask.config.set({"distributed.comm.tls.min-version": 1.3}):
        told = await at(door("comm", "tls", older), *here())
    assert told["exit_code"] == 5
    assert "TLS version" in told["words"]


# Wrong here


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda folder: (folder / "client.pem").unlink(), "cannot read tls_client_cert"),
        (lambda folder: (folder / "ca.pem").write_text("x"), "no certificate in it"),
        (
            lambda folder: (folder / "client.pem").write_text(CLIENT.pem + NODE.key_pem),
            "the private key does not belong to the first certificate",
        ),
        (
            lambda folder: (folder / "client.pem").write_text(
                CLIENT.pem + CLIENT.encrypted_key_pem(b"x")
            ),
            "its private key is encrypted and no password was given; set tls_key_password",
        ),
    ],
    ids=["missing", "no CA", "mismatch", "encrypted"],
)
def test_our_own_files(
    break_it: Callable[[Path], object],
    words: str,
    here: Callable[..., list[str]],
    tmp_path: Path,
) -> None:
    options = here()
    break_it(tmp_path)
    told = probe("tls://127.0.0.1:1", *options)
    assert told["exit_code"] == Outcome.HERE.value == 3
    assert words in told["words"]
    assert told["steps"] == []


@aio
async def test_encryption_is_required_here() -> None:
    with dask.config.set({"distributed.comm.require-encryption": True}):
        told = await at(door("comm", "tcp", GOOD))
    assert told["exit_code"] == 3
    assert "in plain text, but encryption is required here" in told["words"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tls://127.0.0.1"], "need tcp://host:port or tls://host:port"),
        (["ucx://127.0.0.1:1"], "need tcp://host:port or tls://host:port"),
        (["tls://127.0.0.1:x"], "got port 'x', need 0 to 65535"),
        (["tls://127.0.0.1:1", "--as", "nanny"], "'nanny' is not one of"),
        (["tls://127.0.0.1:1", "--timeout", "0"], "is not in the range"),
        ([], "Missing argument 'ADDRESS'"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str, here: Callable[..., list[str]]) -> None:
    done = CliRunner().invoke(main, ["probe", *arguments, *here()])
    assert done.exit_code == 2
    assert words in done.output


# For people


@aio
async def test_what_people_see(here: Callable[..., list[str]]) -> None:
    async with door("comm", "tls", GOOD) as listener:
        good = await asyncio.to_thread(run, listener.contact_address, *here())
    assert good.returncode == 0, good.stderr
    for words in (
        "resolve",
        "connect",
        "TLSv1.3",
        "sealwire comm",
        "CN=client",
        "CN=node",
        "our CA",
    ):
        assert words in good.stdout
    assert f"{listener.contact_address} as client" in good.stdout
    assert good.stdout.splitlines()[-1].startswith("ok  it speaks our protocol")
    evil = certs.leaf(OTHER_CA, "evil\x1b[2J[bold]", names=["x"])
    async with door("comm", "tls", security(evil, [CA])) as listener:
        bad = await asyncio.to_thread(run, listener.contact_address, *here())
    assert bad.returncode == 5
    assert bad.stdout.splitlines()[-1].startswith("FAILED  TLS handshake with tls://127.0.0.1:")
    assert "\x1b[2J" not in bad.stdout
    assert "[bold]" in bad.stdout


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sealwire.cli", "probe", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_it_documents_its_exit_codes() -> None:
    text = CliRunner().invoke(main, ["probe", "--help"]).output
    for outcome in Outcome:
        assert f"\n    {outcome.value}  " in text
    assert text.count("sealwire probe ") >= 4
