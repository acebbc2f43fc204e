"""Joining over a real service: who gets what, and who is refused."""

from __future__ import annotations

import asyncio
import datetime
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from sealwire.joining import (
    Joined,
    Refused,
    Token,
    WrongAuthority,
    desk,
    join,
    messages,
)
from sealwire.joining import ledger as ledger_module
from sealwire.joining.client import signing_request
from sealwire.security import Security
from sealwire.security.x509 import keys
from sealwire.security.x509.certinfo import CertificateInfo
from sealwire.security.x509.templates import now
from support.aio import aio
from support.joining import CA, HOUR, ask, info, question, refused


@aio
async def test_what_is_given_is_an_identity_that_works(ca: CA) -> None:
    token = ca.token(lifetime=2 * HOUR)
    async with ca.service() as address:
        key = keys.generate()
        joined = await join(
            address, token, key, node="node7", hosts=["node7.lab", "10.0.0.7", "::1"]
        )
    assert joined.role == "worker"
    assert 7140 < joined.lifetime <= 7200
    found = info(joined)
    assert (found.common_name, found.node) == ("worker", "node7")
    assert {str(name).rpartition(":")[2] for name in found.names} >= {"node7.lab", "10.0.0.7"}
    left = found.not_after - now()
    assert 2 * HOUR - datetime.timedelta(minutes=2) < left <= 2 * HOUR
    assert joined.key not in repr(joined)
    with pytest.raises(TypeError, match="holds a private key"):
        pickle.dumps(joined)
    security = Security(
        tls_ca_file=joined.cas, tls_crl_file=joined.crl,
        tls_worker_cert=joined.certificate, tls_worker_key=joined.key,
    )  # fmt: skip
    assert security.get_listen_args("worker")["ssl_context"] is not None
    assert ca.issued() == [f"joined/worker-node7-{keys.identifier(key.public_key())}"]
    (line,) = ca.grant(token).used.values()
    assert line.names == ca.issued()[0]
    assert line.about.startswith("127.0.0.1:")


@aio
@pytest.mark.parametrize("role", ["client", "scheduler", "worker"])
async def test_the_role_is_the_tokens(ca: CA, role: str) -> None:
    token = ca.token(role)
    others = {"client", "scheduler", "worker"} - {role}
    async with ca.service() as address:
        for other in others:
            why = await refused("role", join(address, token, keys.generate(), role=other))
            assert f"for a {role}" in why
        for bad in ("authority", "CA", "worker,client"):
            await refused("role", join(address, token, keys.generate(), role=bad))
        assert not ca.grant(token).used
        joined = await join(address, token, keys.generate(), role=role, node="x")
    assert info(joined).common_name == role


@aio
@pytest.mark.parametrize("kind", ["p256", "rsa3072", "p384", "rsa2048"])
async def test_kinds_of_keys(ca: CA, kind: str) -> None:
    key: Any = {
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    }.get(kind, lambda: keys.generate(kind))()
    async with ca.service() as address:
        assert (await join(address, ca.token(), key)).role == "worker"


@aio
async def test_a_lost_answer_is_asked_for_again_with_the_same_key_alone(
    ca: CA, caplog: pytest.LogCaptureFixture
) -> None:
    token, key = ca.token(), keys.generate()
    async with ca.service() as address:
        first = await join(address, token, key, node="a")
        again = await join(address, token, key, node="a")
        assert again.certificate == first.certificate
        with caplog.at_level(logging.WARNING):
            why = await refused("used", join(address, token, keys.generate(), node="a"))
            for _ in range(5):
                await refused("used", join(address, token, keys.generate(), node="b"))
    assert "used before, by joined/worker-a-" in why
    alarms = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(alarms) == 1, "one a minute for a token"
    assert token.id in alarms[0].getMessage()
    async with ca.service() as address:  # another service does not remember, and issues again
        third = await join(address, token, key, node="a")
        await refused("used", join(address, token, keys.generate()))
    assert info(third).serial != info(first).serial
    assert len(ca.issued()) == 2
    assert len(ca.grant(token).used) == 1


@aio
async def test_a_token_of_several_uses(ca: CA) -> None:
    token = ca.token(uses=3)
    made = [keys.generate() for _ in range(4)]
    async with ca.service() as address:
        for key in (made[0], made[0], made[1], made[2], made[1]):
            await join(address, token, key)
        await refused("used", join(address, token, made[3]))
    assert len(ca.grant(token).used) == 3


