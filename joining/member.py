"""A process that has joined: its identity in memory, renewed until the process ends.

One thread, a daemon, sleeps most of the time. It renews at about two thirds of the lifetime, each
process at another moment, and fetches the CAs and revocation lists several times in between; it
renews at once if the CA has begun to sign with another key. The service may be away: the thread
goes on trying, and warns, until the certificate has expired. A service that refuses is asked no
more: the identity is revoked, or of a CA that is none any more.

What is due is counted on a clock that nobody sets. One that is set decides no more than that it is
time to renew: a machine may have joined before its clock was right.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sealwire.comm.addressing import Address
from sealwire.security import SecurityError
from sealwire.security.x509 import keys

from . import client
from .client import Joined
from .errors import JoinError, Refused
from .given import lasting
from .memory import Memory
from .tokens import Token

__all__ = ["CAS", "CRL", "IDENTITY", "Member"]

logger = logging.getLogger("sealwire.joining")

CAS, CRL, IDENTITY = "ca.pem", "crl.pem", "identity.pem"

_RENEWED = (0.6, 0.7)  # of the lifetime, at random: about two thirds
_LOOKS = 8  # times in a lifetime that the lists are fetched
_LONGEST_LOOK = 600.0  # seconds between two
_RETRIES = 20  # in a lifetime
_LONGEST_RETRY = 60.0  # seconds
_SHORTEST = 1.0  # seconds between two questions, however short the rest of a lifetime is
_STEP = 5.0  # seconds to sleep at most, since clocks can be set and machines suspended
# Where there is one of the two, it goes on while the machine sleeps.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))

_T = TypeVar("_T")


class Member:
    """A process's membership.

    Parameters
    ----------
    address : Address
        Of the service.
    joined : Joined
        What it has been given, just now.
    memory : Memory, optional
        Where to keep it.

    Attributes
    ----------
    paths : dict of str to str
        The paths of `CAS`, `CRL` and `IDENTITY`, which stay the same.
    joined : Joined
        What it has now.
    """

    def __init__(self, address: Address, joined: Joined, memory: Memory | None = None) -> None:
        self.address = address
        self.joined = joined
        self._memory = memory or Memory()
        self.paths: dict[str, str] = {}
        self._ended = threading.Event()
        self._renewal = self._look = self._expires = self._late = 0.0
        self._took(joined)
        self._thread = threading.Thread(target=self._run, name="sealwire-member", daemon=True)

    @classmethod
    def join(
        cls,
        address: Address,
        token: Token,
        *,
        role: str = "",
        node: str = "",
        patience: float = 60.0,
        memory: Memory | None = None,
    ) -> Member:
        """Join with a token, for a key that is made here and kept in memory.

        With `role`, a token for another one is refused, and not used. Blocks, also where a loop is
        running in this thread. Raises `JoinError`.
        """
        key = keys.generate()

        def once(name: str) -> Coroutine[Any, Any, Joined]:
            return client.patiently(
                lambda: client.join(address, token, key, role=role, node=name), patience
            )

        try:
            joined = blocking(lambda: once(node))
        except Refused as error:
            if error.kind not in ("names", "request") or not node:
                raise
            joined = blocking(lambda: once(""))  # token or CA do not allow this machine's name
            logger.info("joined without a name: %s", error)
        return cls(address, joined, memory)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stop(self) -> None:
        """Renew no more, and drop the identity."""
        self._ended.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(client.TIMEOUT)
        self._memory.close()

    # The thread

    def _run(self) -> None:
        failing = False
        while (what := self._due()) is not None:
            try:
                blocking(what)
            except Refused as error:
                logger.error(
                    "this process is a member no more: %s; what it has is good for %s",
                    error,
                    self._left(),
                )
                return
            except (JoinError, SecurityError, OSError) as error:
                failing = self._failed(error, what == self._renew)
                if self._is_over():
                    return
            except Exception:
                logger.exception("cannot renew; it is tried again")
                self._failed(JoinError("an error of our own"), what == self._renew)
            else:
                if failing:
                    logger.info("the service at %s answers again", self.address)
                failing = False

    def _next(self) -> tuple[float, Callable[[], Coroutine[Any, Any, None]]]:
        """When to do what next; on the clock of `steady`."""
        if time.time() >= self._late:
            return 0.0, self._renew
        if self._renewal <= self._look:
            return self._renewal, self._renew
        return self._look, self._fetch

    def _due(self) -> Callable[[], Coroutine[Any, Any, None]] | None:
        """Wait until something is due; return what, None once this has ended."""
        while not self._ended.is_set():
            until, what = self._next()
            left = until - steady()
            if left <= 0:
                return what
            self._ended.wait(min(left, _STEP))
        return None

    async def _renew(self) -> None:
        given = await client.renew(self.address, self.joined, keys.generate())
        self._took(given)
        logger.info("renewed the certificate of this process, for %s", self._left())

    async def _fetch(self) -> None:
        lists = await client.lists(self.address, self.joined)
        joined = self.joined
        if (lists.cas, lists.crl) != (joined.cas, joined.crl):
            self.joined = joined.with_lists(lists.cas, lists.crl)
            self._write()
            logger.info("the CAs to trust, or the revocation lists, are new")
        self._look = steady() + self._pause()
        if lists.signer != joined.signer:  # a rotation: do not wait
            self._renewal = min(self._renewal, steady() + self._pause() / 2)

    def _took(self, given: Joined) -> None:
        self.joined = given
        self._write()
        now = steady()
        self._expires = now + given.lifetime
        self._late = time.time() + max(given.lifetime * _RENEWED[1], _SHORTEST)
        self._renewal = now + max(given.lifetime * random.uniform(*_RENEWED), _SHORTEST)
        self._look = now + self._pause()

    def _pause(self) -> float:
        """Seconds until the lists are fetched again."""
        pause = min(self.joined.lifetime / _LOOKS, _LONGEST_LOOK) * random.uniform(0.8, 1.0)
        return max(pause, _SHORTEST)

    def _failed(self, error: Exception, renewing: bool) -> bool:
        """Plan another attempt, and say so."""
        pause = min(self.joined.lifetime / _RETRIES, _LONGEST_RETRY) * random.uniform(0.8, 1.2)
        again = steady() + max(pause, _SHORTEST)
        self._look = max(self._look, again)
        if renewing:
            self._renewal = again
            self._late = float("inf")
        if self._is_over():
            logger.error(
                "the certificate of this process has expired, and nobody accepts it any more: %s; "
                "start it again with a new token",
                error,
            )
        elif renewing:
            logger.warning("cannot renew, tried again for %s: %s", self._left(), error)
        else:
            logger.info("cannot fetch the revocation lists, tried again: %s", error)
        return True

    def _is_over(self) -> bool:
        return steady() >= self._expires

    def _left(self) -> str:
        return lasting(self._expires - steady())

    def _write(self) -> None:
        joined = self.joined
        texts = {CAS: joined.cas, CRL: joined.crl, IDENTITY: joined.certificate + joined.key}
        for name, text in texts.items():
            if text:
                self.paths[name] = self._memory.put(name, text)


def steady() -> float:
    """Return seconds of a clock that nobody sets."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


def blocking(make: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run a coroutine to its end on a loop of its own, in a thread of its own; block until then."""
    outcome: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(make()))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="sealwire-asks", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return outcome[0]
