"""How people write TLS versions, and the name that a client asks a server for (SNI)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import dask.config
import pytest

from sealwire.security import ConfigError, Security
from sealwire.security.contexts.policy import Policy, SealedContext, Side, empty_context
from support import certs, folders
from support.configured import Start, run_each
from support.handshakes import client_context, security, server_context, shake

CA = certs.root()
NODE = certs.leaf(CA)
V2, V3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3

FORMS = ["{}", "TLSv{}", "TLS{}", "tls{}", "TLS {}", "TLS-{}", "v{}", "tlsv{}", "TLS V{}", " {} ",
         "'{}'", '"{}"', "'TLSv{}'", "TLSVersion.TLSv{}"]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("digits", "version"), [("1.2", V2), ("1.3", V3), ("1_2", V2), ("1_3", V3)]
)
def test_a_version_in_text(form: str, digits: str, version: ssl.TLSVersion) -> None:
    text = form.format(digits)
    one = Security(tls_min_version=text, tls_max_version=text)
    assert (one.tls_min_version, one.tls_max_version) == (version, version)
    with dask.config.set({"distributed.comm.tls.min-version": text}):
        assert Security().tls_min_version is version


@pytest.mark.parametrize("value", [1.3, V3, "1.3"])
def test_a_version_otherwise(value: Any) -> None:
    context = server_context(security(NODE, [CA], tls_min_version=value))
    assert context.minimum_version is V3


@pytest.mark.parametrize(
    "value",
    ["1.1", "TLSv1.1", "1.0", "TLSv1", "SSLv3", "13", 13, 1, "1.30", "1.4", "1.33", "1.3.1",
     "TLS", "latest", "1.2,1.3", [1.3], True, 1.1, ssl.TLSVersion.SSLv3, "1.\u0663"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_no_version(value: Any) -> None:
    for name in ("tls_min_version", "tls_max_version"):
        with pytest.raises(ConfigError, match=rf"cannot use {name}: .*expected TLS 1\.2 or 1\.3"):
            Security(**{name: value})


EMPTY = ["DISTRIBUTED__COMM__TLS__MIN_VERSION", "DISTRIBUTED__COMM__TLS__MAX_VERSION",
         "DISTRIBUTED__COMM__TLS__CIPHERS", "DISTRIBUTED__COMM__TLS__CA_FILE",
         "DISTRIBUTED__COMM__REQUIRE_ENCRYPTION", "SEALWIRE__TLS__RELOAD_INTERVAL",
         "SEALWIRE__TLS__EXPIRY_WARNING", "SEALWIRE__TLS__SERVER_HOSTNAME"]  # fmt: skip


def test_a_variable_that_is_set_to_nothing_is_not_set(tmp_path: Path) -> None:
    empty = {f"DASK_{name}": "" for name in EMPTY}
    starts: list[Start] = [({}, variables) for variables in ({}, empty)]
    (without, _), (with_them, _) = run_each(tmp_path, True, starts)
    assert without == with_them
    assert without[0]["tls_min_version"] == V2


# The server's name


class Heard:
    """A server without sealwire that notes which name each client asks for."""

    def __init__(self) -> None:
        self.names: list[str | None] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = lambda tls, name, context: self.names.append(name)
        self.context = context


def asked_for(client: ssl.SSLContext, way: str, name: str | None) -> str | None:
    heard = Heard()
    if way == "objects":
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        mine = client.wrap_bio(incoming, outgoing, server_hostname=name)
        with pytest.raises(ssl.SSLWantReadError):
            mine.do_handshake()
        received = ssl.MemoryBIO()
        received.write(outgoing.read())
        theirs = heard.context.wrap_bio(received, ssl.MemoryBIO(), server_side=True)
        with pytest.raises(ssl.SSLError):
            theirs.do_handshake()
    else:
        ours, other = socket.socketpair()
        with ours, other:
            ours.settimeout(30)
            other.settimeout(30)

            def serve() -> None:
                with contextlib.suppress(OSError):
                    heard.context.wrap_socket(other, server_side=True)
                other.close()

            thread = threading.Thread(target=serve)
            thread.start()
            with contextlib.suppress(OSError):
                client.wrap_socket(ours, server_hostname=name)
            thread.join(30)
    return heard.names[0]


@pytest.mark.parametrize("way", ["sockets", "objects"])
@pytest.mark.parametrize("how", ["argument", "configuration"])
def test_the_configured_name_is_asked_for(way: str, how: str) -> None:
    key = "sealwire.tls.server-hostname"
    fields = {} if how == "configuration" else {"tls_server_hostname": "alpha.sched"}
    with dask.config.set({key: "alpha.sched"} if how == "configuration" else {}):
        one = security(NODE, [CA], **fields)
    context = client_context(one)
    assert asked_for(context, way, None) == "alpha.sched"
    assert asked_for(context, way, "beta.sched") == "beta.sched"
    assert asked_for(client_context(security(NODE, [CA])), way, None) is None
    assert Security(**one.fields()).tls_server_hostname == "alpha.sched"


def test_no_certificate_is_compared_with_it() -> None:
    one = security(NODE, [CA], tls_server_hostname="another.name")
    assert shake(server_context(one), client_context(one)).accepted


@pytest.mark.parametrize(
    "name", ["s", "my_host", "a.b.c", "xn--mnchen-3ya.example", "Sched-1.lab."]
)
def test_a_name(name: str) -> None:
    assert Security(tls_server_hostname=name).tls_server_hostname == name.removesuffix(".")


@pytest.mark.parametrize(
    "name",
    ["10.0.0.7", "::1", "host:8786", "tls://host", "a b", "münchen", ".", ".a", "a..b", "a" * 64,
     "-a", ".".join(["abc"] * 64), 7, ["a"], b"a", "a\0b"],
)  # fmt: skip
def test_no_name(name: Any) -> None:
    with pytest.raises(ConfigError, match=r"cannot use tls_server_hostname: expected a DNS name"):
        Security(tls_server_hostname=name)


def name_in(hello: bytes) -> str:
    """The name that a ClientHello asks for."""
    found = re.search(rb"\0\0(..)(..)\0(..)", hello, re.S)
    assert found is not None
    size = int.from_bytes(found[3], "big")
    return hello[found.end() : found.end() + size].decode()


def test_dask_worker_asks_for_it(tmp_path: Path) -> None:
    """From the command line, with distributed's own `Security`."""
    folder = folders.found(tmp_path / "certs")
    heard: list[bytes] = []

    async def main() -> None:
        asked = asyncio.Event()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.read(4096))
            asked.set()
            writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DASK_")}
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dask", "worker", f"tls://127.0.0.1:{port}", "--no-nanny"),
            *("--host", "127.0.0.1", "--no-dashboard", "--death-timeout", "60"),
            *("--preload", "sealwire.dask_backend.preload"),
            env={
                **clean,
                "DASK_CONFIG": str(folder / "dask.yaml"),
                "DASK_SEALWIRE__TLS__SERVER_HOSTNAME": "beta.sched",
            },
            cwd=tmp_path,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await asyncio.wait_for(asked.wait(), 100)
        finally:
            worker.kill()
            await worker.wait()
            server.close()

    asyncio.run(main())
    assert b"beta.sched" in heard[0]
    assert name_in(heard[0]) == "beta.sched"


