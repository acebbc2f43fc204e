"""`SealedContext`: a TLS context that can be tightened but not loosened.

Everything that `ssl.SSLContext` lets one set is listed here, with the values allowed once the
context is sealed: `_RULES` for attributes, the methods of the class for the rest. Anything else is
refused, so that settings of a later Python are refused until they have been reviewed. Flags are not
only never removed: some loosen by being set, so those that may be added are listed. This keeps
libraries that "adjust" contexts from undoing the policy unnoticed; it is no defence against code
that means to, such as `ssl.SSLContext.load_default_certs(context)`.
"""

from __future__ import annotations

import _ssl
import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..errors import ConfigError
from ..native import NativeContext
from ..pem import Source, shown
from .allowlist import AllowedPeers
from .description import describe, fault_above
from .selfcheck import lacking
from .verified import VerifiedObject, VerifiedSocket

__all__ = ["SECURITY_LEVEL", "SPOKEN", "Material", "SealedContext"]

#: OpenSSL's security level, on any build: no RSA below 2048 bits, no SHA-1
SECURITY_LEVEL = 2

SPOKEN = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
_HIGHEST = ssl.TLSVersion.MAXIMUM_SUPPORTED  # OpenSSL's name for "no upper bound"

#: Flags that make verification stricter.
_STRICTER_FLAGS = (
    ssl.VERIFY_X509_STRICT
    | ssl.VERIFY_CRL_CHECK_LEAF
    | ssl.VERIFY_CRL_CHECK_CHAIN
    | ssl.VERIFY_X509_TRUSTED_FIRST
)

#: Options that remove something that nobody needs, or are OpenSSL's defaults. Excluded are
#: OP_NO_TLSv1_3, which removes the best version; workarounds for old peers; and what makes an end
#: of file without close_notify look orderly.
_STRICTER_OPTIONS = (
    ssl.OP_NO_SSLv2
    | ssl.OP_NO_SSLv3
    | ssl.OP_NO_TLSv1
    | ssl.OP_NO_TLSv1_1
    | ssl.OP_NO_COMPRESSION
    | ssl.OP_NO_RENEGOTIATION
    | ssl.OP_CIPHER_SERVER_PREFERENCE
    | ssl.OP_SINGLE_DH_USE
    | ssl.OP_SINGLE_ECDH_USE
)

_CURVES = ("prime256v1", "secp384r1", "secp521r1", "X25519", "X448")


@dataclass(frozen=True)
class Material:
    """What the contexts of a role are made from.

    `password` decrypts the key. `crl` holds the CRLs of every CA in use, and `allowed` the
    allow-list; None for no such check.
    """

    trust: Source
    certificate: Source
    key: Source | None = None
    crl: Source | None = None
    password: str | bytes | None = field(default=None, repr=False)
    allowed: AllowedPeers | None = None

    def sources(self) -> Iterator[Source]:
        """Every source, in the order in which a person would check them."""
        for source in (self.trust, self.certificate, self.key, self.crl):
            if source is not None:
                yield source


# Returns what may be set instead, or None if the value is allowed.
_Rule = Callable[["SealedContext", Any], "str | None"]


def _never(why: str) -> _Rule:
    return lambda context, value: why


def _only(allowed: Any) -> _Rule:
    return lambda context, value: None if value is allowed else f"only {allowed!r} is allowed"


def _no_more_than(name: str) -> _Rule:
    """For switches that loosen when they are on."""

    def rule(context: SealedContext, value: Any) -> str | None:
        return (
            None if value is False or value is getattr(context, name) else "only False is allowed"
        )

    return rule


def _check_hostname(context: SealedContext, value: Any) -> str | None:
    if context.protocol is ssl.PROTOCOL_TLS_SERVER:
        return "only False is allowed for a server" if value is not False else None
    if value is True or value is context.check_hostname:
        return None
    return "only True is allowed, once it is True"


