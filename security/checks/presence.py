"""Which roles' certificates are on this machine: any one is enough, unless the user demands others.

The configuration that `sealwire certs init` writes names all three, and each machine is given the
file of its own role.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509

from ..config import KEYS as FIELDS
from ..pem import Source, source
from ..security import ROLES
from ..x509.names import common_name
from .findings import ERROR, NOTE, WARNING, Finding
from .remedies import of_missing

__all__ = ["ABSENT", "HERE", "UNSET", "findings", "identities", "of"]

HERE, ABSENT, UNSET = "here", "absent", "unset"


def of(role: str, values: Mapping[str, Any]) -> str:
    """Whether the certificate of a role is here, configured but absent, or not configured.

    It is absent if neither its file nor one for its key is there. `values` are by field of
    `Security`.
    """
    if not values.get(f"tls_{role}_cert"):
        return UNSET
    key = source(f"tls_{role}_key", values.get(f"tls_{role}_key"))
    missing = _missing(_certificate(role, values)) and (key is None or _missing(key))
    return ABSENT if missing else HERE


def findings(values: Mapping[str, Any], demanded: Sequence[str] = ()) -> Iterator[Finding]:
    """Report the roles without a certificate here.

    One that is absent and `demanded` is reported when its file is read.
    """
    found = {role: of(role, values) for role in ROLES}
    present = [role for role in ROLES if found[role] == HERE]
    absent = [role for role in ROLES if found[role] == ABSENT and role not in demanded]
    for role in ROLES:
        if found[role] != UNSET:
            continue
        severity = ERROR if role in demanded else NOTE if present else WARNING
        yield Finding(
            severity,
            "role-unset",
            FIELDS[f"tls_{role}_cert"],
            f"no certificate is configured for the role {role}: such a process can neither "
            "connect nor listen",
            f"set it, if such processes read this configuration: sealwire certs issue {role}",
        )
    if present and absent:
        yield Finding(
            NOTE,
            "role-absent",
            ", ".join(_certificate(role, values).place for role in absent),
            f"not on this machine, so only the role {' and '.join(present)} was judged",
            f"if a {absent[0]} is to run here, copy its file; --role {absent[0]} demands it",
        )


def identities(
    folder: Path, certificates: Sequence[x509.Certificate], demanded: Sequence[str]
) -> Iterator[Finding]:
    """Which roles are demanded and have no identity in a folder."""
    found = {common_name(each.subject) for each in certificates}
    for role in demanded:
        if role not in found:
            yield Finding(
                ERROR,
                "role-missing",
                str(folder),
                f"there is no identity of a {role} in it",
                of_missing(role, folder),
            )


def _certificate(role: str, values: Mapping[str, Any]) -> Source:
    found = source(f"tls_{role}_cert", values[f"tls_{role}_cert"])
    assert found is not None, "it is configured"
    return found


def _missing(place: Source) -> bool:
    return place.path is not None and not os.path.lexists(place.path)
