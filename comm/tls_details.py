"""What is known of a failure of TLS: OpenSSL's words, the versions, the refused certificate."""

from __future__ import annotations

import _ssl
import re
import ssl
import time
from typing import Any

from .errors import quoted

__all__ = ["alert_of", "is_eof", "mismatch", "openssl_words", "presented_certificate"]

_ALERT = re.compile(r"(?:sslv3|tlsv1|tlsv13) (?:alert )?(.+)")  # OpenSSL names each by its origin
_NEAR = 2 * 86400.0  # seconds within which a date is given with its time


def openssl_words(error: ssl.SSLError) -> str:
    """Return OpenSSL's own text for an error, which `ssl` knows the names of only in part."""
    reason: str | None = getattr(error, "reason", None)
    if reason:
        return reason.replace("_", " ").lower()
    words = str(error.args[-1]) if error.args else ""  # without a number, its str is a tuple's
    return re.sub(r"^\[.*?\] | \(_ssl\.c:\d+\)$", "", words) or type(error).__name__


def is_eof(error: BaseException) -> bool:
    """Whether a connection has ended, announced by TLS's close_notify or not.

    Older CPythons, such as 3.11.2, have no class for the error that OpenSSL 3 has for the latter.
    """
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return True
    # One that a program has made has no reason.
    reason = getattr(error, "reason", None)
    return isinstance(error, ssl.SSLError) and reason == "UNEXPECTED_EOF_WHILE_READING"


def alert_of(error: ssl.SSLError) -> str:
    """Return the name of the alert that a peer has sent, or nothing."""
    named = _ALERT.fullmatch(openssl_words(error))
    return named[1] if named else ""


def mismatch(tls: Any) -> tuple[str, str] | None:
    """Tell why, and what to do, where our side of a failed handshake allows one version alone.

    `tls` is whatever has a ``context``. None where both are allowed, or that is not known.
    """
    context = getattr(tls, "context", None)
    if not isinstance(context, _ssl._SSLContext):
        return None
    if context.minimum_version == ssl.TLSVersion.TLSv1_3:
        return (
            "it speaks TLS version 1.2 at most, and we want 1.3",
            "allow 1.3 on its side, or set our tls_min_version to 1.2",
        )
    if context.maximum_version == ssl.TLSVersion.TLSv1_2:
        return (
            "we speak TLS version 1.2 at most, and it does not take that",
            "set our tls_max_version to 1.3, or its minimum to 1.2",
        )
    return None


def presented_certificate(tls: Any, code: int) -> str:
    """Name and dates of the certificate that a refused peer presented, if OpenSSL still has it.

    And the certificate above it that the verdict is about, if it is one. OpenSSL keeps them on the
    client side only; `ssl` exposes them from Python 3.13 on, as DER.
    """
    try:
        chain = tls._sslobj.get_unverified_chain()
        facts = chain[0].get_info()
        start = ssl.cert_time_to_seconds(facts["notBefore"])
        end = ssl.cert_time_to_seconds(facts["notAfter"])
        names = [value for part in facts["subject"] for key, value in part if key == "commonName"]
        names += [value for _, value in facts.get("subjectAltName", ())]
    except Exception:  # it may hold anything; the reason of the refusal is reported anyway
        return ""
    now = time.time()
    dates = "expired" if end < now else "not valid before" if start > now else "valid until"
    decisive = start if start > now else end
    # Where clocks differ by minutes, the day alone says nothing.
    form = "%Y-%m-%d %H:%M:%S UTC" if abs(decisive - now) < _NEAR else "%Y-%m-%d"
    day = time.strftime(form, time.gmtime(decisive))
    name = quoted(names[0], 60) if names else "without a name"
    return f" (it is {name}, {_above(tls, chain, code)}{dates} {day})"


def _above(tls: Any, chain: Any, code: int) -> str:
    """Which certificate above the leaf is at fault, if the context knows, as `describe` does."""
    judge = getattr(tls.context, "fault_above", None)
    if judge is None:
        return ""
    fault = judge([each.public_bytes(_ssl.ENCODING_DER) for each in chain], code)
    return f"whose CA {quoted(fault, 100)}, " if fault else ""
