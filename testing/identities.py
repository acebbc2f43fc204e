"""Certificates for a test: a CA in a folder of its own, an identity for each role, and faults.

The folder is what ``sealwire certs init`` makes, so every command of ``sealwire certs`` works on
it. Identities of another CA come from a second folder of the same kind.
"""

from __future__ import annotations

import contextlib
import datetime
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from sealwire.comm.arguments import expect_bool
from sealwire.security.fields import plain_role
from sealwire.security.parameters import ROLES, Role

if TYPE_CHECKING:
    from sealwire import dask_backend, security

__all__ = ["Certificates", "Roles", "temporary_certificates", "temporary_folder"]

Roles = Union[Role, Collection[Role]]  # noqa: UP007 (evaluated on 3.10)

_AGO = datetime.timedelta(days=10)  # when an expired certificate began, valid for a day
_TRUST = ("ca.pem", "crl.pem")
_FIXED: dict[str, Any] = {
    "tls_reload_interval": 0,
    # What is configured here belongs to other certificates.
    **{f"tls_{role}_key": None for role in ROLES},
    **dict.fromkeys(("tls_key_password", "tls_allowed_peers")),
}


class Certificates:
    """A certificate authority and an identity for each role, as files in a private folder.

    Made by `temporary_certificates`. Processes that use them follow their files: what is changed
    here takes effect there at the next connection, and in this process at once.

    Attributes
    ----------
    folder : Path
        As made by ``sealwire certs init``.
    faulty : frozenset of str
        The roles that others refuse, or that refuse others.
    """

    def __init__(self, folder: Path, other_ca: Collection[Role], trust_both: bool) -> None:
        self.folder = folder / "certs"
        self.faulty: frozenset[Role] = frozenset(() if trust_both else other_ca)
        self._elsewhere = frozenset(other_ca)
        self._homes = [self.folder]
        self._trust = folder / "trust" if trust_both else None
        self._given: list[security.Security | dask_backend.Security] = []
        _make(self.folder, "sealwire test CA")
        if other_ca:
            self._homes.append(folder / "other-certs")
            _make(self._homes[-1], "another sealwire test CA")
        self._gather()

    def expire(self, role: Role) -> None:
        """Replace the identity of a role by one that expired nine days ago."""
        import cryptography.x509

        from sealwire.security.ca.atomic_files import apply, locked
        from sealwire.security.ca.store import Store
        from sealwire.security.x509.templates import now

        role = _role(role)
        with locked(self.home(role)) as folder:
            store = Store(folder)
            signer = store.signer()
            made = signer.issue(role, days=1, not_before=now() - _AGO)
            certificate = cryptography.x509.load_pem_x509_certificate(made.certificate.encode())
            path = self.home(role) / f"{role}.pem"
            record = store.journal.issue(certificate, signer.parsed, path)
            text = made.certificate + made.key
            identity = store.write(path.name, text, "certificate and key", private=True)
            apply([*store.journal.write([record]), identity])
        self._changed(role)

    def revoke(self, role: Role) -> None:
        """Revoke the identity of a role, as ``sealwire certs revoke`` does."""
        from sealwire.security.ca.atomic_files import apply, locked
        from sealwire.security.ca.renewal import revoke
        from sealwire.security.ca.store import Store

        role = _role(role)
        with locked(self.home(role)) as folder:
            _, writes = revoke(Store(folder), role, "unspecified")
            apply(writes)
        self._gather()
        self._changed(role)

    def _changed(self, role: Role) -> None:
        """Note a fault; on a busy machine, a handshake would not wait for the look at a file."""
        self.faulty |= {role}
        for each in self._given:
            each.reload()

    def home(self, role: Role) -> Path:
        """Return the folder of the CA that has issued the identity of a role."""
        role = _role(role)
        return self._homes[-1] if role in self._elsewhere else self.folder

    def fields(self, role: Role) -> dict[str, str]:
        """Return the files of a role, as the parameters of a `Security` that are paths."""
        home = self.home(role)
        ca, crl = (str((self._trust or home) / name) for name in _TRUST)
        files = {f"tls_{each}_cert": str(home / f"{each}.pem") for each in ROLES}
        return {"tls_ca_file": ca, "tls_crl_file": crl, **files}

    def security(self, role: Role = "client", **further: Any) -> security.Security:
        """Return the `sealwire.security.Security` of a role, with `further` parameters."""
        from sealwire.security import Security

        made = Security(**{**self.fields(role), **_FIXED, **further})
        self._given.append(made)
        return made

    def dask_security(self, role: Role = "client", **further: Any) -> dask_backend.Security:
        """Return the `sealwire.dask_backend.Security` of a role; it installs the backend."""
        from sealwire.dask_backend import Security

        made = Security(**{**self.fields(role), **_FIXED, **further})
        self._given.append(made)
        return made

    def _gather(self) -> None:
        """Bring the CAs and CRLs of both folders together, if both are trusted."""
        from sealwire.security.ca.atomic_files import Write, apply, make_folder

        if self._trust is not None:
            make_folder(self._trust)
            for name in _TRUST:
                text = "".join((home / name).read_text() for home in self._homes)
                apply([Write(self._trust / name, text, name)])


