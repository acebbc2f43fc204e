"""Contexts that follow their files: new handshakes use the current content.

`Watch` keeps the material of one role and a pair of sealed contexts, one per side, built from it.
`FollowingContext` is what users get: an `ssl.SSLContext` that delegates each handshake to the
current context of the pair. A handshake has the files checked in the background (`background.py`)
if the last check is older than the interval, while the old pair serves; otherwise they are checked
only for open connections that revocation lists apply to (`open_peers.py`). A file that looks as it
did when it was read (`reading.Stamp`) is not read again, so that a key does not pass through memory
each second. If one looks different, its content decides: a touch is no change. Unusable content
leaves the old pair in place, with one warning per change. Open connections keep the context they
began with, unless a certificate of their peer's is revoked.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import ssl
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from .. import permissions
from ..errors import ConfigError, SecurityError
from ..native import NativeContext
from ..pem import Source
from ..reading import Stamp, are_settled, look_at
from . import background, status
from .background import Background
from .expiry import Deadline, Expiry, deadlines
from .forks import building
from .open_peers import OpenPeers
from .policy import Material, Policy, SealedContext, Side, empty_context, load

__all__ = ["DEFAULT_INTERVAL", "FollowingContext", "Watch"]

logger = logging.getLogger("sealwire.security")

#: Seconds. Checking three or four files takes 0.2 ms, so once a second costs nothing even where
#: comms come and go all the time; and a replaced file takes effect without a noticeable delay.
DEFAULT_INTERVAL = 1.0

# Seconds until unusable files that have not changed are tried again, doubled each time.
_RETRY = 1.0
_LONGEST_PAUSE = 64.0

# Seconds that a handshake waits for a check where what it has is expired, so that it would fail, or
# where every handshake is to have one.
_RATHER = 2.0
_SIDES: tuple[Side, ...] = ("server", "client")

Digests = dict[str, bytes]
Seen = dict[str, Stamp | int | None]


class _CurrentContext(SealedContext):
    """The context of the handshakes between two changes."""

    _own = frozenset(("owner", "opened", "_material"))

    owner: weakref.ref[FollowingContext] | None = None
    opened: Callable[[Any], object] | None = None  # `OpenPeers.add`, where lists are configured

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        # Called for each connection that a listening SSLSocket accepts.
        owner = self.owner and self.owner()
        return owner.wrap_socket(*args, **kwargs) if owner else super().wrap_socket(*args, **kwargs)


class FollowingContext(SealedContext):
    """A context that delegates each handshake to the current context of its `Watch`.

    Settings made here (options, ciphers, ALPN, `tell_refused` …) apply to the current context and
    to all that follow. `get_ca_certs`, `cert_store_stats` and `session_stats` are those of the
    current one. Identity and trust come from the watch alone: this context itself has none.
    """

    _watch: Watch
    _side: Side
    _settings: dict[str, tuple[Any, ...]]

    @classmethod
    def of(cls, watch: Watch, side: Side, policy: Policy) -> FollowingContext:
        """Return the context for one side, with the policy of the watch."""
        context = empty_context(cls, side, policy)
        context._watch = watch
        context._side = side
        if watch._material.crl is not None:  # as the current one has it, so that it can be kept
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        context._settings = {}
        context.seal()
        return context

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """As `ssl.SSLContext.wrap_socket`, with the current content of the files."""
        return NativeContext.wrap_socket(self._watch.present(self._side), *args, **kwargs)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """As `ssl.SSLContext.wrap_bio`, with the current content of the files."""
        return self._watch.present(self._side).wrap_bio(*args, **kwargs)

    def describe(self) -> dict[str, str]:
        """As `SealedContext.describe`, of the current context."""
        return self._watch.built[self._side].describe()

    def fault_above(self, chain: list[bytes], code: int) -> str:
        """As `SealedContext.fault_above`, of what is in use now."""
        return self._watch.built[self._side].fault_above(chain, code)

    @property
    def role(self) -> str | None:
        """As `SealedContext.role`."""
        return self._watch.built[self._side].role

    @property
    def material(self) -> Material | None:
        """As `SealedContext.material`."""
        return self._watch.built[self._side].material

    @property
    def deadlines(self) -> tuple[Deadline, ...]:
        """When its certificates and CRLs end; a check for new ones begins if it is due."""
        return self._watch.deadlines

    def lacks(self, crl: str | None = None, allowed: str | None = None) -> list[str]:
        """As `SealedContext.lacks`, of the current context."""
        return self._watch.built[self._side].lacks(crl, allowed)

    def get_ca_certs(self, binary_form: bool = False) -> Any:
        """Return the CA certificates trusted now."""
        return self._watch.built[self._side].get_ca_certs(binary_form)

    def cert_store_stats(self) -> dict[str, int]:
        """Return the numbers of certificates and CRLs loaded now."""
        return self._watch.built[self._side].cert_store_stats()

    def session_stats(self) -> dict[str, int]:
        """OpenSSL's counters since the last change of the files."""
        return self._watch.built[self._side].session_stats()

    def load_cert_chain(self, *args: Any, **kwargs: Any) -> None:
        """Raise `ConfigError`: the identity comes from the files."""
        raise ConfigError("cannot load an identity into a context that follows its files")

    def load_verify_locations(self, *args: Any, **kwargs: Any) -> None:
        """Raise `ConfigError`: the trusted CAs come from the files."""
        raise ConfigError("cannot trust more in a context that follows its files; set tls_ca_file")

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if hasattr(NativeContext, name) or name in ("tell_refused", "max_handshake_size"):
            self._set("__setattr__", name, value)

    def set_ciphers(self, cipherlist: str, /) -> None:
        """As `SealedContext.set_ciphers`, also for the contexts to come."""
        super().set_ciphers(cipherlist)
        self._set("set_ciphers", cipherlist)

    def set_alpn_protocols(self, alpn_protocols: Any) -> None:
        """As in `ssl.SSLContext`, also for the contexts to come."""
        super().set_alpn_protocols(alpn_protocols)
        self._set("set_alpn_protocols", alpn_protocols)

    def set_ecdh_curve(self, name: str, /) -> None:
        """As `SealedContext.set_ecdh_curve`, also for the contexts to come."""
        super().set_ecdh_curve(name)
        self._set("set_ecdh_curve", name)

    def _set(self, method: str, *args: Any) -> None:
        """Call a method of the current context, and of each that follows."""
        if "_settings" in self.__dict__:  # else: under construction, by the policy that all share
            with self._watch.lock:
                self._make(self._watch.built[self._side], method, *args)
                self._settings[args[0] if method == "__setattr__" else method] = (method, *args)

    def apply(self, context: SealedContext) -> None:
        """Apply all settings ever made here to `context`."""
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
    """The current contexts of one role. Thread-safe.

    `interval` is the least time between two checks of the files, in seconds: 0 for one at every
    handshake, infinity for none after the first. `warning` is how many seconds before its end
    to warn of a certificate, infinity for never, None by its lifetime. Raises `PEMError` or
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
        self._settled = False  # whether they had been unchanged for a while by then
        self._loaded: Digests = {}  # of what `built` was built from
        self._tried: Digests | None = None  # of what was read last; None if it cannot be read
        self._last_warning: tuple[Digests | None, str] | None = None
        self._retry = 0.0  # when to try unusable files again although they look the same
        self._pause = _RETRY
        self.built: dict[Side, _CurrentContext] = {}
        self._peers = OpenPeers(self, material.trust, material.crl)
        self.renew_locks()
        self._update()
        self._due = time.monotonic() + interval if self._paths else math.inf
        self._background = Background(self._check, lambda: time.monotonic() >= self._due)
        status.watched(self)

    def renew_locks(self) -> None:
        """Replace the locks: in a forked child nobody is left to release them."""
        self.lock = threading.RLock()  # guards what handshakes use; held for moments only
        self._check_lock = threading.Lock()  # held while reading the files
        self._peers.renew_lock()

    def context(self, side: Side) -> FollowingContext:
        """Return the context to hand out for a side; the same one each time."""
        with self.lock:
            if side not in self._outer:
                self._outer[side] = FollowingContext.of(self, side, self._policy)
            self.built[side].owner = weakref.ref(self._outer[side])
            return self._outer[side]

    @property
    def deadlines(self) -> tuple[Deadline, ...]:
        """Of what is in use now: the same tuple until it is replaced."""
        self._background.begin()
        return self._expiry.deadlines

    def present(self, side: Side) -> SealedContext:
        """Return the context for a handshake that begins now."""
        if time.monotonic() >= self._due:
            rather = self._interval == 0 or self._expiry.is_over()
            self._background.look(_RATHER if rather else background.PATIENCE)
        self._expiry.look()
        return self.built[side]

    def look(self) -> None:
        """Have the files checked if that is due, although no handshake asks for it."""
        self._background.look(background.PATIENCE)

    def in_use(self) -> status.Status:
        """Return what the handshakes use now."""
        with self.lock:
            failed = self._last_warning is not None
            role, first = self.built["client"].role, self._expiry.first()
            return status.Status(role, first, self._since, failed)

    def reload(self) -> list[str]:
        """Check the files now; return the fields with new content, which is used from now on.

        Takes as long as reading them does. Raises `PEMError` or `KeyMismatch` if they cannot be
        used; the old contexts then stay.
        """
        with self._check_lock:
            self._retry, self._pause = 0.0, _RETRY
            try:
                changed = self._update(at_any_rate=True)
            except BaseException as error:
                self._seen = None  # forces the next check to read
                if isinstance(error, SecurityError):
                    status.failed()
                raise
            self._last_warning = None
            return changed

    def _check(self) -> None:
        with self._check_lock:
            try:
                try:
                    changed = self._update()
                except SecurityError as error:
                    self._warn_once(str(error))
                    return
                if self._tried == self._loaded:
                    self._last_warning, self._pause = None, _RETRY
                if changed:
                    logger.info("TLS handshakes use the new %s from now on", ", ".join(changed))
            except BaseException:
                self._seen = None
                raise
            finally:
                self._due = time.monotonic() + self._interval

    def _warn_once(self, why: str) -> None:
        status.failed()
        warning = self._tried, why
        if warning != self._last_warning:
            self._last_warning, self._pause = warning, _RETRY
            logger.warning("%s; until then TLS goes on with what was read before", why)
        self._retry = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _update(self, *, at_any_rate: bool = False) -> list[str]:
        """Build contexts if the content is new; return the fields that have changed.

        Files that look as they did when they were last read are not read again.
        """
        for last in (False, False, True):
            seen = look_at(self._paths)
            if seen == self._seen and self._settled and not at_any_rate and not self._must_retry():
                return []
            self._seen, self._settled, self._tried = seen, are_settled(seen), None
            try:
                material = self._read()
                digests = {source.field: source.digest() for source in material.sources()}
                refused = self._last_warning and self._last_warning[0] == digests
                self._tried = digests
                if digests == self._loaded or (refused and time.monotonic() < self._retry):
                    return []
                with building():
                    built = {side: self._build(side, material) for side in _SIDES}
                    ends = list(deadlines(material.trust, material.certificate, material.crl))
            except SecurityError:
                if last or self._is_steady():
                    raise
            else:
                if last or self._is_steady():
                    changed = [
                        field for field in digests if digests[field] != self._loaded.get(field)
                    ]
                    self._use(built, digests, Expiry(ends, self._warning))
                    if material.crl is not None and material.crl.field in changed:
                        self._peers.compare(material.trust, material.crl)
                    for source in material.sources():
                        if source.path is not None:
                            permissions.warn(str(source), source.path)
                    return changed
        raise AssertionError("unreachable: the last round returns or raises")

    def _must_retry(self) -> bool:
        return self._last_warning is not None and time.monotonic() >= self._retry

    def _read(self) -> Material:
        """Return the material with the content of its files, each read once. Raises `PEMError`."""
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
        """Whether the files are unchanged since: several are not replaced at the same instant."""
        return look_at(self._paths) == self._seen

    def _build(self, side: Side, material: Material) -> _CurrentContext:
        context = empty_context(_CurrentContext, side, self._policy)
        load(context, material)
        if material.crl is not None:
            context.opened = functools.partial(self._peers.add, material.crl.digest())
        # For its texts in errors; the key's text is not kept with it.
        context._material = dataclasses.replace(
            self._material, trust=material.trust.public(), certificate=material.certificate.public()
        )
        return context

    def _use(self, built: dict[Side, _CurrentContext], digests: Digests, expiry: Expiry) -> None:
        with self.lock:
            for side, context in built.items():
                outer = self._outer.get(side)
                if outer is not None:
                    context.owner = weakref.ref(outer)
                    outer.apply(context)
            self.built, self._loaded, self._expiry = built, digests, expiry
            self._since = time.time()
        expiry.look()
