"""What is asked of OpenSSL past `ssl`: that it is found here, and what is done where it is not."""

from __future__ import annotations

import _ssl
import ctypes
import ssl
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sealwire.comm.transport import openssl

# Of ssl.h: SSL_CTRL_GET_MAX_CERT_LIST, SSL_CTRL_MODE (which adds to it), SSL_MODE_AUTO_RETRY
GET_MAX_CERT_LIST, SET_MODE, AUTO_RETRY = 50, 33, 4

WORD = 8
HEAD = object.__basicsize__

linked = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere it may be linked in another way"
)


def connection(context: ssl.SSLContext | None = None) -> Any:
    context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made: Any = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="x")
    return made._sslobj


def asked(made: Any) -> tuple[int, int]:
    """The limit of certificates, and whether reads go on past what is no data."""
    control, pointer = openssl.library().SSL_ctrl, openssl.pointer(made)
    mode = control(pointer, SET_MODE, 0, None)
    return control(pointer, GET_MAX_CERT_LIST, 0, None), mode & AUTO_RETRY


@pytest.fixture
def fresh() -> Iterator[None]:
    """What was found out before the test does not count in it, nor afterwards what it has found."""
    caches = openssl.library, openssl.why_not
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


class Library:
    """OpenSSL, with a note of what it was given to look into."""

    def __init__(self, real: Any, answer: int | None = None) -> None:
        self.real = real
        self.answer = answer
        self.given: list[int] = []

    def SSL_get_SSL_CTX(self, pointer: int) -> int:
        self.given.append(pointer)
        return self.answer or int(self.real.SSL_get_SSL_CTX(pointer))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@linked
def test_the_bounds_are_that_connections_alone() -> None:
    one, other = connection(), connection()
    assert asked(one) == asked(other) == (100 * 1024, AUTO_RETRY)
    assert openssl.bound(one, 5000)
    assert (asked(one), asked(other)) == ((5000, 0), (100 * 1024, AUTO_RETRY))


@linked
def test_it_is_the_connection_that_openssl_knows() -> None:
    """`SSL_get_ex_data` of index 0 is where `ssl` keeps the object of a connection."""
    data = ctypes.PyDLL(_ssl.__file__).SSL_get_ex_data
    data.restype, data.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made = [connection(context) for _ in range(20)]
    pointers = [openssl.pointer(each) for each in made]
    assert len(set(pointers)) == 20
    assert [data(pointer, 0) for pointer in pointers] == [id(each) for each in made]


@linked
def test_a_context_that_was_changed_is_followed() -> None:
    """As a callback for server names may do."""
    made = connection()
    before = openssl.pointer(made)
    made.context = other = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert made.context is other
    assert openssl.pointer(made) == before


@linked
def test_contexts_of_any_class() -> None:
    class Plain(ssl.SSLContext):
        pass

    class Slotted(ssl.SSLContext):
        __slots__ = ("more",)

    for kind in (Plain, Slotted, _ssl._SSLContext):
        context = kind(ssl.PROTOCOL_TLS_CLIENT)
        made = (
            connection(context)
            if isinstance(context, ssl.SSLContext)
            else context._wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=False)
        )
        assert openssl.pointer(made)


@pytest.mark.parametrize("what", [None, object(), "x" * 100, ssl.MemoryBIO()])
def test_what_is_no_connection_is_left_alone(what: object) -> None:
    assert not openssl.bound(what, 5000)
    with pytest.raises(openssl.Unusable, match="no connection of ssl's"):
        openssl.pointer(what)


# Each word that is looked at, as another layout would have it. What stands there must not be given
# to OpenSSL before all words have been compared.
OTHERWISE = {
    "no context": ((HEAD + 2 * WORD, 0), "context where it should be"),
    "another context": ((HEAD + 2 * WORD, id(ssl)), "context where it should be"),
    "a context near by": ((HEAD + 2 * WORD, "off by one"), "context where it should be"),
    "no pointer": ((HEAD + WORD, 0), "pointer where it should be"),
    "two numbers": ((HEAD + WORD, (443 << 32) + 1), "pointer where it should be"),
    "text": ((HEAD + WORD, int.from_bytes(b"sealwire", "little")), "pointer where it should be"),
}


