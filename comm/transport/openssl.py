"""What OpenSSL offers and `ssl` does not, asked of the very library that `ssl` uses.

CPython's objects hold pointers to OpenSSL's. Where they stand is no promise, so it is looked at
once, on a connection made for it: a field that should be the connection's context must be that. If
anything is otherwise (another interpreter, an OpenSSL whose functions cannot be found), nothing
here does anything, and says so.
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

# Of ssl.h: SSL_CTRL_SET_MAX_CERT_LIST, SSL_CTRL_CLEAR_MODE, SSL_MODE_AUTO_RETRY
_SET_MAX_CERT_LIST = 51
_CLEAR_MODE = 78
_AUTO_RETRY = 4
_POINTER = 8
_WHERE = object.__basicsize__ + _POINTER


def bound(connection: Any, certificates: int) -> bool:
    """Bound what the peer of a connection can make one call into OpenSSL do.

    - In its handshake it may send `certificates` bytes of them. OpenSSL refuses more before it has
      read them, with an alert; its own limit is 100 KiB (`SSL_set_max_cert_list`).
    - A read comes back after each record that holds no data, as after one that is not whole. It
      would go on to the next: a peer that has sent 100,000 requests for new keys, 2.7 MB, held the
      event loop for 2.6 s (`SSL_MODE_AUTO_RETRY`, which `ssl` sets). Who polls, and reads when
      told, need not know.

    `connection` is what an `ssl.SSLSocket` or `ssl.SSLObject` keeps as ``_sslobj``. Returns whether
    OpenSSL could be told.
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
    """OpenSSL's `SSL_ctrl` and the class of the connections that it may be called for, or None."""
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
    """The connection's ``SSL *``: it follows the object's head and a reference to its socket."""
    return int(ctypes.c_void_p.from_address(id(connection) + _WHERE).value or 0)


def _kind() -> type | None:
    """The class of connections, if the context is found where it must be: behind the pointer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    connection: Any = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    made = connection._sslobj
    if type(made).__basicsize__ < _WHERE + 2 * _POINTER:
        return None
    after = ctypes.c_void_p.from_address(id(made) + _WHERE + _POINTER).value
    return type(made) if after == id(context) and _pointer(made) else None
