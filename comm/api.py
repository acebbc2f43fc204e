"""`connect` and `listen`: open comms and listeners by address."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import random
import ssl
import sys
from collections.abc import Callable, Collection, Coroutine, Generator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, TypedDict

from .addressing import Address, parse_address
from .arguments import (
    expect_bool,
    expect_count,
    expect_handler,
    expect_known,
    expect_limits,
    expect_mapping,
    expect_seconds,
    is_context,
    takes_further,
)
from .errors import AddressError, CommClosedError, CommError, ConnectError, ConnectTimeout
from .interfaces import Comm, Handler, Listener
from .limits import Limits
from .registry import get_backend
from .serving import ServingListener
from .words import repr_of

__all__ = ["ConnectOptions", "connect", "listen"]

#: Markers that the Dask backend's `Security` adds to its arguments; they mean nothing here.
_MARKS = ("encryption_decided", "tls_role")


class ConnectOptions(TypedDict, total=False):
    """The arguments of `connect` but for address and timeout, for those who pass them on."""

    max_attempts: int | None
    limits: Limits | None
    ssl_context: ssl.SSLContext | None
    require_encryption: bool | None
    extra_conn_args: Mapping[str, Any] | None
    server_hostname: str | None
    connection_args: Mapping[str, Any] | None


class _Bounds(NamedTuple):
    """How long `connect` tries, in seconds, and how often."""

    seconds: float
    attempts: float


_BACKOFF_START = 0.01
_BACKOFF_CAP = 1.0


class _Connecting(Coroutine[Any, Any, Comm]):
    """The result of `connect`: await it, or use it as an async context manager.

    It is a coroutine, so that `asyncio.create_task` takes it, and as any coroutine can be used
    once: the comm of an earlier use would stay open, and nobody would close it.
    """

    def __init__(self, address: Address, bounds: _Bounds, limits: Limits, args: dict[str, Any]):
        self._address = address
        self._bounds = bounds
        self._limits = limits
        self._args = args
        self._comm: Comm | None = None
        self._steps: Coroutine[Any, Any, Comm] | None = None
        self._used = False

    def _begin(self) -> Coroutine[Any, Any, Comm]:
        if self._used:
            raise RuntimeError(
                f"cannot use connect() to {self._address} a second time: it opens one comm; call "
                f"connect(…) again for another"
            )
        self._used = True
        return _connect(self._address, self._bounds, self._limits, self._args)

    def __await__(self) -> Generator[Any, None, Comm]:
        return self._begin().__await__()

    def send(self, value: Any) -> Any:
        """Take a step, for a task that runs it."""
        if self._steps is None:
            self._steps = self._begin()
        return self._steps.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise an error within, for a task that runs it."""
        if self._steps is None:
            self._steps = self._begin()
        return self._steps.throw(*error)

    def close(self) -> None:
        """Give up, for a task that runs it."""
        if self._steps is not None:
            self._steps.close()

    async def __aenter__(self) -> Comm:
        self._comm = await self
        return self._comm

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._comm is not None:
            await self._comm.__aexit__(kind, error, traceback)


