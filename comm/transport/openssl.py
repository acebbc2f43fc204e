"""OpenSSL functions that `ssl` does not expose, called in the library that `ssl` has loaded.

CPython's objects hold pointers to OpenSSL's at undocumented offsets. These are verified once, on a
connection made for the purpose: the field expected to be the connection's context must be that
context. Otherwise (another interpreter, an OpenSSL without these symbols) the functions here do
nothing, and report so.
"""

from __future__ import annotations

import functools
import ssl
import sys
from typing import Any

try:
    import ctypes
except ImportError:  # a Python built without it
    ctypes = None  # type: ignore[assignment]

__all__ = ["bound"]

# From ssl.h: SSL_CTRL_SET_MAX_CERT_LIST, SSL_CTRL_CLEAR_MODE, SSL_MODE_AUTO_RETRY
_SET_MAX_CERT_LIST = 51
_CLEAR_MODE = 78
_AUTO_RETRY = 4
_POINTER = 8
_WHERE = object.__basicsize__ + _POINTER


def bound(connection: Any, certificates: int) -> bool:
    """Bound the work that a peer can cause in one call of OpenSSL.

    - In its handshake it may send `certificates` bytes of certificates. OpenSSL rejects more before
      reading them, with an alert; its default is 100 KiB (`SSL_set_max_cert_list`).
    - A read returns after each record without data, as after an incomplete one. By default it goes
      on to the next (`SSL_MODE_AUTO_RETRY`, which `ssl` sets): a peer that had sent 100,000 key
      updates, 2.7 MB, blocked the event loop for 2.6 s. Callers that poll are not affected.

    `connection` is the ``_sslobj`` of an `ssl.SSLSocket` or `ssl.SSLObject`. Returns whether
    OpenSSL could be configured.
    """
    control, kind = _control()
    if control is None or type(connection) is not kind:
        return False
    pointer = _pointer(connection)
    control(pointer, _SET_MAX_CERT_LIST, certificates, None)
    control(pointer, _CLEAR_MODE, _AUTO_RETRY, None)
    return True


@functools.cache
def _control() -> tuple[Any, Any]:
    """OpenSSL's `SSL_ctrl` and the class of connections it is known to work for, or None."""
    try:
        import _ssl

        if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != _POINTER:
            return None, None
        control = ctypes.PyDLL(_ssl.__file__).SSL_ctrl
        control.restype = ctypes.c_long
        control.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
    except (ImportError, AttributeError, OSError):
        return None, None
    kind = _kind()
    return (control, kind) if kind is not None else (None, None)


def _pointer(connection: Any) -> int:
    """Return the ``SSL *``, which follows the object header and a reference to the socket."""
    return int(ctypes.c_void_p.from_address(id(connection) + _WHERE).value or 0)


def _kind() -> type | None:
    """Return the class of connections, if the context follows the pointer as expected."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    connection: Any = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    made = connection._sslobj
    if type(made).__basicsize__ < _WHERE + 2 * _POINTER:
        return None
    after = ctypes.c_void_p.from_address(id(made) + _WHERE + _POINTER).value
    return type(made) if after == id(context) and _pointer(made) else None
