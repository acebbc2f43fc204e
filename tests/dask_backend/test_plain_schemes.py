"""Plain schemes of any backend are refused where encryption is required."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import pytest
from distributed.comm import connect, listen, registry, ws
from distributed.comm import tcp as stock
from distributed.comm.registry import backends
from distributed.security import Security as Stock

import sealwire.dask_backend
from sealwire.dask_backend import install, uninstall
from support import certs
from support.parties import ROLES, asynchronous, echo

CA = certs.root()
PEM = {"tls_ca_file": CA.pem}
for role in ROLES:
    node = certs.leaf(CA, role)
    PEM[f"tls_{role}_cert"] = node.pem + node.key_pem


class Elsewhere(stock.TCPBackend):
    """Somebody else's, plain, which looks at nothing."""


PLAIN = ["ws", "elsewhere"]
REQUIRED: dict[str, Callable[[], dict[str, Any]]] = {
    "by argument": lambda: {"require_encryption": True},
    "by ours": lambda: sealwire.dask_backend.Security(**PEM).get_listen_args("scheduler"),
    "by theirs": lambda: Stock(require_encryption=True, **PEM).get_listen_args("scheduler"),
}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backends, "elsewhere", Elsewhere())

    def start(listener: Any) -> None:
        raise AssertionError("distributed's ws:// binds every interface, whatever its address")

    monkeypatch.setattr(ws.WSListener, "start", start)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("scheme", [*PLAIN, "tcp"])
@pytest.mark.parametrize("by", [*REQUIRED, "by configuration"])
@asynchronous
async def test_a_plain_scheme_is_refused_where_encryption_is_required(scheme: str, by: str) -> None:
    required = by == "by configuration"
    args = {} if required else REQUIRED[by]()
    with dask.config.set({"distributed.comm.require-encryption": required or None}):
        with pytest.raises(RuntimeError, match=f"refusing {scheme}://.*--protocol tls") as caught:
            await listen(f"{scheme}://127.0.0.1:0", echo, **args)
        with pytest.raises(RuntimeError, match=f"refusing {scheme}://.*use tls://"):
            await connect(f"{scheme}://127.0.0.1:1", timeout=5, **args)
    assert "tls://127.0.0.1:0" not in str(caught.value)
    assert "false" not in str(caught.value)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("how", ["not required", "meant", "uninstalled"])
@asynchronous
async def test_and_works_where_it_is_not(how: str) -> None:
    args: dict[str, Any] = {}
    if how == "meant":
        args = sealwire.dask_backend.Security(require_encryption=False).get_listen_args("worker")
    if how == "uninstalled":
        uninstall()
        assert registry.get_backend("elsewhere") is backends["elsewhere"]
        args = {"require_encryption": False}
    async with listen("elsewhere://127.0.0.1:0", echo, **args) as listener:
        address = f"elsewhere://{listener.contact_address.partition('://')[2]}"
        comm = await connect(address, extra_conn_args={})
        await comm.write("let in")
        assert await comm.read() == "let in"
        await comm.close()


@pytest.mark.parametrize("scheme", ["inproc", "tls", "wss"])
@asynchronous
async def test_a_scheme_that_needs_no_look_is_let_be(scheme: str) -> None:
    assert registry.get_backend(scheme) is backends[scheme]
    if scheme == "inproc":
        async with listen("inproc://", echo, require_encryption=True) as listener:
            comm = await connect(listener.contact_address, require_encryption=True)
            await comm.write("let in")
            assert await comm.read() == "let in"
            await comm.close()


def test_addresses_are_handled_as_before() -> None:
    from distributed.comm import get_address_host, resolve_address

    assert get_address_host("ws://127.0.0.1:80") == "127.0.0.1"
    assert resolve_address("ws://127.0.0.1:80") == "ws://127.0.0.1:80"


def test_a_backend_that_encrypts_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Encrypted(stock.TCPBackend):
        encrypted = True

    monkeypatch.setitem(backends, "sealed", Encrypted())
    assert registry.get_backend("sealed") is backends["sealed"]


def test_a_registry_wrapped_after_us_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = registry.get_backend
    monkeypatch.setattr(registry, "get_backend", lambda scheme: ours(scheme))
    theirs = registry.get_backend
    uninstall()
    assert registry.get_backend is theirs
    assert registry.get_backend("ws") is backends["ws"]
    install()
    assert registry.get_backend("ws") is not backends["ws"]
