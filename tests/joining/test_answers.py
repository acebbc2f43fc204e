"""What answers may be anybody: a service in other hands, or a port of the cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from distributed.comm import tcp

from sealwire.cli.probe.diagnosis import examine
from sealwire.comm import CommClosedError, connect, listen
from sealwire.comm.addressing import Address
from sealwire.comm.wire import hello
from sealwire.dask_backend.backend import TLSConnector
from sealwire.joining import WrongAuthority, address_of, join, messages, renew, service
from sealwire.joining.errors import BadMessage
from sealwire.security import Security
from sealwire.security.x509 import keys
from support.aio import aio, until
from support.joining import CA

ANSWERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "nothing": lambda answer: {},
    "no certificate": lambda answer: {**answer, "certificate": "x"},
    "another's certificate": lambda answer: {**answer, "certificate": answer["cas"]},
    "another role": lambda answer: {**answer, "role": "scheduler"},
    "a role that is a path": lambda answer: forged(answer, "../../worker"),
    "a role that is a file": lambda answer: forged(answer, "ca"),
    "a role that nobody asked for": lambda answer: forged(answer, "client"),
    "an authority": lambda answer: forged(answer, "authority"),
    "no time": lambda answer: {**answer, "lifetime": float("nan")},
    "for ever": lambda answer: {**answer, "lifetime": float("inf")},
    "time that is over": lambda answer: {**answer, "lifetime": -1.0},
    "a count": lambda answer: {**answer, "lifetime": 3600},
    "no CA": lambda answer: {**answer, "cas": ""},
    "CAs that are none": lambda answer: {**answer, "cas": "x" * 99},
    "lists of bytes": lambda answer: {**answer, "crl": b"x"},
}


def forged(answer: dict[str, Any], role: str) -> dict[str, Any]:
    """A certificate for the same key, of another role; nobody looks at who has signed it here."""
    given = x509.load_pem_x509_certificate(answer["certificate"].encode())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, role)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(given.issuer)
        .public_key(given.public_key())
        .serial_number(1)
        .not_valid_before(given.not_valid_before_utc)
        .not_valid_after(given.not_valid_after_utc)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    text = made.public_bytes(Encoding.PEM).decode()
    return {**answer, "certificate": text, "role": role}


@aio
@pytest.mark.parametrize("what", ANSWERS)
async def test_answers_that_are_none(ca: CA, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever has the service: it is believed in what it can decide, and in nothing else."""
    async with ca.service() as address:
        joined = await join(address, ca.token(), keys.generate())
        monkeypatch.setattr(
            service, "in_parts", lambda answer: messages.in_parts(ANSWERS[what](answer))
        )
        role = "worker" if "nobody" in what else ""
        for attempt in (
            join(address, ca.token(), keys.generate(), role=role),
            renew(address, joined, keys.generate()),
        ):
            with pytest.raises(BadMessage):
                await attempt


PORTS = ["a scheduler's", "plain"]


@aio
@pytest.mark.parametrize("which", PORTS)
async def test_a_port_of_the_cluster_in_the_place_of_the_services(ca: CA, which: str) -> None:
    """8786 for 8788: whoever joins has no certificate to configure yet."""

    async def never(comm: Any) -> None:
        raise AssertionError("nothing is said to a process of the cluster")

    own = Security(tls_ca_file=ca.trusted, tls_scheduler_cert=str(ca.path / "scheduler.pem"))
    scheme, arguments = "tls", own.get_listen_args("scheduler")
    if which == "plain":
        scheme, arguments = "tcp", {}
    async with listen(f"{scheme}://127.0.0.1:0", never, **arguments) as listener:
        address = address_of(listener.contact_address.rpartition("/")[2])
        with pytest.raises(WrongAuthority) as caught:
            await join(address, ca.token(), keys.generate())
    told = str(caught.value)
    assert "no service to join" in told
    assert "8788" in told
    assert "configure" not in told


async def with_comm(address: Address, arguments: Any) -> str:
    with pytest.raises(CommClosedError) as caught:
        async with connect(str(address), **arguments):
            pass
    return str(caught.value)


async def with_dask(address: Address, arguments: Any) -> str:
    with pytest.raises(OSError, match="cannot connect") as caught:
        await TLSConnector().connect(f"{address.host}:{address.port}", **arguments)
    return str(caught.value)


async def with_stock(address: Address, arguments: Any) -> str:
    """It has our hello, and takes it for one of its own."""
    comm = await tcp.TLSConnector().connect(f"{address.host}:{address.port}", **arguments)
    await comm.read()
    await comm.write(comm.handshake_info())
    with pytest.raises(OSError, match="closed"):
        await comm.read()
    return hello.IS_SERVICE


async def with_probe(address: Address, arguments: Any) -> str:
    context = arguments["ssl_context"]
    return (await asyncio.to_thread(examine, address, context, 10.0)).words


DIALLERS = {"comm": with_comm, "Dask": with_dask, "stock": with_stock, "probe": with_probe}


@aio
@pytest.mark.parametrize("who", [*DIALLERS, "comm listed", "Dask listed", "probe listed"])
async def test_the_service_in_the_place_of_a_process(
    ca: CA, who: str, caplog: pytest.LogCaptureFixture
) -> None:
    """8788 for 8786: nobody waits for it, or is told to put the CA on a list; so in its log."""
    caplog.set_level(logging.INFO)
    dialler, _, listed = who.partition(" ")
    arguments = Security(
        tls_ca_file=ca.trusted,
        tls_worker_cert=str(ca.path / "worker.pem"),
        tls_allowed_peers=["scheduler", "worker"] if listed else None,
    ).get_connection_args("worker")
    async with ca.service() as address:
        told = await DIALLERS[dialler](address, arguments)
        if listed or dialler == "stock":  # the others are gone before they say anything
            await until(lambda: "give it the scheduler's address" in caplog.text)
    assert "certs serve" in told
    assert "8786" in told
    assert "allowed-peers" not in told + caplog.text
