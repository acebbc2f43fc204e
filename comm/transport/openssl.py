"""OpenSSL functions that `ssl` does not expose, called in the library that `ssl` has loaded.

CPython's objects hold pointers to OpenSSL's at undocumented offsets. Only releases are trusted that
the tests have run on, and the offsets are verified besides, once on a connection made for the
purpose and then on every connection: the word after the pointer must be the connection's context.
Nothing is dereferenced, by us or by OpenSSL, before that holds; and what OpenSSL then says of the
pointer must be what the context's object holds. Otherwise (another interpreter, an OpenSSL without
these symbols) the functions here do nothing, and report so.

The caller must keep the connection's object alive while it uses the pointer, and let no other
thread use the connection: unlike `ssl` since Python 3.13, nothing here takes a lock.
"""

from __future__ import annotations

import functools
import ssl
import sys
from collections.abc import Callable
from typing import Any

try:
    import ctypes
except ImportError:  # pragma: no cover - a Python built without it
    ctypes = None  # type: ignore[assignment]

__all__ = ["Unusable", "alone", "bound", "forgetter", "library", "pointer", "why_not"]

# From ssl.h: SSL_CTRL_SET_MAX_CERT_LIST, SSL_CTRL_CLEAR_MODE, SSL_MODE_AUTO_RETRY
_SET_MAX_CERT_LIST = 51
_CLEAR_MODE = 78
_AUTO_RETRY = 4
_POINTER = 8
_HEAD = object.__basicsize__
_VERSIONS = ((3, 10), (3, 15))  # from, and below
# In a connection: its head, a weak reference to its socket, the SSL *, its context's object.
_WHERE = _HEAD + _POINTER
# In a context: its head, the SSL_CTX *.


class Unusable(Exception):
    """Why OpenSSL cannot be asked anything past `ssl`."""


def bound(connection: Any, certificates: int) -> int | None:
    """Bound the work that a peer can cause in one call of OpenSSL.

    - In its handshake it may send `certificates` bytes of certificates. OpenSSL rejects more before
      reading them, with an alert; its default is 100 KiB (`SSL_set_max_cert_list`).
    - A read returns after each record without data, as after an incomplete one. By default it goes
      on to the next (`SSL_MODE_AUTO_RETRY`, which `ssl` sets): a peer that had sent 100,000 key
      updates, 2.7 MB, blocked the event loop for 2.6 s. Callers that poll are not affected.

    `connection` is the ``_sslobj`` of an `ssl.SSLSocket` or `ssl.SSLObject`. Returns its
    `pointer`, or None if OpenSSL could not be configured.
    """
    try:
        where = pointer(connection)
    except Unusable:
        return None
    control = library().SSL_ctrl
    control(where, _SET_MAX_CERT_LIST, certificates, None)
    control(where, _CLEAR_MODE, _AUTO_RETRY, None)
    return where


def pointer(connection: Any) -> int:
    """Return the ``SSL *`` of the ``_sslobj`` of an `ssl.SSLSocket` or `ssl.SSLObject`.

    Raises `Unusable`, with the reason, unless it is verified.
    """
    why = why_not()
    if why:
        raise Unusable(why)
    return _checked(connection)


def alone(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Return an operation of `ssl` that is told of no error but its own.

    OpenSSL has a queue of errors for each thread, and takes whatever is in it for the reason why a
    call has brought nothing, although it may be of another connection. So `ssl` would report the
    errors of others where it should wait for more. It leaves some there itself: since Python 3.14,
    when a reset connection is written to, as at its close. So may any library that calls the same
    OpenSSL. Therefore the queue is emptied before.
    """
    queue = _queue()
    if queue is None:
        return operation
    peek, clear = queue

    def without_others(*args: Any) -> Any:
        if peek():
            clear()
        return operation(*args)

    return without_others


@functools.cache
def _queue() -> tuple[Callable[[], int], Callable[[], None]] | None:
    """Return the functions that look into the queue and empty it, if they can be called."""
    try:
        peek, clear = library().ERR_peek_error, library().ERR_clear_error
    except (Unusable, AttributeError):
        return None
    peek.restype, peek.argtypes = ctypes.c_ulong, []
    clear.restype, clear.argtypes = None, []
    return peek, clear


@functools.cache
def forgetter() -> Callable[[], None]:
    """Return a function that empties the queue, see `alone`, so that nothing is left to others."""
    return alone(_nothing)


def _nothing() -> None:
    pass


@functools.cache
def library() -> Any:
    """Return the library that `ssl` is linked to; calls keep the GIL. Raises `Unusable`."""
    if sys.platform == "win32" or ctypes is None:
        raise Unusable(f"ssl's OpenSSL cannot be called: no ctypes, or on {sys.platform}")
    try:
        import _ssl

        found = ctypes.PyDLL(_ssl.__file__, use_errno=True)
        found.SSL_ctrl.restype = ctypes.c_long
        found.SSL_ctrl.argtypes = [
            ctypes.c_void_p,
            ctypes.c_int,
            ctypes.c_long,
            ctypes.c_void_p,
        ]
        found.SSL_get_SSL_CTX.restype = ctypes.c_void_p
        found.SSL_get_SSL_CTX.argtypes = [ctypes.c_void_p]
        found.OpenSSL_version_num.restype = ctypes.c_ulong
        found.OpenSSL_version_num.argtypes = []
    except (ImportError, AttributeError, OSError) as error:
        raise Unusable(f"ssl is not linked to a shared OpenSSL ({error})") from error
    if found.OpenSSL_version_num() != ssl.OPENSSL_VERSION_NUMBER:
        raise Unusable("the OpenSSL that ctypes finds is another than ssl's")
    return found


@functools.cache
def why_not() -> str:
    """Return why no connection's pointer can be found in this process; empty if it can."""
    name = sys.implementation.name
    first, end = _VERSIONS
    if name != "cpython" or not first <= sys.version_info < end:
        release = f"{name} {sys.version_info.major}.{sys.version_info.minor}"
        return f"where {release} keeps OpenSSL's connection is not known"
    if "t" in getattr(sys, "abiflags", ""):  # sysconfig takes 2 ms to say the same
        return "this Python is built without a GIL"
    try:
        library()
        if ctypes.sizeof(ctypes.c_void_p) != _POINTER:
            return "pointers are not of 64 bits"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made: Any = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
        _checked(made._sslobj)
    except Unusable as error:
        return str(error)
    return ""


def _word(found: object, offset: int) -> int:
    """Return a word of an object, which must be large enough."""
    return int(ctypes.c_void_p.from_address(id(found) + offset).value or 0)


def _checked(connection: Any) -> int:
    import _ssl

    kind = type(connection)
    if kind is not _ssl._SSLSocket:  # type: ignore[attr-defined]
        raise Unusable(f"a {kind.__name__} is no connection of ssl's")
    context = connection.context
    base = _ssl._SSLContext
    if kind.__basicsize__ < _WHERE + 2 * _POINTER or base.__basicsize__ < _HEAD + _POINTER:
        raise Unusable("ssl's objects are smaller than they should be")
    if not isinstance(context, base) or _word(connection, _WHERE + _POINTER) != id(context):
        raise Unusable("ssl's connections do not have their context where it should be")
    found = _word(connection, _WHERE)
    if not found or found % _POINTER:
        raise Unusable("ssl's connections do not have a pointer where it should be")
    # Only now is it passed to OpenSSL.
    if library().SSL_get_SSL_CTX(found) != (_word(context, _HEAD) or None):
        raise Unusable("OpenSSL knows the connection's context by another address")
    return found
