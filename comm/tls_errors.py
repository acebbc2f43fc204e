"""TLS failures in words: what was refused, by which side, why, which file, and what to do.

OpenSSL reports a failed handshake in three ways: our own verdict on the peer's certificate, an
alert carrying the peer's verdict on ours, or a protocol error. `explain` turns each into a
`HandshakeError`; a lost connection becomes a retryable `CommClosedError`. `NamingFiles` adds which
of our files is concerned. docs/errors.md lists the texts; a test provokes each.
"""

from __future__ import annotations

import errno
import ssl
from contextlib import suppress
from typing import Any, NamedTuple

from .errors import CommClosedError, HandshakeError, quoted
from .kinds import ErrorKind
from .tls_details import alert_of, is_eof, mismatch, openssl_words, presented_certificate
from .wire import hello
from .wire.foreign import name_foreign

__all__ = [
    "TLS_RECORD",
    "NamingFiles",
    "explain",
    "facts",
    "named",
    "not_tls",
    "tell_refused",
    "too_weak",
]


class _Cause(NamedTuple):
    """Why a handshake failed.

    `file` is our file that is concerned: "certificate", "ca", "crl", or none. After a `passing`
    cause the next attempt may succeed.
    """

    kind: ErrorKind
    why: str
    remedy: str
    file: str = ""
    passing: bool = False


_ROOT = "add the root to our CA file"
_TLS_VERSIONS = "allow TLS 1.2 or 1.3 on both sides"
_MEND_OURS = "mend our CA file"
_SAME_CA = "give both sides the same CA file"
_SAME_CA_OR_LOG = f"{_SAME_CA}, or see in the peer's log what is wrong with the chain"
_BOTH_PURPOSES = "issue it for both sides of TLS"
_LONGER_KEY = "use P-256, or RSA of at least 2048 bits"
_MARK_CA = "make a CA with basicConstraints and keyCertSign"
_CIPHERS = "compare the ciphers of both sides"
_USE_TLS = "use tls:// on both sides"
_NEW_CRL = "put the CA's present one into tls_crl_file (sealwire.tls.crl-file)"
_READABLE = "issue it again, with names that are text"
_ALLOW = "name it in tls_allowed_peers (sealwire.tls.allowed-peers) if it is to be let in"
_EVERY_CRL = "add the CRL of every CA to tls_crl_file (sealwire.tls.crl-file)"

# X509_V_ERR_*: our verdict on the peer's certificate.
_VERDICTS: dict[int, _Cause] = {
    3: _Cause("crl", "we have no revocation list of a CA above it", _EVERY_CRL, "crl"),
    7: _Cause("signature", "its signature is wrong", "issue it again with its CA"),
    8: _Cause("crl", "the revocation list of its CA has a wrong signature", _NEW_CRL, "crl"),
    9: _Cause("not-yet-valid", "it is not valid yet", "check the clocks of both machines"),
    2: _Cause("other-ca", "our CA file has a CA above it and not that one's issuer", _ROOT, "ca"),
    10: _Cause(
        "expired", "it has expired, or a CA above it has", "renew it on the other side", "fault"
    ),
    11: _Cause("crl", "the revocation list of its CA is not valid yet", "check the clock", "crl"),
    12: _Cause("crl", "the revocation list of its CA has expired", _NEW_CRL, "crl"),
    18: _Cause("other-ca", "it is self-signed and not our CA's", _SAME_CA, "ca"),
    19: _Cause("other-ca", "its chain ends in a CA that is not ours", _SAME_CA, "ca"),
    20: _Cause(
        "other-ca",
        "it is not signed by our CA, or an intermediate certificate is missing",
        _SAME_CA,
        "ca",
    ),
    21: _Cause(
        "other-ca",
        "it came without its issuer's certificate",
        "send the intermediate certificates too",
        "ca",
    ),
    23: _Cause("revoked", "it has been revoked", "issue a new one for the other side"),
    24: _Cause("not-a-ca", "a certificate above it is not a CA", _MARK_CA, "fault"),
    25: _Cause("not-a-ca", "its chain is longer than its CA allows", "sign it with the CA itself"),
    26: _Cause(
        "purpose",
        "its extended key usage, or that of a CA above it, does not allow this side",
        _BOTH_PURPOSES,
        "fault",
    ),
    34: _Cause("extension", "it has a critical extension we do not know", "issue it without"),
    44: _Cause("crl", "the revocation list is of another scope", _NEW_CRL, "crl"),
    47: _Cause("name", "its CA may not sign for its name", "give it a name its CA may sign for"),
    48: _Cause("name", "its CA may not sign for its name", "give it a name its CA may sign for"),
    66: _Cause("weak", "its key is too short", _LONGER_KEY),
    67: _Cause("weak", "its CA's key is too short", _LONGER_KEY),
    68: _Cause("weak", "it is signed with a broken hash", "sign it with SHA-256"),
    79: _Cause("not-a-ca", "a certificate above it is not a CA", _MARK_CA, "fault"),
    89: _Cause("not-a-ca", "its CA does not say that it is one", _MARK_CA),
    92: _Cause("not-a-ca", "its CA may not sign certificates", _MARK_CA),
}
_APPLICATION = 50  # X509_V_ERR_APPLICATION_VERIFICATION: our allow-list

