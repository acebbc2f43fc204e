"""What is asked of OpenSSL past `ssl`: that it is found here, and what is done where it is not."""

from __future__ import annotations

import ssl
import sys

import pytest

from sealwire.comm.transport import openssl

# Of ssl.h: SSL_CTRL_GET_MAX_CERT_LIST, SSL_CTRL_MODE (which adds to it), SSL_MODE_AUTO_RETRY
GET_MAX_CERT_LIST, SET_MODE, AUTO_RETRY = 50, 33, 4


def connection() -> ssl.SSLObject:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="x")


def asked(made: ssl.SSLObject) -> tuple[int, int]:
    """The limit of certificates, and whether reads go on past what is no data."""
    control, _ = openssl._control()
    pointer = openssl._pointer(made._sslobj)  # type: ignore[attr-defined]
    mode = control(pointer, SET_MODE, 0, None)
    return control(pointer, GET_MAX_CERT_LIST, 0, None), mode & AUTO_RETRY


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it may be linked in another way")
def test_the_bounds_are_that_connections_alone() -> None:
    one, other = connection(), connection()
    assert asked(one) == asked(other) == (100 * 1024, AUTO_RETRY)
    assert openssl.bound(one._sslobj, 5000)  # type: ignore[attr-defined]
    assert (asked(one), asked(other)) == ((5000, 0), (100 * 1024, AUTO_RETRY))


@pytest.mark.parametrize("what", [None, object(), "x" * 100, ssl.MemoryBIO()])
def test_what_is_no_connection_is_left_alone(what: object) -> None:
    assert not openssl.bound(what, 5000)


@pytest.mark.parametrize("what", ["layout", "pointers", "symbol", "ctypes"])
def test_where_anything_is_otherwise_nothing_is_done(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "layout":
        monkeypatch.setattr(openssl, "_kind", lambda: None)
    elif what == "pointers":
        monkeypatch.setattr(openssl, "_POINTER", 4)
    elif what == "symbol":
        monkeypatch.setattr("_ssl.__file__", __file__)
    else:
        monkeypatch.setattr(openssl, "ctypes", None)
    openssl._control.cache_clear()
    try:
        assert not openssl.bound(connection()._sslobj, 5000)  # type: ignore[attr-defined]
    finally:
        openssl._control.cache_clear()
