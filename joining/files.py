"""What a person's `certs join` leaves: the files of a machine, as `certs pack` lays them out.

The key is on the disk, in a file of mode 0600, before it is asked for: if the answer is lost, or
this process killed, the same command asks again with the same key, and the token is not lost. The
identity is written last, so that a folder with one is complete.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509

from sealwire.security.ca.atomic_files import Write, apply, locked, make_folder
from sealwire.security.ca.bootstrap import configuration
from sealwire.security.ca.folder import Folder
from sealwire.security.ca.store import CONFIG, CRL, KEYS, TRUST
from sealwire.security.pem import blocks
from sealwire.security.security import ROLES
from sealwire.security.x509 import keys

from .client import Joined
from .errors import JoinError
from .tokens import Token

__all__ = ["Place"]

PENDING = "joining.key"


class Place:
    """A folder for what is given; `Place.of` makes and locks it."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    @classmethod
    @contextmanager
    def of(cls, path: Path) -> Iterator[Place]:
        """Make the folder if it is missing, and keep other commands out of it."""
        make_folder(path)
        with locked(path) as folder:
            yield cls(folder)

    def must_suit(self, token: Token, role: str) -> None:
        """Raise `JoinError` if the folder has what must not be replaced. `role` may be ""."""
        path = self.folder.path
        if self.folder.has(KEYS):
            raise JoinError(
                f"cannot join in {path}: it is the folder of a CA; name another with --dir"
            )
        for each in [role] if role else ROLES:
            if self.folder.has(f"{each}.pem"):
                raise JoinError(
                    f"cannot join in {path}: there is {each}.pem already; name another folder with "
                    "--dir, or remove that file if it is of no use any more"
                )
        if self.folder.has(TRUST):
            known = [
                x509.load_pem_x509_certificate(block.text.encode())
                for block in blocks(self.folder.text(TRUST))
                if block.is_certificate
            ]
            if not any(token.names(each) for each in known):
                raise JoinError(
                    f"cannot join in {path}: its {TRUST} is of another CA than the token; name "
                    "another folder with --dir"
                )

    def key(self) -> keys.PrivateKey:
        """Return the key to join with: one that was made before, or a new one, on the disk.

        One that has joined is not used again: this process was killed before it was removed.
        """
        if self.folder.has(PENDING) and not self._has_joined(self.folder.text(PENDING)):
            return keys.read(self.folder.text(PENDING), str(self.folder.path / PENDING))
        made = keys.generate()
        apply(
            [self._write(PENDING, keys.write(made), "the key, until it has joined", private=True)]
        )
        return made

    def _has_joined(self, key: str) -> bool:
        there = (f"{each}.pem" for each in ROLES)
        return any(key.strip() in self.folder.text(name) for name in there if self.folder.has(name))

    def forget_key(self) -> None:
        """Remove the key that did not join."""
        if self.folder.has(PENDING):
            self.folder.remove(PENDING)

    def writes(self, joined: Joined, seen_at: str | None = None) -> list[Write]:
        """Return the writes of all files; `seen_at` is the folder's path for the processes."""
        text = configuration(seen_at or os.path.abspath(self.folder.path))
        if not joined.crl:
            text = "".join(
                line for line in text.splitlines(True) if not line.strip().startswith("crl-file:")
            )
        both = joined.certificate + joined.key
        name = f"{joined.role}.pem"
        return [
            self._write(TRUST, joined.cas, "the CA, whom everybody trusts"),
            *([self._write(CRL, joined.crl, "revoked certificates")] if joined.crl else []),
            *([] if self.folder.has(CONFIG) else [self._write(CONFIG, text, "configuration")]),
            self._write(name, both, f"the {joined.role}'s certificate and key", private=True),
        ]

    def _write(self, name: str, text: str, words: str, *, private: bool = False) -> Write:
        path = self.folder.path / name
        return Write(path, text, words, private=private, folder=self.folder)
