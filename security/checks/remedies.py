"""What to do about a certificate or a list: a command, where the key of its CA can carry it out.

Whoever has a copy of the files, or the certificates of a CA that others run, can follow no such
command. They are told what to ask for, and which command that is if the CA is one of ours.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from ..ca.store import KEYS
from ..pem import Source
from ..x509.above import issued
from ..x509.certinfo import CertificateInfo

__all__ = ["command", "of_ca", "of_identity", "of_list", "of_missing", "of_revoked"]


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
    if _has_key(source) and any(issued(leaf, each) for each in trusted):
        return command(f"renew {name}", source)
    return (
        f"have it issued again{how} where its CA's key is, and bring it here; if that is a CA of "
        f"sealwire, there: sealwire certs renew {name}"
    )


def of_ca(source: Source) -> str:
    """Return how to have the CAs in a file made again."""
    if _has_key(source):
        return command("rotate-ca", source)
    return (
        "have it made again where its key is, and bring its certificate here; if it is a CA of "
        "sealwire, there: sealwire certs rotate-ca"
    )


def of_list(source: Source) -> str:
    """Return how to have revocation lists made again."""
    if _has_key(source):
        return command("renew --if-expires-within 30d", source)
    return "put the present lists of all CAs there, from where each CA's key is"


def of_revoked(path: str, lists: Source) -> str:
    """Return what to do about an identity that is on a list."""
    if _has_key(lists):
        return f"remove it, or issue a new one: {command(f'renew {shlex.quote(path)}', lists)}"
    return (
        "remove it, or have a new one issued where its CA's key is, and bring it here; if that is "
        f"a CA of sealwire, there: sealwire certs renew {shlex.quote(Path(path).stem)}"
    )


def of_missing(role: str, folder: Path) -> str:
    """Return how to get the file of a role that is not in a folder."""
    if (folder / KEYS).is_file():
        return f"sealwire certs issue {role} --dir {shlex.quote(str(folder))}"
    return (
        f"bring the {role}'s file here from where the CA's key is; there, if it is to be issued "
        f"first: sealwire certs issue {role}"
    )


def _has_key(source: Source) -> bool:
    """Whether a CA's key is beside a file: the one in whose folder sealwire has made it."""
    folder = os.path.dirname(source.path or "")
    return source.path is not None and os.path.isfile(os.path.join(folder, KEYS))