@aio
async def test_proofs_that_are_none(ca: CA) -> None:
    token, other = ca.token(), ca.token("scheduler")
    request = signing_request(keys.generate())
    cas = ca.trusted
    stranger = Token(token.digests, bytes(32))
    async with ca.service() as address:

        async def asked(**what: Any) -> Any:
            return await ask(address, cas, {**question(token, request), **what})

        guessed = question(stranger, request)
        await refused("unknown", ask(address, cas, guessed))
        await refused("proof", ask(address, cas, {**guessed, "token": token.id}))
        await refused("proof", asked(proof=question(other, request)["proof"]))
        for bad in (b"", bytes(64), b"x" * 63, token.seed * 2, b"\xff" * 1000):
            await refused("proof", asked(proof=bad))
        for name in ("", token.id[:-1], token.id.upper(), "*", "../..", "0" * 20000):
            await refused("unknown", asked(token=name))
        # For another request, another service, another connection.
        swapped = signing_request(keys.generate())
        await refused("proof", asked(request=swapped))
        await refused(
            "proof",
            asked(proof=lambda _, nonce: token.sign(messages.proved(b"other", nonce, request))),
        )
        await refused(
            "proof",
            asked(proof=lambda own, _: token.sign(messages.proved(own, bytes(32), request))),
        )
        assert not ca.grant(token).used
        assert "certificate" in await asked()


@aio
async def test_a_question_that_was_heard_is_good_for_nothing_again(ca: CA) -> None:
    token = ca.token(uses=2)
    request = signing_request(keys.generate())
    heard = {}

    def proof(certificate: bytes, nonce: bytes) -> bytes:
        heard["proof"] = token.sign(messages.proved(certificate, nonce, request))
        return heard["proof"]

    async with ca.service() as address:
        await ask(address, ca.trusted, question(token, request, proof=proof))
        replayed = question(token, request, proof=heard["proof"])
        await refused("proof", ask(address, ca.trusted, replayed))


@aio
async def test_tokens_that_are_over(ca: CA, monkeypatch: pytest.MonkeyPatch) -> None:
    gone, late = ca.token(), ca.token()
    key = keys.generate()
    async with ca.service() as address:
        ca.revoke(gone)
        await refused("revoked", join(address, gone, keys.generate()))
        await join(address, late, key)
        monkeypatch.setattr(ledger_module, "now", lambda: now() + 2 * HOUR)
        await refused("expired", join(address, late, key))
        await refused("expired", join(address, late, keys.generate()))
        monkeypatch.undo()  # the clock is set back: it stays expired
        await refused("expired", join(address, late, key))
        early = ca.token()
        monkeypatch.setattr(ledger_module, "now", lambda: now() - HOUR)
        await refused("clock", join(address, early, keys.generate()))
    text = (ca.path / "tokens.tsv").read_text()
    assert text.count("\texpired\t") == 1, "once, however often it is asked"


