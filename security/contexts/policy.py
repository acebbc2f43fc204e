"""From the policy to an `ssl.SSLContext`: the one place where verification is configured.

Both sides require a certificate, accept it only under the given CA certificates (the system's are
never loaded), and do not check hostnames. TLS 1.2 is the minimum, OpenSSL's security level 2 the
floor on any build (no RSA below 2048 bits, no SHA-1), and a context cannot be loosened later.

`VERIFY_X509_STRICT` stays off. It rejects CAs as `openssl req -x509` creates them (no keyUsage) and
leaves as `openssl x509 -req` creates them (no authorityKeyIdentifier), and all it would add here is
one case, seen with OpenSSL 3.0: a *trusted* certificate that is not marked as a CA by
basicConstraints (keyUsage keyCertSign alone, or X.509 version 1) may issue others. That case is
closed by leaving such certificates out of the trust set. Certificates that are trusted as leaves,
as `Security.temporary()` of Dask creates them, are kept: they cannot issue others.

With a CRL, every certificate of a chain is checked (`VERIFY_CRL_CHECK_CHAIN`), not the leaf alone:
otherwise revoking an intermediate would have no effect. So every CA in use needs its CRL, and a
chain for which one is missing or expired is refused. Where chains may end below a root
(`trust.py`), OpenSSL can check the leaf only, and `x509/above.py` checks the CAs above it.

Sessions are never resumed, because resumption skips the certificates (RFC 8446, section 2.2; RFC
5246, section 7.3). For TLS 1.3 no tickets are issued. For TLS 1.2 `ssl` can disable neither the
tickets nor the session cache behind them, only choose: with `OP_NO_TICKET` each handshake leaves
10 KiB in the server's cache (up to 20,480 entries); with tickets, which all common clients support,
nothing. So tickets stay on, and a resumed session of either kind is refused right after the
handshake, by the sockets of `verified.py`.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import Literal, TypeVar

from ..errors import ConfigError
from ..parameters import is_nothing
from ..pem import certificates, load_crls, load_identity, shown
from .sealed import SPOKEN, Material, SealedContext
from .selfcheck import must_serve
from .trust import load_trust

__all__ = [
    "Material",
    "Policy",
    "SealedContext",
    "Side",
    "empty_context",
    "load",
    "parse_ciphers",
    "parse_hostname",
    "parse_version",
]

Side = Literal["server", "client"]

#: TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 has its own, fixed suites.
_DEFAULT_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

# With or without TLS before it, as OpenSSL, `ssl` and people write it
_SPELLED = re.compile(r"(?i)[\s'\"]*(?:TLSVersion\.)?(?:TLS[ _-]?)?v?1[._]([23])[\s'\"]*")

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOSTNAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")

_VERSIONS: dict[object, ssl.TLSVersion] = {
    **{version: version for version in SPOKEN},
    **dict(zip((1.2, 1.3), SPOKEN, strict=True)),
    **dict(zip(("1.2", "1.3"), SPOKEN, strict=True)),
}


def parse_version(field: str, value: object) -> ssl.TLSVersion | None:
    """Parse a TLS version: `ssl.TLSVersion`, a number, or text such as "1.3" or "TLSv1.3".

    None and "" are None. Raises `ConfigError`, naming `field`, for anything else.
    """
    if is_nothing(value):
        return None
    try:
        spelled = _SPELLED.fullmatch(value) if isinstance(value, str) else None
        return _VERSIONS[f"1.{spelled[1]}" if spelled else value]
    except (KeyError, TypeError):
        got = value.name if isinstance(value, ssl.TLSVersion) else shown(value)
        raise ConfigError(
            f"cannot use {field}: got {got}; expected TLS 1.2 or 1.3, "
            "as ssl.TLSVersion, number or str"
        ) from None


def parse_hostname(field: str, value: object) -> str | None:
    """Parse a DNS name in ASCII, without a dot at its end; None and "" are None.

    Raises `ConfigError` for anything else: TLS knows no addresses there.
    """
    if is_nothing(value):
        return None
    name = value.removesuffix(".") if isinstance(value, str) else ""
    if len(name) > 253 or not _HOSTNAME.fullmatch(name) or name[-1].isdigit():
        raise ConfigError(
            f"cannot use {field}: expected a DNS name such as scheduler.example, got {shown(value)}"
        )
    return name


def parse_ciphers(field: str, value: object) -> str | None:
    """Validate a cipher string; None and "" become None.

    Raises `ConfigError` as `SealedContext.set_ciphers` does.
    """
    if is_nothing(value):
        return None
    if not isinstance(value, str):
        raise ConfigError(f"cannot use {field}: expected str, got {type(value).__name__}")
    SealedContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(value)
    return value


@dataclass(frozen=True)
class Policy:
    """The TLS versions, the cipher suites of TLS 1.2, and the server name that a client sends.

    `ciphers` is an OpenSSL cipher string; None means ECDHE with AES-GCM or ChaCha20-Poly1305. It
    does not affect TLS 1.3, whose suites OpenSSL configures separately and which are all sound.
    Raises `ConfigError` if `min_version` is above `max_version`.
    """

    ciphers: str | None = None
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    max_version: ssl.TLSVersion | None = None
    server_hostname: str | None = None

    def __post_init__(self) -> None:
        if self.max_version is not None and self.min_version > self.max_version:
            raise ConfigError(
                f"cannot use tls_min_version {self.min_version.name}: "
                f"it is above tls_max_version {self.max_version.name}"
            )


_IGNORE_EOF: int = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # of OpenSSL 3

_ContextT = TypeVar("_ContextT", bound=SealedContext)


def empty_context(kind: type[_ContextT], side: Side, policy: Policy) -> _ContextT:
    """Return a context of class `kind` under `policy`, without trust and identity.

    It is not sealed yet: `load` does that.
    """
    context = kind(ssl.PROTOCOL_TLS_SERVER if side == "server" else ssl.PROTOCOL_TLS_CLIENT)
    if side == "server":
        context.num_tickets = 0
    else:
        context.server_hostname = policy.server_hostname
    context.check_hostname = False  # the cluster's own CA is the proof; nodes are known by IP
    context.verify_mode = ssl.CERT_REQUIRED
    _set_versions(context, policy)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # Set by older CPythons, such as 3.11.2: a cut connection would look like one that was closed.
    context.options &= ~_IGNORE_EOF
    # Before the identity: OpenSSL checks keys against the security level when they are loaded.
    context.set_ciphers(policy.ciphers or _DEFAULT_CIPHERS)
    return context


def _set_versions(context: SealedContext, policy: Policy) -> None:
    """Set the policy's versions, within the bounds of OpenSSL's configuration if Python keeps it.

    Raises `ConfigError` if none is left.
    """
    least = max(policy.min_version, context.minimum_version)
    most = context.maximum_version  # negative where there is no bound
    if policy.max_version is not None and not 0 < most < policy.max_version:
        most = policy.max_version
    if 0 < most < least:
        what, bound = f"tls_min_version {least.name}", f"MaxProtocol {most.name}"
        if least > policy.min_version:
            what, bound = f"tls_max_version {most.name}", f"MinProtocol {least.name}"
        advice = "change one of the two" if most in SPOKEN else "raise it"
        raise ConfigError(
            f"cannot use {what}: OpenSSL's configuration (openssl.cnf, or the file that the "
            f"variable OPENSSL_CONF names) sets {bound}; {advice}"
        )
    context.minimum_version, context.maximum_version = least, most


def load(context: SealedContext, material: Material) -> None:
    """Load trust, CRLs, identity and allow-list into an empty context, and seal it.

    Raises `PEMError` or `KeyMismatch`; the context is then partly loaded and must be discarded.
    """
    context._material = material
    ends_early = load_trust(context, material.trust)
    if material.crl is not None:
        load_crls(context, material.crl)
        if ends_early:
            from ..x509.above import CertificatesAbove  # a library, for who needs it

            trusted = context.get_ca_certs(binary_form=True)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
            context.above = CertificatesAbove(trusted, material.crl)
        else:
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    load_identity(context, material.certificate, material.key, password=material.password)
    if context.protocol is ssl.PROTOCOL_TLS_SERVER:
        must_serve(context, str(material.certificate), certificates(material.certificate)[0].text)
    if material.allowed is not None:
        context.allowed = material.allowed
    context.seal()
