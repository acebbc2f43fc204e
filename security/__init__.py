"""Identity and trust: certificates, roles, and the TLS contexts made from them.

`Security` is the main class; `Authority` issues certificates, `CertificateInfo` parses them.
Importing this package loads no certificate library; the first use of the latter two does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .config import UnknownKey, unknown_keys
from .errors import (
    AuthorityError,
    CertificateExpired,
    CertificateUnreadable,
    ChainRefused,
    ConfigError,
    KeyMismatch,
    PeerNotAllowed,
    PEMError,
    PEMNotFound,
    SecurityError,
    SessionResumed,
    UnknownParameter,
)
from .parameters import ConnectionArgs, ListenArgs, Role
from .security import Security

if TYPE_CHECKING:
    from .ca.authority import Authority, Identity
    from .x509.certinfo import CertificateInfo

__all__ = [
    "Authority",
    "AuthorityError",
    "CertificateExpired",
    "CertificateInfo",
    "CertificateUnreadable",
    "ChainRefused",
    "ConfigError",
    "ConnectionArgs",
    "Identity",
    "KeyMismatch",
    "ListenArgs",
    "PEMError",
    "PEMNotFound",
    "PeerNotAllowed",
    "Role",
    "Security",
    "SecurityError",
    "SessionResumed",
    "UnknownKey",
    "UnknownParameter",
    "unknown_keys",
]


def __getattr__(name: str) -> Any:
    if name in ("Authority", "Identity"):
        from .ca import authority

        return getattr(authority, name)
    if name == "CertificateInfo":
        from .x509.certinfo import CertificateInfo

        return CertificateInfo
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
