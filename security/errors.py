"""Every error this package raises on purpose.

```
SecurityError(Exception)
├─ ConfigError(ValueError)       a parameter or a configuration key has a value that cannot be used
├─ UnknownParameter(TypeError)   Security was given a parameter it does not have
├─ PEMError                      a certificate, key or CA file is missing, unreadable or incomplete
│  └─ KeyMismatch                the private key is not the one of the certificate
└─ AuthorityError                a certificate cannot be issued as asked
   └─ CertificateExpired         the authority itself has expired
```

Messages name the field and the file, and never contain any part of a private key. A refused
handshake is not among them: `ssl` raises its own errors, and who drives the handshake words them.
"""

from __future__ import annotations

__all__ = [
    "AuthorityError",
    "CertificateExpired",
    "ConfigError",
    "KeyMismatch",
    "PEMError",
    "SecurityError",
    "UnknownParameter",
]


class SecurityError(Exception):
    """Base of all errors raised by `sealwire.security`."""


class ConfigError(SecurityError, ValueError):
    """A parameter or configuration key has an unusable value, or a needed one is unset."""


class UnknownParameter(SecurityError, TypeError):
    """`Security` was given a parameter it does not have; a `TypeError`, as in Dask's API."""


class PEMError(SecurityError):
    """A certificate, key or CA file (or PEM text) is missing, unreadable or incomplete."""


class KeyMismatch(PEMError):
    """The private key does not belong to the certificate it was given with."""


class AuthorityError(SecurityError):
    """A certificate cannot be issued as asked."""


class CertificateExpired(AuthorityError):
    """The authority's own certificate has expired, so nothing it issues would be accepted."""
