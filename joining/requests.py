"""Signing requests of those who join: what they ask for, and whether their token allows it."""

from __future__ import annotations

import re
import unicodedata
from fnmatch import fnmatchcase

from cryptography import x509

from sealwire.security import SecurityError
from sealwire.security.ca.authority import Authority
from sealwire.security.ca.journal import JOINED
from sealwire.security.security import ROLES
from sealwire.security.x509 import keys, names
from sealwire.security.x509.lineage import lineage_of, serial_in

from .errors import Refused
from .ledger import Grant
from .messages import AUTHORITY
from .tokens import key_digest

__all__ = ["Asked", "key_in", "name_of", "refusal", "signed"]

_MOST_NAMES = 32


class Asked:
    """A signing request. Raises `Refused` for one that cannot be read or is not its key's."""

    def __init__(self, der: bytes) -> None:
        try:
            self.csr = x509.load_der_x509_csr(der)
            key = self.csr.public_key()
            weak = keys.weakness(key)
            if weak is None and not self.csr.is_signature_valid:
                weak = "not the one that signed the request"
            self.alternatives = names.extension(self.csr)
            self.node = names.common_name(self.csr.subject)
        except Exception as error:  # it is a stranger's, and cryptography raises many kinds
            raise Refused(
                f"the signing request cannot be read ({type(error).__name__})", "request"
            ) from None
        if weak is not None:
            raise Refused(f"the key of the request is {weak}", "request")
        self.digest = key_digest(key).hex()
        found = [e for e in self.alternatives if isinstance(e, x509.DNSName | x509.IPAddress)]
        self._others = len(self.alternatives) - len(found)
        try:
            self.names, self.addresses = names.split(str(each.value) for each in found)
        except SecurityError as error:
            raise Refused(str(error), "names") from None

    @property
    def hosts(self) -> list[str]:
        """The DNS names and addresses that it asks for, as its certificate would have them."""
        return [*self.names, *self.addresses]

    def must_fit(self, grant: Grant) -> None:
        """Raise `Refused` unless the token allows every name."""
        asked = [*([self.node] if self.node else []), *self.hosts]
        if self._others or len(asked) > _MOST_NAMES:
            raise Refused(
                f"the request asks for {len(asked)} names and {self._others} of other kinds; up to "
                f"{_MOST_NAMES} hosts and addresses can be had",
                "names",
            )
        for name in asked:
            fits = any(fnmatchcase(name.lower(), each.lower()) for each in grant.names)
            if not fits or "*" in name or _letters(name) in (*ROLES, AUTHORITY):
                shown = "".join(c if c.isprintable() else "?" for c in name[:80])
                why = (
                    f"it is for {', '.join(grant.names)}"
                    if not fits
                    else "it is a role's, or has a *"
                )
                raise Refused(
                    f"the token does not allow the name {shown!r}, since {why}; join under another "
                    "name (--name), or have another token made",
                    "names",
                )

    def name(self, role: str) -> str:
        """Return its name in the journal, which ends with the key."""
        return _name(role, self.node, self.short)

    @property
    def short(self) -> str:
        """Its key, as names in the journal have it."""
        return self.digest[:16]


def refusal(grant: Grant) -> Refused | None:
    """Return why nobody can join with a token now; None if its uses alone decide."""
    status = grant.status
    if status == "revoked":
        return Refused("the token is revoked; have another one made", "revoked")
    if status == "of the future":
        return Refused(
            f"the token was made {grant.made:%Y-%m-%d %H:%M} UTC, which is later than the "
            "service's clock; set the clock right",
            "clock",
        )
    if status == "expired":
        return Refused(
            f"the token expired {grant.until:%Y-%m-%d %H:%M} UTC; have another one made", "expired"
        )
    return None


def _letters(name: str) -> str:
    """Return a name without what surrounds it: in no form may it pass for a role's."""
    return re.sub(r"^\W+|\W+$", "", unicodedata.normalize("NFKC", name)).lower()


def _name(role: str, node: str, key: str) -> str:
    node = "".join(c if c.isalnum() or c in "._-" else "_" for c in node[:64])
    return f"{JOINED}/{role}-{node}-{key}" if node else f"{JOINED}/{role}-{key}"


def name_of(certificate: x509.Certificate) -> str | None:
    """Return the name that a certificate of ours has in the journal; None if nobody joined for it.

    Its serial number says so by itself: the journal may be an older copy, that was put back after
    the service's machine was lost, and the cluster is to go on.
    """
    lineage, role = lineage_of(certificate.serial_number), names.common_name(certificate.subject)
    if lineage is None or role not in ROLES:
        return None
    return _name(role, names.node_name(certificate.subject), f"{lineage:016x}")


def key_in(name: str) -> str:
    """Return the key in a name of the journal."""
    return name.rpartition("-")[2]


def signed(signer: Authority, asked: Asked, grant: Grant) -> str:
    """Return a certificate for a request that fits its token. Raises `Refused`."""
    try:
        node = asked.node or names.node_among(asked.hosts, names.constraints_of(signer.parsed))
        return signer.sign(
            asked.csr,
            grant.role,
            days=grant.lifetime / 86400,
            names=asked.names,
            ips=asked.addresses,
            node=node,
            serial=serial_in(int(asked.short, 16)),
        )
    except (SecurityError, ValueError) as error:
        raise Refused(str(error), "request") from None
