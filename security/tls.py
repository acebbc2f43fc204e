"""Policy to `ssl.SSLContext`: the one place where verification is decided.

Both sides demand a certificate, accept it only under the given CA certificates (the system's are
never loaded), and do not look at hostnames. TLS 1.2 is the least, OpenSSL's security level 2 the
floor on any build (no RSA below 2048 bits, no SHA-1), and a context refuses to be loosened later.

`VERIFY_X509_STRICT` stays off. It refuses CAs as `openssl req -x509` makes them (no keyUsage) and
leaves as `openssl x509 -req` makes them (no authorityKeyIdentifier), and all it would add here is
one case, seen with OpenSSL 3.0: a *trusted* certificate that is not marked as a CA by
basicConstraints (keyUsage keyCertSign alone, or X.509 version 1) may issue others. That case is
closed by leaving such certificates out of the trust set. Certificates that are trusted as
themselves, as `Security.temporary()` of Dask makes them, are kept: they can issue nothing.

With a CRL, every certificate of a chain is looked up (`VERIFY_CRL_CHECK_CHAIN`), not the leaf
alone: to revoke an intermediate would have no effect otherwise. So every CA in use needs its CRL,
and a chain for which one is missing or out of date is refused.

No session is resumed, because a resumed one skips the certificates. For TLS 1.3 no tickets are
given out. For TLS 1.2 `ssl` can switch off neither the tickets nor the cache behind them, only
choose: with `OP_NO_TICKET` each handshake leaves 10 KiB in the server's cache (up to 20,480
entries); with tickets, which all common clients take, nothing. So tickets it is, and a client that
comes back with either is refused during the handshake.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from .errors import ConfigError, PEMError
from .peers import AllowedPeers, CheckedObject, CheckedSocket
from .pem import Block, Source, certificates, load_crls, load_identity, shown

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

_SECURITY_LEVEL = 2

#: TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 has its own, fixed suites.
_DEFAULT_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

_SPOKEN = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
_HIGHEST = ssl.TLSVersion.MAXIMUM_SUPPORTED  # OpenSSL's name for "no upper bound"
_VERSIONS: dict[object, ssl.TLSVersion] = {
    **{version: version for version in _SPOKEN},
    **dict(zip((1.2, 1.3), _SPOKEN, strict=True)),
    **dict(zip(("1.2", "1.3"), _SPOKEN, strict=True)),
}

_left_out: set[str] = set()  # certificates already warned of

_BASIC_CONSTRAINTS = bytes.fromhex("0603551d13")  # the extension's identifier in DER


def parse_version(field: str, value: object) -> ssl.TLSVersion | None:
    """A TLS version from `ssl.TLSVersion`, 1.2, 1.3, "1.2" or "1.3"; None stays None.

    Raises `ConfigError` for anything else, naming `field`.
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
    """A cipher string that leaves something to speak; None and "" are None.

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
    """What is spoken: TLS versions, and the cipher suites of TLS 1.2.

    `ciphers` is an OpenSSL cipher string; None means ECDHE with AES-GCM or ChaCha20-Poly1305. It
    says nothing about TLS 1.3, whose suites OpenSSL keeps apart and which are all sound.
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


_CHECKED = ("allowed", "sslsocket_class", "sslobject_class")


