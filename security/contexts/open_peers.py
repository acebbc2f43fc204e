"""Connections that are open while a certificate of their peer's is revoked.

A handshake looks at the revocation lists of its moment; a connection may last for weeks. So where
lists are configured, a `Watch` knows the sockets that its contexts have verified, weakly, and
compares them with each new list. Sockets of `sealwire.comm` are ended then (`when_revoked`); of
others, that `ssl` or Tornado drive, the log says that they go on.

Handshakes have files looked at, and there may be none for long. So one thread makes rounds while
connections are open that lists apply to. It is a daemon, and ends with the last of them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections import defaultdict
from typing import Protocol

from ..errors import SecurityError
from ..pem import Source
from ..quoting import printable
from .verified import VerifiedObject, VerifiedSocket

__all__ = ["OpenPeers"]

logger = logging.getLogger("sealwire.security")

#: Seconds between two rounds. One stats four files for each role in use, which takes 0.2 ms.
_PERIOD = 5.0
_SHOWN = 5  # addresses in a line of the log

_Peer = VerifiedSocket | VerifiedObject


class Watch(Protocol):
    """What makes contexts, and has connections."""

    def look(self) -> None:
        """See whether there is a new list."""


class OpenPeers:
    """The peers of one watch that are connected now. Thread-safe."""

    def __init__(self, watch: Watch, trust: Source, lists: Source | None) -> None:
        self._watch = weakref.ref(watch)
        self._trust = trust  # as they were given: unread
        self._lists = lists
        self._open: weakref.WeakSet[_Peer] = weakref.WeakSet()
        self._compared = b""  # digest of the lists that they were last compared with
        self._late = False  # whether a handshake that began with other lists has ended since
        self.renew_lock()

    def renew_lock(self) -> None:
        """Replace the lock: in a forked child nobody is left to release it."""
        self._lock = threading.Lock()

    def add(self, lists: bytes, peer: _Peer) -> object:
        """Note a peer that was verified by the lists of that digest.

        Returns what must live as long as the connection.
        """
        with self._lock:
            self._open.add(peer)
            self._late = self._late or lists != self._compared
        _rounds.make(self)
        return self._watch()

    def is_empty(self) -> bool:
        """Whether none is open."""
        with self._lock:
            return not any(peer.shown_chain() for peer in self._open)

    def compare(self, trust: Source, lists: Source) -> None:
        """End the connections with those who are on the lists, and say so in the log."""
        with self._lock:
            self._compared, self._late = lists.digest(), False
            known = [(peer, peer.shown_chain()) for peer in self._open]
        there = [(peer, chain) for peer, chain in known if chain]  # who is still open
        if not there:
            return
        from ..x509.revoked import revoked_among  # a library, for who needs it

        try:
            gone = revoked_among({der for _, chain in there for der in chain}, trust, lists)
        except (SecurityError, ValueError, TypeError) as error:
            logger.warning("cannot tell whose open connections are revoked by %s: %s", lists, error)
            return
        hit: dict[bytes, list[_Peer]] = defaultdict(list)
        for peer, chain in there:
            first = next((der for der in chain if der in gone), None)
            if first is not None:
                hit[first].append(peer)
        for der, peers in hit.items():
            _end(peers, *gone[der])

    def look(self) -> None:
        """Have the watch look at its files, and compare whom it has not compared."""
        watch = self._watch()
        if watch is None:
            return
        watch.look()
        if self._late and self._lists is not None:
            with contextlib.suppress(SecurityError):  # there is no such file now: later
                self.compare(self._trust.taken(), self._lists.taken())


def _end(peers: list[_Peer], subject: str, serial: str) -> None:
    """End the connections with peers that show a certificate which is revoked, or one of its CA."""
    name = f"certificate {printable(subject)} (serial {serial})"
    followed = [peer for peer in peers if peer.is_followed]
    others = [peer for peer in peers if peer not in followed]
    if followed:
        logger.warning(
            "the %s has been revoked: ending %s with who shows it (%s)",
            name, _count(followed), _shown(followed),
        )  # fmt: skip
    if others:
        logger.warning(
            "the %s has been revoked, and %s with who shows it cannot be ended from here (%s): "
            "close it, or end this process",
            name, _count(others), _shown(others),
        )  # fmt: skip
    for peer in peers:
        peer.revoke(f"the {name} has been revoked")


def _count(peers: list[_Peer]) -> str:
    return f"{len(peers)} open connection{'s' if len(peers) > 1 else ''}"


def _shown(peers: list[_Peer]) -> str:
    more = len(peers) - _SHOWN
    places = [_address(peer) for peer in peers[:_SHOWN]]
    return ", ".join([*places, *([f"and {more} more"] if more > 0 else [])])


def _address(peer: _Peer) -> str:
    try:
        return "{}:{}".format(*peer.getpeername())  # type: ignore[union-attr]
    except (OSError, AttributeError, IndexError):  # closed meanwhile, or driven through memory
        return "address unknown"


class _Rounds:
    """The thread that has files looked at while there is anybody to end."""

    def __init__(self) -> None:
        self._all: weakref.WeakSet[OpenPeers] = weakref.WeakSet()
        self.forget()

    def forget(self) -> None:
        """Reset: in a forked child the thread is gone, and may have held the lock."""
        self._lock = threading.Lock()
        self._running = False

    def make(self, peers: OpenPeers) -> None:
        """Make rounds, these peers included, while there are any."""
        with self._lock:
            self._all.add(peers)
            if self._running:
                return
            self._running = True
        thread = threading.Thread(target=self._run, name="sealwire-rounds", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread can be started: the next handshake tries again
            self._running = False

    def _run(self) -> None:
        while True:
            time.sleep(_PERIOD)
            with self._lock:
                those = [each for each in self._all if not each.is_empty()]
                if not those:
                    self._running = False
                    return
            for each in those:
                try:
                    each.look()
                except Exception:
                    logger.exception("cannot look whether open connections have been revoked")
            del those, each  # nobody is kept while it sleeps


_rounds = _Rounds()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_rounds.forget)