# The peer's alerts (RFC 8446, section 6.2): its verdict on ours.
_ALERTS: dict[str, _Cause] = {
    "UNKNOWN_CA": _Cause(
        "by-peer",
        "it refused our certificate: not signed by its CA",
        _SAME_CA_OR_LOG,
        "certificate",
    ),
    "CERTIFICATE_EXPIRED": _Cause(
        "by-peer",
        "it refused our certificate: expired or not valid yet, or its own CRL is out of date",
        "renew the one or the other, or check the clocks",
        "certificate",
    ),
    "CERTIFICATE_REVOKED": _Cause(
        "by-peer", "it refused our certificate: revoked", "issue a new one", "certificate"
    ),
    "CERTIFICATE_REQUIRED": _Cause(
        "by-peer",
        "it refused us: we sent no certificate",
        "configure a certificate and key for our role",
    ),
    "BAD_CERTIFICATE": _Cause(
        "by-peer",
        "it refused our certificate: invalid or not valid yet",
        "check its dates, key and extensions",
        "certificate",
    ),
    "UNSUPPORTED_CERTIFICATE": _Cause(
        "by-peer",
        "it refused our certificate: its extended key usage, or that of a CA above it, does not "
        "allow our side",
        _BOTH_PURPOSES,
        "certificate",
    ),
    "CERTIFICATE_UNKNOWN": _Cause(
        "by-peer",
        "it refused our certificate",
        "check its issuer and validity; its log says more",
        "certificate",
    ),
    "DECRYPT_ERROR": _Cause(
        "by-peer",
        "it could not verify our certificate's signature or our own",
        "check that key, certificate and CA fit",
        "certificate",
    ),
    "PROTOCOL_VERSION": _Cause("version", "it speaks none of our TLS versions", _TLS_VERSIONS),
    "HANDSHAKE_FAILURE": _Cause(
        "by-peer",
        "it shares no cipher with us, or wants another certificate than we sent",
        "compare the ciphers, and configure a certificate for our role",
        "certificate",
    ),
    "INSUFFICIENT_SECURITY": _Cause("cipher", "it wants stronger ciphers", _CIPHERS),
    "ACCESS_DENIED": _Cause(
        "by-peer", "it does not let us in", "check whom the peer allows", "certificate"
    ),
    "ILLEGAL_PARAMETER": _Cause(
        "by-peer",
        "it does not take what we sent, perhaps because our chain of certificates is too long",
        "leave out of our file what is not of the chain; its log says more",
        "certificate",
    ),
    "INTERNAL_ERROR": _Cause(
        "by-peer", "it failed for reasons of its own", "see the peer's log", passing=True
    ),
}

