"""TLS failures in words: what was refused, by whom, why, and what to do about it.

OpenSSL reports a failed handshake in three ways: our own verdict on the peer's certificate, an
alert in which the peer gives its verdict on ours, or a protocol error. `explain` turns each into
one `HandshakeError`; everything a connection loses silently becomes a retryable `CommClosedError`.
"""

from __future__ import annotations

import ssl

from .errors import CommClosedError, HandshakeError

__all__ = ["explain"]

_SAME_CA = "give both sides the same CA file"
_RENEW = "renew it"

_APPLICATION = (
    50  # X509_V_ERR_APPLICATION_VERIFICATION: no verdict of OpenSSL's, but our allow-list's
)

# X509_V_ERR_*: our verdict on the peer's certificate.
_VERDICTS: dict[int, tuple[str, str]] = {
    3: ("there is no CRL of a CA above it", "add the CRL of every CA to tls_crl_file"),
    8: ("the CRL of its CA is not signed by that CA", "put the CA's own into tls_crl_file"),
    9: ("it is not valid yet", "check the clocks of both machines"),
    10: ("it has expired, or a CA above it has", _RENEW),
    11: ("the CRL of its CA is not valid yet", "check the clocks of both machines"),
    12: ("the CRL of its CA is out of date", "put a fresh one into tls_crl_file"),
    18: ("it is self-signed and not our CA's", _SAME_CA),
    19: ("its chain ends in a CA that is not ours", _SAME_CA),
    20: ("it is not signed by our CA, or an intermediate certificate is missing", _SAME_CA),
    21: ("it came without its issuer's certificate", "send the intermediate certificates too"),
    23: ("it has been revoked", "issue a new one"),
    24: ("a certificate above it is not a CA", "sign it with a CA that has CA:TRUE"),
    25: ("its chain is longer than its CA allows", "sign it with the CA itself"),
    26: ("its extended key usage does not allow this side", "issue it for both sides of TLS"),
    66: ("its key is too short", "use P-256, or RSA of at least 2048 bits"),
    67: ("its CA's key is too short", "use P-256, or RSA of at least 2048 bits"),
    68: ("it is signed with a broken hash", "sign it with SHA-256"),
    79: ("a certificate above it is not a CA", "sign it with a CA that has CA:TRUE"),
    89: ("its CA does not say that it is one", "make a CA with basicConstraints and keyCertSign"),
    92: ("its CA may not sign certificates", "make a CA with the key usage keyCertSign"),
}

# The peer's alerts (RFC 8446, section 6.2): its verdict on ours.
_ALERTS: dict[str, tuple[str, str]] = {
    "UNKNOWN_CA": ("it refused our certificate: not signed by its CA", _SAME_CA),
    "CERTIFICATE_EXPIRED": (
        "it refused our certificate: expired or not valid yet, or its own CRL is out of date",
        "renew the one or the other",
    ),
    "CERTIFICATE_REVOKED": ("it refused our certificate: revoked", "issue a new one"),
    "CERTIFICATE_REQUIRED": (
        "it refused us: we sent no certificate",
        "configure a certificate and key for our role",
    ),
    "BAD_CERTIFICATE": (
        "it refused our certificate: invalid",
        "check its issuer, extensions and signature",
    ),
    "UNSUPPORTED_CERTIFICATE": (
        "it refused our certificate: its extended key usage does not allow our side",
        "issue it for both sides of TLS",
    ),
    "CERTIFICATE_UNKNOWN": ("it refused our certificate", "check its issuer and validity"),
    "DECRYPT_ERROR": ("it could not verify our signature", "check that key and certificate fit"),
    "PROTOCOL_VERSION": (
        "it speaks none of our TLS versions",
        "allow TLS 1.2 or 1.3 on both sides",
    ),
    "HANDSHAKE_FAILURE": (
        "it shares no cipher with us, or wants a certificate that we did not send",
        "compare the ciphers, and configure a certificate for our role",
    ),
    "INSUFFICIENT_SECURITY": ("it wants stronger ciphers", "compare the ciphers of both sides"),
    "ACCESS_DENIED": ("it does not let us in", "check whom the peer allows"),
}

# Protocol errors on our side.
_PROTOCOL: dict[str, tuple[str, str]] = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": (
        "it sent no certificate",
        "configure a certificate and key for its role",
    ),
    "UNSUPPORTED_PROTOCOL": (
        "it offers no TLS version that we allow",
        "allow TLS 1.2 or 1.3 on both sides",
    ),
    "NO_SHARED_CIPHER": ("it shares no cipher with us", "compare the ciphers of both sides"),
    "HTTP_REQUEST": ("it speaks plain HTTP", "browse the dashboard's port instead"),
    "HTTPS_PROXY_REQUEST": ("it speaks to us as to an HTTP proxy", "check the port number"),
    "WRONG_VERSION_NUMBER": ("it does not speak TLS", "use tls:// on both sides"),
    "UNKNOWN_PROTOCOL": ("it does not speak TLS", "use tls:// on both sides"),
    "PACKET_LENGTH_TOO_LONG": ("it does not speak TLS", "use tls:// on both sides"),
    "RECORD_LAYER_FAILURE": ("it does not speak TLS", "use tls:// on both sides"),
    "NOT_SSL_RECORD_OR_VERSION_NUMBER_IS_WRONG": (
        "it does not speak TLS",
        "use tls:// on both sides",
    ),
}


def explain(error: Exception, peer: str, *, handshaking: bool) -> CommClosedError:
    """The error to raise for what the socket raised.

    Parameters
    ----------
    error
        From the handshake, or from a later read or write: in TLS 1.3 a client learns only there
        that its certificate was refused.
    peer
        The other side's address.
    handshaking
        Whether TLS or the hello was still under way.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        what, remedy = _VERDICTS.get(error.verify_code) or (
            error.verify_message,
            "name it in tls_allowed_peers if it is to be let in"
            if error.verify_code == _APPLICATION
            else "check the certificates of both sides",
        )
        return _refused(error, peer, f"we refused its certificate: {what}", remedy)
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) or not isinstance(
        error, ssl.SSLError
    ):
        return _lost(error, peer, handshaking)
    reason = error.reason or ""
    _, is_alert, alert = reason.partition("ALERT_")
    if is_alert and alert in _ALERTS:
        return _refused(error, peer, *_ALERTS[alert])
    if reason in _PROTOCOL:
        return _refused(error, peer, *_PROTOCOL[reason])
    if handshaking:
        return _refused(
            error,
            peer,
            reason.replace("_", " ").lower() or str(error),
            "check the TLS configuration of both sides",
        )
    return CommClosedError(
        f"connection with {peer} lost: {reason or error}; its bytes are not valid TLS", peer=peer
    )


def _refused(error: ssl.SSLError, peer: str, why: str, remedy: str) -> HandshakeError:
    explained = HandshakeError(
        f"TLS handshake with {peer} failed: {why}; {remedy}",
        peer=peer,
    )
    explained.reason = error.reason or ""
    return explained


def _lost(error: Exception, peer: str, handshaking: bool) -> CommClosedError:
    doing = "during the TLS handshake or hello" if handshaking else "while it was in use"
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, ssl.SSLError):
        why = "closed by the peer"
    return CommClosedError(
        f"connection with {peer} lost {doing}: {why.lower()}; see the peer's log", peer=peer
    )
