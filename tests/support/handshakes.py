"""Real TLS handshakes between two contexts, in memory and in one thread.

The bytes of each side go to the other through `ssl.MemoryBIO`; OpenSSL does everything else, as on
a socket. After its handshake each side writes a few bytes and reads the other's, since a TLS 1.3
client learns that it was refused only when it reads.
"""

from __future__ import annotations

import socket
import ssl
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from sealwire.security import Security
from support.certs import Node

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
GREETING = b"hello"


@dataclass
class Side:
    """One end: its TLS object, what it raised, and what it read."""

    tls: ssl.SSLObject
    error: ssl.SSLError | None = None
    received: bytes = b""


@dataclass
class Outcome:
    server: Side
    client: Side

    @property
    def accepted(self) -> bool:
        return self.server.received == self.client.received == GREETING

    def refused_by(self, side: str) -> int:
        """Assert that no data passed and `side` refused a certificate; OpenSSL's X509_V_ERR_…"""
        assert self.server.received == self.client.received == b""
        error = getattr(self, side).error
        assert isinstance(error, ssl.SSLCertVerificationError), (self.server, self.client)
        other = self.client if side == "server" else self.server
        assert other.error is not None, "the refused side was not told"
        return error.verify_code


def shake(
    server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> Outcome:
    """Let a server and a client of these contexts talk until neither can go on."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        Side(client.wrap_bio(to_client, to_server, server_side=False, session=session)),
        Side(server.wrap_bio(to_server, to_client, server_side=True)),
    ]
    done: list[list[str]] = [[], []]
    for _ in range(12):  # a handshake takes six turns at most
        for side, steps in zip(sides, done, strict=True):
            _advance(side, steps)
    return Outcome(server=sides[1], client=sides[0])


def _advance(side: Side, steps: list[str]) -> None:
    if side.error is not None or "read" in steps:
        return
    try:
        if "handshake" not in steps:
            side.tls.do_handshake()
            steps.append("handshake")
        if "write" not in steps:
            side.tls.write(GREETING)
            steps.append("write")
        side.received = side.tls.read(len(GREETING))
        steps.append("read")
    except ssl.SSLWantReadError:
        pass
    except ssl.SSLError as error:
        side.error = error


def foreign_context(
    side: str,
    node: Node | None,
    trust: list[Node],
    *,
    version: ssl.TLSVersion | None = None,
    ciphers: str = "ALL:@SECLEVEL=0",
) -> ssl.SSLContext:
    """A context made without sealwire, that shows any certificate, however bad."""
    protocol = ssl.PROTOCOL_TLS_SERVER if side == "server" else ssl.PROTOCOL_TLS_CLIENT
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_ciphers(ciphers)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    context.load_verify_locations(cadata="".join(node.pem for node in trust))
    if node is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "identity.pem"
            path.write_text(node.pem + node.key_pem)
            context.load_cert_chain(path)
    return context


def security(node: Node, trust: list[Node], **fields: Any) -> Security:
    """A `Security` whose worker and scheduler both are `node`."""
    return Security(
        tls_ca_file="".join(each.pem for each in trust),
        tls_worker_cert=node.pem,
        tls_worker_key=node.key_pem,
        tls_scheduler_cert=node.pem,
        tls_scheduler_key=node.key_pem,
        **fields,
    )


def server_context(security: Security, role: str = "scheduler") -> ssl.SSLContext:
    context = security.get_listen_args(role)["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    return context


def client_context(security: Security, role: str = "worker") -> ssl.SSLContext:
    context = security.get_connection_args(role)["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    return context


def name_at(address: str, context: ssl.SSLContext) -> str:
    """The name that a listener shows once it has said hello. Raises `ssl.SSLError`."""
    host, port = address.rpartition("://")[2].rsplit(":", 1)
    with (
        socket.create_connection((host, int(port)), timeout=60) as plain,
        context.wrap_socket(plain) as tls,
    ):
        assert tls.recv(1)
        return common_name(tls.getpeercert())


def told_at(address: str, context: ssl.SSLContext) -> Any:
    """The only message that a listener sends before it closes. Raises `ssl.SSLError`."""
    host, port = address.rpartition("://")[2].rsplit(":", 1)
    with (
        socket.create_connection((host, int(port)), timeout=60) as plain,
        context.wrap_socket(plain) as tls,
    ):
        return only_message(tls)


def only_message(tls: ssl.SSLSocket) -> Any:
    """All that the peer sends before it closes: one message of one frame."""
    data = b"".join(iter(lambda: tls.recv(65536), b""))
    lead, count, length = struct.unpack_from("<QQQ", data)
    assert (lead, count, len(data)) == (16 + length, 1, 24 + length)
    return msgpack.unpackb(data[24:])


def common_name(certificate: Any) -> str:
    return str(certificate["subject"][0][0][1])
