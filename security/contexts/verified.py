"""Sockets that pass no data before their peer is verified: the classes of sealed contexts.

OpenSSL verifies the chain during the handshake. What it cannot check is checked right after, in
subclasses of `ssl.SSLSocket` and `ssl.SSLObject` that a sealed context names as its classes. So it
applies whoever drives the handshake: our streams, Tornado's, asyncio's, or a program with blocking
sockets. Nothing is read or written before, even if the handshake is left to the first read or
write. The checks are:

- no session was resumed, which would have skipped the certificates;
- the certificate can be parsed: `ssl` raises arbitrary exceptions for a name that is not UTF-8;
- no CA above it is revoked, where OpenSSL checks the leaf only;
- it is on the allow-list, if there is one.

This is not done in the context's `sni_callback`: with one set, `ssl` decodes the server name of
every ClientHello, and prints a traceback for each that is not ASCII.

TLS has no alert for a refusal after the handshake. So the socket sends the refused peer what the
context's `tell_refused` makes of the reason, and nothing else, ever.
"""

from __future__ import annotations

import _ssl
import contextlib
import ssl
import weakref
from collections.abc import Callable
from typing import Any

from ..errors import CertificateUnreadable, ConfigError, SecurityError, SessionResumed
from ..native import NativeObject, NativeSocket, expect_native
from .allowlist import listed

__all__ = ["VerifiedObject", "VerifiedSocket"]


class _Verified:
    """Lets nothing be read or written before the peer is verified."""

    _admitted = False
    _certificate: Any = None
    _chain: tuple[bytes, ...] = ()  # what was verified, in DER, where revocation is followed
    _kept: object = None  # what follows it, which must live as long
    _revoked = ""  # why it is to end
    _when_revoked: weakref.WeakMethod[Callable[[str], object]] | None = None

    @property
    def context(self) -> ssl.SSLContext:
        """The context that created it. Setting another raises `ConfigError`."""
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
        """As in `ssl`, after the handshake and verification."""
        if not self._admitted:  # OpenSSL would do the handshake by itself
            self.do_handshake()  # type: ignore[attr-defined]
        return super().read(*args, **kwargs)  # type: ignore[misc]

    def write(self, data: Any) -> int:
        """As in `ssl`, after the handshake and verification."""
        if not self._admitted:
            self.do_handshake()  # type: ignore[attr-defined]
        return super().write(data)  # type: ignore[misc, no-any-return]

    def _admit(self) -> None:
        """Check what OpenSSL did not. Raises `SecurityError`s that are `ssl.SSLError`s."""
        if self.session_reused:  # type: ignore[attr-defined]
            raise SessionResumed
        try:
            certificate = super().getpeercert()  # type: ignore[misc]
        except Exception as error:  # `ssl` raises anything for unexpected content
            raise CertificateUnreadable(
                f"what it says cannot be read ({type(error).__name__}: {listed([str(error)])})"
            ) from error
        if not certificate:
            raise CertificateUnreadable("there is none")
        context: Any = self.context
        if context.above is not None:
            context.above.check(self._verified_chain())
        if context.allowed is not None:
            der = super().getpeercert(binary_form=True)  # type: ignore[misc]
            context.allowed.check(certificate, der)
        self._certificate = certificate
        self._admitted = True
        opened = getattr(context, "opened", None)
        if opened is not None:
            self._chain = tuple(self._verified_chain())
            self._kept = opened(self)

    def _verified_chain(self) -> list[bytes]:
        chain = self._sslobj.get_verified_chain()  # type: ignore[attr-defined]
        return [each.public_bytes(_ssl.ENCODING_DER) for each in chain]

    # Revoked later, see `open_peers.py`

    def when_revoked(self, end: Callable[[str], object]) -> None:
        """Call a method, which must not raise, once a certificate of the peer's is revoked.

        It is called with the reason, from any thread, and held weakly. `ssl` itself ends nothing.
        """
        self._when_revoked = weakref.WeakMethod(end)
        if self._revoked:
            end(self._revoked)

    @property
    def is_followed(self) -> bool:
        """Whether anybody is there who ends it."""
        return bool(self._when_revoked and self._when_revoked())

    def revoke(self, why: str) -> None:
        """Have the connection ended."""
        self._revoked = why
        end = self._when_revoked and self._when_revoked()
        if end:
            end(why)

    def shown_chain(self) -> tuple[bytes, ...]:
        """Return what was verified, in DER; nothing if the connection is closed or to be ended."""
        return () if self._revoked else self._chain