class SealedContext(ssl.SSLContext):
    """An `ssl.SSLContext` that can be tightened but not loosened.

    Assignments that would weaken what this package promises (certificates required, TLS 1.2 or
    later, no tickets, flags only ever added) and the loading of the system's CAs raise
    `ConfigError`. It keeps libraries that "adjust" contexts from undoing the policy unnoticed; it
    is no defence against code that means to.
    """

    #: whom the peers' certificates must name besides; see `peers.py`
    allowed: AllowedPeers | None = None

    #: bytes for a peer whom `allowed` refuses, made of the reason: set by whoever knows the
    #: protocol that is spoken through TLS
    tell_refused: Callable[[str], bytes] | None = None

    _material: Material | None = None

    def describe(self) -> dict[str, str]:
        """Our ``certificate``, ``ca`` and ``crl`` in words, for errors: field, file, validity."""
        if self._material is None:
            return {}
        from .certinfo import read_certificates  # X.509 in Python only when something failed

        words = {}
        for name, where in (
            ("ca", self._material.trust),
            ("certificate", self._material.certificate),
        ):
            try:
                validity = str(read_certificates(where)[0]).rpartition(", ")[2]
                words[name] = f"{where}, {validity}"
            except PEMError:  # the file has gone since
                words[name] = str(where)
        if self._material.crl is not None:
            words["crl"] = str(self._material.crl)
        return words

    def __setattr__(self, name: str, value: Any) -> None:
        current = getattr(self, name, None)
        loosened = (
            (name == "verify_mode" and value != ssl.CERT_REQUIRED)
            or (name == "minimum_version" and value not in _SPOKEN)
            or (name == "maximum_version" and value not in (*_SPOKEN, _HIGHEST))
            or (name == "num_tickets" and value != 0)
            or (name in ("options", "verify_flags") and value & current != current)
            or (name == "sni_callback" and value is not _refuse_resumption)
            or (name in _CHECKED and self.allowed is not None)
        )
        if loosened:
            raise ConfigError(f"cannot set {name} of a sealed TLS context to {value!r}")
        super().__setattr__(name, value)

    def set_ciphers(self, cipherlist: str, /) -> None:
        """Set the suites of TLS 1.2 from an OpenSSL cipher string.

        Suites without authentication or encryption are left out of any string, and security
        level 2 is added. Raises `ConfigError` if nothing remains or the string asks for a lower
        level.
        """
        levels = [int(level) for level in re.findall(r"@SECLEVEL\s*=\s*(\d+)", cipherlist)]
        if levels and min(levels) < _SECURITY_LEVEL:
            raise ConfigError(
                f"cannot use tls_ciphers {shown(cipherlist)}: "
                f"security level {min(levels)} is below {_SECURITY_LEVEL}; leave @SECLEVEL out"
            )
        level = "" if levels else f":@SECLEVEL={_SECURITY_LEVEL}"
        try:
            super().set_ciphers(f"{cipherlist}:!aNULL:!eNULL{level}")
        except (ssl.SSLError, ValueError) as error:  # ValueError: a null byte
            raise ConfigError(
                f"cannot use tls_ciphers {shown(cipherlist)}: "
                "OpenSSL finds no suite in it that authenticates and encrypts"
            ) from error

    def set_default_verify_paths(self) -> None:
        raise ConfigError("cannot trust the system's CAs in a sealed TLS context")

    def load_default_certs(self, purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH) -> None:
        raise ConfigError("cannot trust the system's CAs in a sealed TLS context")


_ContextT = TypeVar("_ContextT", bound=SealedContext)


@dataclass(frozen=True)
class Material:
    """What the contexts of a role are made of: where each part comes from.

    `password` opens the key. `crl` are the revocation lists of every CA in use, and `allowed` whom
    a peer's certificate must name; None for no such check.
    """

    trust: Source
    certificate: Source
    key: Source | None = None
    crl: Source | None = None
    password: str | bytes | None = field(default=None, repr=False)
    allowed: AllowedPeers | None = None

    def sources(self) -> Iterator[Source]:
        """Every source, in the order in which a person would look at them."""
        for source in (self.trust, self.certificate, self.key, self.crl):
            if source is not None:
                yield source


def empty_context(kind: type[_ContextT], side: Side, policy: Policy) -> _ContextT:
    """A context of class `kind` that follows `policy`: it trusts nobody and shows nothing yet."""
    context = kind(ssl.PROTOCOL_TLS_SERVER if side == "server" else ssl.PROTOCOL_TLS_CLIENT)
    if side == "server":
        context.num_tickets = 0
        context.sni_callback = _refuse_resumption
    context.check_hostname = False  # the cluster's own CA is the proof; nodes are known by IP
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = policy.min_version
    if policy.max_version is not None:
        context.maximum_version = policy.max_version
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # Before the identity: OpenSSL weighs keys by the security level in force when they are loaded.
    context.set_ciphers(policy.ciphers or _DEFAULT_CIPHERS)
    return context


def load(context: SealedContext, material: Material) -> None:
    """Load trust, revocation lists, identity and allow-list into an empty context.

    Raises `PEMError` or `KeyMismatch`; the context is then partly loaded and must be dropped.
    """
    context._material = material
    _load_trust(context, material.trust)
    if material.crl is not None:
        load_crls(context, material.crl)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    load_identity(context, material.certificate, material.key, password=material.password)
    if material.allowed is not None:
        context.sslsocket_class = CheckedSocket
        context.sslobject_class = CheckedObject
        context.allowed = material.allowed


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
    """Whether OpenSSL would take a certificate without basicConstraints for a CA."""
    try:
        if _BASIC_CONSTRAINTS in ssl.PEM_cert_to_DER_cert(block.text):
            return False  # OpenSSL goes by what it says
        probe = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        probe.load_verify_locations(cadata=block.text)
    except (ValueError, ssl.SSLError):
        return False  # not a certificate: loading it says so
    return probe.cert_store_stats()["x509_ca"] > 0


def _add(context: ssl.SSLContext, block: Block, trust: Source) -> None:
    try:
        context.load_verify_locations(cadata=block.text)
    except ssl.SSLError as error:
        raise PEMError(
            f"cannot use {trust}: a certificate in it is damaged ({error.reason}); "
            "write the file again"
        ) from error


def _refuse_resumption(
    connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext
) -> int | None:
    """Called by OpenSSL on a ClientHello, after it has looked the client's session up."""
    if connection.session_reused:
        return ssl.AlertDescription.ALERT_DESCRIPTION_HANDSHAKE_FAILURE
    return None