@aio
@pytest.mark.parametrize("when", ["the proof is on its way", "the certificate is signed"])
async def test_a_token_that_expires_within_its_use(
    ca: CA, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, and not used; or used, by that key alone, and over from then on."""
    token, request = ca.token(expires=HOUR), signing_request(keys.generate())
    proved, issued = question(token, request), desk.signed

    def pass_time(*_: Any) -> Any:
        monkeypatch.setattr(ledger_module, "now", lambda: now() + 2 * HOUR)

    async with ca.service() as address:
        if "proof" in when:
            late = {**proved, "proof": lambda *given: (proved["proof"](*given), pass_time())[0]}
            await refused("expired", ask(address, ca.trusted, late))
        else:
            monkeypatch.setattr(desk, "signed", lambda *given: (issued(*given), pass_time())[0])
            assert "certificate" in await ask(address, ca.trusted, proved)
        for again in (request, signing_request(keys.generate())):
            await refused("expired", ask(address, ca.trusted, question(token, again)))
    assert len(ca.grant(token).used) == len(ca.issued()) == int("signed" in when)


@aio
@pytest.mark.parametrize(
    ("patterns", "node", "hosts"),
    [
        (("*.lab",), "", ["node7.other"]),
        (("*.lab",), "node7.other", ["node7.lab"]),
        (("*.lab",), "", ["node7.lab", "10.0.0.1"]),
        (("*.lab",), "", ["lab"]),
        (("10.0.0.*",), "", ["10.0.1.1"]),
        (("node7",), "node77", []),
        (("*",), "scheduler", []),
        (("*",), "", ["Scheduler"]),
        (("*",), "client", ["client"]),
        (("*",), "authority", []),
        (("*",), "", ["AUTHORITY"]),
        (("*",), "", ["worker"]),
        (("*",), "", ["*.lab"]),
        (("*",), "*", []),
        (("*",), "", [f"n{number}.lab" for number in range(33)]),
    ],
)
async def test_names_that_a_token_does_not_allow(
    ca: CA, patterns: tuple[str, ...], node: str, hosts: list[str]
) -> None:
    token = ca.token(names=patterns)
    async with ca.service() as address:
        await refused("names", join(address, token, keys.generate(), node=node, hosts=hosts))
        assert not ca.grant(token).used, "it is not used up by that"
        assert ca.issued() == []
        await join(address, token, keys.generate())


@aio
async def test_names_that_a_token_allows(ca: CA) -> None:
    token = ca.token(names=("*.lab", "10.0.0.*", "alice"))
    async with ca.service() as address:
        joined = await join(
            address, token, keys.generate(), node="alice", hosts=["A.LAB", "b.lab", "10.0.0.9"]
        )
    assert info(joined).node == "alice"
    assert len(info(joined).names) == 3


@aio
async def test_names_outside_the_constraints_of_the_ca(tmp_path: Path) -> None:
    ca = CA(tmp_path / "ca", permitted=["lab.example"])
    token = ca.token()
    async with ca.service() as address:
        await refused("request", join(address, token, keys.generate(), hosts=["a.other"]))
        assert not ca.grant(token).used
        await join(address, token, keys.generate(), node="a", hosts=["a.lab.example"])


def csr(key: Any, *extensions: x509.ExtensionType, signer: Any = None) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    for each in extensions:
        builder = builder.add_extension(each, critical=False)
    return builder.sign(signer or key, hashes.SHA256()).public_bytes(Encoding.DER)


def forged() -> bytes:
    """A request whose signature is of another request: its sender has no such key."""
    mine, theirs = csr(keys.generate()), csr(keys.generate())
    return theirs[:-64] + mine[-64:]


REQUESTS = {
    "empty": lambda: b"",
    "zeros": lambda: bytes(500),
    "not der": lambda: b"-----BEGIN CERTIFICATE REQUEST-----\n",
    "cut": lambda: csr(keys.generate())[:-5],
    "another's key": forged,
    "rsa 1024": lambda: csr(rsa.generate_private_key(65537, 1024)),
    "curve": lambda: csr(ec.generate_private_key(ec.SECP256K1())),
    "certificate": lambda: x509.load_pem_x509_certificate(
        Security.temporary().tls_worker_cert.encode()  # type: ignore[union-attr]
    ).public_bytes(Encoding.DER),
}


@aio
@pytest.mark.parametrize("what", REQUESTS)
async def test_requests_that_are_none(ca: CA, what: str) -> None:
    token = ca.token()
    async with ca.service() as address:
        asked = question(token, REQUESTS[what]())
        await refused("request", ask(address, ca.trusted, asked))
        assert not ca.grant(token).used
        await join(address, token, keys.generate())


@aio
async def test_what_else_a_request_asks_for_is_not_given(ca: CA) -> None:
    """No CA, no other purpose, no mail address or URI."""
    key = keys.generate()
    wants = csr(key, x509.BasicConstraints(ca=True, path_length=None))
    uri = csr(key, x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://lab/x")]))
    mail = csr(key, x509.SubjectAlternativeName([x509.RFC822Name("root@lab")]))
    token = ca.token(uses=3)
    async with ca.service() as address:
        answer = await ask(address, ca.trusted, question(token, wants))
        for bad in (uri, mail):
            await refused("names", ask(address, ca.trusted, question(token, bad)))
    found = x509.load_pem_x509_certificate(answer["certificate"].encode())
    assert not CertificateInfo.of(found).is_ca


@aio
async def test_a_service_of_another_ca_is_sent_nothing(tmp_path: Path) -> None:
    ours, theirs = CA(tmp_path / "ours"), CA(tmp_path / "theirs")
    token = ours.token()
    async with theirs.service() as address:
        with pytest.raises(WrongAuthority, match=r"not one of the CA that made the token.*nothing"):
            await join(address, token, keys.generate())
    assert not (theirs.path / "tokens.tsv").exists()


@aio
async def test_two_machines_with_one_token_at_once(ca: CA) -> None:
    """One wins, always: through one service, and through two in the same folder."""
    async with ca.service() as one, ca.service() as two:
        for number in range(16):
            token = ca.token()
            places = (one, two) if number % 2 else (one, one)
            made = [keys.generate(), keys.generate()]
            done = await asyncio.gather(
                *(join(at, token, key) for at, key in zip(places, made, strict=True)),
                return_exceptions=True,
            )
            won = [each for each in done if isinstance(each, Joined)]
            lost = [each for each in done if isinstance(each, Refused)]
            assert (len(won), len(lost)) == (1, 1), done
            assert lost[0].kind == "used"
            assert len(ca.grant(token).used) == 1
    assert len(ca.issued()) == 16
