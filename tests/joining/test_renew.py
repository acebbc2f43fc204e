"""Renewing over a real service, and who stands in its place."""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sealwire.comm.addressing import Address
from sealwire.joining import (
    Desk,
    Joined,
    JoinServer,
    Refused,
    Unavailable,
    WrongAuthority,
    client,
    desk,
    join,
    lists,
    renew,
)
from sealwire.joining.client import patiently, signing_request
from sealwire.joining.desk import Own
from sealwire.joining.ledger import LEDGER
from sealwire.joining.service import limits
from sealwire.security.ca.atomic_files import apply, locked
from sealwire.security.ca.renewal import revoke
from sealwire.security.ca.store import Store
from sealwire.security.x509 import keys
from support.aio import aio
from support.joining import CA, HOUR, ask, info, refused


def shut_out(ca: CA, name: str) -> None:
    with locked(ca.path) as folder:
        _, writes = revoke(Store(folder), name, "keyCompromise")
        apply(writes)


@aio
async def test_renewing(ca: CA, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time after a wait, which is told, and short here: a tenth of a second of two minutes."""
    monkeypatch.setattr(desk, "_OFTEN", 1200)
    monkeypatch.setattr(client, "_PAUSE", 0.05)
    token = ca.token(lifetime=HOUR / 30)
    async with ca.service() as address:
        joined = await join(address, token, keys.generate(), node="a", hosts=["a.lab"])
        latest = joined
        for _ in range(3):
            key, before = keys.generate(), latest
            latest = await patiently(functools.partial(renew, address, before, key), 20)
            assert latest.key == keys.write(key)
        assert info(latest).names == info(joined).names
        assert info(latest).subject == info(joined).subject
        assert 60 < latest.lifetime <= 120
        assert len(set(ca.issued())) == 1, "under one name, by which all can be revoked"
        shut_out(ca, ca.issued()[0])
        for each in (joined, latest):
            await refused("revoked", renew(address, each, keys.generate()))
        await refused("revoked", join(address, token, keys.read(joined.key, "", None)))
        await refused("revoked", join(address, token, keys.read(joined.key, ""), node="b"))
        cas, crl, _ = await lists(address, latest)
    found = x509.load_pem_x509_crl(crl.encode())
    assert {entry.serial_number for entry in found} == {
        record.serial for record in Store(ca.path).journal.issued() if "worker-a" in record.file
    }
    assert cas == ca.trusted


@aio
async def test_one_revoked_serial_ends_all_that_came_of_its_key(ca: CA) -> None:
    async with ca.service() as address:
        first = await join(address, ca.token(), keys.generate())
        second = await renew(address, first, keys.generate())
        with pytest.raises(Unavailable, match="a moment ago"):
            await renew(address, second, keys.generate())
        shut_out(ca, f"{info(first).serial:x}")
        await refused("revoked", renew(address, second, keys.generate()))


@aio
async def test_nobody_fills_the_journal(ca: CA, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many keys that have joined, of which the service does not keep all in memory."""
    monkeypatch.setattr(desk, "_KEPT", 3)
    token, made = ca.token(uses=6), [keys.generate() for _ in range(6)]
    async with ca.service() as address:
        joined = [await join(address, token, key) for key in made]
        given = 0
        for node in ("", "a", "b", "c"):
            for key, present in zip(made, joined, strict=True):
                again = join(address, token, key, node=node)
                for attempt in (again, renew(address, present, key)):
                    with contextlib.suppress(Unavailable):
                        await attempt
                        given += 1
    assert given >= len(made), "who has lost its answer is given another one"
    assert len(ca.issued()) <= 2 * len(made)


@aio
@pytest.mark.parametrize("node", ["", "a", "a b/c", "Ü-7"])
async def test_an_older_copy_of_the_folder_goes_on(ca: CA, node: str, tmp_path: Path) -> None:
    """The machine is lost, and what is put back has not heard of who joined since."""
    copy = CA(tmp_path / "copy")
    shutil.rmtree(copy.path)
    shutil.copytree(ca.path, copy.path)
    async with ca.service() as address:
        joined = await join(address, ca.token(), keys.generate(), node=node)
    (name,) = ca.issued()
    async with copy.service() as address:
        renewed = await renew(address, joined, keys.generate())
        assert copy.issued() == [name], "by which it can be revoked"
        assert info(renewed).subject == info(joined).subject
        shut_out(copy, name)
        for each in (joined, renewed):
            await refused("revoked", renew(address, each, keys.generate()))


@aio
async def test_who_may_not_renew(ca: CA, tmp_path: Path) -> None:
    other = CA(tmp_path / "other")
    given = (ca.path / "worker.pem").read_text()
    cut = given.index("-----BEGIN PRIVATE")
    issued = Joined("worker", given[:cut], given[cut:], ca.trusted, "", 1.0)
    foreign = (other.path / "worker.pem").read_text()
    cut = foreign.index("-----BEGIN PRIVATE")
    stranger = Joined("worker", foreign[:cut], foreign[cut:], ca.trusted, "", 1.0)
    async with ca.service() as address:
        await refused("foreign", renew(address, issued, keys.generate()))
        with pytest.raises(Exception, match=r"TLS handshake|closed"):
            await renew(address, stranger, keys.generate())
        for asks in ("renew", "lists"):
            asked = {"asks": asks, "request": signing_request(keys.generate())}
            await refused("anonymous", ask(address, ca.trusted, asked))


@aio
async def test_the_lists_are_for_everybody_with_a_certificate(ca: CA) -> None:
    given = (ca.path / "scheduler.pem").read_text()
    cut = given.index("-----BEGIN PRIVATE")
    issued = Joined("scheduler", given[:cut], given[cut:], ca.trusted, "", 1.0)
    async with ca.service() as address:
        found = await lists(address, issued)
    assert found[:2] == (ca.trusted, (ca.path / "crl.pem").read_text())


@aio
async def test_a_process_of_the_cluster_in_the_place_of_the_service(ca: CA) -> None:
    """A stolen worker key has a certificate of the CA: it is still no service."""
    given = (ca.path / "worker.pem").read_text()
    cut = given.index("-----BEGIN PRIVATE")
    found = x509.load_pem_x509_certificate(given.encode())
    der = found.public_bytes(Encoding.DER)
    days = found.not_valid_before_utc, found.not_valid_after_utc
    own = Own(given[:cut], given[cut:], der, *days, b"")
    thief = JoinServer(Desk(ca.path), own, ca.trusted, limits())
    thief.listen(0, "127.0.0.1")
    address = Address("tls", *thief.address)
    token, key = ca.token(), keys.generate()
    with pytest.raises(WrongAuthority, match="no service of it but a process"):
        await join(address, token, key)
    async with ca.service() as good:
        joined = await join(good, token, key)
    for attempt in (renew(address, joined, keys.generate()), lists(address, joined)):
        with pytest.raises(WrongAuthority, match="no service of it but a process"):
            await attempt
    thief.stop()
    thief.close()


BROKEN: dict[str, Callable[[Path], object]] = {
    "damaged": lambda path: path.write_text("\t" * 9 + "\t.\n"),
    "of a later release": lambda path: path.write_text(path.read_text().replace("used", "lent")),
    "a link": lambda path: (path.rename(path.with_suffix(".old")), path.symlink_to("tokens.old")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("lasts", [HOUR / 30, 30 * HOUR], ids=str)
@aio
async def test_a_ledger_that_is_broken_keeps_nobody_from_renewing(
    ca: CA, what: str, lasts: timedelta
) -> None:
    """It says who may join; who has joined goes on, and hears of revocations."""
    token = ca.token(lifetime=lasts)
    async with ca.service() as address:
        first = await join(address, token, keys.generate())
        BROKEN[what](ca.path / LEDGER)
        with pytest.raises((Refused, Unavailable)):
            await join(address, token, keys.generate())
        latest = await patiently(lambda: renew(address, first, keys.generate()), 30)
        assert abs(latest.lifetime - lasts.total_seconds()) < 5
        shut_out(ca, ca.issued()[0])
        await refused("revoked", renew(address, latest, keys.generate()))
        assert "X509 CRL" in (await lists(address, first)).crl