class _From13(SealedContext):
    """Begins as in a Python that keeps OpenSSL's configuration, where that says ``MinProtocol``."""

    def __new__(cls, *args: Any) -> _From13:
        made: _From13 = super().__new__(cls, *args)
        made.minimum_version = V3
        return made


@pytest.mark.parametrize("side", ["server", "client"])
def test_the_minimum_of_the_system_holds(side: Side) -> None:
    for policy in (Policy(), Policy(min_version=V3), Policy(max_version=V3)):
        assert empty_context(_From13, side, policy).minimum_version == V3
    words = r"cannot use tls_max_version TLSv1_2: .* sets MinProtocol TLSv1_3; change one"
    with pytest.raises(ConfigError, match=words):
        empty_context(_From13, side, Policy(max_version=V2))


CONFIGURED = """
from sealwire.security import ConfigError, Security
for kwargs in ({}, {"tls_min_version": 1.3}, {"tls_max_version": 1.3}):
    try:
        context = Security.temporary(**kwargs).get_listen_args("worker")["ssl_context"]
        print(context.minimum_version.name, context.maximum_version.name)
    except ConfigError as error:
        print(error)
"""
_NO_13 = "cannot use tls_min_version TLSv1_3: .* sets MaxProtocol TLSv1_2; change one of the two"


@pytest.mark.parametrize(
    ("most", "printed"),
    [
        ("TLSv1.3", ["TLSv1_2 TLSv1_3", "TLSv1_3 TLSv1_3", "TLSv1_2 TLSv1_3"]),
        ("TLSv1.2", ["TLSv1_2 TLSv1_2", _NO_13, "TLSv1_2 TLSv1_2"]),
        ("TLSv1.1", [f"cannot use tls_min_version {v}: .* sets MaxProtocol TLSv1_1; raise it"
                     for v in ("TLSv1_2", "TLSv1_3", "TLSv1_2")]),
    ],
)  # fmt: skip
def test_the_maximum_of_the_system_holds(tmp_path: Path, most: str, printed: list[str]) -> None:
    (tmp_path / "openssl.cnf").write_text(
        "openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = tls\n"
        f"[tls]\nMaxProtocol = {most}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", CONFIGURED],
        env={**os.environ, "OPENSSL_CONF": str(tmp_path / "openssl.cnf")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(printed)
    for line, words in zip(lines, printed, strict=True):
        assert re.fullmatch(words, line), line