def _host_flags(context: SealedContext, value: Any) -> str | None:
    never_by_cn: int = getattr(_ssl, "HOSTFLAG_NEVER_CHECK_SUBJECT", 0)
    return _added(context._host_flags, value, never_by_cn, "_host_flags")  # type: ignore[attr-defined]


def _verify_flags(context: SealedContext, value: Any) -> str | None:
    return _added(context.verify_flags, value, _STRICTER_FLAGS, "verify_flags")


def _options(context: SealedContext, value: Any) -> str | None:
    allowed = _STRICTER_OPTIONS
    if context.protocol is ssl.PROTOCOL_TLS_CLIENT:
        allowed |= ssl.OP_NO_TICKET  # on a server it would keep each session in memory instead
    if context.maximum_version in (ssl.TLSVersion.TLSv1_3, _HIGHEST):
        allowed |= ssl.OP_NO_TLSv1_2
    return _added(context.options, value, allowed, "options")


def _added(current: int, value: Any, allowed: int, name: str) -> str | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return "flags of ssl are allowed"
    if int(value) & int(current) != int(current):
        return f"flags may be added, not taken away; write context.{name} |= …"
    more = int(value) & ~int(current) & ~int(allowed)
    return f"{more:#x} loosens it, or is unknown; {int(allowed):#x} may be added" if more else None


def _num_tickets(context: SealedContext, value: Any) -> str | None:
    if context.protocol is ssl.PROTOCOL_TLS_CLIENT:
        return "only a server gives tickets out"
    return None if type(value) is int and value == 0 else "only 0 is allowed"


def _minimum_version(context: SealedContext, value: Any) -> str | None:
    least, most = context.minimum_version, _bound(context.maximum_version)
    if value in SPOKEN and least <= value <= most:
        return None
    return f"{least.name} to {most.name} are allowed"


def _maximum_version(context: SealedContext, value: Any) -> str | None:
    least, most = context.minimum_version, context.maximum_version
    if value == most or (value in SPOKEN and least <= value <= _bound(most)):
        return None
    return f"{least.name} to {_bound(most).name} are allowed"


def _bound(version: ssl.TLSVersion) -> ssl.TLSVersion:
    return SPOKEN[-1] if version is _HIGHEST else version


def _tell_refused(context: SealedContext, value: Any) -> str | None:
    return None if value is None or callable(value) else "a function is allowed"


def _size(context: SealedContext, value: Any) -> str | None:
    return None if type(value) is int and value > 0 else "a number of bytes is allowed"


_CLASSES = "its sockets are those that verify the peer"
_SERVER_NAMES = "a callback could put a context that verifies nobody in its place"

_RULES: dict[str, _Rule] = {
    "check_hostname": _check_hostname,
    "hostname_checks_common_name": _no_more_than("hostname_checks_common_name"),
    "keylog_filename": _never("the keys of its connections would be written to a file"),
    "max_handshake_size": _size,
    "maximum_version": _maximum_version,
    "minimum_version": _minimum_version,
    "num_tickets": _num_tickets,
    "options": _options,
    "post_handshake_auth": _no_more_than("post_handshake_auth"),
    "sni_callback": _never(_SERVER_NAMES),
    "sslobject_class": _never(_CLASSES),
    "sslsocket_class": _never(_CLASSES),
    "tell_refused": _tell_refused,
    "verify_flags": _verify_flags,
    "verify_mode": _only(ssl.CERT_REQUIRED),
    "allowed": _never("set tls_allowed_peers of a Security"),
    "above": _never("set tls_crl_file of a Security"),
    "server_hostname": _never("set tls_server_hostname of a Security"),
    "_host_flags": _host_flags,  # set by the setter of hostname_checks_common_name
}

