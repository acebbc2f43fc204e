"""Asking the service: to join with a token, to renew with a certificate, for the lists.

Joining takes two connections. The first verifies nothing and sends nothing but a hello: it is told
the CAs' certificates, and takes the one that the token names by its digest, or goes. The second
trusts that CA alone, and OpenSSL verifies the service by it; only then is the question sent. Those
who renew know the CA already.

`ask` and its like are coroutines. They make one attempt each, with one deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from sealwire.comm.addressing import Address, parse_address
from sealwire.comm.errors import AddressError, CommError, HandshakeError
from sealwire.comm.limits import Limits
from sealwire.comm.transport.client import FrameClient
from sealwire.comm.transport.stream import FrameStream
from sealwire.comm.wire import hello
from sealwire.security import PEMError
from sealwire.security.native import NativeContext, NativeSocket
from sealwire.security.pem import blocks, load_identity, source
from sealwire.security.security import ROLES
from sealwire.security.x509 import keys, names
from sealwire.security.x509.names import split
from sealwire.security.x509.templates import now

from . import messages
from .errors import BadMessage, JoinError, Refused, TokenError, Unavailable, WrongAuthority
from .given import Joined, Lists
from .messages import PORT
from .tokens import PREFIX, Token

__all__ = [
    "Joined", "Lists", "address_of", "join", "lists", "patiently", "renew", "signing_request",
]  # fmt: skip

logger = logging.getLogger("sealwire.joining")

TIMEOUT = 20.0  # seconds for one attempt
_PAUSE, _LONGEST_PAUSE = 0.5, 15.0  # seconds between attempts
_T = TypeVar("_T")
_PORT_0 = re.compile(r":0+$")

_LIMITS = Limits(max_message_size=messages.LARGEST, max_hello_size=64 << 10, max_frames=8)


class _Context(NativeContext):
    """A client's context for one connection with the service."""

    admits_strangers = False

    @classmethod
    def of(cls, cas: str | None) -> _Context:
        """One that trusts these CAs, or with None whoever answers."""
        context = (cls if cas is not None else _Unverified)(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # the digest says who it is, and its role; no name does
        if cas is None:
            context.verify_mode = ssl.CERT_NONE
        else:
            context.load_verify_locations(cadata=cas)
        return context


class _Unverified(_Context):
    """For the first connection, over which nothing is sent."""

    admits_strangers = True


def address_of(text: str) -> Address:
    """Return the address of a service: ``HOST[:PORT]`` or ``tls://HOST[:PORT]``.

    Raises `JoinError`.
    """
    if isinstance(text, str):
        text = text.strip()  # as that of a token: from a file, or a Secret
        if PREFIX in text:  # else resolvers would be asked for it
            raise JoinError("bad address of the service: it holds a token; write HOST:PORT")
    try:
        found = parse_address(text)
    except AddressError as error:
        raise JoinError(f"bad address of the service: {error}") from None
    if found.scheme not in ("", "tls") or not found.host:
        raise JoinError(
            f"bad address of the service {text!r}: write HOST:PORT, such as scheduler:{PORT}"
        )
    if not found.port and _PORT_0.search(text):
        raise JoinError(
            f"bad address of the service {text!r}: nobody listens on port 0; write the port that "
            f"`certs serve` tells, or none for {PORT}"
        )
    return Address("tls", found.host, found.port or PORT)


def signing_request(key: keys.PrivateKey, node: str = "", hosts: Iterable[str] = ()) -> bytes:
    """Return a signing request as DER, for a node of that name and its hosts and addresses.

    Raises `SecurityError` for what is no name, `TokenError` for a token in place of one.
    """
    hosts = list(hosts)
    if any(PREFIX in each for each in (node, *hosts)):
        raise TokenError("cannot ask for a name that holds a token: everybody would see it")
    by_name, by_address = split(hosts)
    subject = names.subject(node) if node else x509.Name([])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if by_name or by_address:
        wanted = names.alternatives(node, by_name, by_address, None)
        builder = builder.add_extension(x509.SubjectAlternativeName(wanted), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


async def join(
    address: Address,
    token: Token,
    key: keys.PrivateKey,
    *,
    role: str = "",
    node: str = "",
    hosts: Iterable[str] = (),
    timeout: float = TIMEOUT,
) -> Joined:
    """Join with a token, for a key; after a lost answer, ask again with the same key.

    Parameters
    ----------
    address : Address
        From `address_of`.
    token : Token
    key : private key
    role : str, optional
        What the token must be for; any by default.
    node : str, optional
        The name of this process or machine, in links and logs.
    hosts : iterable of str, optional
        Host names and addresses for the certificate.
    timeout : float, optional
        Seconds for all of it.

    Raises
    ------
    WrongAuthority
        If the service is not of a CA that the token names; nothing was sent to it.
    Refused
        If the service refuses.
    Unavailable
        If it cannot be reached or is busy.
    """
    request = signing_request(key, node, hosts)
    async with _within(address, timeout):
        cas = await _named(address, token)
        async with _opened(address, _Context.of(cas)) as (stream, said):
            service = _certificate_of(stream)
            proof = token.sign(messages.proved(service, said.nonce, request))
            question = {
                "asks": "join",
                "token": token.id,
                "proof": proof,
                "request": request,
                "role": role,
            }
            answer = await _asked(stream, question)
    return _joined(answer, key, role)


async def renew(
    address: Address, present: Joined, key: keys.PrivateKey, *, timeout: float = TIMEOUT
) -> Joined:
    """Renew what was given, for a new key. Raises as `join` does."""
    request = signing_request(key)
    async with _within(address, timeout), _opened(address, _of(present)) as (stream, _):
        answer = await _asked(stream, {"asks": "renew", "request": request})
    return _joined(answer, key, present.role)


async def lists(address: Address, present: Joined, *, timeout: float = TIMEOUT) -> Lists:
    """Return the CAs to trust and the revocation lists, as they are now. Raises as `join` does."""
    async with _within(address, timeout), _opened(address, _of(present)) as (stream, _):
        answer = await _asked(stream, {"asks": "lists"})
    return _lists(answer)


async def patiently(attempt: Callable[[], Awaitable[_T]], patience: float) -> _T:
    """Return what `attempt` does; while the service is unavailable, try again for a while.

    `patience` is in seconds, counted to the beginning of the last attempt.
    """
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + patience, _PAUSE
    while True:
        try:
            return await attempt()
        except Unavailable as error:
            wait = pause * random.uniform(0.5, 1.0)
            if loop.time() + wait > deadline:
                raise
            if pause == _PAUSE:
                logger.warning("%s; trying again for %.0f s", error, deadline - loop.time())
            await asyncio.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)


@dataclass(frozen=True)
class _Said:
    """The service's hello."""

    nonce: bytes
    cas: str


def _of(present: Joined) -> _Context:
    """Return a context that trusts the CAs that are known, and shows what was given."""
    context = _Context.of(present.cas)
    certificate, key = source("certificate", present.certificate), source("key", present.key)
    assert certificate is not None
    assert key is not None
    load_identity(context, certificate, key)
    return context


async def _named(address: Address, token: Token) -> str:
    """Return the certificates of the CAs that the token names, of those that the service shows."""
    try:
        async with _opened(address, _Context.of(None)) as (_, said):
            found = [block.text for block in blocks(said.cas) if block.is_certificate]
    except HandshakeError as error:  # it wants no stranger, or no TLS
        raise _no_service(address, str(error).rpartition(";")[0]) from None
    chosen = [text for text in found if _is_named(text, token)]
    if not chosen:
        raise WrongAuthority(
            f"cannot join at {address}: the service there is not one of the CA that made the token "
            f"(it shows {len(found)} CAs, none with the token's digest); nothing was sent to it: "
            "check the address, and that the token is of this cluster"
        )
    return "\n".join(chosen) + "\n"


def _is_named(text: str, token: Token) -> bool:
    try:
        return token.names(x509.load_pem_x509_certificate(text.encode()))
    except Exception:  # a stranger's: it may hold anything
        return False


@contextlib.asynccontextmanager
async def _opened(address: Address, context: _Context) -> AsyncIterator[tuple[FrameStream, _Said]]:
    """Connect, exchange hellos; yield the stream and what the service said."""
    stream = await FrameClient(_LIMITS).dial(address, context=context)
    try:
        verified = context.verify_mode is ssl.CERT_REQUIRED
        if verified and not messages.is_authority(stream.tls_facts["peercert"]):
            raise WrongAuthority(
                f"cannot join at {address}: what answers there has a certificate of the CA, and is "
                "no service of it but a process of the cluster; nothing was sent to it: check the "
                "address"
            )
        stream.write([hello.own()])
        found = hello.decode(await stream.read_frames(), stream.peer, joining=True)
        stream.agreement = hello.agree(found, stream.peer)
        said = found.get(messages.HELLO)
        if not isinstance(said, dict):
            raise _no_service(address, "it says nothing of joining")
        nonce, cas = messages.field(said, "nonce", bytes), messages.field(said, "cas", str)
        stream.established()
        yield stream, _Said(nonce, cas)
        await stream.finish()
    finally:
        stream.close()


def _no_service(address: Address, why: str) -> WrongAuthority:
    why = why.partition(" failed: ")[2] or why
    return WrongAuthority(
        f"cannot join at {address}: what answers there is no service to join ({why}); nothing was "
        f"sent to it: check the address, whose port is {PORT} unless `certs serve` was told another"
    )


def _certificate_of(stream: FrameStream) -> bytes:
    assert isinstance(stream.socket, NativeSocket)
    found = stream.socket.getpeercert(binary_form=True)
    assert found is not None, "its context requires one"
    return found


async def _asked(stream: FrameStream, question: Mapping[str, object]) -> dict[str, object]:
    stream.write([messages.encode(question)])
    answer = await messages.whole(stream.read_frames, stream.peer)
    if "busy" in answer:
        raise Unavailable(f"{stream.peer}: {_words(answer['busy'])}")
    if "refused" in answer:
        raise Refused(
            f"refused by {stream.peer}: {_words(answer['refused'])}",
            str(answer.get("kind", "refused"))[:20],
        )
    return answer


def _words(text: object) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(text)[:500])


