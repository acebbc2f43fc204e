"""CPython's own TLS classes, although a library may have put others into `ssl`.

`truststore.inject_into_ssl`, which `pip-system-certs` calls in every process, puts a class in place
of ``ssl.SSLContext`` whose contexts trust the system's CAs and lack methods. And the setters of
`ssl`, which look the class up by its name, then call themselves without end for any other context.

gevent replaces sockets, too, and threads. No event loop can run on them, which is said at least.
"""

from __future__ import annotations

import _socket
import ssl
from typing import TYPE_CHECKING, Any

__all__ = ["NativeContext", "NativeObject", "NativeSocket", "expect_native", "is_context"]

if TYPE_CHECKING:
    from typing import TypeGuard

    _Context = ssl.SSLContext
    NativeSocket = ssl.SSLSocket
    NativeObject = ssl.SSLObject
else:
    # What replaces it is a subclass, so that others' `isinstance` goes on working.
    _Context = next(each for each in ssl.SSLContext.__mro__[::-1] if each.__module__ == "ssl")
    NativeSocket = _Context.sslsocket_class
    NativeObject = _Context.sslobject_class

# Those whose setters in `ssl` look the class up
_LOOKED_UP = ("maximum_version", "minimum_version", "options", "verify_flags", "verify_mode")


class NativeContext(_Context):
    """An `ssl.SSLContext` that works, and verifies alike, whatever has become of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _LOOKED_UP:
            getattr(super(_Context, _Context), name).__set__(self, value)
        else:
            super().__setattr__(name, value)


def is_context(value: object) -> TypeGuard[ssl.SSLContext]:
    """Whether a value is a context of `ssl`, of CPython's own class or of one in its place."""
    return isinstance(value, _Context)


def expect_native(sock: object) -> None:
    """Raise `RuntimeError` for a socket that TLS cannot be spoken over, since it is a library's."""
    if ssl.SSLSocket is NativeSocket and isinstance(sock, _socket.socket):
        return
    kind = type(sock) if ssl.SSLSocket is NativeSocket else ssl.SSLSocket
    raise RuntimeError(
        f"cannot use TLS in this process: its sockets are those of {kind.__module__}, and event "
        "loops need Python's own; do not replace them (gevent.monkey.patch_all()) where sealwire is"
    )
