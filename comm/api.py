"""`connect` and `listen`: an address and a `Security`'s arguments to a comm or a listener."""

from __future__ import annotations

import asyncio
import inspect
import random
import ssl
import sys
from collections.abc import Callable, Collection, Coroutine, Generator, Mapping
from types import TracebackType
from typing import Any

from .addressing import Address, parse_address
from .arguments import expect_known
from .errors import AddressError, CommClosedError, CommError, ConnectError, ConnectTimeout
from .interfaces import Comm, Handler, Listener
from .limits import DEFAULT_LIMITS, Limits
from .registry import get_backend

__all__ = ["connect", "listen"]

#: What the `Security` of our Dask backend marks its arguments with; of no meaning here.
_MARKS = ("encryption_decided", "tls_role")

_BACKOFF_START = 0.01
_BACKOFF_CAP = 1.0


class _Connecting:
    """What `connect` returns: await it for the comm, or enter it and have the comm closed."""

    def __init__(self, address: Address, timeout: float, limits: Limits, args: dict[str, Any]):
        self._address = address
        self._timeout = timeout
        self._limits = limits
        self._args = args
        self._comm: Comm | None = None

    def __await__(self) -> Generator[Any, None, Comm]:
        return _connect(self._address, self._timeout, self._limits, self._args).__await__()

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
            await self._comm.close()


def connect(
    address: str,
    *,
    timeout: float = 30.0,
    limits: Limits | None = None,
    ssl_context: ssl.SSLContext | None = None,
    require_encryption: bool | None = None,
    extra_conn_args: Mapping[str, Any] | None = None,
    **connection_args: Any,
) -> _Connecting:
    """Connect to a listener: ``comm = await connect(…)`` or ``async with connect(…) as comm``.

    Parameters
    ----------
    address
        ``scheme://host:port``. A bare ``host:port`` is tls if there is an `ssl_context`, else tcp.
    timeout
        Seconds for everything: the name, TCP, TLS and the hello, over all attempts. Attempts follow
        each other after a random pause of at most a second, until one succeeds, the time is up or
        an error says that another attempt would end the same way.
    limits
        Bounds for the comm.
    ssl_context, require_encryption, extra_conn_args
        As ``Security.get_connection_args(role)`` gives them. ``extra_conn_args`` may hold a
        ``server_hostname``, sent as SNI. With ``tcp://`` an `ssl_context` is an error.
    connection_args
        What the scheme's backend takes besides: ``server_hostname`` again for ``tls://``.

    Raises before any I/O `TypeError` for an argument that neither this function nor the scheme's
    backend knows, `ValueError` for an `ssl_context` that verifies nobody, is for listening, or
    speaks TLS before 1.2, `EncryptionRequired` and `AddressError`; `HandshakeError` or another
    non-retryable `CommClosedError` at once, `ConnectTimeout` if the last attempt had most of the
    time and was still waiting when it was up, else `ConnectError`. A cancelled call leaves nothing
    open.
    """
    target = _complete(address, ssl_context)
    if not target.port:
        raise AddressError(f"bad address {address!r}: no port; write {target.host}:8786")
    backend = get_backend(target.scheme)
    connection_args = _checked(connect, backend.connect_arguments, connection_args)
    args = {
        "ssl_context": ssl_context,
        "require_encryption": require_encryption,
        "extra_conn_args": extra_conn_args,
        **connection_args,
    }
    return _Connecting(target, timeout, limits or DEFAULT_LIMITS, args)


def listen(
    address: str,
    handler: Handler,
    *,
    limits: Limits | None = None,
    ssl_context: ssl.SSLContext | None = None,
    require_encryption: bool | None = None,
    **connection_args: Any,
) -> Listener:
    """Accept comms on an address: ``listener = await listen(…)`` or ``async with listen(…)``.

    Parameters
    ----------
    address
        ``scheme://host:port``; bare as for `connect`. An empty host or ``0.0.0.0`` is every
        interface, port 0 (or none) any free one.
    handler
        Function or coroutine function called with each comm; the comm is closed when it is done.
        What it raises is logged.
    limits
        Bounds for each comm.
    ssl_context, require_encryption
        As ``Security.get_listen_args(role)`` gives them. With ``tcp://`` an `ssl_context` is an
        error.
    connection_args
        What the scheme's backend takes besides; ``tcp://`` and ``tls://`` take nothing.

    Raises as `connect` does before any I/O; starting raises `OSError` if the
    address cannot be bound.
    """
    target = _complete(address, ssl_context)
    backend = get_backend(target.scheme)
    connection_args = _checked(listen, backend.listen_arguments, connection_args)
    return backend.listener(
        target,
        handler,
        limits or DEFAULT_LIMITS,
        ssl_context=ssl_context,
        require_encryption=require_encryption,
        **connection_args,
    )


def _checked(
    function: Callable[..., Any], takes: Collection[str], given: dict[str, Any]
) -> dict[str, Any]:
    """What was `given` besides the function's own arguments, if the backend `takes` all of it."""
    for mark in _MARKS:
        given.pop(mark, None)
    if given:
        own = {name for name in inspect.signature(function).parameters if name != "connection_args"}
        expect_known(f"{function.__name__}()", given, own.union(takes))
    return given


def _complete(address: str, ssl_context: ssl.SSLContext | None) -> Address:
    if not (ssl_context is None or isinstance(ssl_context, ssl.SSLContext)):
        raise TypeError(
            f"cannot use {address}: ssl_context is {ssl_context!r}, need an ssl.SSLContext or None"
        )
    target = parse_address(address)
    if not target.scheme:
        target = target._replace(scheme="tls" if ssl_context else "tcp")
    return target


async def _connect(
    address: Address, timeout: float, limits: Limits, connection_args: dict[str, Any]
) -> Comm:
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
        pause = min(_BACKOFF_CAP, _BACKOFF_START * 2**attempts)
        left = start + timeout - loop.time()
        await asyncio.sleep(max(0.0, min(left, random.uniform(0, pause))))
    raise _gave_up(address, attempts, loop.time() - start, last) from last


if sys.version_info >= (3, 11):

    async def _within(seconds: float, connecting: Coroutine[Any, Any, Comm]) -> Comm:
        """As `asyncio.wait_for`, which makes a task of it before Python 3.12."""
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
        error = ConnectError(f"cannot connect to {address}: {why} ({counted}); {remedy}")
    else:
        error = ConnectTimeout(
            f"cannot connect to {address}: no answer ({counted}); check that the address is right, "
            f"that the other side speaks {address.scheme} and that no firewall drops packets"
        )
    error.peer = str(address)
    error.attempts = attempts
    error.elapsed = elapsed
    return error