@takes_further
def connect(
    address: str,
    *,
    timeout: float = 30.0,
    max_attempts: int | None = None,
    limits: Limits | None = None,
    ssl_context: ssl.SSLContext | None = None,
    require_encryption: bool | None = None,
    extra_conn_args: Mapping[str, Any] | None = None,
    server_hostname: str | None = None,
    connection_args: Mapping[str, Any] | None = None,
) -> _Connecting:
    """Connect to a listener: ``comm = await connect(…)`` or ``async with connect(…) as comm``.

    Parameters
    ----------
    address : str
        ``scheme://host:port``. A bare ``host:port`` means ``tls`` with an `ssl_context`, else
        ``tcp``.
    timeout : float, default 30
        Seconds for name resolution, TCP, TLS and hello together, over all attempts. Failed
        attempts are repeated after a random pause of at most one second until one succeeds, the
        timeout expires, or an error is not `retryable`. An attempt that no packet answers ends
        after 10 seconds; the next one resolves the name again.
    max_attempts : int, optional
        How many attempts to make at most; 1 does not repeat a failed one. None, the default, means
        as many as fit into the timeout.
    limits : Limits, optional
        Bounds for the comm; the defaults of `Limits` if omitted.
    ssl_context, require_encryption, extra_conn_args : optional
        As returned by ``Security.get_connection_args(role)``. ``extra_conn_args`` may hold a
        ``server_hostname``. An `ssl_context` with ``tcp://`` is an error.
    server_hostname : str, optional
        The server name (SNI) to send, for ``tls://`` only.
    connection_args : mapping, optional
        Further arguments of a third party's backend. It also gets unknown keywords, which type
        checkers refuse: they may be misspelt ones of this function.

    Returns
    -------
    awaitable and async context manager of Comm
        The attempts start when it is awaited or entered; leaving the context closes the comm. It is
        used once, as a coroutine is.

    Raises
    ------
    TypeError
        Before any I/O, for an argument of another type, or unknown to this function and to the
        scheme's backend.
    ValueError
        Before any I/O, for a timeout that is not positive and finite, and for an `ssl_context` that
        does not verify peers, is for servers, or allows TLS below 1.2.
    AddressError
        Before any I/O, for a malformed address, or one without a port.
    EncryptionRequired
        Before any I/O, for a plain address where encryption is required.
    CommClosedError
        At once for an error that another attempt would repeat, such as `HandshakeError`.
    ConnectTimeout
        If the timeout expired in an attempt that had more than half of it and got no answer, or
        if no packet was answered.
    ConnectError
        If the timeout expired otherwise, or the last attempt failed; its cause is the error of the
        last attempt.

    Notes
    -----
    A cancelled call leaves no socket open. The counterpart in Dask is
    ``distributed.comm.connect``.
    """
    seconds = expect_seconds("connect()", "timeout", timeout, "leave it out for 30 s")
    attempts: float = math.inf
    if max_attempts is not None:
        instead = "leave it out for as many as fit into the timeout"
        attempts = expect_count("connect()", "max_attempts", max_attempts, instead)
    limits = expect_limits("connect()", limits)
    expect_bool("connect()", "require_encryption", require_encryption, none=True)
    target = _complete(address, ssl_context)
    if not (target.port or target.opaque):
        raise AddressError(f"bad address {address!r}: no port; write {target.host or 'host'}:8786")
    backend = get_backend(target.scheme)
    named = expect_mapping("connect()", "connection_args", connection_args)
    if extra_conn_args is not None:
        extra_conn_args = expect_mapping("connect()", "extra_conn_args", extra_conn_args)
    if server_hostname is not None:
        named["server_hostname"] = server_hostname
    further = _checked(connect, backend.connect_arguments, named)
    args: dict[str, Any] = {
        "ssl_context": ssl_context,
        "require_encryption": require_encryption,
        "extra_conn_args": extra_conn_args,
        **further,
    }
    return _Connecting(target, _Bounds(seconds, attempts), limits, args)


@takes_further
def listen(
    address: str,
    handler: Handler,
    *,
    limits: Limits | None = None,
    cancel_on_disconnect: bool = False,
    ssl_context: ssl.SSLContext | None = None,
    require_encryption: bool | None = None,
    connection_args: Mapping[str, Any] | None = None,
) -> Listener:
    """Accept comms on an address: ``listener = await listen(…)`` or ``async with listen(…)``.

    Parameters
    ----------
    address : str
        ``scheme://host:port``, or bare as for `connect`. An empty host or ``0.0.0.0`` means all
        interfaces; port 0, or none, any free port.
    handler : callable
        Function or coroutine function called with each comm. The comm is closed when it returns;
        an exception is logged.
    limits : Limits, optional
        Bounds for the listener and for each comm; the defaults of `Limits` if omitted.
    cancel_on_disconnect : bool, default False
        Whether to cancel a handler once its peer has closed or is lost, also with messages unread.
        Off by default: a handler that reads or writes gets an error there, where it expects one,
        while a cancellation interrupts it anywhere, though others may need what it does. See also
        `Comm.wait_closed`.
    ssl_context, require_encryption : optional
        As returned by ``Security.get_listen_args(role)``. An `ssl_context` with ``tcp://`` is an
        error.
    connection_args : mapping, optional
        Further arguments of a third party's backend, as for `connect`.

    Returns
    -------
    Listener
        Not started: await or enter it. Starting raises `OSError` if the address cannot be bound.

    Raises
    ------
    TypeError, ValueError, AddressError, EncryptionRequired
        As for `connect`, before any I/O; the `ssl_context` must be one for servers.

    Notes
    -----
    The counterpart in Dask is ``distributed.comm.listen``.
    """
    expect_handler("listen()", handler)
    limits = expect_limits("listen()", limits)
    expect_bool("listen()", "cancel_on_disconnect", cancel_on_disconnect)
    expect_bool("listen()", "require_encryption", require_encryption, none=True)
    target = _complete(address, ssl_context)
    backend = get_backend(target.scheme)
    further = _checked(
        listen,
        backend.listen_arguments,
        expect_mapping("listen()", "connection_args", connection_args),
    )
    listener = backend.listener(
        target,
        handler,
        limits,
        ssl_context=ssl_context,
        require_encryption=require_encryption,
        **further,
    )
    if isinstance(listener, ServingListener):
        listener.awaited = False
        listener.cancel_on_disconnect = cancel_on_disconnect
    elif cancel_on_disconnect:
        raise TypeError(
            f"cannot listen on {target} with cancel_on_disconnect: {type(listener).__name__} does "
            f"not own its comms; leave it out, or derive it from ServingListener"
        )
    return listener


