"""CA rotation without downtime: both CAs are trusted for a while, then the old one is dropped.

`begin` adds a second CA; `renewal.renew` moves the identities to it; `complete` removes the first.
Each file is replaced whole, and in such an order that a crash between any two leaves a working
folder, from which the same command continues:

    begin      keys: new, old      trust: new, old     CRLs of both
    complete   trust: new          CRLs: of the new    keys: new

The order of the keys distinguishes an interrupted `begin` (the first key has no certificate yet)
from an interrupted `complete` (the last key has none any more).
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence

from cryptography.hazmat.primitives.serialization import Encoding

from ..errors import AuthorityError
from ..x509 import keys, names
from ..x509.certinfo import hexadecimal
from ..x509.templates import now
from .atomic_files import Write
from .authority import Authority
from .journal import JOINED, SERVICE
from .store import KEYS, TRUST, Store

__all__ = ["begin", "complete", "counted", "left_behind", "loose_keys", "remedy"]

_LISTED = 8  # names in a message


def begin(store: Store, *, name: str | None = None, days: float = 3650) -> list[Write]:
    """Add a new CA; only update the CRLs if there are two CAs already.

    The new one has the kind of key and the name constraints of the current one, and its name with a
    number unless `name` is given: verifiers look CAs up by name. Raises `AuthorityError` after an
    interrupted `complete`.
    """
    if len(store.authorities) > 1:
        return store.crl()
    (present,) = store.authorities
    first, *rest = store.private_keys
    if rest and _has(first, present):
        raise AuthorityError(
            f"cannot begin a rotation in {store.path}: the last one was broken off at its end; "
            f"run: sealwire certs rotate-ca --complete{store.option}"
        )
    public = present.parsed.public_key()
    old = names.common_name(present.parsed.subject)
    fresh = Authority.create(
        name or _next(old),
        days=days,
        kind=keys.kind_of(public),
        permitted=names.permitted(present.parsed),
        key=first if rest else None,
    )
    if fresh.parsed.subject == present.parsed.subject:
        raise AuthorityError(f"cannot name the new CA {old!r}: that is the old one's name")
    both = [fresh, present]
    texts = [fresh.certificate, present.certificate, *_foreign(store)]
    return [
        store.write(KEYS, _keys(store, both), "keys of the new and the old CA", private=True),
        store.write(TRUST, "".join(texts), "trust in the new and the old CA"),
        *store.crl(authorities=both),
    ]


def complete(store: Store, *, force: bool = False, gone: Iterable[str] = ()) -> list[Write]:
    """Drop every CA but the newest; nothing if there is only one.

    Raises `AuthorityError` while valid certificates of the others are in use, unless `force`.
    `gone` are the names of those that are in use no more.
    """
    newest, *older = store.authorities
    if not older and not loose_keys(store):
        return []
    if not older and _has(store.private_keys[-1], newest):
        raise AuthorityError(
            f"cannot complete the rotation in {store.path}: it was broken off at its beginning; "
            f"run: sealwire certs rotate-ca{store.option}"
        )
    behind = left_behind(store)
    for name in gone:
        behind = _without(store, name, behind)
    if behind and not force:
        raise AuthorityError(
            f"cannot complete the rotation in {store.path}: {counted(behind)} in use, "
            f"{_listed(behind)}; {remedy(store, behind)} "
            "(or give --force to shut out who holds them)"
        )
    trust = newest.certificate + "".join(_foreign(store))
    return [
        store.write(TRUST, trust, "trust in the new CA only"),
        *store.crl(authorities=[newest]),
        store.write(KEYS, _keys(store, [newest]), "key of the new CA only", private=True),
    ]


def left_behind(store: Store) -> list[str]:
    """Files whose certificate is of an outgoing CA, valid and not revoked.

    In this folder, or elsewhere according to the journal; serial numbers for those not in a file.
    """
    older = store.authorities[1:]
    revoked = store.journal.revoked()
    outgoing = [keys.identifier(each.parsed.public_key()) for each in older]
    here = {store.journal.name(held.path): held for held in store.identities()}
    found = [
        file
        for file, held in here.items()
        if any(each.issued(held.certificate) for each in older)
        and held.certificate.not_valid_after_utc > now()
        and held.certificate.serial_number not in revoked
    ]
    last = {
        f"serial {hexadecimal(record.serial)}" if record.file == "-" else record.file: record
        for record in store.journal.issued()
    }
    last.pop(SERVICE, None)  # it is of the oldest CA on purpose, and follows by itself
    for file, record in last.items():
        alive = record.until > now() and record.serial not in revoked
        if record.issuer in outgoing and alive and file not in here:
            found.append(file)
    return found


def remedy(store: Store, behind: Sequence[str]) -> str:
    """Say what to do with the certificates that `left_behind` returns."""
    paths = {name: os.path.join(store.path, name) for name in behind}
    readable = {file.path.name for file in store.identities()}
    here = [name for name in behind if name in readable]
    there = [name for name in behind if name not in here and os.path.lexists(paths[name])]
    lost = [name for name in behind if name not in (*here, *there)]
    joined = [name for name in lost if name.startswith(f"{JOINED}/")]
    lost = [name for name in lost if name not in joined]
    words = []
    if here:
        words.append(f"renew what is here: sealwire certs renew{store.option}")
    if there:
        given = " ".join(shlex.quote(paths[name]) for name in there[:_LISTED])
        words.append(f"renew what is elsewhere: sealwire certs renew{store.option} {given}")
    if joined:
        until = max(store.journal.files()[name].until for name in joined)
        words.append(
            "wait for the processes that joined: with `sealwire certs serve` running, each renews "
            "itself within minutes once the new CA signs; what those have that ended is over at "
            f"{until:%Y-%m-%d %H:%M} UTC at the latest, or leave them out: "
            f"{_without_them(store, joined)}"
        )
    if lost:
        words.append(
            f"{_listed(lost)} {'is' if len(lost) == 1 else 'are'} not there any more: issue anew "
            f"for who holds it, or if nobody does, say so: {_without_them(store, lost)}"
        )
    return "; ".join(words)


def _without_them(store: Store, names: Sequence[str]) -> str:
    given = " ".join(f"--gone {shlex.quote(name)}" for name in names[:_LISTED])
    return f"sealwire certs rotate-ca --complete{store.option} {given}"


def counted(behind: Sequence[str]) -> str:
    """How many certificates are left behind, as the beginning of a sentence."""
    one = len(behind) == 1
    return f"{len(behind)} certificate{'' if one else 's'} of the old CA {'is' if one else 'are'}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _without(store: Store, name: str, behind: Sequence[str]) -> list[str]:
    """Those left behind but the one that is gone. Raises `AuthorityError` if it is none of them."""
    meant = [
        each for each in behind if each in (name, f"serial {name}", *store.journal.named(name))
    ]
    if not meant or any(os.path.lexists(os.path.join(store.path, each)) for each in meant):
        why = "it is there" if meant else "it is none of those that hold up the rotation"
        raise AuthorityError(
            f"cannot leave {name!r} out: {why}; those that can be left out are not in the folder "
            "any more: "
            + (_listed([e for e in behind if not os.path.lexists(store.path / e)]) or "none")
        )
    return [each for each in behind if each not in meant]


def loose_keys(store: Store) -> list[keys.PrivateKey]:
    """Keys in `ca-key.pem` without a certificate in `ca.pem`: a rotation was interrupted."""
    known = store.authorities
    return [key for key in store.private_keys if not any(_has(key, each) for each in known)]


def _has(key: keys.PrivateKey, authority: Authority) -> bool:
    return keys.same(key.public_key(), authority.parsed.public_key())


def _keys(store: Store, authorities: list[Authority]) -> str:
    return "".join(each.key(store.password) for each in authorities)


def _foreign(store: Store) -> list[str]:
    return [each.public_bytes(Encoding.PEM).decode() for each in store.foreign]


def _next(name: str) -> str:
    """`lab CA` -> `lab CA 2` -> `lab CA 3`."""
    found = re.fullmatch(r"(.*) (\d{1,6})", name)
    stem, number = (found[1], int(found[2])) if found else (name, 1)
    return f"{stem[:57]} {number + 1}"
