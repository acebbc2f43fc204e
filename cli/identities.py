"""Certificates made on the spot, as the PEM files that Dask's command line takes.

Keys are readable by their owner alone from the moment their file exists.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sealwire.security.authority import Authority, Identity

ROLES = ("client", "scheduler", "worker")


@dataclass(frozen=True)
class IdentityFiles:
    """Paths of one identity: the CA it trusts, its certificate, its private key."""

    ca: str
    certificate: str
    key: str

    def dask_options(self) -> list[str]:
        """The options of `dask scheduler` and `dask worker` that name these files."""
        return ["--tls-ca-file", self.ca, "--tls-cert", self.certificate, "--tls-key", self.key]


def write_private(path: Path, text: str) -> str:
    """Write `text` to a new file at `path` that only its owner may read, and return the path.

    Raises FileExistsError rather than to write into a file of somebody else.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(text)
    return str(path)


def write_identity(folder: Path, name: str, ca: str, identity: Identity) -> IdentityFiles:
    """Write `identity` as `name.pem` and `name-key.pem` in `folder`, beside the CA file `ca`."""
    return IdentityFiles(
        ca=ca,
        certificate=write_private(folder / f"{name}.pem", identity.certificate),
        key=write_private(folder / f"{name}-key.pem", identity.key),
    )


def write_roles(folder: Path, authority: Authority) -> dict[str, IdentityFiles]:
    """Write the CA's certificate and an identity for each role into `folder`."""
    ca = write_private(folder / "ca.pem", authority.certificate)
    return {role: write_identity(folder, role, ca, authority.issue(role)) for role in ROLES}
