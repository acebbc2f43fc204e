"""Checks a folder of certificates, or a configuration, as a whole.

Nothing is changed or printed: each function returns `Finding`s, worst first. After the checks of
the files, every two roles do a handshake in memory, as the processes will.
"""

from __future__ import annotations

import datetime
import os
import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509

from ..ca import rotation
from ..ca.journal import JOURNAL, Record
from ..ca.store import CONFIG, CRL, KEYS, TRUST, IdentityFile, Store
from ..config import KEYS as FIELDS
from ..config import PRELOAD, UnknownKey
from ..errors import PeerNotAllowed, SecurityError
from ..parameters import Role
from ..pem import CRL_LIMIT, Source, source
from ..security import ROLES, Security
from ..x509.certinfo import CertificateInfo, hexadecimal
from . import findings, presence, remedies
from .certificates import identity
from .findings import ERROR, NOTE, WARNING, Finding
from .selftest import refusal

__all__ = ["check_configuration", "check_folder", "worst_first"]

_DIALS: tuple[tuple[Role, Role], ...] = (
    ("client", "scheduler"),
    ("client", "worker"),
    ("worker", "scheduler"),
    ("worker", "worker"),
    ("scheduler", "worker"),
)
_MATERIAL = ("tls_ca_file", *(f"tls_{role}_cert" for role in ROLES))


def worst_first(found: Sequence[Finding]) -> list[Finding]:
    """Return the findings by severity, without duplicates.

    Of findings with the same code and subject, only the most severe are kept.
    """
    order = (ERROR, WARNING, NOTE)
    kept: list[Finding] = []
    worst: dict[tuple[str, str], str] = {}
    for each in sorted(dict.fromkeys(found), key=lambda each: order.index(each.severity)):
        about = each.code, each.subject
        known = worst.setdefault(about, each.severity)
        again = known != each.severity or each.code == "unreadable"  # in other words
        if not again or not any((other.code, other.subject) == about for other in kept):
            kept.append(each)
    return kept


def check_folder(
    folder: Path,
    *,
    password: bytes | None = None,
    soon: datetime.timedelta | None = None,
    demanded: Sequence[str] = (),
) -> list[Finding]:
    """Check a folder that `sealwire certs` has created; `password` decrypts the CA key.

    `soon` is the time within which what ends is told of; None for what the log of a process warns
    of, the lesser of 30 days and a third of the lifetime.

    A folder without the CA's key, as on other machines, is checked as far as possible. An identity
    of each role `demanded` must be there. In the folder of the CA, a revoked identity is a note.
    Raises `AuthorityError` if there is no CA certificate, `PEMError` if an essential file is
    damaged.
    """
    store = Store(folder, password, links=True)  # as mounted by Kubernetes
    found: list[Finding] = []
    # Root may maintain another user's folder.
    owners = frozenset({os.stat(folder).st_uid} if os.name == "posix" and not os.geteuid() else ())
    for name in (TRUST, CRL, CONFIG, JOURNAL, KEYS):
        path = str(folder / name)
        if os.path.lexists(path):
            found += findings.changeable(path, of_key=name == KEYS, owners=owners)
    anchors = Source("ca", str(folder / TRUST), in_memory=False)
    found += findings.trust(anchors, store.trusted, soon)
    held = store.identities()
    of_ca = (folder / KEYS).is_file()
    if of_ca:  # what was revoked is kept here and shown to nobody, whatever else is wrong with it
        revoked = store.journal.revoked()
        kept = [each for each in held if each.certificate.serial_number in revoked]
        found += [_kept(each, revoked[each.certificate.serial_number]) for each in kept]
        held = [each for each in held if each not in kept]
    for each in held:
        place = Source("certificate", str(each.path), in_memory=False)
        chain, broken = findings.readable(place)
        found += broken
        # Without a key, it was issued for a CSR, whose sender has the key.
        found += [
            finding
            for finding in (
                identity(place, None, chain, store.trusted, soon, owners=owners) if chain else ()
            )
            if finding.code != "key-missing"
        ]
        if each.is_cut and not broken:
            advice = remedies.of_identity(place, each.certificate, store.trusted)
            found.append(
                Finding(ERROR, "key-missing", place.place, "its private key is cut off", advice)
            )
    found += presence.identities(folder, [each.certificate for each in held], demanded)
    for damaged, why in store.damaged():
        words, _, again = why.partition("; ")
        advice = remedies.of_damaged(damaged, again)
        found.append(Finding(ERROR, "unreadable", str(damaged), words, advice))
    if os.path.lexists(folder / CRL) or of_ca:
        files = [(str(each.path), each.certificate) for each in held]
        lists = Source("crl", str(folder / CRL), in_memory=False, limit=CRL_LIMIT)
        found += findings.crl(lists, store.trusted, files, soon)
    if of_ca:
        found += _authority(store)
    here = os.path.realpath(folder)  # reported by `_folder_mode`, which is stricter
    return worst_first(
        [
            *_folder_mode(folder),
            *(x for x in found if (x.code, x.subject) != ("folder-exposed", here)),
        ]
    )