def _checked(
    function: Callable[..., Any], takes: Collection[str], given: dict[str, Any]
) -> dict[str, Any]:
    """Return the extra arguments in `given`, if the backend `takes` all of them."""
    for mark in _MARKS:
        given.pop(mark, None)
    if given:
        own = inspect.signature(function).parameters.keys() - {*given, "connection_args"}
        expect_known(f"{function.__name__}()", given, own.union(takes))
    return given


def _complete(address: str, ssl_context: ssl.SSLContext | None) -> Address:
    if not (ssl_context is None or is_context(ssl_context)):
        raise TypeError(
            f"cannot use {repr_of(address)}: ssl_context is {repr_of(ssl_context)}, need an "
            f"ssl.SSLContext or None"
        )
    if isinstance(address, str) and "://" in (address := str.__str__(address)):
        with contextlib.suppress(AddressError):  # which is told below
            get_backend(address.partition("://")[0].lower())  # knows the form of its addresses
    target = parse_address(address)
    if not target.scheme:
        target = target._replace(scheme="tls" if ssl_context else "tcp")
    return target


async def _connect(
    address: Address, bounds: _Bounds, limits: Limits, connection_args: dict[str, Any]
) -> Comm:
    timeout = bounds.seconds
    connector = get_backend(address.scheme).connector()
    loop = asyncio.get_running_loop()
    start = loop.time()
    attempts = 0
    last: Exception | None = None
    while (left := start + timeout - loop.time()) > 0:
        attempts += 1
        try:
            return await _within(left, connector.connect(address, limits, **connection_args))
        except asyncio.TimeoutError as error:
            if last is None or left > timeout / 2:  # else what failed before explains more
                last = error
            break
        except CommError as error:
            if not error.retryable:
                raise
            last = error
        if attempts >= bounds.attempts:
            break
        pause = min(_BACKOFF_CAP, _BACKOFF_START * 2**attempts)
        left = start + timeout - loop.time()
        await asyncio.sleep(max(0.0, min(left, random.uniform(0, pause))))
    raise _gave_up(address, attempts, loop.time() - start, last) from last


if sys.version_info >= (3, 11):

    async def _within(seconds: float, connecting: Coroutine[Any, Any, Comm]) -> Comm:
        """As `asyncio.wait_for`, which creates a task for this before Python 3.12."""
        async with asyncio.timeout(seconds):
            return await connecting

else:

    async def _within(seconds: float, connecting: Coroutine[Any, Any, Comm]) -> Comm:
        return await asyncio.wait_for(connecting, seconds)


def _gave_up(
    address: Address, attempts: int, elapsed: float, last: Exception | None
) -> ConnectError:
    counted = f"{attempts} attempt{'s' if attempts != 1 else ''} in {elapsed:.1f} s"
    error: ConnectError
    if isinstance(last, CommClosedError):
        why, _, remedy = str(last).partition("; ")
        remedy = remedy or "see the log of the other side"
        silent = isinstance(last.__cause__, TimeoutError)  # no packet came back
        kind = ConnectTimeout if silent else ConnectError
        error = kind(f"cannot connect to {address}: {why} ({counted}); {remedy}")
    else:
        error = ConnectTimeout(
            f"cannot connect to {address}: no answer ({counted}); check that the address is right, "
            f"that the other side speaks {address.scheme} and that no firewall drops packets"
        )
    error.peer = str(address)
    error.kind = last.kind if isinstance(last, CommError) else "timeout"
    error.attempts = attempts
    error.elapsed = elapsed
    return error
