"""Certificates created for the demo, as the PEM files that Dask's command line takes.

Key files are readable by their owner only from the moment they exist.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sealwire.security.ca.authority import Authority, Identity

ROLES = ("client", "scheduler", "worker")


@dataclass(frozen=True)
class IdentityFiles:
    """Paths of one identity: the CA it trusts, its certificate, its private key."""

    ca: str
    certificate: str
    key: str

    def dask_options(self) -> list[str]:
        """Return the options of `dask scheduler` and `dask worker` for these files."""
        return ["--tls-ca-file", self.ca, "--tls-cert", self.certificate, "--tls-key", self.key]


def write_identity(folder: Path, name: str, ca: str, identity: Identity) -> IdentityFiles:
    """Write `identity` as `name.pem` and `name-key.pem` in `folder`; `ca` is the CA file.

    Raises `AuthorityError` rather than writing into another user's file.
    """
    return IdentityFiles(
        ca=ca,
        certificate=_written(folder / f"{name}.pem", identity.certificate, "certificate"),
        key=_written(folder / f"{name}-key.pem", identity.key, "private key"),
    )


def write_roles(
    folder: Path, authority: Authority, roles: Iterable[str] = ROLES, workers: Iterable[str] = ()
) -> dict[str, IdentityFiles]:
    """Write the CA certificate and an identity for each role into `folder`. Raises likewise.

    And one for each of the `workers`, with its name as the node's.
    """
    ca = _written(folder / "ca.pem", authority.certificate, "CA")
    issued = {role: authority.issue(role) for role in roles}
    issued |= {name: authority.issue("worker", node=name) for name in workers}
    return {name: write_identity(folder, name, ca, identity) for name, identity in issued.items()}


def _written(path: Path, text: str, words: str) -> str:
    from sealwire.security.ca.atomic_files import Write, apply

    apply([Write(path, text, words, private=True, new=True)])
    return str(path)
