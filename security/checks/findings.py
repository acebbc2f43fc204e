"""Findings, and the checks of key files, trust sets and CRLs that yield them."""

from __future__ import annotations

import datetime
import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from .. import config_files, permissions
from ..ca.crl import read_lists, signed_by
from ..contexts import expiry
from ..contexts.trust import superseded
from ..der import facts_of
from ..errors import PEMError
from ..pem import Source, certificates
from ..x509 import keys
from ..x509.certinfo import CertificateInfo, hexadecimal
from ..x509.templates import now
from .remedies import of_ca, of_list, of_revoked

__all__ = [
    "ERROR",
    "NOTE",
    "WARNING",
    "Certificates",
    "Finding",
    "changeable",
    "crl",
    "dates",
    "exposed",
    "names",
    "readable",
    "rewrite",
    "strength",
    "trust",
    "usage",
]

ERROR, WARNING, NOTE = "error", "warning", "note"

Certificates = Sequence[x509.Certificate]


@dataclass(frozen=True)
class Finding:
    """One problem.

    `severity`: `error` (something will be refused, or is exposed to others), `warning` (it soon
    will be, or was hardly intended) or `note`. `code` is a word for scripts; `subject` the file or
    the configuration key; `advice` says what to do, if possible as a command.
    """

    severity: str
    code: str
    subject: str
    message: str
    advice: str


def rewrite(source: Source) -> str:
    """Return what to do about a value that cannot be read."""
    if source.in_memory:
        return "give the whole PEM text"
    return f"write {source.place} again, or correct the path in the configuration"


def readable(source: Source) -> tuple[Certificates, list[Finding]]:
    """Return the certificates of a source, or a finding instead."""
    try:
        return _parsed(source), []
    except PEMError as error:
        advice = rewrite(source)
        return [], [Finding(ERROR, "unreadable", source.place, str(error), advice)]


def exposed(path: str, what: str = "the private key", *, grants: bool = True) -> Iterator[Finding]:
    """Whether others can read or write a file that holds a key.

    With `grants`, root may have let a group read it.
    """
    if os.name != "posix":
        return
    try:
        status = os.stat(path)
    except OSError:
        return  # reading it reports the error
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077 and not (grants and permissions.is_granted(status)):
        who = "everybody" if mode & 0o007 else "its group"
        severity = ERROR if mode & 0o007 else WARNING
        yield Finding(
            severity,
            "key-exposed",
            path,
            f"{what} is open to {who} (mode {mode:04o}, at most 0600 is safe)",
            f"chmod 600 {shlex.quote(path)}",
        )


def changeable(
    path: str, *, of_key: bool = False, owners: frozenset[int] = frozenset()
) -> Iterator[Finding]:
    """Who else can change a file's content, or replace the file.

    For a key file (`of_key`), `exposed` reports the mode. `owners` are users who may.
    """
    for weak in permissions.weaknesses(path, owners=owners):
        if weak.kind == "owner":
            yield Finding(WARNING, "foreign-owner", weak.path, weak.words, weak.remedy)
            continue
        severity = ERROR if weak.everybody else WARNING
        if weak.is_folder:
            yield Finding(severity, "folder-exposed", weak.path, weak.words, weak.remedy)
        elif not of_key:
            yield Finding(severity, "writable", weak.path, weak.words, weak.remedy)


def names(path: str) -> Iterator[Finding]:
    """Names that are in a mapping of a configuration file more than once."""
    for name, first, again in config_files.twice(path):
        yield Finding(
            WARNING,
            "name-twice",
            path,
            f"the name {name} is in lines {first} and {again} of one mapping: what is below the "
            "first is lost",
            "write what belongs to it below one of them",
        )


def trust(
    source: Source, certificates: Certificates, soon: datetime.timedelta | None
) -> Iterator[Finding]:
    """Whether each trusted certificate is a valid CA, or trusted as a leaf itself."""
    place = source.place
    late = _superseded(certificates)
    for certificate in certificates:
        info = CertificateInfo.of(certificate)
        if certificate in late:
            yield Finding(
                WARNING,
                "ca-superseded",
                place,
                f"{info.subject} expired {info.not_after:%Y-%m-%d %H:%M} UTC, and another of that "
                "name is in force beside it",
                "take the expired one out of the file",
            )
            continue
        again = of_ca(source, certificate)
        yield from dates(place, info, soon, "ca-", again)
        yield from strength(place, certificate, again, signs=info.is_ca)
        signs = usage(certificate)
        if not info.is_ca and signs is not None and signs.key_cert_sign:
            yield Finding(
                ERROR,
                "not-a-ca",
                place,
                f"{info.subject} is to sign certificates, but basicConstraints does not mark it "
                "as a CA: it will not be trusted",
                again,
            )
        elif not info.is_ca and info.subject != info.issuer:
            yield Finding(
                WARNING,
                "leaf-as-ca",
                place,
                f"{info.subject} is no CA: nobody is trusted for its sake, not even itself",
                "put the certificate of the CA that issued it in its place",
            )
        elif info.is_ca and signs is not None and not signs.key_cert_sign:
            yield Finding(
                ERROR,
                "not-a-ca",
                place,
                f"{info.subject} is marked as a CA, but keyUsage does not let it sign certificates",
                again,
            )


