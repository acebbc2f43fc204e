"""What is asked of OpenSSL past `ssl`: that it is found here, and what is done where it is not."""

from __future__ import annotations

import ssl
import sys

import pytest

from sealwire.comm import openssl

GET_MAX_CERT_LIST = 50  # SSL_CTRL_GET_MAX_CERT_LIST


def connection() -> ssl.SSLObject:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="x")


def limit_of(made: ssl.SSLObject) -> int:
    internal = made._sslobj  # type: ignore[attr-defined]
    return openssl._control()(openssl._pointer(internal), GET_MAX_CERT_LIST, 0, None)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it may be linked in another way")
def test_the_limit_is_that_connections_alone() -> None:
    one, other = connection(), connection()
    assert limit_of(one) == limit_of(other) == 100 * 1024
    assert openssl.limit_certificates(one._sslobj, 5000)  # type: ignore[attr-defined]
    assert (limit_of(one), limit_of(other)) == (5000, 100 * 1024)


def test_no_connection_has_no_limit() -> None:
    assert not openssl.limit_certificates(None, 5000)


@pytest.mark.parametrize("what", ["interpreter", "pointers", "symbol"])
def test_where_anything_is_otherwise_nothing_is_done(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "interpreter":
        monkeypatch.setattr(openssl, "_is_laid_out_as_expected", lambda: False)
    elif what == "pointers":
        monkeypatch.setattr(openssl, "_POINTER", 4)
    else:
        monkeypatch.setattr("_ssl.__file__", __file__)
    openssl._control.cache_clear()
    try:
        assert not openssl.limit_certificates(connection()._sslobj, 5000)  # type: ignore[attr-defined]
    finally:
        openssl._control.cache_clear()