#: What only reads, connects, or chooses among equally good alternatives.
_HARMLESS = frozenset(
    (
        "cert_store_stats",
        "get_ca_certs",
        "get_ciphers",
        "get_groups",
        "protocol",
        "security_level",
        "session_stats",
        "set_alpn_protocols",
        "wrap_bio",
        "wrap_socket",
    )
)


class SealedContext(NativeContext):
    """An `ssl.SSLContext` that can be tightened but not loosened, once it is sealed.

    Whatever would weaken the policy (certificates required, TLS 1.2 or later, no tickets, sockets
    that verify their peer) raises `ConfigError`, which says what is allowed, and so does loading
    further trust or another identity. It cannot be copied.
    """

    #: names that a subclass reserves for itself
    _own: ClassVar[frozenset[str]] = frozenset()

    _sealed = False

    #: the allow-list for peers' certificates; see `allowlist.py`
    allowed: AllowedPeers | None = None

    #: bytes that a peer may send before its handshake is done, through memory as in asyncio: mostly
    #: certificates, which any peer may send. `sealwire.comm` has its own limit.
    max_handshake_size: int = 16 * 1024

    #: makes the bytes to send to a peer refused after the handshake from the reason; set by code
    #: that knows the protocol spoken through TLS
    tell_refused: Callable[[str], bytes] | None = None

    #: looks up the revocation of what stands above the leaf, where OpenSSL does not (x509/above.py)
    above: Any = None

    #: the name that a client asks for (SNI) where its caller names none
    server_hostname: str | None = None

    _material: Material | None = None

    # Properties, which an instance's attributes cannot hide.
    sslsocket_class = property(lambda self: VerifiedSocket)
    sslobject_class = property(lambda self: VerifiedObject)

    def seal(self) -> None:
        """Refuse any loosening from now on."""
        self._sealed = True

    def describe(self) -> dict[str, str]:
        """Our files in words, for errors; see `description.describe`."""
        known = self._material
        return describe(known.trust, known.certificate, known.crl) if known is not None else {}

    def fault_above(self, chain: list[bytes], code: int) -> str:
        """As `description.fault_above`, of a chain that a peer has sent."""
        server = self.protocol is ssl.PROTOCOL_TLS_CLIENT
        known = self._material
        return fault_above(chain, known.trust, code, server) if known is not None else ""

    @property
    def role(self) -> str | None:
        """The role whose certificate it presents: client, scheduler or worker; None if unknown."""
        field = self._material.certificate.field if self._material is not None else ""
        return field.removeprefix("tls_").removesuffix("_cert") or None

    @property
    def material(self) -> Material | None:
        """Where its parts come from; None if that is not known."""
        return self._material

    def lacks(self, crl: str | None = None, allowed: str | None = None) -> list[str]:
        """Return the protections that are configured and not in effect, in words; empty if all are.

        This checks the context's actual settings. `crl` and `allowed` name settings that must be in
        effect besides those it was created with.
        """
        material = self._material
        if material is not None and material.crl is not None:
            crl = crl or material.crl.field
        if material is not None and material.allowed is not None:
            allowed = allowed or "tls_allowed_peers"
        return list(lacking(self, crl=crl, allowed=allowed))

    def __setattr__(self, name: str, value: Any) -> None:
        if self._sealed and name not in self._own:
            rule = _RULES.get(name)
            if rule is None:
                raise ConfigError(
                    f"cannot set {name} of a sealed TLS context: it is not among what may be set; "
                    f"known are {', '.join(sorted(name for name in _RULES if name[0] != '_'))}"
                )
            instead = rule(self, value)
            if instead is not None:
                raise ConfigError(
                    f"cannot set {name} of a sealed TLS context to {shown(value)}: {instead}"
                )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        raise ConfigError(f"cannot delete {name} of a sealed TLS context")

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Copying an SSLContext yields an empty one, which verifies nobody.
        raise TypeError(
            "cannot copy or pickle a sealed TLS context; pass on the Security that it is from"
        )

    def set_ciphers(self, cipherlist: str, /) -> None:
        """Set the cipher suites of TLS 1.2 from an OpenSSL cipher string.

        Suites without authentication or encryption are removed from any string, and the security
        level in force, at least 2, is added. Raises `ConfigError` if nothing remains, the string
        asks for a lower level, or, once sealed, for a suite that is not enabled now.
        """
        least = max(SECURITY_LEVEL, self.security_level)
        levels = [int(level) for level in re.findall(r"@SECLEVEL\s*=\s*(\d+)", cipherlist)]
        if levels and min(levels) < least:
            raise ConfigError(
                f"cannot use tls_ciphers {shown(cipherlist)}: "
                f"security level {min(levels)} is below {least}; leave @SECLEVEL out"
            )
        string = f"{cipherlist}:!aNULL:!eNULL" + ("" if levels else f":@SECLEVEL={least}")
        try:
            if self._sealed:
                self._expect_fewer(cipherlist, string)
            super().set_ciphers(string)
        except (ssl.SSLError, ValueError) as error:  # ValueError: a null byte
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"cannot use tls_ciphers {shown(cipherlist)}: "
                "OpenSSL finds no suite in it that authenticates and encrypts"
            ) from error

    def _expect_fewer(self, cipherlist: str, string: str) -> None:
        trial = NativeContext(self.protocol)
        trial.set_ciphers(string)
        more = _names(trial) - _names(self)
        if more:
            raise ConfigError(
                f"cannot set ciphers of a sealed TLS context to {shown(cipherlist)}: it has not "
                f"{', '.join(sorted(more)[:3])}{' …' * (len(more) > 3)}; choose among those of "
                "get_ciphers(), or set tls_ciphers of the Security"
            )

    def set_ecdh_curve(self, name: str, /) -> None:
        """Set the curve of key exchanges. Raises `ConfigError` unless it is known to be good."""
        if name not in _CURVES:
            raise ConfigError(
                f"cannot set the curve of a sealed TLS context to {shown(name)}: "
                f"{', '.join(_CURVES)} are allowed"
            )
        super().set_ecdh_curve(name)

    def load_cert_chain(self, *args: Any, **kwargs: Any) -> None:
        """As `ssl.SSLContext.load_cert_chain`, until it is sealed."""
        self._expect_open("load another identity into", "set the certificate of a Security")
        super().load_cert_chain(*args, **kwargs)

    def load_verify_locations(self, *args: Any, **kwargs: Any) -> None:
        """As `ssl.SSLContext.load_verify_locations`, until it is sealed."""
        self._expect_open("trust more in", "set tls_ca_file of a Security")
        super().load_verify_locations(*args, **kwargs)

    def _expect_open(self, what: str, instead: str) -> None:
        if self._sealed:
            raise ConfigError(f"cannot {what} a sealed TLS context; {instead}")

    def set_default_verify_paths(self) -> None:
        """Raise `ConfigError`: the system's CAs are never trusted."""
        raise ConfigError("cannot trust the system's CAs in a sealed TLS context")

    def load_default_certs(self, purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH) -> None:
        """Raise `ConfigError`: the system's CAs are never trusted."""
        raise ConfigError("cannot trust the system's CAs in a sealed TLS context")


def _names(context: ssl.SSLContext) -> set[str]:
    return {str(suite["name"]) for suite in context.get_ciphers()}


def _refusing(name: str) -> Callable[..., Any]:
    def refuse(self: SealedContext, *args: Any, **kwargs: Any) -> Any:
        raise ConfigError(f"cannot call {name} of a sealed TLS context: it could loosen it")

    refuse.__name__ = name
    refuse.__doc__ = "Raises `ConfigError`: it could loosen the context."
    return refuse


for _name in dir(NativeContext):
    if not (_name.startswith("_") or _name in (*_HARMLESS, *_RULES, *vars(SealedContext))):
        setattr(SealedContext, _name, _refusing(_name))
