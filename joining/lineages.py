"""Whose certificates are whose, and which keys are revoked: from the journal and the lists."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from cryptography import x509

from sealwire.security.ca.crl import read_lists
from sealwire.security.ca.journal import JOINED, Journal, Record

from .requests import key_in

__all__ = ["Lineages"]


class Lineages:
    """What has been issued and revoked, for a look-up of each question.

    Attributes
    ----------
    names : dict
        Serial number -> name in the journal.
    revoked : set
        Serial numbers, and the keys that joined, in the form of `key_in`.
    since : datetime.datetime
        When the latest list of a CA of ours was made.
    """

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.revoked: set[str | int] = set()
        self.since = datetime.datetime.min.replace(tzinfo=datetime.timezone.utc)

    def note_all(self, journal: Journal) -> None:
        """Take the names anew, and add the revocations."""
        self.names = {}
        for record in journal.records:
            self.note(record)

    def note(self, record: Record) -> None:
        """Take in a line."""
        if record.event == "issued":
            self.names[record.serial] = record.file
        elif record.event == "revoked":
            self.revoke([record.serial])

    def note_lists(self, text: str, authorities: Iterable[x509.Certificate]) -> None:
        """Add the revocations in PEM text by CAs of ours."""
        ours = [each.subject for each in authorities]
        for crl in read_lists(text):
            if crl.issuer in ours:
                self.since = max(self.since, crl.last_update_utc)
                self.revoke(entry.serial_number for entry in crl)

    def revoke(self, serials: Iterable[int]) -> None:
        """Note serials as revoked, and the keys that joined, with all that came of them."""
        for serial in serials:
            self.revoked.add(serial)
            name = self.names.get(serial, "")
            if name.startswith(f"{JOINED}/"):
                self.revoked.add(key_in(name))
