"""Contexts that follow their files: new handshakes use what the files hold now.

`Watch` keeps the material of one role and a pair of sealed contexts, one for each side, built from
it. `FollowingContext` is what users get: an `ssl.SSLContext` that hands each handshake to the
pair's present context. No thread and no timer: a handshake looks at the files if the last look is
older than the interval. Contents are compared, not times, since Kubernetes swaps symbolic links
and backups restore times. What cannot be used leaves the old pair in place, with one warning for
each change. Open connections keep the context they began with.
"""

from __future__ import annotations

import logging
import math
import ssl
import threading
import time
import weakref
from typing import Any

from .errors import ConfigError, PEMError, SecurityError
from .expiry import Expiry, deadlines
from .tls import Material, Policy, SealedContext, Side, empty_context, load

__all__ = ["DEFAULT_INTERVAL", "FollowingContext", "Watch"]

logger = logging.getLogger("sealwire.security")

#: Seconds. Reading three or four small files takes 0.1 ms, so once a second is free even where
#: comms come and go all the time; and who has replaced a file need not wait to see it count.
DEFAULT_INTERVAL = 1.0

_RETRY = 1.0  # seconds before files that could not be used, and have not changed, are tried again
_SIDES: tuple[Side, ...] = ("server", "client")

Digests = dict[str, bytes]


class _Present(SealedContext):
    """The context of the handshakes from one change to the next."""

    _own = frozenset(("owner",))

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
        if hasattr(ssl.SSLContext, name) or name == "tell_refused":
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
                getattr(self._watch.built[self._side], method)(*args)
                self._settings[args[0] if method == "__setattr__" else method] = (method, *args)

    def apply(self, context: SealedContext) -> None:
        """Make all settings that were ever made here in `context`."""
        for method, *args in self._settings.values():
            getattr(context, method)(*args)


class Watch:
    """The present contexts of one role. Safe for several threads.

    `interval` is the least time between two looks at the files, in seconds: 0 for a look at every
    handshake, infinity for none after the first. `warning` is how many seconds before its end a
    certificate is warned of, infinity for never. Raises `PEMError` or `KeyMismatch` if the
    material cannot be used; later, only `reload` raises.
    """

    def __init__(self, policy: Policy, material: Material, interval: float, warning: float) -> None:
        self._policy = policy
        self._material = material
        self._interval = interval
        self._warning = warning
        self.lock = threading.RLock()
        self._outer: dict[Side, FollowingContext] = {}
        self._held: Digests = {}  # of what `built` was built from
        self._seen: Digests | None = None  # at the last look; None if the files cannot be read
        self._complaint: tuple[Digests | None, str] | None = None
        self._retry = 0.0
        self.built: dict[Side, _Present] = {}
        self._update()
        on_disk = not all(source.in_memory for source in material.sources())
        self._due = time.monotonic() + interval if on_disk else math.inf

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
            with self.lock:
                self._look()
        self._expiry.look()
        return self.built[side]

    def reload(self) -> list[str]:
        """Look at the files now; the fields whose contents are new and used from now on.

        Raises `PEMError` or `KeyMismatch` if they cannot be used; the old contexts then stay.
        """
        with self.lock:
            self._retry = 0.0
            changed = self._update()
            self._complaint = None
            return changed

    def _look(self) -> None:
        try:
            changed = self._update()
        except SecurityError as error:
            self._retry = time.monotonic() + _RETRY
            complaint = self._seen, str(error)
            if complaint != self._complaint:
                self._complaint = complaint
                logger.warning("%s; until then TLS goes on with what was read before", error)
        else:
            if self._seen == self._held:
                self._complaint = None
            if changed:
                logger.info("TLS handshakes use the new %s from now on", ", ".join(changed))
        self._due = time.monotonic() + self._interval

    def _update(self) -> list[str]:
        """Build contexts if the contents are new; the fields that have changed."""
        material = self._material
        for last in (False, False, True):
            self._seen = None
            digests = {source.field: source.digest() for source in material.sources()}
            refused = self._complaint and self._complaint[0] == digests
            self._seen = digests
            if digests == self._held or (refused and time.monotonic() < self._retry):
                return []
            try:
                built = {side: self._build(side) for side in _SIDES}
                ends = list(deadlines(material.trust, material.certificate, material.crl))
            except SecurityError:
                if last or self._steady(digests):
                    raise
            else:
                if last or self._steady(digests):
                    changed = [
                        field for field in digests if digests[field] != self._held.get(field)
                    ]
                    self.built, self._held = built, digests
                    self._expiry = Expiry(ends, self._warning)
                    self._expiry.look()
                    return changed
        raise AssertionError("unreachable: the last round returns or raises")

    def _steady(self, digests: Digests) -> bool:
        """Whether the files are still as they were: several are not replaced in one moment."""
        try:
            return digests == {s.field: s.digest() for s in self._material.sources()}
        except PEMError:
            return False

    def _build(self, side: Side) -> _Present:
        context = empty_context(_Present, side, self._policy)
        load(context, self._material)
        outer = self._outer.get(side)
        if outer is not None:
            context.owner = weakref.ref(outer)
            outer.apply(context)
        return context
