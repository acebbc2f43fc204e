"""TLS records of large frames, received with the GIL held.

`ssl` releases the GIL around every record of 16 KiB, which takes some 15 us to receive and decrypt.
Beside a thread that computes in Python, the event loop waits for the GIL after each of them, and
large frames take as long as these waits: a convoy. Here OpenSSL's `SSL_read` is called through
`ctypes.PyDLL`, which does not release the GIL.

Between two such calls the interpreter would still hand over the GIL, once another thread has waited
for the switch interval. Therefore all full records of a *turn* are read by one call into C: `map`
calls `SSL_read`, `filterfalse` examines what it returns, and no bytecode runs in between. A turn is
limited to about 0.4 ms of this thread's CPU time, whatever the speed of CPU and cipher (`_TURN`);
after it a waiting thread gets the GIL.

The behaviour of `ssl` is preserved by leaving everything to it that is not data. After a read that
brings none, `ssl` is made to read again: OpenSSL repeats its answer, its error queue is left as it
is, and so `ssl` raises what it would have raised. There are two exceptions. A read that would block
is how most turns end, so that error is raised here, with the text of `ssl`. And the system reports
an error of the connection, such as a reset, only once; so `ssl` is made to raise its error for a
reset of a connection made for the purpose, and the same is raised here.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import socket
import ssl
from collections.abc import Callable
from itertools import filterfalse, repeat
from operator import length_hint
from time import thread_time
from typing import Any, NamedTuple

from . import openssl

try:
    import ctypes
except ImportError:  # pragma: no cover - a Python built without it
    ctypes = None  # type: ignore[assignment]

__all__ = ["RECORD", "Fill", "filler", "usable"]

logger = logging.getLogger("sealwire.comm")

Fill = Callable[[memoryview, Callable[[int], object]], tuple[int, int]]
"""See `Channel.fill`."""

RECORD = 16 * 1024
"""The payload of a full TLS record."""

_TURN = 0.4e-3  # seconds of CPU time within which the GIL is not given up
_FEWEST, _MOST = 4 * RECORD, 64 * RECORD  # in one turn, whatever was measured
_FIRST = 16 * RECORD  # before anything was

_is_full = RECORD.__eq__


class _Calls(NamedTuple):
    """The functions of OpenSSL, and the errors that are not left to `ssl`."""

    read: Any
    error_of: Any
    clear_errors: Any
    no_more: OSError
    reset: OSError


def filler(tls: Any, sock: socket.socket, where: int | None = None) -> Fill | None:
    """Return a function that fills large frames with the GIL held, or None where none can be had.

    `tls` is the ``_sslobj`` of the `ssl.SSLSocket` `sock`, and `where` its `openssl.pointer`, if it
    is known already. Only one thread may use the connection,
    and the socket must stay non-blocking.
    """
    try:
        where = where or openssl.pointer(tls)
        calls = _calls()
        if isinstance(calls, str):
            raise openssl.Unusable(calls)
        if sock.gettimeout() != 0:
            raise openssl.Unusable("the socket blocks")
    except openssl.Unusable as error:
        _tell(str(error))
        return None
    return _Filler(tls, where, calls).fill


def usable() -> bool:
    """Whether connections of this process can be filled with the GIL held."""
    return not openssl.why_not() and not isinstance(_calls(), str)


@functools.cache
def _tell(why: str) -> None:
    logger.debug("large frames over TLS are received without holding the GIL: %s", why)


class _Filler:
    """Of one connection. It keeps the connection's object, which keeps OpenSSL's alive."""

    __slots__ = ("_calls", "_tls", "_turn", "_where")

    def __init__(self, tls: Any, where: int, calls: _Calls) -> None:
        self._tls = tls
        self._where = where
        self._calls = calls
        self._turn = _FIRST

    def fill(self, target: memoryview, note: Callable[[int], object]) -> tuple[int, int]:
        """Receive into `target`, for at most one turn; see `Channel.fill`."""
        filled, size = self._read(target, min(len(target), self._turn))
        try:
            if size <= 0:
                size = self._without_data(target, filled)
                filled += size
        finally:
            note(filled)
        return filled, size

    def _read(self, target: memoryview, room: int) -> tuple[int, int]:
        """Return how many bytes were received, and the result of the last `SSL_read`."""
        read, _, clear_errors, *_ = self._calls
        block = ctypes.c_char.from_buffer(target)  # an export of the buffer, which pins it
        begin = ctypes.addressof(block)
        places = iter(range(begin, begin + room - RECORD + 1, RECORD))
        many = length_hint(places)
        began = thread_time()
        clear_errors()
        sizes = map(read, repeat(self._where), places, repeat(RECORD))
        size: int = next(filterfalse(_is_full, sizes), RECORD)
        filled = (many - length_hint(places)) * RECORD
        if size != RECORD:
            filled += max(size, 0) - RECORD
        elif filled < room:
            size = read(self._where, begin + filled, room - filled)
            filled += max(size, 0)
        spent = thread_time() - began
        if filled >= _FEWEST and spent > 0:  # else it says too little about the speed
            possible = (self._turn + filled / spent * _TURN) / 2
            self._turn = min(max(int(possible) // RECORD * RECORD, _FEWEST), _MOST)
        return filled, size

    def _without_data(self, target: memoryview, filled: int) -> int:
        """Have `ssl` say why a read brought nothing; returns its result if it raises no error."""
        calls = self._calls
        what = calls.error_of(self._where, 0)
        if what == ssl.SSL_ERROR_WANT_READ:
            if filled:
                return 0
            raise _again(calls.no_more)
        number = ctypes.get_errno()
        if what == ssl.SSL_ERROR_SYSCALL and number:
            calls.clear_errors()
            if isinstance(calls.reset, ssl.SSLError):
                raise _again(calls.reset)
            raise OSError(number, os.strerror(number))
        return int(self._tls.read(len(target) - filled, target[filled:]))


@functools.cache
def _calls() -> _Calls | str:
    """Return the functions to call, or the reason why they cannot be called."""
    try:
        found = openssl.library()
        found.SSL_read.restype = found.SSL_get_error.restype = ctypes.c_int
        found.SSL_read.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        found.SSL_get_error.argtypes = [ctypes.c_void_p, ctypes.c_int]
        found.ERR_clear_error.restype = None
        found.ERR_clear_error.argtypes = []
        return _Calls(found.SSL_read, found.SSL_get_error, found.ERR_clear_error, *_words())
    except (openssl.Unusable, AttributeError, OSError) as error:
        return str(error)


def _words() -> tuple[OSError, OSError]:
    """Return the errors that `ssl` raises for a read that would block, and for a reset."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        made: Any = context.wrap_socket(near, server_side=True, do_handshake_on_connect=False)
        with made as tls:
            nothing = _raised_by(tls._sslobj)
            socket.socket.send(tls, b"unread")  # closing with unread bytes is a reset
            far.close()
            reset = _raised_by(tls._sslobj)
    if not isinstance(nothing, ssl.SSLWantReadError):
        raise openssl.Unusable(f"ssl raises {nothing!r} for a read that would block")
    if reset.errno != errno.ECONNRESET and vars(reset).get("reason"):
        raise openssl.Unusable(f"ssl raises {reset!r} for a reset")
    return nothing, reset


def _raised_by(tls: Any) -> OSError:
    try:
        tls.read(1)
    except OSError as error:
        return _again(error)
    raise openssl.Unusable("ssl reads from a connection without a peer")


def _again(error: OSError) -> OSError:
    """Return a copy: the traceback of an exception that was raised keeps its frames alive."""
    new = type(error)(*error.args)
    new.__dict__.update(error.__dict__)
    return new
