"""TLS records received with the GIL held: a large frame waits for it now and then, not each time.

`ssl` gives up the GIL around every record of 16 KiB, which takes some 15 us to receive and decrypt.
Beside a thread that computes in Python, each has to be waited for again, and the wait is what large
frames then take: a convoy. So they are received by OpenSSL's own `SSL_read`, called through
`ctypes.PyDLL`, which leaves the GIL alone.

Between two such calls the interpreter would hand over the GIL all the same, as soon as another
thread has waited for the switch interval. Therefore all full records of a *turn* are read by one
call into C: `map` calls `SSL_read`, `filterfalse` looks at what it returns, and no bytecode is run
in between. A turn takes about half a millisecond of this thread's CPU time, however fast the CPU
and the cipher are (`_TURN`); after it whoever waits gets the GIL.

What `ssl` promises is kept by leaving to it whatever is not plain data. A read that brings none has
changed nothing that a second one could miss: OpenSSL says again what it has said, its queue of
errors is left to `ssl`, and `ssl` raises what it would have raised. There are two exceptions. That
there is nothing more is what most turns end with, so it is said here, in `ssl`'s words. And what
the system says of a connection (a reset), it says once; so `ssl` is made to raise that for a
connection of our own, and says it of this one in the same words.
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
except ImportError:  # a Python built without it
    ctypes = None  # type: ignore[assignment]

__all__ = ["RECORD", "Fill", "filler"]

logger = logging.getLogger("sealwire.comm")

Fill = Callable[[memoryview, Callable[[int], object]], tuple[int, int]]
"""See `Channel.fill`."""

RECORD = 16 * 1024
"""The payload of a full TLS record."""

_TURN = 0.5e-3  # seconds of CPU time within which the GIL is not given up
_FEWEST, _MOST = 4 * RECORD, 64 * RECORD  # in one turn, whatever was measured
_FIRST = 16 * RECORD  # before anything was
_WORTH = 8 * RECORD  # fewer bytes tell nothing of the rate

_is_full = RECORD.__eq__


class _Calls(NamedTuple):
    """OpenSSL's functions, and what `ssl` raises of that which is not left to it."""

    read: Any
    error_of: Any
    clear_errors: Any
    no_more: OSError
    reset: OSError


def filler(tls: Any, sock: socket.socket) -> Fill | None:
    """What fills large frames with the GIL held, or None where that cannot be had.

    `tls` is what the `ssl.SSLSocket` `sock` keeps as ``_sslobj``. The connection must be used by
    one thread only, and its socket never be made to block.
    """
    try:
        where = openssl.pointer(tls)
        calls = _calls()
        if isinstance(calls, str):
            raise openssl.Unusable(calls)
        if sock.gettimeout() != 0:
            raise openssl.Unusable("the socket blocks")
    except openssl.Unusable as error:
        _tell(str(error))
        return None
    return _Filler(tls, where, calls).fill


@functools.cache
def _tell(why: str) -> None:
    logger.debug("large frames over TLS are received without holding the GIL: %s", why)


class _Filler:
    """Of one connection, whose object it keeps: OpenSSL's lives as long as that."""

    __slots__ = ("_calls", "_tls", "_turn", "_where")

    def __init__(self, tls: Any, where: int, calls: _Calls) -> None:
        self._tls = tls
        self._where = where
        self._calls = calls
        self._turn = _FIRST

    def fill(self, target: memoryview, note: Callable[[int], object]) -> tuple[int, int]:
        """Receive into `target`, a turn at most; see `Channel.fill`."""
        filled, size = self._read(target, min(len(target), self._turn))
        try:
            if size <= 0:
                size = self._without_data(target, filled)
                filled += size
        finally:
            note(filled)
        return filled, size

    def _read(self, target: memoryview, room: int) -> tuple[int, int]:
        """How many bytes there were, and what the last `SSL_read` returned."""
        read, _, clear_errors, *_ = self._calls
        block = ctypes.c_char.from_buffer(target)  # it stays where it is while this exists
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
        if filled >= _WORTH and spent > 0:
            records = int(filled / spent * _TURN) // RECORD
            self._turn = min(max(records * RECORD, _FEWEST), _MOST)
        return filled, size

    def _without_data(self, target: memoryview, filled: int) -> int:
        """What becomes of a read that has brought nothing: bytes after all, 0 or an error."""
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
    """What is called, or why nothing can be."""
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
    """What `ssl` raises where there is nothing to read, and for a reset."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        made: Any = context.wrap_socket(near, server_side=True, do_handshake_on_connect=False)
        with made as tls:
            nothing = _raised_by(tls._sslobj)
            socket.socket.send(tls, b"unread")  # which makes the end of the other side a reset
            far.close()
            reset = _raised_by(tls._sslobj)
    if not isinstance(nothing, ssl.SSLWantReadError):
        raise openssl.Unusable(f"for nothing to read ssl raises {nothing!r}")
    if reset.errno != errno.ECONNRESET and vars(reset).get("reason"):
        raise openssl.Unusable(f"for a reset ssl raises {reset!r}")
    return nothing, reset


def _raised_by(tls: Any) -> OSError:
    try:
        tls.read(1)
    except OSError as error:
        return _again(error)
    raise openssl.Unusable("a connection without a peer can be read from")


def _again(error: OSError) -> OSError:
    """The same as a new exception, since one that is raised refers to who was reading."""
    new = type(error)(*error.args)
    new.__dict__.update(error.__dict__)
    return new
