"""What `sealwire probe` may meet at an address, and what it says of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distributed
import pytest
from click.testing import CliRunner

from sealwire.cli.main import main
from sealwire.comm import listen
from sealwire.dask_backend import install, uninstall
from sealwire.security import Security
from support import certs
from support.handshakes import security

CA, OTHER_CA = certs.root("our ca"), certs.root("other ca")
NODE = certs.leaf(CA, "node")
CLIENT = certs.leaf(CA, "client")
GOOD = security(NODE, [CA])
FAST = ("--timeout", "0.5")
KINDS = pytest.mark.parametrize("kind", ["comm", "ours", "stock"])

Here = Callable[..., list[str]]


def options(folder: Path, node: certs.Node = CLIENT, ca: certs.Node = CA) -> list[str]:
    """Options that name an identity and the CA, written into `folder`."""
    for name, text in (("ca.pem", ca.pem), ("client.pem", node.pem + node.key_pem)):
        path = folder / name
        path.touch(mode=0o600)
        path.write_text(text)
    return ["--ca", str(folder / "ca.pem"), "--cert", str(folder / "client.pem")]


def probe(*arguments: str) -> dict[str, Any]:
    """What it says in JSON; the exit code goes with it."""
    done = CliRunner().invoke(main, ["probe", "--json", *arguments], catch_exceptions=False)
    assert done.output.startswith("{"), done.output
    told = json.loads(done.output)
    assert isinstance(told, dict)
    assert told["exit_code"] == done.exit_code
    return told


async def at(listening: Any, *arguments: str) -> dict[str, Any]:
    """`probe` in a thread, with the address of a listener."""
    async with listening as listener:
        return await asyncio.to_thread(probe, listener.contact_address, *arguments)


async def hold(comm: Any) -> None:
    """A handler that waits until the other side is gone."""
    try:
        await comm.read()
    except OSError:
        pass


def listening(kind: str, scheme: str, one: Security) -> Any:
    """A listener of the standalone comm, of our Dask backend, or of distributed's own."""
    address = f"{scheme}://127.0.0.1:0"
    args = one.get_listen_args("scheduler") if scheme == "tls" else {}
    if kind == "comm":
        return listen(address, hold, **args)
    (install if kind == "ours" else uninstall)()
    return distributed.comm.listen(address, hold, **args)