# Protocol errors on our side.
_NO_TLS = _Cause("not-tls", "it does not speak TLS", _USE_TLS)
_PROTOCOL: dict[str, _Cause] = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": _Cause(
        "no-certificate", "it sent no certificate", "configure a certificate and key for its role"
    ),
    "SESSION_RESUMED": _Cause(
        "resumed",
        "it resumed a TLS session, which skips the check of its certificate",
        "connect without resumption",
    ),
    "UNSUPPORTED_PROTOCOL": _Cause(
        "version", "it offers no TLS version that we allow", _TLS_VERSIONS
    ),
    "NO_SHARED_CIPHER": _Cause("cipher", "it shares no cipher with us", _CIPHERS),
    "NO_SUITABLE_SIGNATURE_ALGORITHM": _Cause(
        "cipher", "it takes no signature that our key can make", _LONGER_KEY, "certificate"
    ),
    "EE_KEY_TOO_SMALL": _Cause("weak", "we refused its certificate: key too short", _LONGER_KEY),
    "CA_KEY_TOO_SMALL": _Cause("weak", "the key of our CA, or of its, is too short", _LONGER_KEY),
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "UNKNOWN_PROTOCOL": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "NOT_SSL_RECORD_OR_VERSION_NUMBER_IS_WRONG": _NO_TLS,
}
_UNVERIFIED = _Cause(
    "certificate",
    "it was let through without a verified certificate, since our ssl_context was changed",
    "leave its verify_mode at ssl.CERT_REQUIRED",
)
_HTTP = _Cause("not-tls", "it speaks plain HTTP", "browse the dashboard's port instead")

TLS_RECORD = b"\x16"
"""The first byte of whatever speaks TLS."""


