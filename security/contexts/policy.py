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
chain for which one is missing or expired is refused.

Sessions are never resumed, because resumption skips the certificates (RFC 8446, section 2.2; RFC
5246, section 7.3). For TLS 1.3 no tickets are issued. For TLS 1.2 `ssl` can disable neither the
tickets nor the session cache behind them, only choose: with `OP_NO_TICKET` each handshake leaves
10 KiB in the server's cache (up to 20,480 entries); with tickets, which all common clients support,
nothing. So tickets stay on, and a resumed session of either kind is refused right after the
handshake, by the sockets of `verified.py`.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from typing import Literal, TypeVar

from ..errors import ConfigError, PEMError
from ..pem import Block, Source, certificates, load_crls, load_identity, shown
from .sealed import SPOKEN, Material, SealedContext

__all__ = [
    "Material",
    "Policy",
    "SealedContext",
    "Side",
    "empty_context",
    "load",
    "parse_ciphers",
    "parse_version",
]

Side = Literal["server", "client"]

logger = logging.getLogger("sealwire.security")

#: TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 has its own, fixed suites.
_DEFAULT_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

_VERSIONS: dict[object, ssl.TLSVersion] = {
    **{version: version for version in SPOKEN},
    **dict(zip((1.2, 1.3), SPOKEN, strict=True)),
    **dict(zip(("1.2", "1.3"), SPOKEN, strict=True)),
}

_left_out: set[str] = set()  # certificates already warned about

_BASIC_CONSTRAINTS = bytes.fromhex("0603551d13")  # the extension's OID in DER


def parse_version(field: str, value: object) -> ssl.TLSVersion | None:
    """Parse a TLS version: `ssl.TLSVersion`, 1.2, 1.3, "1.2" or "1.3"; None stays None.

    Raises `ConfigError`, naming `field`, for anything else.
    """
    if value is None:
        return None
    try:
        return _VERSIONS[value]
    except (KeyError, TypeError):
        got = value.name if isinstance(value, ssl.TLSVersion) else shown(value)
        raise ConfigError(
            f"cannot use {field}: got {got}; expected TLS 1.2 or 1.3, "
            "as ssl.TLSVersion, number or str"
        ) from None


def parse_ciphers(field: str, value: object) -> str | None:
    """Validate a cipher string; None and "" become None.

    Raises `ConfigError` as `SealedContext.set_ciphers` does.
    """
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ConfigError(f"cannot use {field}: expected str, got {type(value).__name__}")
    SealedContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(value)
    return value


@dataclass(frozen=True)
class Policy:
    """The TLS versions, and the cipher suites of TLS 1.2.

    `ciphers` is an OpenSSL cipher string; None means ECDHE with AES-GCM or ChaCha20-Poly1305. It
    does not affect TLS 1.3, whose suites OpenSSL configures separately and which are all sound.
    Raises `ConfigError` if `min_version` is above `max_version`.
    """

    ciphers: str | None = None
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    max_version: ssl.TLSVersion | None = None

    def __post_init__(self) -> None:
        if self.max_version is not None and self.min_version > self.max_version:
            raise ConfigError(
                f"cannot use tls_min_version {self.min_version.name}: "
                f"it is above tls_max_version {self.max_version.name}"
            )


_ContextT = TypeVar("_ContextT", bound=SealedContext)


def empty_context(kind: type[_ContextT], side: Side, policy: Policy) -> _ContextT:
    """Return a context of class `kind` under `policy`, without trust and identity.

    It is not sealed yet: `load` does that.
    """
    context = kind(ssl.PROTOCOL_TLS_SERVER if side == "server" else ssl.PROTOCOL_TLS_CLIENT)
    if side == "server":
        context.num_tickets = 0
    context.check_hostname = False  # the cluster's own CA is the proof; nodes are known by IP
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = policy.min_version
    if policy.max_version is not None:
        context.maximum_version = policy.max_version
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # Before the identity: OpenSSL checks keys against the security level when they are loaded.
    context.set_ciphers(policy.ciphers or _DEFAULT_CIPHERS)
    return context


def load(context: SealedContext, material: Material) -> None:
    """Load trust, CRLs, identity and allow-list into an empty context, and seal it.

    Raises `PEMError` or `KeyMismatch`; the context is then partly loaded and must be discarded.
    """
    context._material = material
    _load_trust(context, material.trust)
    if material.crl is not None:
        load_crls(context, material.crl)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    load_identity(context, material.certificate, material.key, password=material.password)
    if material.allowed is not None:
        context.allowed = material.allowed
    context.seal()


def _load_trust(context: ssl.SSLContext, trust: Source) -> None:
    """Trust the certificates of a source, except those that only lax rules let issue others."""
    for block in certificates(trust):
        if not _issues_unmarked(block):
            _add(context, block, trust)
        elif block.text not in _left_out:
            _left_out.add(block.text)
            logger.warning(
                "a certificate in %s is left out: it may sign, but basicConstraints does not "
                "mark it as a CA; make the CA again",
                trust,
            )


def _issues_unmarked(block: Block) -> bool:
    """Whether OpenSSL would accept a certificate without basicConstraints as a CA."""
    try:
        if _BASIC_CONSTRAINTS in ssl.PEM_cert_to_DER_cert(block.text):
            return False  # OpenSSL goes by the extension
        probe = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        probe.load_verify_locations(cadata=block.text)
    except (ValueError, ssl.SSLError):
        return False  # not a certificate: loading it will fail
    return probe.cert_store_stats()["x509_ca"] > 0


def _add(context: ssl.SSLContext, block: Block, trust: Source) -> None:
    try:
        context.load_verify_locations(cadata=block.text)
    except ssl.SSLError as error:
        raise PEMError(
            f"cannot use {trust}: a certificate in it is damaged ({error.reason}); "
            "write the file again"
        ) from error