def check_configuration(
    values: Mapping[str, Any],
    unknown: Iterable[UnknownKey] = (),
    soon: datetime.timedelta | None = None,
    files: Iterable[str] = (),
    demanded: Sequence[str] = (),
    without_preload: Iterable[str] = (),
) -> list[Finding]:
    """Check a configuration.

    `values` are those of `Security`'s fields as `config.read` returns them, `unknown` the unknown
    keys, `files` the configuration files, and `without_preload` the settings of Dask that do not
    name our preload. One role's certificate is enough: others that are missing are a note, unless
    they are `demanded`. `soon` is as for `check_folder`.
    """
    found = [_misspelt(each) for each in unknown]
    for file in files:
        found += [*findings.changeable(file), *findings.names(file)]
    if not any(values.get(field) for field in _MATERIAL):
        found.append(
            Finding(
                ERROR,
                "no-tls",
                FIELDS["tls_ca_file"],
                "no CA, certificate or key is configured: comms would be plain",
                "make them: sealwire certs init; then set DASK_CONFIG to its dask.yaml",
            )
        )
        return worst_first(found)
    try:
        security = Security(**{**values, "require_encryption": True})
    except SecurityError as error:
        advice = "correct the value in the configuration"
        found.append(Finding(ERROR, "bad-value", "configuration", str(error), advice))
        return worst_first(found)
    if values.get("require_encryption") is False:
        found.append(
            Finding(
                WARNING,
                "encryption-off",
                FIELDS["require_encryption"],
                "plain addresses are allowed beside TLS",
                f"set {FIELDS['require_encryption']}: true",
            )
        )
    found += _not_loaded(values, without_preload)
    here = [role for role in ROLES if presence.of(role, values) is presence.HERE]
    found += presence.findings(values, demanded)
    found += _material(values, soon, sorted({*(here or ROLES), *demanded}))
    if not any(finding.severity == ERROR for finding in found):
        found += _handshakes(security, here)
    return worst_first(found)


def _not_loaded(values: Mapping[str, Any], without: Iterable[str]) -> Iterator[Finding]:
    """Protections that only our module knows, and processes that would not load it."""
    names = [FIELDS[name] for name in ("tls_crl_file", "tls_allowed_peers") if values.get(name)]
    without = [
        key
        for key in without
        if values.get(f"tls_{key.split('.')[1].replace('nanny', 'worker')}_cert")
    ]
    if not names or not without:
        return
    yield Finding(
        WARNING,
        "not-preloaded",
        ", ".join(without),
        f"{' and '.join(names)} would not hold in every process: where sealwire is not installed "
        "but only found on the path, a client or a LocalCluster does not load it",
        f"set each to [{PRELOAD}]",
    )


def _material(
    values: Mapping[str, Any], soon: datetime.timedelta | None, roles: Sequence[str]
) -> Iterator[Finding]:
    anchors = source("tls_ca_file", values.get("tls_ca_file"))
    trusted: findings.Certificates = ()
    if anchors is not None:
        trusted, broken = findings.readable(anchors)
        yield from broken
        if anchors.path is not None:
            yield from findings.changeable(anchors.path)
        yield from findings.trust(anchors, trusted, soon)
    shown: list[tuple[str, x509.Certificate]] = []
    for role in roles:
        certificate = source(f"tls_{role}_cert", values.get(f"tls_{role}_cert"))
        if certificate is None:
            continue
        chain, broken = findings.readable(certificate)
        yield from broken
        if chain:
            shown.append((certificate.place, chain[0]))
            key = source(f"tls_{role}_key", values.get(f"tls_{role}_key"))
            password = values.get("tls_key_password")
            if isinstance(password, Mapping):  # role -> password
                password = password.get(role)
            yield from identity(certificate, key, chain, trusted, soon, password)
            yield from _role(role, certificate, CertificateInfo.of(chain[0]))
    lists = source("tls_crl_file", values.get("tls_crl_file"), limit=CRL_LIMIT)
    if lists is not None:
        if lists.path is not None:
            yield from findings.changeable(lists.path)
        yield from findings.crl(lists, trusted, shown, soon)


