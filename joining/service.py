"""The service: a listener of our own transport in front of a `Desk`.

It is a `FrameServer` rather than a server of HTTP: what that holds under attack (bounded pending
connections with one deadline each, a slice of each iteration for handshakes, bounds on what is sent
before a question is complete, a log that cannot be flooded) holds here. A connection stays pending
until its question has arrived in full, and is dropped, oldest first, like any that is slow.

Peers need no certificate to ask, since those who join have none; one that is presented is verified
by OpenSSL. TLS is 1.3, without sessions. The desk works in one thread of its own, so that a slow
disk keeps no handshake waiting; what waits for it is bounded, and told to come again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import ssl
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sealwire.comm.errors import CommClosedError, HandshakeError, HelloError
from sealwire.comm.limits import DEFAULT_LIMITS, Limits
from sealwire.comm.transport.server import FrameServer
from sealwire.comm.transport.stream import FrameStream
from sealwire.comm.wire import hello
from sealwire.security import SecurityError
from sealwire.security.native import NativeContext, NativeSocket
from sealwire.security.pem import load_identity, source

from .desk import Desk, Given, Own
from .errors import BadMessage, JoinError, Refused, Unavailable
from .messages import HELLO, NONCE, PART, decode, field, in_parts, proved

__all__ = ["JoinServer", "limits"]

logger = logging.getLogger("sealwire.joining")

_WAITING = 256  # questions that wait for the desk
_SILENCE = 60.0  # seconds between two lines on one kind of error
_LOOK = 60.0  # seconds between two looks at the service's own certificate


def limits(chosen: Limits = DEFAULT_LIMITS, timeout: float = 10.0) -> Limits:
    """Return the limits of a service: nobody has to send it anything large, or slowly."""
    return dataclasses.replace(
        chosen,
        handshake_timeout=timeout,
        close_timeout=timeout,
        max_message_size=PART,
        max_frames=8,
        read_ahead=PART,
    )


class _Context(NativeContext):
    """The context of the service: it asks for a certificate, and takes none as well."""

    admits_strangers = True
    certificate: bytes  # its own, as DER

    @classmethod
    def of(cls, own: Own, cas: str) -> _Context:
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_OPTIONAL
        context.num_tickets = 0
        context.load_verify_locations(cadata=cas)
        certificate = source("the service's certificate", own.certificate)
        key = source("the service's key", own.key)
        assert certificate is not None
        assert key is not None
        load_identity(context, certificate, key)
        context.certificate = own.der
        return context


class JoinServer(FrameServer):
    """Answers processes that join or renew; `start` it, then `listen`, as any `TCPServer`.

    Parameters
    ----------
    desk : Desk
        What decides. It is used in one thread of the server's own.
    own : Own
        The service's certificate, from `Desk.own`.
    cas : str
        The CAs' certificates, PEM text.
    bounds : Limits, optional
        From `limits`.
    """

    def __init__(self, desk: Desk, own: Own, cas: str, bounds: Limits | None = None) -> None:
        self._desk = desk
        self._own = own
        self._cas = cas
        self._thread = ThreadPoolExecutor(1, "sealwire-desk")
        self._waiting = 0
        self._silent_until: dict[type[Exception], float] = {}
        self._closed = False
        self._looking: asyncio.Task[None] | None = None
        self._questions: dict[FrameStream, dict[str, Any]] = {}
        super().__init__(_Context.of(own, cas), bounds or limits())
        self._looking = asyncio.get_running_loop().create_task(self._look_after_itself())

    @classmethod
    async def of(cls, desk: Desk, bounds: Limits | None = None) -> JoinServer:
        """Return a server for a desk. Raises `SecurityError` or `JoinError`."""
        loop = asyncio.get_running_loop()
        own = await loop.run_in_executor(None, desk.own)
        trust = await loop.run_in_executor(None, desk.trust)
        return cls(desk, own, trust.cas, bounds)

    def expect_context(self, context: ssl.SSLContext) -> None:
        """Take our own context, which admits those who have no certificate yet."""
        if not isinstance(context, _Context):
            raise TypeError(f"cannot use {type(context).__name__}: a JoinServer makes its context")

    def stop(self) -> None:
        """Stop accepting, as `FrameServer.stop`; what was asked before is answered."""
        if self._looking is not None:
            self._looking.cancel()
        super().stop()

    def close(self) -> None:
        """End the desk's thread, once the server has stopped and nothing is asked any more."""
        self._closed = True
        self._thread.shutdown(wait=False)

    # One connection

    async def greet(self, stream: FrameStream) -> None:
        """Exchange hellos and read the question; pending until it is here."""
        nonce = os.urandom(NONCE)
        said = {"nonce": nonce, "cas": self._cas}
        stream.write([hello.encode({**hello.offer(), HELLO: said})])
        frames = await stream.read_frames()
        try:
            stream.agreement = _agreed(frames, stream.peer)
        except CommClosedError as error:
            stream.fail(error, error.__cause__)
            raise
        try:
            question = await stream.read_frames()
        except CommClosedError as error:
            if error.clean:  # it wanted the CAs, before it trusts us with a question
                error.kind = "probe"
            raise
        try:
            found = decode(question, stream.peer)
        except BadMessage as error:
            refusal = CommClosedError(str(error), peer=stream.peer)
            refusal.kind = "message"
            stream.fail(refusal)
            raise refusal from None
        found["nonce"] = nonce
        self._questions[stream] = found
        stream.established()

    async def handle_stream(  # type: ignore[override]
        self, stream: FrameStream, address: tuple[Any, ...]
    ) -> None:
        """Answer the question, and close."""
        question = self._questions.pop(stream)
        answer = await self._answer(stream, question)
        if not stream.closed():
            for part in in_parts(answer):
                stream.write([part])
            await stream.finish()

    async def _answer(self, stream: FrameStream, question: dict[str, Any]) -> dict[str, Any]:
        tls = stream.socket
        assert isinstance(tls, NativeSocket)
        assert isinstance(tls.context, _Context)
        present = tls.getpeercert(binary_form=True)
        if self._closed or self._waiting >= _WAITING:
            return {"busy": "the service has too much to do; ask again"}
        self._waiting += 1
        try:
            answer = await asyncio.get_running_loop().run_in_executor(
                self._thread,
                self._decide,
                question,
                tls.context.certificate,
                present,
                stream.peer.removeprefix("tls://"),
            )
            if answer["cas"] != self._cas:  # a rotation: know the new CA before others show it
                await self.look()
            return answer
        except Refused as error:
            refused = error
            self._log.refused("not-allowed", lambda: f"refused {stream.peer}: {refused}")
            return {"refused": str(error), "kind": error.kind}
        except Unavailable as error:
            return {"busy": str(error)}
        except JoinError as error:  # a question that makes no sense, or a ledger that makes none
            self._complain(stream.peer, error)
            return {"busy": "the service cannot answer; its log says why"}
        except (SecurityError, OSError) as error:
            self._complain(stream.peer, error)
            return {"busy": "the service cannot use its folder; its log says why"}
        finally:
            self._waiting -= 1

    def _complain(self, peer: str, error: Exception) -> None:
        """Log why somebody is not answered; once a minute a kind, as strangers ask all the time."""
        kind, present = type(error), time.monotonic()
        if present >= self._silent_until.get(kind, 0.0):
            self._silent_until[kind] = present + _SILENCE
            logger.error("cannot answer %s: %s (told once a minute)", peer, error)

    def _decide(
        self, question: dict[str, Any], own: bytes, present: bytes | None, peer: str
    ) -> dict[str, Any]:
        """Answer a question; in the desk's thread."""
        asks = question.get("asks")
        try:
            if asks == "join":
                request = field(question, "request", bytes)
                given = self._desk.join(
                    field(question, "token", str),
                    field(question, "proof", bytes),
                    proved(own, question["nonce"], request),
                    request,
                    field(question, "role", str),
                    peer,
                )
                return _as_answer(given)
            if asks not in ("renew", "lists"):
                raise Refused("the service does not know the question", "question")
            if not present:
                raise Refused("that is answered to those with a certificate of the CA", "anonymous")
            if asks == "renew":
                return _as_answer(self._desk.renew(present, field(question, "request", bytes)))
            if not self._desk.member(present):
                raise Refused("the certificate is of no CA here", "foreign")
            trust = self._desk.trust()
            return dataclasses.asdict(trust)
        except BadMessage as error:
            raise Refused(str(error), "question") from None

    # The service's own certificate

    async def _look_after_itself(self) -> None:
        """Follow the CA: a rotation, and the end of our own certificate."""
        while True:
            await asyncio.sleep(_LOOK)
            await self.look()

    async def look(self) -> None:
        """Use another certificate if it is time, and tell of other CAs."""
        loop = asyncio.get_running_loop()
        try:
            own = await loop.run_in_executor(self._thread, self._desk.own, self._own)
            trust = await loop.run_in_executor(self._thread, self._desk.trust)
            if own is not self._own or trust.cas != self._cas:
                self._context = _Context.of(own, trust.cas)
                self._own, self._cas = own, trust.cas
                logger.info("the service shows a certificate until %s", own.until)
        except (SecurityError, JoinError, OSError) as error:
            logger.warning("the service goes on with its certificate as it is: %s", error)


def _agreed(frames: Sequence[Any], peer: str) -> hello.Agreement:
    """Return what is agreed with one who joins. Raises `HelloError` for a process of a cluster."""
    try:
        found = hello.decode(frames, peer)
    except HandshakeError as error:  # it has a list of those whom it lets in, or dials
        raise _strayed(peer, "refuses the service") from error
    if hello.EXTENSION not in found:
        raise _strayed(peer, "is one of Dask")
    return hello.agree(found, peer)


def _strayed(peer: str, what: str) -> HelloError:
    return HelloError(
        f"a process has dialled the service in place of another process: {peer} {what}; give it "
        "the scheduler's address",
        peer=peer,
    )


def _as_answer(given: Given) -> dict[str, Any]:
    return {
        "certificate": given.certificate,
        **dataclasses.asdict(given.trust),
        "role": given.role,
        "lifetime": given.left,
    }