def explain(
    error: Exception, peer: str, *, handshaking: bool, tls: ssl.SSLSocket | None = None
) -> CommClosedError:
    """Translate an exception of the socket into the error to raise.

    Parameters
    ----------
    error
        From the handshake, or from a later read or write: in TLS 1.3 a client learns only there
        that its certificate was refused, but before it has the server's hello.
    peer
        The other side's address.
    handshaking
        Whether TLS handshake or hello was still in progress.
    tls
        The socket of the handshake; tells which certificate we refused.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        code, words = getattr(error, "verify_code", 0), getattr(error, "verify_message", "")
        if getattr(error, "reason", "") == "CERTIFICATE_UNREADABLE":  # our own verdict as well
            cause = _Cause("certificate", words, _READABLE)
        elif code == _APPLICATION:
            cause = _Cause("not-allowed", words, getattr(error, "remedy", "") or _ALLOW)
        else:
            cause = _VERDICTS.get(code) or _Cause(
                "certificate", words or openssl_words(error), "check the certificates of both sides"
            )
            if getattr(error, "told", ""):  # our own words, which know more
                cause = cause._replace(why=words)
        shown = (
            "" if code == _APPLICATION else presented_certificate(tls, code)
        )  # the allow-list's text names it
        why = f"we refused its certificate: {cause.why}{shown}"
        return _refused(error, peer, cause._replace(why=why))
    if is_eof(error) or not isinstance(error, ssl.SSLError):
        return _lost(error, peer, handshaking)
    if not handshaking:
        return _failed_later(error, peer)
    reason = getattr(error, "reason", None) or ""
    _, is_alert, alert = reason.partition("ALERT_")
    known = _ALERTS.get(alert) if is_alert else _PROTOCOL.get(reason)
    if known is _NO_TLS and tls is not None and tls.cipher():
        known = None  # a cipher is chosen: it did speak TLS, and something was damaged since
    if known is not None and known.kind == "version" and (words := mismatch(tls)):
        known = known._replace(why=words[0], remedy=words[1])
    if known is not None:
        return _refused(error, peer, known)
    cause = _Cause("tls", openssl_words(error), "check the TLS configuration of both sides")
    return _refused(error, peer, cause)


def _failed_later(error: ssl.SSLError, peer: str) -> CommClosedError:
    """Return the error for a connection whose hellos are done: so neither side has refused it."""
    if alert := alert_of(error):
        why, remedy = f"the peer sent the TLS alert {alert}", "see the peer's log"
    else:
        why, remedy = f"TLS failed: {openssl_words(error)}", "check what is on the path between"
    return CommClosedError(f"connection with {peer} lost: {why}; {remedy}", peer=peer)


def facts(tls: ssl.SSLSocket, peer: str) -> dict[str, Any]:
    """Return the facts of a connection after its handshake, for `Comm.extra_info`.

    Raises `HandshakeError` if the peer presented no certificate, an unverified one (impossible with
    a context that requires one), or one that `ssl` cannot parse, where it raises arbitrary
    exceptions; of this the peer is notified, unless a context of `sealwire.security` has done so.
    A context whose class says `admits_strangers` identifies its peers by what they say later.
    """
    try:
        certificate = tls.getpeercert()  # empty if it was not verified, None if there is none
        if not certificate and not getattr(type(tls.context), "admits_strangers", False):
            raise _refused(None, peer, _UNVERIFIED)
        return {"peercert": certificate, "cipher": tls.cipher(), "protocol": tls.version()}
    except CommClosedError:
        raise
    except Exception as error:
        details = f"{type(error).__name__}: {quoted(str(error), 100)}"
        why = f"what it says cannot be read ({details})"
        with suppress(OSError):
            tls.send(hello.refusal(why))
        cause = _Cause("certificate", f"we refused its certificate: {why}", _READABLE)
        raise _refused(None, peer, cause) from error


def too_weak(peer: str, why: str) -> HandshakeError:
    """Return the error for a context of ours that was changed; `why` is from `weakness`."""
    words, _, remedy = why.partition("; ")
    return _refused(None, peer, _Cause("tls", f"our ssl_context {words}", remedy))


def not_tls(head: bytes, peer: str) -> HandshakeError:
    """Return the error for a peer whose first bytes, `head`, are not TLS where TLS is expected."""
    if "HTTP" in name_foreign(head):
        cause = _HTTP
    elif len(head) == 16 and not any(head[2:8] + head[10:16]):  # a small lead and count: our frame
        cause = _NO_TLS._replace(why=f"{_NO_TLS.why} but plain tcp://")
    else:
        cause = _NO_TLS._replace(why=f"{_NO_TLS.why}, it began with {head!r}")
    return _refused(None, peer, cause)


def _refused(error: ssl.SSLError | None, peer: str, cause: _Cause) -> HandshakeError:
    explained = HandshakeError(
        f"TLS handshake with {peer} failed: {cause.why}; {cause.remedy}", peer=peer
    )
    explained.kind = cause.kind
    explained.retryable = cause.passing
    explained.reason = getattr(error, "reason", None) or ""
    explained.file = cause.file
    return explained


def tell_refused(context: ssl.SSLContext) -> None:
    """Have `context` notify a peer that it refuses after the handshake by a hello of ours.

    Contexts of `sealwire.security` have an attribute ``tell_refused`` for it: a function from the
    reason to the bytes to send. Other contexts are left alone.
    """
    if getattr(context, "tell_refused", hello.refusal) is not hello.refusal:
        context.tell_refused = hello.refusal  # type: ignore[attr-defined]


class NamingFiles:
    """Applies `named` to errors raised in its block; cheaper than a generator-based manager."""

    __slots__ = ("_context",)

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, HandshakeError):
            raise named(error, self._context) from error.__cause__


def named(error: CommClosedError, context: ssl.SSLContext | None) -> CommClosedError:
    """`error`, with the name of our file that is concerned, if it is a `HandshakeError`.

    The context tells it by a method ``describe()``: a mapping with ``certificate``, ``ca`` and
    ``crl`` in words. Contexts of `sealwire.security` have it; others are skipped. Describing reads
    files and costs as much as the handshake, so skip it for errors that nobody will see.
    """
    describe = getattr(context, "describe", None)
    if describe is None or not isinstance(error, HandshakeError) or not error.file:
        return error
    known = describe()
    words, fault = known.get(error.file), known.get("fault")
    if not words:
        return error
    naming = error.again()
    why, _, remedy = str(error).partition("; ")
    if fault and error.file in ("ca", "fault"):
        notes, remedy = f"the fault may be in our {fault}", f"{remedy}, or {_MEND_OURS}"
    else:
        label = {"ca": "CA", "crl": "CRL"}.get(error.file, error.file)
        notes = f"our {label}: {words}"
    naming.args = (f"{why} ({notes}); {remedy}",)
    naming.file = ""  # named now
    return naming


# What a network makes of a connection whose peer may know nothing of it.
_ON_THE_WAY = frozenset(
    getattr(errno, name)
    for name in ("ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH", "ENETDOWN", "EHOSTDOWN", "ENONET")
    if hasattr(errno, name)  # each system has its own
)


def _lost(error: Exception, peer: str, handshaking: bool) -> CommClosedError:
    doing = " during the TLS handshake or hello" if handshaking else ""
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    remedy = "see the peer's log"
    if isinstance(error, ssl.SSLError):
        why = "closed by the peer"
    elif getattr(error, "errno", None) in _ON_THE_WAY:
        remedy = "check the network between"
    return CommClosedError(
        f"connection with {peer} lost{doing}: {why.lower()}; {remedy}", peer=peer
    )
