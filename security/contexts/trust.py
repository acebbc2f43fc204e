"""Which certificates of a CA file are trusted, and whether a chain may end below a root.

The trust set is what the user has named: a CA in it may end a chain, whether its own issuer is
there or not. OpenSSL is told so (`VERIFY_X509_PARTIAL_CHAIN`) only where a chain could not reach a
root otherwise. For with that flag a chain ends at the first trusted certificate, so that the
constraints and revocation lists of what stands above would count no longer where they count now.

Left out, with a line in the log (of a leaf at INFO, since most often its CA stands beside it), are

- certificates that may sign without being marked as a CA, by rules that only OpenSSL's lax mode
  has (`policy.py` says why that mode is used);
- those that are neither a CA nor self-signed: nobody is meant to be trusted for a leaf, which with
  that flag would be trusted as itself;
- expired ones of which the file has another of the same name in force.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from ..der import Facts, facts_of
from ..errors import PEMError
from ..pem import Block, Source, certificates
from ..pem_shapes import reason_of

__all__ = ["Trusted", "chosen", "load_trust", "superseded"]

logger = logging.getLogger("sealwire.security")

_told: set[str] = set()  # certificates already warned of

_UNMARKED = "it may sign, but basicConstraints does not mark it as a CA; make the CA again"
_LEAF = "it is no CA that may sign, and nobody is trusted for a leaf; give the CA that issued it"
_SUPERSEDED = "it has expired, and another of its name is in force; take it out of the file"


class Trusted(NamedTuple):
    """A certificate of a CA file: which one it is, and why it is left out, "" if it is not."""

    number: int
    block: Block
    der: bytes
    facts: Facts | None
    why_not: str = ""


def chosen(trust: Source) -> list[Trusted]:
    """All certificates of a CA file, judged. Raises `PEMError` as reading it does."""
    found = []
    for number, block in enumerate(certificates(trust), 1):
        try:
            der = ssl.PEM_cert_to_DER_cert(block.text)
        except ValueError:
            der = b""  # loading it says so
        found.append(Trusted(number, block, der, facts_of(der)))
    late = superseded([each.facts for each in found])
    return [
        Trusted(each.number, each.block, each.der, each.facts, _why_not(each, index in late))
        for index, each in enumerate(found)
    ]


def superseded(found: Sequence[Facts | None]) -> set[int]:
    """Which certificates have expired while another of the same name is in force."""
    now = time.time()
    current = {
        each.subject for each in found if each and each.is_ca and each.start <= now < each.end
    }
    return {
        index
        for index, each in enumerate(found)
        if each and each.is_ca and each.end <= now and each.subject in current
    }


def load_trust(context: ssl.SSLContext, trust: Source) -> bool:
    """Trust the certificates of a CA file; whether chains may end below a root.

    The context's flags are set accordingly. Raises `PEMError`.
    """
    used = []
    unused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for each in chosen(trust):
        _add(unused if each.why_not else context, each.block, trust)  # damage is damage
        if not each.why_not:
            used.append(each)
        elif each.block.text not in _told:
            _told.add(each.block.text)
            level = logging.INFO if each.why_not == _LEAF else logging.WARNING
            what = "certificate %d in %s is left out: %s"
            logger.log(level, what, each.number, trust, each.why_not)
    if _ends_early([each.facts for each in used]):
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return True
    return False


def _why_not(each: Trusted, late: bool) -> str:
    if late:
        return _SUPERSEDED
    if _issues_unmarked(each):
        return _UNMARKED
    facts = each.facts
    return _LEAF if facts and not facts.is_ca and not facts.is_self_signed else ""


def _issues_unmarked(each: Trusted) -> bool:
    """Whether OpenSSL would take a certificate without basicConstraints for a CA."""
    if not each.der or _BASIC_CONSTRAINTS in each.der:
        return False  # OpenSSL goes by what it says
    try:
        probe = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        probe.load_verify_locations(cadata=each.der)
    except (ValueError, ssl.SSLError):
        return False  # not a certificate: loading it says so
    return probe.cert_store_stats()["x509_ca"] > 0


_BASIC_CONSTRAINTS = bytes.fromhex("0603551d13")  # the extension's identifier in DER


def _ends_early(used: Sequence[Facts | None]) -> bool:
    """Whether some CA leads to no root that lasts as long, or may be taken for another one.

    That is one which is cross-signed, so that there are two ways up. False if any certificate
    cannot be read here, since it might be a leaf.
    """
    if None in used:
        return False
    authorities = [each for each in used if each and each.is_ca]
    by_name: dict[object, list[Facts]] = defaultdict(list)
    for each in authorities:
        by_name[each.subject].append(each)
    return any(
        len(by_name[each.subject]) > 1 or not _reaches_root(each, by_name, {})
        for each in authorities
        if not each.is_self_signed
    )


def _reaches_root(facts: Facts, by_name: dict[object, list[Facts]], known: dict[int, bool]) -> bool:
    """Whether the issuers in the set lead to a self-signed one.

    Each must last as long as what is below it: what is decided now must not change as they expire.
    """
    if facts.is_self_signed:
        return True
    if id(facts) not in known:
        known[id(facts)] = False  # while it is being looked at: circles lead nowhere
        known[id(facts)] = any(
            facts.may_be_of(issuer)
            and issuer.end >= facts.end
            and issuer.start <= time.time()
            and _reaches_root(issuer, by_name, known)
            for issuer in by_name[facts.issuer]
        )
    return known[id(facts)]


def _add(context: ssl.SSLContext, block: Block, trust: Source) -> None:
    try:
        context.load_verify_locations(cadata=block.text)
    except (ssl.SSLError, ValueError) as error:
        why = reason_of(error, block.text)
        raise PEMError(
            f"cannot use {trust}: a certificate in it is damaged{why}; {trust.again}"
        ) from error
