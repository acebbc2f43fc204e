"""A CA with tokens, its service on this loop, and clients that do not keep to the exchange."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from sealwire.comm.addressing import Address
from sealwire.joining import Desk, Joined, JoinServer, Refused, Token, messages
from sealwire.joining.client import _asked, _certificate_of, _Context, _opened
from sealwire.joining.ledger import Grant, Ledger
from sealwire.joining.service import limits
from sealwire.security.ca.atomic_files import apply, locked, make_folder
from sealwire.security.ca.bootstrap import new_store
from sealwire.security.ca.folder import Folder
from sealwire.security.ca.store import Store
from sealwire.security.x509.certinfo import CertificateInfo
from support.certs_cli import run
from support.joined_cluster import SECRET

HOUR = datetime.timedelta(hours=1)


def new_token(path: Path, role: str = "worker", **how: Any) -> Token:
    """A new token, in the ledger of a CA's folder."""
    with locked(path) as folder:
        token = Token.make(Store(folder).trusted)
        ledger = Ledger(folder)
        apply(ledger.write([ledger.make(token, role, **how)]))
    return token


class CA:
    """The folder of a CA, and what the commands do with it."""

    def __init__(self, path: Path, **how: Any) -> None:
        self.path = path
        make_folder(path)
        apply(new_store(path, **how))

    def token(self, role: str = "worker", **how: Any) -> Token:
        """A new token, in the ledger."""
        return new_token(self.path, role, **how)

    def revoke(self, token: Token) -> None:
        with locked(self.path) as folder:
            ledger = Ledger(folder)
            apply(ledger.write([ledger.end(ledger.find(token.id), "revoked", "by a test")]))

    def grant(self, token: Token) -> Grant:
        """What the ledger on the disk has of a token."""
        return Ledger(Folder(self.path)).grants[token.id]

    def issued(self) -> list[str]:
        """Names in the journal of what was given to those who joined, in order."""
        records = Store(self.path).journal.issued()
        return [
            each.file for each in records
            if each.file.startswith("joined/") and each.file != "joined/authority"
        ]  # fmt: skip

    @property
    def trusted(self) -> str:
        """Its certificate, as everybody has it."""
        return (self.path / "ca.pem").read_text()

    @contextlib.asynccontextmanager
    async def service(self, timeout: float = 10.0) -> AsyncIterator[Address]:
        """A service on loopback; its address."""
        server = await JoinServer.of(Desk(self.path), limits(timeout=timeout))
        try:
            server.listen(0, "127.0.0.1")
            yield Address("tls", *server.address)
        finally:
            server.stop()
            server.drop_pending()
            server.close()


async def ask(address: Address, cas: str, question: dict[str, Any]) -> dict[str, Any]:
    """The answer to a question of any content, over a connection that verifies the service.

    A callable in it is called with the service's certificate and the nonce.
    """
    async with _opened(address, _Context.of(cas)) as (stream, said):
        made = {
            name: value(_certificate_of(stream), said.nonce) if callable(value) else value
            for name, value in question.items()
        }
        return await _asked(stream, made)


async def send(address: Address, cas: str, frames: Sequence[bytes]) -> list[bytes]:
    """What comes back for frames of any content."""
    async with _opened(address, _Context.of(cas)) as (stream, _):
        stream.write(list(frames))
        return [bytes(frame) for frame in await stream.read_frames()]


def question(token: Token, request: bytes, **other: Any) -> dict[str, Any]:
    """The question of one who joins."""

    def proof(certificate: bytes, nonce: bytes) -> bytes:
        return token.sign(messages.proved(certificate, nonce, request))

    return {
        "asks": "join",
        "token": token.id,
        "proof": proof,
        "request": request,
        "role": "",
        **other,
    }


def info(joined: Joined) -> CertificateInfo:
    return CertificateInfo.of(x509.load_pem_x509_certificate(joined.certificate.encode()))


async def refused(kind: str, attempt: Any) -> str:
    """Why an attempt is refused; it must be, for that cause."""
    with pytest.raises(Refused) as caught:
        await attempt
    assert caught.value.kind == kind, caught.value
    return str(caught.value)


def token_of(folder: Path, *options: str) -> str:
    """A token for workers, made by the command."""
    done = run("token", "--role", "worker", "--dir", str(folder), *options)
    assert done.exit_code == 0, done.output
    return Token.parse(SECRET.findall(done.output)[0]).text()
