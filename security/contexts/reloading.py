"""Contexts that follow their files: new handshakes use what the files hold now.

`Watch` keeps the material of one role and a pair of sealed contexts, one for each side, built from
it. `FollowingContext` is what users get: an `ssl.SSLContext` that hands each handshake to the
pair's present context. No timer, and no thread while nothing happens: a handshake has the files
looked at if the last look is older than the interval, in the background (`background.py`), while
the old pair serves. A file that looks as it did when it was read (`reading.Stamp`) is not read
again, so that a key does not pass through memory each second. If one looks different, contents
decide: a touch is no change. What cannot be used leaves the old pair in place, with one warning
for each change. Open connections keep the context they began with.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import ssl
import threading
import time
import weakref
from typing import Any

from .. import permissions
from ..errors import ConfigError, SecurityError
from ..pem import Source
from ..reading import Stamp, are_settled, look_at
from .background import Background
from .expiry import Expiry, deadlines
from .policy import Material, Policy, SealedContext, Side, empty_context, load

__all__ = ["DEFAULT_INTERVAL", "FollowingContext", "Watch"]

logger = logging.getLogger("sealwire.security")

#: Seconds. To look at three or four files takes 0.2 ms, so once a second is free even where
#: comms come and go all the time; and who has replaced a file need not wait to see it count.
DEFAULT_INTERVAL = 1.0

# Seconds before files that could not be used, and have not changed, are tried again: each time
# twice as long as before, for most often only another file helps.
_RETRY = 1.0
_LONGEST_PAUSE = 64.0
_SIDES: tuple[Side, ...] = ("server", "client")

Digests = dict[str, bytes]
Seen = dict[str, Stamp | int | None]


class _Present(SealedContext):
    """The context of the handshakes from one change to the next."""

    _own = frozenset(("owner", "_material"))

    owner: weakref.ref[FollowingContext] | None = None

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        # Called for each connection that a listening SSLSocket accepts.
        owner = self.owner and self.owner()
        return owner.wrap_socket(*args, **kwargs) if owner else super().wrap_socket(*args, **kwargs)


class FollowingContext(SealedContext):
    """A context that hands each handshake to the present context of its `Watch`.

    What is set here (options, ciphers, ALPN, `tell_refused` …) holds for the present one and all
    that follow. `get_ca_certs`, `cert_store_stats` and `session_stats` tell of the present one.
    Identity and trust come from the watch alone: this context itself has none.
    """

    _watch: Watch
    _side: Side
    _settings: dict[str, tuple[Any, ...]]

    @classmethod
    def of(cls, watch: Watch, side: Side, policy: Policy) -> FollowingContext:
        """The context for one side, with the policy of the watch."""
        context = empty_context(cls, side, policy)
        context._watch = watch
        context._side = side
        if watch._material.crl is not None:  # as the present one has it, so that it can be kept
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        context._settings = {}
        context.seal()
        return context

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """As `ssl.SSLContext.wrap_socket`, with what the files hold now."""
        return ssl.SSLContext.wrap_socket(self._watch.present(self._side), *args, **kwargs)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """As `ssl.SSLContext.wrap_bio`, with what the files hold now."""
        return self._watch.present(self._side).wrap_bio(*args, **kwargs)

    def describe(self) -> dict[str, str]:
        """As `SealedContext.describe`, of what is in use now."""
        return self._watch.built[self._side].describe()

    def fault_above(self, chain: list[bytes], code: int) -> str:
        """As `SealedContext.fault_above`, of what is in use now."""
        return self._watch.built[self._side].fault_above(chain, code)

    @property
    def role(self) -> str | None:
        """As `SealedContext.role`."""
        return self._watch.built[self._side].role

    def lacks(self, crl: str | None = None, allowed: str | None = None) -> list[str]:
        """As `SealedContext.lacks`, of what is in use now."""
        return self._watch.built[self._side].lacks(crl, allowed)

    def get_ca_certs(self, binary_form: bool = False) -> Any:
        """The CA certificates trusted now."""
        return self._watch.built[self._side].get_ca_certs(binary_form)

    def cert_store_stats(self) -> dict[str, int]:
        """How many certificates and revocation lists are loaded now."""
        return self._watch.built[self._side].cert_store_stats()

    def session_stats(self) -> dict[str, int]:
        """OpenSSL's counts since the files changed last."""
        return self._watch.built[self._side].session_stats()

    def load_cert_chain(self, *args: Any, **kwargs: Any) -> None:
        raise ConfigError("cannot load an identity into a context that follows its files")

    def load_verify_locations(self, *args: Any, **kwargs: Any) -> None:
        raise ConfigError("cannot trust more in a context that follows its files; set tls_ca_file")

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if hasattr(ssl.SSLContext, name) or name in ("tell_refused", "max_handshake_size"):
            self._set("__setattr__", name, value)

    def set_ciphers(self, cipherlist: str, /) -> None:
        super().set_ciphers(cipherlist)
        self._set("set_ciphers", cipherlist)

    def set_alpn_protocols(self, alpn_protocols: Any) -> None:
        super().set_alpn_protocols(alpn_protocols)
        self._set("set_alpn_protocols", alpn_protocols)

    def set_ecdh_curve(self, name: str, /) -> None:
        super().set_ecdh_curve(name)
        self._set("set_ecdh_curve", name)

    def _set(self, method: str, *args: Any) -> None:
        """Do it to the present context, and again to each that follows."""
        if "_settings" in self.__dict__:  # else: still being made, by the policy that all have
            with self._watch.lock:
                self._make(self._watch.built[self._side], method, *args)
                self._settings[args[0] if method == "__setattr__" else method] = (method, *args)

    def apply(self, context: SealedContext) -> None:
        """Make all settings that were ever made here in `context`."""
        for method, *args in self._settings.values():
            self._make(context, method, *args)

    def _make(self, context: SealedContext, method: str, *args: Any) -> None:
        if args[0] == "verify_flags" and method == "__setattr__":
            # Which of these it has depends on what its files hold.
            of_files = ssl.VERIFY_X509_PARTIAL_CHAIN
            if self._watch._material.crl is not None:
                of_files |= ssl.VERIFY_CRL_CHECK_CHAIN
            args = "verify_flags", context.verify_flags | (args[1] & ~of_files)
        getattr(context, method)(*args)


