"""The hello, the first message of each side: its capabilities, from which both derive what to use.

A hello is one frame of plain msgpack: the three keys that distributed sends and, in the standalone
comm, ours under ``"sealwire"``. Unknown keys are ignored, so each side may add some. It is decoded
by msgpack alone, and can run no code: on a plain port it comes from an unauthenticated peer.
So its nesting is bounded, and its keys are texts, whose hashes are salted.

A side that refuses its peer after the handshake, for which TLS has no alert, sends a hello with
``"refused"`` and closes. A stock peer sees a hello and then end of file.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import msgpack

from ..errors import HandshakeError, HelloError, quoted
from .budget import brief, check_structure, reason
from .framing import Buffer, pack

__all__ = ["Agreement", "agree", "agreed", "decode", "encode", "offer", "own", "refusal"]

EXTENSION = "sealwire"
BACKEND = "sealwire-backend"  # in the hello of a Dask listener, for those who ask for its backend
JOINING = "sealwire-join"  # in the hello of `sealwire certs serve`, for those who join
VERSION = 1
REFUSED = "refused"
IS_SERVICE = (
    "it is `sealwire certs serve`, and no process of the cluster; check the address and the port, "
    "which is 8786 for a scheduler unless it was told another"
)
_DEPTH = 16  # nested lists and maps
_SHORT = 512  # bytes; too short to be deep or to claim much
_LONGEST = 1000  # characters of a refusal, sent or shown


class Agreement(NamedTuple):
    """The capabilities that both sides of a standalone comm share.

    Attributes
    ----------
    buffers : bool
        Buffers travel as frames of their own, and our extension types are understood.
    arrays : bool
        The peer has numpy.
    closing : bool
        Whoever closes says so, in a closing message.
    """

    buffers: bool = False
    arrays: bool = False
    closing: bool = False


def offer() -> dict[str, Any]:
    """Our hello, in the standalone comm."""
    return {
        "compression": None,
        "python": list(sys.version_info[:3]),
        "pickle-protocol": 5,  # of distributed's hello; nothing is ever pickled here
        EXTENSION: {"version": VERSION, "arrays": _has_numpy(), "closing": True},
    }


@functools.cache
def _has_numpy() -> bool:
    """Whether numpy is installed; cached, since it costs a tenth of a connection."""
    return find_spec("numpy") is not None


def agree(remote: Mapping[str, Any], peer: str = "its peer") -> Agreement:
    """Return the shared capabilities, given the `peer`'s hello. Raises `HelloError`."""
    extension = remote.get(EXTENSION)
    if extension is None:  # a stock peer
        return Agreement()
    if not isinstance(extension, Mapping) or not isinstance(extension.get("version"), int):
        raise _bad(peer, f"{EXTENSION!r} is {brief(extension)}, need a map with a version")
    return Agreement(
        buffers=True,
        arrays=bool(extension.get("arrays")),
        closing=extension.get("closing") is True,
    )


def encode(hello: Mapping[str, Any]) -> bytes:
    """Encode a hello as its only frame."""
    return bytes(msgpack.packb(dict(hello)))


@functools.cache
def own() -> bytes:
    """Return the encoded hello of a standalone comm, a constant."""
    return encode(offer())


def agreed(frames: Sequence[Buffer], peer: str = "its peer") -> Agreement:
    """Return the shared capabilities, given the first message of `peer`.

    Raises `HelloError` and `HandshakeError` as `decode` does.
    """
    if len(frames) == 1 and frames[0] == own():  # a peer like us, the most usual one
        return _with_ourselves()
    return agree(decode(frames, peer), peer)


@functools.cache
def _with_ourselves() -> Agreement:
    return agree(decode([own()]))


def refusal(why: str) -> bytes:
    """Return the complete message, framed, that tells a peer that it is refused."""
    frame = encode({**offer(), REFUSED: why[:_LONGEST]})
    return pack([len(frame)], shared=1) + frame


def decode(
    frames: Sequence[Buffer], peer: str = "its peer", *, joining: bool = False
) -> dict[str, Any]:
    """Decode the hello in the first message of `peer`; runs no code of the peer's choice.

    Lists arrive as tuples, as in distributed. Raises `HelloError` if it is not a hello or lacks a
    required key, and `HandshakeError` if the peer refuses us in it. The service to join is a peer
    for those alone who are `joining`: others would wait for words that it never says.
    """
    if len(frames) != 1:
        raise _bad(peer, f"got {len(frames)} frames, need 1")
    try:
        if len(frames[0]) > _SHORT:
            check_structure(frames[0], _DEPTH)
        # Keys must be texts or bytes, which is checked before a map is made: tuples could collide.
        hello = msgpack.unpackb(frames[0], use_list=False)
    except Exception as error:  # msgpack documents no base class of its exceptions
        raise _bad(peer, f"{bytes(frames[0][:16])!r} is not msgpack ({reason(error)})") from error
    if not isinstance(hello, dict):
        raise _bad(peer, f"got {brief(hello)}, need a map")
    if REFUSED in hello:
        raise _refused(peer, hello[REFUSED])
    if JOINING in hello and not joining:
        raise HelloError(f"cannot use {peer}: {IS_SERVICE}", peer=peer)
    lacking = _unfit(hello)
    if lacking is not None:
        raise _bad(peer, lacking)
    return hello


def _unfit(hello: dict[str, Any]) -> str | None:
    """Which required key, present in hellos of every release of distributed, is missing or bad."""
    try:
        protocol = hello["pickle-protocol"]
        compression = hello["compression"]
        python = hello["python"]
    except KeyError as missing:
        return f"no {missing.args[0]} in a map of {len(hello)} keys"
    if type(protocol) is not int or protocol < 1:  # below 1 would mean the highest to pickle
        return f"pickle-protocol is {brief(protocol)}, need a number from 1"
    if compression is not None and type(compression) is not str:
        return f"compression is {brief(compression)}, need a name or nothing"
    if (
        type(python) is not tuple
        or not 0 < len(python) <= 5
        or not _INT.issuperset(map(type, python))
    ):
        return f"python is {brief(python)}, need the numbers of a version"
    return None


_INT = frozenset({int})


def _refused(peer: str, why: object) -> HandshakeError:
    words = quoted(why if isinstance(why, str) else brief(why), _LONGEST)
    remedy = "use a certificate it allows"
    if words.startswith("its names"):
        remedy = (
            f"add one of them to the other side's tls_allowed_peers (sealwire.tls.allowed-peers), "
            f"or {remedy}"
        )
    error = HandshakeError(
        f"TLS handshake with {peer} failed: it refused our certificate: {words}; {remedy}",
        peer=peer,
    )
    error.kind = "by-peer"
    error.file = "certificate"
    return error


def _bad(peer: str, why: str) -> HelloError:
    why = f"bad hello from {peer}: {why}; check what listens on that port"
    return HelloError(why, peer=peer)