@linked
@pytest.mark.parametrize("name", OTHERWISE)
def test_a_wrong_word_is_not_followed(
    name: str, monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    (where, value), words = OTHERWISE[name]
    library = Library(openssl.library())
    real = openssl._word

    def word(found: object, offset: int) -> int:
        assert offset + WORD <= type(found).__basicsize__
        if offset != where:
            return real(found, offset)
        return value if isinstance(value, int) else real(found, offset) + WORD

    monkeypatch.setattr(openssl, "library", lambda: library)
    monkeypatch.setattr(openssl, "_word", word)
    made = connection()
    with pytest.raises(openssl.Unusable, match=words):
        openssl.pointer(made)
    assert not openssl.bound(made, 5000)
    assert library.given == []


@linked
def test_one_connection_that_is_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look at a connection of our own is not all."""
    good, bad = connection(), connection()
    assert openssl.pointer(good)
    real = openssl._word
    monkeypatch.setattr(
        openssl, "_word", lambda found, at: real(found, at) if found is not bad else id(found)
    )
    with pytest.raises(openssl.Unusable):
        openssl.pointer(bad)
    assert openssl.pointer(good)


@linked
def test_openssl_must_know_the_context_too(monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    library = Library(openssl.library(), answer=id(ssl))
    monkeypatch.setattr(openssl, "library", lambda: library)
    made = connection()
    with pytest.raises(openssl.Unusable, match="by another address"):
        openssl.pointer(made)
    assert not openssl.bound(made, 5000)


def test_objects_that_are_too_small_are_not_looked_into(
    monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    looked: list[int] = []
    monkeypatch.setattr(openssl, "_word", lambda _, offset: looked.append(offset) or 0)
    monkeypatch.setattr(openssl, "_WHERE", type(connection()).__basicsize__ - WORD)
    with pytest.raises(openssl.Unusable, match="smaller than they should be"):
        openssl.pointer(connection())
    assert looked == []


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("older", "where cpython 3.9 keeps OpenSSL's connection is not known"),
        ("newer", "where cpython 3.15 keeps OpenSSL's connection is not known"),
        ("pypy", "where pypy 3.1"),
        ("windows", "cannot be called: no ctypes, or on win32"),
        ("free-threaded", "built without a GIL"),
        ("pointers", "not of 64 bits"),
        ("symbol", "not linked to a shared OpenSSL"),
        ("static", "not linked to a shared OpenSSL"),
        ("another", "is another than ssl's"),
        ("ctypes", "cannot be called: no ctypes"),
    ],
)
def test_where_anything_is_otherwise_nothing_is_done(
    what: str, words: str, monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    if what in ("older", "newer"):
        version = (3, 9, 18, "final", 0) if what == "older" else (3, 15, 0, "final", 0)
        monkeypatch.setattr(openssl, "sys", Pretence(sys, version_info=Version(version)))
    elif what == "pypy":
        monkeypatch.setattr(
            openssl, "sys", Pretence(sys, implementation=Pretence(sys.implementation, name="pypy"))
        )
    elif what == "windows":
        monkeypatch.setattr(openssl, "sys", Pretence(sys, platform="win32"))
    elif what == "free-threaded":
        monkeypatch.setattr(sys, "abiflags", "t", raising=False)
    elif what == "pointers":
        monkeypatch.setattr(openssl, "_POINTER", 4)
    elif what == "symbol":
        monkeypatch.setattr("_ssl.__file__", __file__)
    elif what == "static":
        monkeypatch.delattr("_ssl.__file__")
    elif what == "another":
        monkeypatch.setattr(ssl, "OPENSSL_VERSION_NUMBER", 0x3FFFFFFF)
    else:
        monkeypatch.setattr(openssl, "ctypes", None)
    made = connection()
    assert not openssl.bound(made, 5000)
    with pytest.raises(openssl.Unusable, match=words):
        openssl.pointer(made)


class Version(tuple):  # type: ignore[type-arg]
    """As `sys.version_info`."""

    major = property(lambda self: self[0])
    minor = property(lambda self: self[1])


class Pretence:
    """Something that is otherwise in a few attributes."""

    def __init__(self, real: Any, **otherwise: Any) -> None:
        self.__dict__.update(otherwise)
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
