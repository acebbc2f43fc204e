"""What to do about a certificate or a list: a command, where the key of its CA can carry it out.

Whoever has a copy of the files, or the certificates of a CA that others run, can follow no such
command, and neither can who has another CA's key beside them. They are told what to ask for, and
which command that is if the CA is one of ours.
"""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from ..ca.store import KEYS, TRUST, Store
from ..errors import SecurityError
from ..pem import Source, blocks
from ..x509.above import issued
from ..x509.certinfo import CertificateInfo

__all__ = [
    "command",
    "of_ca",
    "of_damaged",
    "of_identity",
    "of_list",
    "of_missing",
    "of_revoked",
]


def command(words: str, source: Source) -> str:
    """Return a `sealwire certs` command for the folder of a file, to be pasted into a shell."""
    if source.path is None or source.hidden:
        return f"sealwire certs {words}"
    return f"sealwire certs {words} --dir {shlex.quote(os.path.dirname(source.path) or '.')}"


def of_identity(
    source: Source, leaf: x509.Certificate, trusted: Sequence[x509.Certificate], how: str = ""
) -> str:
    """Return how to have an identity issued again; `how` is what must be different, in words."""
    info = CertificateInfo.of(leaf)
    name = shlex.quote(info.common_name if source.path is None else Path(source.path).stem)
    ours = _signers(source)
    if any(issued(leaf, each) for each in trusted if ours is None or each in ours):
        return command(f"renew {name}", source)
    return (
        f"have it issued again{how} where its CA's key is, and bring it here; if that is a CA of "
        f"sealwire, there: sealwire certs renew {name}"
    )


def of_ca(source: Source, certificate: x509.Certificate) -> str:
    """Return how to have a CA in a file made again."""
    if _can_sign(source, certificate):
        return command("rotate-ca", source)
    return (
        "have it made again where its key is, and bring its certificate here; if it is a CA of "
        "sealwire, there: sealwire certs rotate-ca"
    )


def of_list(source: Source, certificate: x509.Certificate | None = None) -> str:
    """Return how to have the revocation list of a CA made again, or all lists of a file."""
    if _can_sign(source, certificate):
        return command("renew --if-expires-within 30d", source)
    return "put the present lists of all CAs there, from where each CA's key is"


def of_revoked(path: str, lists: Source, certificate: x509.Certificate) -> str:
    """Return what to do about an identity that is on the list of a CA."""
    if _can_sign(lists, certificate):
        return f"remove it, or issue a new one: {command(f'renew {shlex.quote(path)}', lists)}"
    return (
        "remove it, or have a new one issued where its CA's key is, and bring it here; if that is "
        f"a CA of sealwire, there: sealwire certs renew {shlex.quote(Path(path).stem)}"
    )


def of_damaged(path: Path, again: str) -> str:
    """Return how to get an identity whose file is damaged; `again` is how to where the key is."""
    if _keys_of(str(path.parent)) != ():
        return again
    return (
        "bring it here again from where its CA's key is; there, if it is damaged as well: "
        f"sealwire certs renew {shlex.quote(path.stem)}"
    )


def of_missing(role: str, folder: Path) -> str:
    """Return how to get the file of a role that is not in a folder."""
    if _keys_of(str(folder)) != ():
        return f"sealwire certs issue {role} --dir {shlex.quote(str(folder))}"
    return (
        f"bring the {role}'s file here from where the CA's key is; there, if it is to be issued "
        f"first: sealwire certs issue {role}"
    )


def _can_sign(source: Source, certificate: x509.Certificate | None) -> bool:
    ours = _signers(source)
    return ours is None or (bool(ours) if certificate is None else certificate in ours)


def _signers(source: Source) -> tuple[x509.Certificate, ...] | None:
    """Return the CAs in the folder of a file that can sign there; None if a password hides it."""
    return () if source.path is None else _keys_of(os.path.dirname(source.path) or os.curdir)


def _keys_of(folder: str) -> tuple[x509.Certificate, ...] | None:
    try:
        stamps = [os.stat(os.path.join(folder, name)) for name in (KEYS, TRUST)]
    except OSError:
        return ()
    return _read(folder, *((each.st_ino, each.st_size, each.st_mtime_ns) for each in stamps))


@functools.lru_cache(16)  # asked for every finding; keeps no key
def _read(folder: str, *_: object) -> tuple[x509.Certificate, ...] | None:
    try:
        store = Store(Path(folder), links=True)
        if any(block.is_encrypted for block in blocks(store.folder.text(KEYS))):
            return None
        return tuple(each.parsed for each in store.authorities)
    except SecurityError:  # no key of a CA of its, or a damaged one
        return ()