def crl(
    source: Source,
    trusted: Certificates,
    identities: Sequence[tuple[str, x509.Certificate]],
    soon: datetime.timedelta | None,
) -> Iterator[Finding]:
    """Whether a CRL file has a valid list for each CA, and which `identities` it revokes."""
    place = source.place
    try:
        text = source.read()
    except PEMError as error:
        yield Finding(ERROR, "unreadable", place, str(error), of_list(source))
        return
    found = read_lists(text)
    late = _superseded(trusted)
    for certificate in trusted:
        info = CertificateInfo.of(certificate)
        if not info.is_ca or certificate in late:
            continue
        remake = of_list(source, certificate)
        mine = [each for each in found if signed_by(each, certificate)]
        if not mine:
            forged = any(each.issuer == certificate.subject for each in found)
            why = "the list in its name has another's signature" if forged else "it has no list"
            yield Finding(
                ERROR,
                "crl-missing",
                place,
                f"{why}: all certificates of {info.subject} will be refused",
                remake,
            )
            continue
        ends = mine[0].next_update_utc
        if ends is not None and ends < now():
            yield Finding(
                ERROR,
                "crl-expired",
                place,
                f"the list of {info.subject} expired {ends:%Y-%m-%d %H:%M} UTC: "
                "all its certificates will be refused",
                remake,
            )
        elif ends is not None and ends - now() < _soon(mine[0].last_update_utc, ends, soon):
            yield Finding(
                WARNING,
                "crl-expires-soon",
                place,
                f"the list of {info.subject} expires in {_left(ends)}, "
                f"{ends:%Y-%m-%d %H:%M} UTC: then all its certificates will be refused",
                remake,
            )
        for path, each in identities:
            entry = mine[0].get_revoked_certificate_by_serial_number(each.serial_number)
            if entry is not None:
                when = f"{entry.revocation_date_utc:%Y-%m-%d}"
                yield Finding(
                    ERROR,
                    "revoked",
                    path,
                    f"it was revoked {when} (serial {hexadecimal(each.serial_number)}) and will be "
                    "refused",
                    of_revoked(path, source, certificate),
                )


def _soon(
    begin: datetime.datetime, end: datetime.datetime, soon: datetime.timedelta | None
) -> datetime.timedelta:
    """Return how long before its end a list is warned of, here as in the log of a process."""
    if soon is None:
        soon = datetime.timedelta(seconds=expiry.soon(begin.timestamp(), end.timestamp()))
    return min(soon, datetime.timedelta(seconds=expiry.LISTS_WARNING))


def _left(end: datetime.datetime) -> str:
    return expiry.in_words((end - now()).total_seconds())


def dates(
    place: str,
    info: CertificateInfo,
    soon: datetime.timedelta | None,
    prefix: str,
    advice: str,
) -> Iterator[Finding]:
    """Whether a certificate is valid now, and for longer than `soon`.

    None is what the log of a process takes for soon, by the certificate's lifetime.
    """
    if soon is None:
        begin, end = info.not_before.timestamp(), info.not_after.timestamp()
        soon = datetime.timedelta(seconds=expiry.soon(begin, end))
    left = info.not_after - now()
    if left < datetime.timedelta(0):
        words = f"{info.subject} expired {info.not_after:%Y-%m-%d %H:%M} UTC"
        yield Finding(ERROR, f"{prefix}expired", place, words, advice)
    elif info.not_before > now():
        words = f"{info.subject} is not valid before {info.not_before:%Y-%m-%d %H:%M} UTC"
        wait = "set this machine's clock, or issue it again"
        yield Finding(ERROR, f"{prefix}not-yet-valid", place, words, wait)
    elif left < soon:
        words = f"{info.subject} expires in {_left(info.not_after)}, "
        words += f"{info.not_after:%Y-%m-%d %H:%M} UTC"
        yield Finding(WARNING, f"{prefix}expires-soon", place, words, advice)


def strength(
    place: str, certificate: x509.Certificate, advice: str, *, signs: bool = False
) -> Iterator[Finding]:
    """Whether a certificate's key and signature are as strong as TLS requires.

    `signs`: the key signs certificates, and does no handshake itself.
    """
    key = keys.public_of(certificate)
    weak = keys.shortness(key) if signs else keys.weakness(key)
    if keys.has_nameless_curve(certificate):
        weak = "of a curve without a name, given by its parameters, which TLS refuses"
    if weak:
        yield Finding(ERROR, "weak-key", place, f"its key is {weak}", advice)
    try:
        digest = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:  # OpenSSL may know it
        return
    own = certificate.subject == certificate.issuer  # a root's signature is not verified
    if isinstance(digest, hashes.SHA1 | hashes.MD5) and not own:
        words = f"it is signed with {digest.name}, which TLS refuses"
        yield Finding(ERROR, "weak-signature", place, words, advice)


def _superseded(trusted: Certificates) -> Certificates:
    """Those that have expired while another of the same name is in force."""
    late = superseded([facts_of(each.public_bytes(Encoding.DER)) for each in trusted])
    return [trusted[index] for index in late]


def usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    """Return what a certificate's key may be used for; None if it says nothing of that."""
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _parsed(source: Source) -> Certificates:
    """Return the certificates of a source. Raises `PEMError` if there is none, or a damaged one."""
    found = certificates(source)
    try:
        return [x509.load_pem_x509_certificate(block.text.encode()) for block in found]
    except ValueError as error:
        raise PEMError(f"cannot use {source}: a certificate in it is damaged") from error