def _role(role: str, certificate: Source, info: CertificateInfo) -> Iterator[Finding]:
    if info.common_name in ROLES and info.common_name != role:
        yield Finding(
            WARNING,
            "wrong-role",
            certificate.place,
            f"it was issued to a {info.common_name} and is configured for the {role}",
            f"correct {FIELDS[f'tls_{role}_cert']}, or run: sealwire certs issue {role}",
        )


def _handshakes(security: Security, here: Sequence[str]) -> Iterator[Finding]:
    """Do a handshake between all roles that talk to each other and whose certificates are here."""
    told = set()
    try:
        for client, server in _DIALS:
            if not {client, server}.issubset(here):
                continue
            accepting = security.get_listen_args(server)["ssl_context"]
            dialling = security.get_connection_args(client)["ssl_context"]
            if accepting is None or dialling is None:  # a role that is here has both
                continue
            error = refusal(accepting, dialling)
            why = getattr(error, "verify_message", None) or getattr(error, "reason", None)
            if error is None or why in told:
                continue
            if isinstance(error, PeerNotAllowed) and (client, server) == ("client", "worker"):
                continue  # the scheduler stands between them, unless both lists say otherwise
            told.add(why)
            listed = isinstance(error, PeerNotAllowed)
            yield Finding(
                WARNING if listed else ERROR,
                "peer-not-allowed" if listed else "handshake",
                f"{client} to {server}",
                f"their handshake fails: {why or error}",
                f"add the name to {FIELDS['tls_allowed_peers']}, unless it is meant to stay out"
                if listed
                else "look at both with: sealwire certs show",
            )
    except SecurityError as error:
        yield Finding(ERROR, "bad-value", "configuration", str(error), "correct the file it names")


def _kept(held: IdentityFile, record: Record) -> Finding:
    place = Source("certificate", str(held.path), in_memory=False)
    again = remedies.command(f"renew {shlex.quote(held.path.stem)}", place)
    return Finding(
        NOTE,
        "revoked",
        place.place,
        f"it was revoked {record.time:%Y-%m-%d} ({record.detail}, serial "
        f"{hexadecimal(record.serial)})",
        f"nothing is left to do here; remove the file, or let its holder in again with: {again}",
    )


def _authority(store: Store) -> Iterator[Finding]:
    """Run the checks that need the folder with the CA's key."""
    place, folder = str(store.path / KEYS), shlex.quote(str(store.path))
    yield from findings.exposed(place, "the CA's private key", grants=False)
    try:
        loose = rotation.loose_keys(store)
    except SecurityError as error:
        encrypted = "no password was given" in str(error)
        yield Finding(
            NOTE if encrypted else ERROR,
            "ca-key-encrypted" if encrypted else "ca-key-mismatch",
            place,
            "the CA's key is encrypted, so whether it fits was not checked"
            if encrypted
            else str(error),
            f"sealwire certs check {folder} --password-file FILE"
            if encrypted
            else "bring the CA's key back from a copy, or make a new CA in another folder: "
            "sealwire certs init NEW",
        )
        return
    complete = f"sealwire certs rotate-ca --dir {folder} --complete"
    if loose:
        begun = loose[0] is store.private_keys[0]
        yield Finding(
            WARNING,
            "rotation-broken-off",
            place,
            "it holds a key without a certificate: a rotation of the CA was broken off",
            f"sealwire certs rotate-ca --dir {folder}" if begun else complete,
        )
    if len(store.authorities) > 1:
        behind = rotation.left_behind(store)
        yield Finding(
            NOTE,
            "rotation-open",
            str(store.path / TRUST),
            f"the CA is being rotated: {len(store.authorities)} are trusted, and "
            f"{rotation.counted(behind)} in use",
            rotation.remedy(store, behind) if behind else complete,
        )
    if store.crl():
        yield Finding(
            ERROR,
            "crl-behind",
            str(store.path / CRL),
            "it lacks what the journal knows to be revoked, or ends before a certificate does",
            f"sealwire certs renew --if-expires-within 30d --dir {folder}",
        )


def _folder_mode(folder: Path) -> Iterator[Finding]:
    if os.name != "posix":
        return
    mode = stat.S_IMODE(os.stat(folder).st_mode)
    if mode & 0o022:
        yield Finding(
            ERROR,
            "folder-exposed",
            str(folder),
            f"others can put files of theirs in place of these (mode {mode:04o})",
            f"chmod go-w {shlex.quote(str(folder))}",
        )


def _misspelt(key: UnknownKey) -> Finding:
    if key.nearest:
        words = f"rename it to {key.nearest}"
        return Finding(ERROR, "unknown-key", key.key, "nobody reads this key", words)
    words = "remove it, if it is not read by another program"
    return Finding(WARNING, "unknown-key", key.key, "nobody reads this key", words)
