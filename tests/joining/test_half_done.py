"""Commands that were killed between two of their writes, and a service that goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cryptography import x509

from sealwire.joining import Desk, desk
from sealwire.joining.desk import Trust
from sealwire.security.ca.atomic_files import Write, apply, locked
from sealwire.security.ca.crl import read_lists
from sealwire.security.ca.renewal import revoke
from sealwire.security.ca.rotation import begin, complete
from sealwire.security.ca.store import CRL, Store
from support.joining import CA

COMMANDS: dict[str, Callable[[Store], Sequence[Write]]] = {
    "rotate-ca": begin,
    "rotate-ca --complete": lambda store: complete(store, force=True),
    "revoke": lambda store: revoke(store, "worker", "keyCompromise")[1],
}


def fits(ca: CA, trust: Trust) -> None:
    """Every CA that is trusted has a list, and what the journal has as revoked is on them."""
    cas = x509.load_pem_x509_certificates(trust.cas.encode())
    lists = read_lists(trust.crl)
    assert {each.issuer for each in lists} >= {each.subject for each in cas}
    listed = {entry.serial_number for each in lists for entry in each}
    assert listed >= set(Store(ca.path).journal.revoked())
    assert (ca.path / "crl.pem").read_text() == trust.crl


@pytest.mark.parametrize("command", COMMANDS)
def test_the_lists_fit_the_trust_and_the_journal_wherever_it_was_killed(
    ca: CA, command: str
) -> None:
    with locked(ca.path) as folder:
        if "complete" in command:
            apply(begin(Store(folder)))
        writes = COMMANDS[command](Store(folder))
    live = Desk(ca.path)
    assert len(writes) >= 2
    for count in range(1, len(writes) + 1):
        with locked(ca.path):
            apply(writes[count - 1 : count])
        fits(ca, live.trust())
        fits(ca, Desk(ca.path).trust())
    before = (ca.path / "crl.pem").stat()
    live.trust()
    Desk(ca.path).trust()
    assert (ca.path / "crl.pem").stat() == before, "and is left alone from then on"


LISTS: dict[str, Callable[[Path], object]] = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_text(""),
    "no list": lambda path: path.write_text("nothing\n"),
    "cut off": lambda path: path.write_text(path.read_text()[:-40]),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\0" * 99),
    "of another CA": lambda path: path.write_text(
        (CA(path.parents[1] / "b").path / CRL).read_text()
    ),
    "of yesterday": lambda path: path.write_text(path.with_suffix(".old").read_text()),
}


@pytest.mark.parametrize("disk", ["usual", "takes nothing"])
@pytest.mark.parametrize("what", LISTS)
def test_lists_that_are_lost_unrevoke_nobody(
    ca: CA, what: str, disk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ca.path / CRL
    path.with_suffix(".old").write_bytes(path.read_bytes())
    with locked(ca.path) as folder:
        apply(revoke(Store(folder), "worker", "keyCompromise")[1])
    live = Desk(ca.path)
    LISTS[what](path)

    def full(writes: Sequence[Write]) -> None:
        raise OSError(28, "no space left on device")

    if disk != "usual":
        monkeypatch.setattr(desk, "apply", full)
    for each in (live, Desk(ca.path)):
        trust = each.trust()
        (serial,) = Store(ca.path).journal.revoked()
        assert serial in {e.serial_number for found in read_lists(trust.crl) for e in found}
        if disk == "usual":
            fits(ca, trust)
