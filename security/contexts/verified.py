"""Sockets that let nothing pass before their peer is verified: the classes of sealed contexts.

OpenSSL verifies the chain during the handshake. What it cannot be told is looked at right after, in
subclasses of `ssl.SSLSocket` and `ssl.SSLObject` that a sealed context names as its classes. So it
holds whoever drives the handshake: our streams, Tornado's, asyncio's, or a program with blocking
sockets. Nothing is read or written before it has passed, also by those who leave the handshake to
the first read or write:

- no session was resumed, which would have skipped the certificates;
- the certificate can be read: `ssl` raises whatever it likes at a name that is no UTF-8;
- no CA above it is revoked, where OpenSSL looks up the leaf alone;
- it is on the allow-list, if there is one.

It is not done in the `sni_callback` of the context: `ssl` decodes the name that a ClientHello asks
for as soon as there is one, and prints a traceback for each that is no ASCII.

TLS has no alert for a verdict that comes after the handshake. So a socket sends the peer that it
refuses what its context's `tell_refused` makes of the reason, and nothing else, ever.
"""

from __future__ import annotations

import _ssl
import contextlib
import ssl
from typing import Any

from ..errors import CertificateUnreadable, ConfigError, SecurityError, SessionResumed
from .allowlist import listed

__all__ = ["VerifiedObject", "VerifiedSocket"]


class _Verified:
    """Lets nothing be read or written before the peer is verified."""

    _admitted = False
    _certificate: Any = None

    @property
    def context(self) -> ssl.SSLContext:
        """The context that made it. Setting another raises `ConfigError`."""
        made_by: ssl.SSLContext = super().context  # type: ignore[misc]
        return made_by

    @context.setter
    def context(self, context: ssl.SSLContext) -> None:
        if context is not self.context:
            raise ConfigError(
                "cannot change the context of a connection that a sealed TLS context has made: the "
                "other might verify nobody; wrap the socket with the other one"
            )

    def getpeercert(self, binary_form: bool = False) -> Any:
        """As `ssl.SSLSocket.getpeercert`; a verified certificate is parsed once."""
        if self._certificate is not None and not binary_form:
            return self._certificate
        return super().getpeercert(binary_form)  # type: ignore[misc]

    def read(self, *args: Any, **kwargs: Any) -> Any:
        if not self._admitted:  # OpenSSL would shake hands by itself
            self.do_handshake()  # type: ignore[attr-defined]
        return super().read(*args, **kwargs)  # type: ignore[misc]

    def write(self, data: Any) -> int:
        if not self._admitted:
            self.do_handshake()  # type: ignore[attr-defined]
        return super().write(data)  # type: ignore[misc, no-any-return]

    def _admit(self) -> None:
        """Verify what OpenSSL did not. Raises `SecurityError`s that are `ssl.SSLError`s."""
        if self.session_reused:  # type: ignore[attr-defined]
            raise SessionResumed
        try:
            certificate = super().getpeercert()  # type: ignore[misc]
        except Exception as error:  # whatever `ssl` makes of what it did not expect
            raise CertificateUnreadable(
                f"what it says cannot be read ({type(error).__name__}: {listed([str(error)])})"
            ) from error
        if not certificate:
            raise CertificateUnreadable("there is none")
        above = self.context.above  # type: ignore[attr-defined]
        if above is not None:
            chain = self._sslobj.get_verified_chain()  # type: ignore[attr-defined]
            above.check([each.public_bytes(_ssl.ENCODING_DER) for each in chain])
        allowed = self.context.allowed  # type: ignore[attr-defined]
        if allowed is not None:
            allowed.check(certificate, super().getpeercert(binary_form=True))  # type: ignore[misc]
        self._certificate = certificate
        self._admitted = True


def _name_server(kwargs: dict[str, Any]) -> None:
    """Let a client ask for the name that its context has been given, if the caller has none."""
    if kwargs.get("server_hostname") is None and not kwargs.get("server_side"):
        kwargs["server_hostname"] = kwargs["context"].server_hostname


class VerifiedSocket(_Verified, ssl.SSLSocket):
    """An `ssl.SSLSocket` that lets nothing pass before its peer is verified."""

    _told = False

    @classmethod
    def _create(cls, *args: Any, **kwargs: Any) -> VerifiedSocket:
        _name_server(kwargs)
        made: VerifiedSocket = super()._create(*args, **kwargs)  # type: ignore[misc]
        return made

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands and verify.

        Raises `PeerNotAllowed`, `SessionResumed` or `CertificateUnreadable`, as often as it is
        tried, besides what `ssl` raises.
        """
        super().do_handshake(block)
        if self._admitted:
            return
        try:
            self._admit()
        except SecurityError as refused:
            self._tell(getattr(refused, "told", ""))
            raise

    def _tell(self, why: str) -> None:
        """Let the peer know, once, if the context says how and the connection still takes it."""
        tell = self.context.tell_refused  # type: ignore[attr-defined]
        if why and tell is not None and not self._told:
            self._told = True
            with contextlib.suppress(OSError):
                super().send(tell(why))

    def send(self, data: Any, flags: int = 0) -> int:
        if not self._admitted and self._sslobj is not None:  # type: ignore[attr-defined]
            self.do_handshake()
        return super().send(data, flags)


class VerifiedObject(_Verified, ssl.SSLObject):
    """An `ssl.SSLObject` that lets nothing pass before its peer is verified."""

    _incoming: ssl.MemoryBIO
    _taken = 0

    @classmethod
    def _create(cls, incoming: ssl.MemoryBIO, *args: Any, **kwargs: Any) -> VerifiedObject:
        _name_server(kwargs)
        made: VerifiedObject = super()._create(incoming, *args, **kwargs)  # type: ignore[misc]
        made._incoming = incoming
        return made

    def do_handshake(self) -> None:
        """As `VerifiedSocket.do_handshake`; raises an `ssl.SSLError` for a peer that sends much.

        What arrives passes through memory here, so that it can be counted before OpenSSL looks at
        the certificates in it: their number is up to who sends them.
        """
        before = self._incoming.pending
        most = self.context.max_handshake_size  # type: ignore[attr-defined]
        if not self._admitted and self._taken + before > most:
            error = ssl.SSLError(
                ssl.SSL_ERROR_SSL,
                f"[SSL: EXCESSIVE_MESSAGE_SIZE] the peer sent {self._taken + before} bytes before "
                f"its handshake was done, the limit is {most}; shorten its chain of certificates, "
                "or raise max_handshake_size of the context",
            )
            error.library, error.reason = "SSL", "EXCESSIVE_MESSAGE_SIZE"
            raise error
        try:
            super().do_handshake()
        finally:
            self._taken += before - self._incoming.pending
        if not self._admitted:
            self._admit()