class Watch:
    """The present contexts of one role. Safe for several threads.

    `interval` is the least time between two looks at the files, in seconds: 0 for a look at every
    handshake, infinity for none after the first. `warning` is how many seconds before its end a
    certificate is warned of, infinity for never, None by its lifetime. Raises `PEMError` or
    `KeyMismatch` if the material cannot be used; later, only `reload` raises.
    """

    def __init__(
        self, policy: Policy, material: Material, interval: float, warning: float | None
    ) -> None:
        self._policy = policy
        self._material = material
        self._interval = interval
        self._warning = warning
        self._outer: dict[Side, FollowingContext] = {}
        self._paths = [source.path for source in material.sources() if source.path is not None]
        self._seen: Seen | None = None  # how the files looked when they were last read
        self._settled = False  # whether they had been left alone for a while by then
        self._held: Digests = {}  # of what `built` was built from
        self._tried: Digests | None = None  # of what was read last; None if it cannot be read
        self._complaint: tuple[Digests | None, str] | None = None
        self._retry = 0.0  # when what could not be used is tried again, though it looks the same
        self._pause = _RETRY
        self.built: dict[Side, _Present] = {}
        self.renew_locks()
        self._update()
        self._due = time.monotonic() + interval if self._paths else math.inf
        self._background = Background(self._look, lambda: time.monotonic() >= self._due)
        _watches.add(self)

    def renew_locks(self) -> None:
        """Make the locks anew: in a forked child nobody is left to release them."""
        self.lock = threading.RLock()  # of what handshakes use; held for moments only
        self._looking = threading.Lock()  # held by whoever reads the files

    def context(self, side: Side) -> FollowingContext:
        """The context to hand out for a side; the same one each time."""
        with self.lock:
            if side not in self._outer:
                self._outer[side] = FollowingContext.of(self, side, self._policy)
            self.built[side].owner = weakref.ref(self._outer[side])
            return self._outer[side]

    def present(self, side: Side) -> SealedContext:
        """The context for a handshake that begins now."""
        if time.monotonic() >= self._due:
            self._background.look()
        self._expiry.look()
        return self.built[side]

    def reload(self) -> list[str]:
        """Look at the files now; the fields whose contents are new and used from now on.

        Takes as long as reading them does. Raises `PEMError` or `KeyMismatch` if they cannot be
        used; the old contexts then stay.
        """
        with self._looking:
            self._retry, self._pause = 0.0, _RETRY
            try:
                changed = self._update(at_any_rate=True)
            except BaseException:
                self._seen = None  # the next look finds out for itself
                raise
            self._complaint = None
            return changed

    def _look(self) -> None:
        with self._looking:
            try:
                try:
                    changed = self._update()
                except SecurityError as error:
                    self._complain(str(error))
                    return
                if self._tried == self._held:
                    self._complaint, self._pause = None, _RETRY
                if changed:
                    logger.info("TLS handshakes use the new %s from now on", ", ".join(changed))
            except BaseException:
                self._seen = None
                raise
            finally:
                self._due = time.monotonic() + self._interval

    def _complain(self, why: str) -> None:
        complaint = self._tried, why
        if complaint != self._complaint:
            self._complaint, self._pause = complaint, _RETRY
            logger.warning("%s; until then TLS goes on with what was read before", why)
        self._retry = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _update(self, *, at_any_rate: bool = False) -> list[str]:
        """Build contexts if the contents are new; the fields that have changed.

        Nothing is read of files that look as they did when they were last read.
        """
        for last in (False, False, True):
            seen = look_at(self._paths)
            if seen == self._seen and self._settled and not at_any_rate and not self._must_retry():
                return []
            self._seen, self._settled, self._tried = seen, are_settled(seen), None
            try:
                material = self._read()
                digests = {source.field: source.digest() for source in material.sources()}
                refused = self._complaint and self._complaint[0] == digests
                self._tried = digests
                if digests == self._held or (refused and time.monotonic() < self._retry):
                    return []
                with _building:
                    built = {side: self._build(side, material) for side in _SIDES}
                    ends = list(deadlines(material.trust, material.certificate, material.crl))
            except SecurityError:
                if last or self._is_steady():
                    raise
            else:
                if last or self._is_steady():
                    changed = [
                        field for field in digests if digests[field] != self._held.get(field)
                    ]
                    self._use(built, digests, Expiry(ends, self._warning))
                    for source in material.sources():
                        if source.path is not None:
                            permissions.warn(str(source), source.path)
                    return changed
        raise AssertionError("unreachable: the last round returns or raises")

    def _must_retry(self) -> bool:
        return self._complaint is not None and time.monotonic() >= self._retry

    def _read(self) -> Material:
        """The material with the contents of its files, each read once. Raises `PEMError`."""
        taken: dict[str, Source] = {}

        def take(source: Source) -> Source:
            if source.path is None:
                return source
            if source.path not in taken:
                taken[source.path] = source.taken()
            return dataclasses.replace(taken[source.path], field=source.field)

        material = self._material
        return dataclasses.replace(
            material,
            trust=take(material.trust),
            certificate=take(material.certificate),
            key=material.key and take(material.key),
            crl=material.crl and take(material.crl),
        )

    def _is_steady(self) -> bool:
        """Whether the files are still as they were: several are not replaced in one moment."""
        return look_at(self._paths) == self._seen

    def _build(self, side: Side, material: Material) -> _Present:
        context = empty_context(_Present, side, self._policy)
        load(context, material)
        # For its words in errors; the key's text is not kept with it.
        context._material = dataclasses.replace(
            self._material, trust=material.trust.public(), certificate=material.certificate.public()
        )
        return context

    def _use(self, built: dict[Side, _Present], digests: Digests, expiry: Expiry) -> None:
        with self.lock:
            for side, context in built.items():
                outer = self._outer.get(side)
                if outer is not None:
                    context.owner = weakref.ref(outer)
                    outer.apply(context)
            self.built, self._held, self._expiry = built, digests, expiry
        expiry.look()


# Whoever forks waits until no contexts are being built, for OpenSSL has locks of its own, which a
# child would find held for ever. Building takes no longer than the contents do: they are read by
# then.
_building = threading.Lock()
_FORK_PATIENCE = 10.0
_watches: weakref.WeakSet[Watch] = weakref.WeakSet()
_held_for_fork: list[bool] = []


def _before_fork() -> None:
    _held_for_fork.append(_building.acquire(timeout=_FORK_PATIENCE))


def _after_fork() -> None:
    if _held_for_fork.pop():
        _building.release()


def _in_child() -> None:
    global _building
    _held_for_fork.clear()
    _building = threading.Lock()
    for watch in list(_watches):
        watch.renew_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
