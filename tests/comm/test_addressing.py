"""Addresses taken apart and put together; the registry of schemes; limits."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.comm import (
    Address,
    AddressError,
    Backend,
    CommClosedError,
    Limits,
    MessageTooLarge,
    errors,
    parse_address,
    register_backend,
)
from sealwire.comm.addressing import concrete_host, format_address
from sealwire.comm.registry import get_backend

GOOD = {
    "tcp://127.0.0.1:8786": ("tcp", "127.0.0.1", 8786),
    "tls://[::1]:8786": ("tls", "::1", 8786),
    "tls://[fe80::1%eth0]:1": ("tls", "fe80::1%eth0", 1),
    "TLS://host.example:1": ("tls", "host.example", 1),
    "host:80": ("", "host", 80),
    "host": ("", "host", 0),
    "[::]": ("", "::", 0),
    "tcp://": ("tcp", "", 0),
    "tcp://:0": ("tcp", "", 0),
    "my-scheme://x:65535": ("my-scheme", "x", 65535),
}


@pytest.mark.parametrize("text", GOOD)
def test_good(text: str) -> None:
    assert parse_address(text) == GOOD[text]


BAD: dict[Any, str] = {
    "tcp://::1:8786": "several colons",
    "tcp://[::1:8786": "brackets",
    "tcp://[::1]8786": "brackets",
    "tcp://host:port": "port",
    "tcp://host:65536": "port",
    "tcp://host:-1": "port",
    "tcp://host:1 ": "port",
    "tcp://host:\u0661": "port",
    "tcp://ho st:1": "host name",
    "tcp://user@host:1": "host name",
    "tcp://a\0b:1": "host name",
    "tls://\x1b[2J:1": "brackets|host name",
    "tls://\u202ehost:1": "host name",
    "tls://\ud800:1": "host name",
    "tcp://[::1\x7f]:1": "host name",
    "tcp://127.0.0.1\0.example:1": "host name",
    "http://host/path:1": "host name",
    "://host:1": "scheme",
    8786: "need a str",
    None: "need a str",
}


@pytest.mark.parametrize("text", BAD)
def test_bad(text: Any) -> None:
    with pytest.raises(AddressError, match=BAD[text]) as caught:
        parse_address(text)
    assert repr(text) in str(caught.value)


@given(
    st.sampled_from(["tcp", "tls", ""]),
    st.sampled_from(["", "h", "1.2.3.4", "::1"]),
    st.integers(0, 65535),
)
def test_format_is_the_inverse(scheme: str, host: str, port: int) -> None:
    text = format_address(scheme, host, port)
    assert parse_address(text) == (scheme, host, port)
    assert str(Address(scheme, host, port)) == text


def test_wildcards_become_concrete() -> None:
    for wildcard in ("", "0.0.0.0", "::", "0:0:0:0:0:0:0:0"):
        assert concrete_host(wildcard) not in ("", "0.0.0.0", "::")
    for host in ("127.0.0.1", "::1", "name.example"):
        assert concrete_host(host) == host


def test_unknown_scheme() -> None:
    with pytest.raises(AddressError, match=r"'http'.*tcp, tls"):
        get_backend("http")


def test_third_parties_register_theirs() -> None:
    class Elsewhere(Backend):
        def connector(self) -> Any: ...
        def listener(self, *args: Any, **kwargs: Any) -> Any: ...

    backend = Elsewhere()
    register_backend("elsewhere", backend)
    assert get_backend("elsewhere") is backend


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "5", None])
@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
def test_limits_are_positive(name: str, value: Any) -> None:
    if value is None and getattr(Limits(), name) is None:
        assert Limits(**{name: value}) == Limits()
        return
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})


def test_limits_have_reasons() -> None:
    assert dataclasses.replace(Limits(), backlog=5).backlog == 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().backlog = 5  # type: ignore[misc]


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_are_in_the_tree_and_travel(name: str) -> None:
    assert errors.__doc__ is not None
    assert name in errors.__doc__
    kind = getattr(errors, name)
    error = (
        MessageTooLarge("x", size=2, limit=1, peer="tcp://a:1")
        if kind is MessageTooLarge
        else kind("x")
    )
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert str(twin) == "x"
        assert vars(twin) == vars(error)


def test_what_a_peer_causes_is_one_family() -> None:
    for kind in (errors.FramingError, errors.DecodeError, errors.HandshakeError, errors.HelloError):
        assert issubclass(kind, CommClosedError)
        assert issubclass(kind, OSError)
        assert not kind.retryable
