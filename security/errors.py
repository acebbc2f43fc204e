"""Every error this package raises on purpose.

```
SecurityError(Exception)
├─ ConfigError(ValueError)       a parameter or configuration key has an unusable value
├─ UnknownParameter(TypeError)   Security was given a parameter it does not have
├─ PeerNotAllowed(SSLCertVerificationError)  a peer is not on the allow-list, after its handshake
├─ CertificateUnreadable(SSLCertVerificationError)  a peer's certificate cannot be parsed
├─ ChainRefused(SSLCertVerificationError)  a CA above a peer's certificate is revoked, or may be
├─ SessionResumed(SSLError)      a TLS session was resumed, which skips the certificates
├─ PEMError(OSError)             a certificate, key or CA file cannot be used: unreadable, damaged …
│  ├─ PEMNotFound(FileNotFoundError)  there is no such file
│  └─ KeyMismatch                the private key does not belong to the certificate
└─ AuthorityError                a certificate cannot be issued as asked
   └─ CertificateExpired         the authority itself has expired
```

Messages name the field and the file, and never contain any part of a private key or a password. Any
other failed handshake is not covered: `ssl` raises its own errors, and the code that drives the
handshake translates them.
"""

from __future__ import annotations

import ssl

__all__ = [
    "AuthorityError",
    "CertificateExpired",
    "CertificateUnreadable",
    "ChainRefused",
    "ConfigError",
    "KeyMismatch",
    "PEMError",
    "PEMNotFound",
    "PeerNotAllowed",
    "SecurityError",
    "SessionResumed",
    "UnknownParameter",
]


class SecurityError(Exception):
    """Base class of all errors raised by `sealwire.security`."""


class ConfigError(SecurityError, ValueError):
    """A parameter or configuration key has an unusable value, or a required one is not set."""


class UnknownParameter(SecurityError, TypeError):
    """`Security` was given a parameter it does not have; a `TypeError`, as in Dask's API."""


class _Refused(SecurityError, ssl.SSLCertVerificationError):
    """A certificate that OpenSSL has accepted and we do not.

    It looks like OpenSSL's own refusal, for code that translates those: `verify_message` says why.
    """

    reason = "CERTIFICATE_VERIFY_FAILED"
    verify_code = 1  # X509_V_ERR_UNSPECIFIED

    def __init__(self, why: str, told: str = "") -> None:
        super().__init__(
            ssl.SSL_ERROR_SSL, f"[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {why}"
        )
        # Attributes that `ssl` promises for an SSLError; one created in Python has none.
        self.library = "SSL"
        self.reason = type(self).reason
        self.verify_code = type(self).verify_code
        self.verify_message = why
        self.told = told

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.verify_message, self.told)


class PeerNotAllowed(_Refused):
    """A peer has a valid certificate, but none of its names is on the allow-list.

    Attributes
    ----------
    verify_code : int
        X509_V_ERR_APPLICATION_VERIFICATION.
    told : str
        What the peer may be told: its own names, nothing of the list.
    remedy : str
        What to do, unless it is to put the peer on the list.
    """

    verify_code = 50

    def __init__(self, why: str, told: str = "", remedy: str = "") -> None:
        super().__init__(why, told)
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.verify_message, self.told, self.remedy)


class CertificateUnreadable(_Refused):
    """A peer has a certificate of our CA that `ssl` cannot parse.

    Most often a name is not valid text.

    Attributes
    ----------
    told : str
        What the peer is told: the whole reason.
    """

    reason = "CERTIFICATE_UNREADABLE"

    def __init__(self, why: str, told: str = "") -> None:
        super().__init__(why, told or why)


class ChainRefused(_Refused):
    """A CA above a peer's certificate has been revoked, or whether it has cannot be found out.

    Attributes
    ----------
    verify_code : int
        OpenSSL's number for the cause, one of ``X509_V_ERR_…``.
    """

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why, why)
        self.verify_code = code

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.verify_code, self.verify_message)


class SessionResumed(SecurityError, ssl.SSLError):
    """A connection resumed the TLS session of an earlier one, without a certificate."""

    def __init__(self) -> None:
        super().__init__(ssl.SSL_ERROR_SSL, "[SSL: SESSION_RESUMED] a TLS session was resumed")
        self.library = "SSL"
        self.reason = "SESSION_RESUMED"

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), ()


class PEMError(SecurityError, OSError):
    """A certificate, key or CA file (or PEM text) is missing, unreadable or incomplete.

    It is an `OSError`, as what `ssl` raises for such files, for callers that handle the errors of
    `distributed.Security`, which returns our contexts while our backends are installed.
    """


class PEMNotFound(PEMError, FileNotFoundError):
    """There is no such file; if PEM text was meant, it is not recognisable as such."""


class KeyMismatch(PEMError):
    """The private key does not belong to the certificate it was given with."""


class AuthorityError(SecurityError):
    """A certificate cannot be issued as asked."""


class CertificateExpired(AuthorityError):
    """The authority's own certificate has expired, so nobody would accept what it issues."""