@contextlib.contextmanager
def temporary_certificates(
    *, expired: Roles = (), revoked: Roles = (), other_ca: Roles = (), trust_both: bool = False
) -> Iterator[Certificates]:
    """Make a CA and identities, which are gone at the end of the ``with`` block.

    Parameters
    ----------
    expired, revoked, other_ca : role or collection of roles, optional
        Whose certificate has expired, is revoked, or is of another CA, which is then the only one
        that this role trusts. Each of ``"client"``, ``"scheduler"`` and ``"worker"`` in one of
        them at most.
    trust_both : bool, default False
        Whether everybody trusts both CAs, as during a rotation.

    Raises
    ------
    ValueError
        For an unknown role, and for one that is named twice.
    TypeError
        For a `trust_both` that is no bool.

    Examples
    --------
    ::

        with temporary_certificates(revoked="worker") as certificates:
            args = certificates.security().get_connection_args("worker")
    """
    expect_bool("temporary_certificates()", "trust_both", trust_both)
    chosen: dict[str, tuple[Role, ...]] = {
        name: _roles(given)
        for name, given in (("expired", expired), ("revoked", revoked), ("other_ca", other_ca))
    }
    for role in ROLES:
        named = [name for name, roles in chosen.items() if role in roles]
        if len(named) > 1:
            raise ValueError(f"bad faults: {role!r} is in {' and '.join(named)}; name it once")
    if trust_both and not chosen["other_ca"]:
        raise ValueError("bad trust_both: there is one CA; name the roles of the other in other_ca")
    with temporary_folder() as folder:
        made = Certificates(folder, chosen["other_ca"], trust_both)
        for role in chosen["expired"]:
            made.expire(role)
        for role in chosen["revoked"]:
            made.revoke(role)
        yield made


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder that only its owner can read, and remove it with all that is in it."""
    with tempfile.TemporaryDirectory(
        prefix="sealwire-testing-", ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


def _make(folder: Path, name: str) -> None:
    from sealwire.security.ca.atomic_files import apply, locked, make_folder
    from sealwire.security.ca.bootstrap import new_store

    make_folder(folder)
    with locked(folder) as opened:
        apply(new_store(opened, name=name))


def _roles(given: Roles) -> tuple[Role, ...]:
    roles = (given,) if isinstance(given, str) else tuple(given)
    return tuple(map(_role, roles))


def _role(role: object) -> Role:
    """Return a role as plain text, which the member of an Enum does not format as."""
    name = plain_role(role)
    if name is None:
        raise ValueError(f"bad role {role!r}: need one of {', '.join(ROLES)}")
    return name
