"""What answers may be anybody: a service in other hands, or a port of the cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from sealwire.comm import listen
from sealwire.joining import WrongAuthority, address_of, join, messages, renew, service
from sealwire.joining.errors import BadMessage
from sealwire.security import Security
from sealwire.security.x509 import keys
from support.aio import aio
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