def _name_server(kwargs: dict[str, Any]) -> None:
    """Let a client ask for the name that its context has been given, if the caller has none."""
    if kwargs.get("server_hostname") is None and not kwargs.get("server_side"):
        kwargs["server_hostname"] = kwargs["context"].server_hostname


class VerifiedSocket(_Verified, NativeSocket):
    """An `ssl.SSLSocket` that passes no data before its peer is verified."""

    _notified = False

    @classmethod
    def _create(cls, *args: Any, **kwargs: Any) -> VerifiedSocket:
        expect_native(kwargs["sock"])
        _name_server(kwargs)
        made: VerifiedSocket = super()._create(*args, **kwargs)  # type: ignore[misc]
        return made

    def do_handshake(self, block: bool = False) -> None:
        """Do the handshake and verify the peer.

        Raises `PeerNotAllowed`, `SessionResumed` or `CertificateUnreadable`, again at each call,
        besides what `ssl` raises.
        """
        super().do_handshake(block)
        if self._admitted:
            return
        try:
            self._admit()
        except SecurityError as refused:
            self._notify(getattr(refused, "told", ""))
            raise

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        """As `ssl.SSLSocket.read`, after the handshake and verification."""
        try:
            return super().read(len, buffer)
        except ssl.SSLError as error:
            # CPython 3.11.2 and others before 3.11.4 have no class for it, unless the end of the
            # connection counts as close_notify, which a sealed context does not allow.
            if error.reason != "UNEXPECTED_EOF_WHILE_READING" or isinstance(error, ssl.SSLEOFError):
                raise
            if not self.suppress_ragged_eofs:  # type: ignore[attr-defined]
                words = "EOF occurred in violation of protocol"
                raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, words) from error
            return b"" if buffer is None else 0

    def _notify(self, why: str) -> None:
        """Notify the refused peer, once, if the context says how and the connection allows it."""
        tell = self.context.tell_refused  # type: ignore[attr-defined]
        if why and tell is not None and not self._notified:
            self._notified = True
            with contextlib.suppress(OSError):
                super().send(tell(why))

    def shown_chain(self) -> tuple[bytes, ...]:
        """As `_Verified.shown_chain`."""
        return () if self.fileno() < 0 else super().shown_chain()

    def send(self, data: Any, flags: int = 0) -> int:
        """As `ssl.SSLSocket.send`, after the handshake and verification."""
        if not self._admitted and self._sslobj is not None:  # type: ignore[attr-defined]
            self.do_handshake()
        return super().send(data, flags)


class VerifiedObject(_Verified, NativeObject):
    """An `ssl.SSLObject` that passes no data before its peer is verified."""

    _incoming: ssl.MemoryBIO
    _bytes = 0

    @classmethod
    def _create(cls, incoming: ssl.MemoryBIO, *args: Any, **kwargs: Any) -> VerifiedObject:
        _name_server(kwargs)
        made: VerifiedObject = super()._create(incoming, *args, **kwargs)  # type: ignore[misc]
        made._incoming = incoming
        return made

    def do_handshake(self) -> None:
        """As `VerifiedSocket.do_handshake`; raises an `ssl.SSLError` if the peer sends too much.

        Incoming data passes through memory here, so it is counted before OpenSSL looks at the
        certificates in it, whose number is up to the peer.
        """
        before = self._incoming.pending
        most = self.context.max_handshake_size  # type: ignore[attr-defined]
        if not self._admitted and self._bytes + before > most:
            error = ssl.SSLError(
                ssl.SSL_ERROR_SSL,
                f"[SSL: EXCESSIVE_MESSAGE_SIZE] the peer sent {self._bytes + before} bytes before "
                f"its handshake was done, the limit is {most}; shorten its chain of certificates, "
                "or raise max_handshake_size of the context",
            )
            error.library, error.reason = "SSL", "EXCESSIVE_MESSAGE_SIZE"
            raise error
        try:
            super().do_handshake()
        finally:
            self._bytes += before - self._incoming.pending
        if not self._admitted:
            self._admit()
