"""Whether a port refuses who is revoked, and who is not on its list: asked from outside."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path

import pytest

from support import certs_cli
from support.handshakes import told_at

__all__ = ["expect_guarded", "expect_refused", "revoked_server", "rob", "robbed"]

STOLEN = "worker-node8.lab"


def robbed(folder: Path) -> Path:
    """A folder of `certs init` as a user has it after a theft."""
    certs_cli.good("init", str(folder))
    rob(folder)
    return folder


def rob(folder: Path) -> None:
    """Issue `STOLEN`, and revoke it."""
    certs_cli.good("issue", "worker", "node8.lab", "--dir", str(folder))
    certs_cli.good("revoke", STOLEN, "--dir", str(folder))


def expect_guarded(addresses: Iterable[str], folder: Path, stranger: str) -> None:
    """Each of them refuses `STOLEN`, and the role `stranger` by its list."""
    for address in addresses:
        expect_refused(address, folder)
        told = told_at(address, _context(folder, stranger))
        assert "match none of the peers that are allowed here" in told["refused"], address


def expect_refused(address: str, folder: Path) -> None:
    """It refuses `STOLEN`."""
    with pytest.raises(ssl.SSLError, match="REVOKED"):
        told_at(address, _context(folder, STOLEN))


def _context(folder: Path, name: str) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    made.check_hostname = False
    made.load_cert_chain(folder / f"{name}.pem")
    return made


def revoked_server(folder: Path) -> ssl.SSLContext:
    """Of who poses as a scheduler with `STOLEN`."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    made.load_cert_chain(folder / f"{STOLEN}.pem")
    made.verify_mode = ssl.CERT_REQUIRED
    return made