def _joined(answer: dict[str, object], key: keys.PrivateKey, wanted: str) -> Joined:
    """Return what an answer gives for a key. Raises `BadMessage` unless it is of use."""
    certificate, role = (messages.field(answer, each, str) for each in ("certificate", "role"))
    try:
        found = x509.load_pem_x509_certificate(certificate.encode())
        own = keys.same(found.public_key(), key.public_key())
    except ValueError:
        raise BadMessage("bad answer of the service: its certificate is damaged") from None
    if not own:
        raise BadMessage("bad answer of the service: its certificate is for another key")
    if names.common_name(found.subject) != role or role not in ((wanted,) if wanted else ROLES):
        raise BadMessage("bad answer of the service: its certificate is for another role")
    lifetime = messages.field(answer, "lifetime", float)
    if not 0 <= lifetime < math.inf:
        raise BadMessage(f"bad answer of the service: its certificate lasts {lifetime} s")
    trust = _lists(answer)
    return Joined(role, certificate, keys.write(key), trust.cas, trust.crl, lifetime, trust.signer)


def _lists(answer: dict[str, object]) -> Lists:
    found = Lists(*(messages.field(answer, name, str) for name in Lists._fields))
    if "-----BEGIN CERTIFICATE-----" not in found.cas:
        raise BadMessage("bad answer of the service: there is no CA in it")
    return found


@contextlib.asynccontextmanager
async def _within(address: Address, seconds: float) -> AsyncIterator[None]:
    """Bound a block in time, and translate what the network and TLS raise in it."""
    task = asyncio.current_task()
    assert task is not None
    over = False

    def end() -> None:
        nonlocal over
        over = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, end)
    try:
        yield
    except asyncio.CancelledError:
        if not over:
            raise
        raise Unavailable(
            f"cannot ask {address}: no answer within {seconds:g} s; check that `sealwire certs "
            "serve` runs there"
        ) from None
    except HandshakeError as error:
        raise WrongAuthority(f"cannot ask {address}: {_of_clocks(error) or error}") from None
    except (CommError, PEMError) as error:
        raise Unavailable(f"cannot ask {address}: {error}") from None
    finally:
        timer.cancel()


def _of_clocks(error: HandshakeError) -> str:
    """Say why, if it is a matter of time; the service's certificate is renewed by the service."""
    if getattr(error.__cause__, "verify_code", 0) not in (9, 10):  # not yet valid, expired
        return ""
    return (
        f"{str(error).rpartition(';')[0]}; set the clock, which is {now():%Y-%m-%d %H:%M} UTC here"
    )
