"""Dask over ``unix://``: clusters on one machine, where ports are only numbers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import distributed
import numpy as np
import pytest
from click.testing import CliRunner
from distributed.comm import CommClosedError, connect, listen
from distributed.comm.addressing import get_address_host, get_address_host_port, resolve_address
from distributed.comm.registry import backends
from distributed.protocol import to_serialize

from sealwire.cli.main import main
from sealwire.dask_backend import Security, install, uninstall
from sealwire.dask_backend.guard import EncryptionRequired
from sealwire.security import ConfigError
from support import forking
from support.parties import Party, asynchronous, echo, pair, turns
from support.programs import command, environment

OURS = Party.of("ours", "unix", {})


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    install()
    yield
    uninstall()


@pytest.mark.parametrize("recipe", ["security", "preload"])
def test_a_local_cluster(recipe: str, tmp_path: Path) -> None:
    """Of processes; each comm of each is looked at."""
    done = forking.run(command("local_cluster", recipe, "unix"), tmp_path, environment())
    assert done.stdout == "as it should be\n", done.stderr
    assert done.returncode == 0, done.stderr


@asynchronous
async def test_messages() -> None:
    async with pair(OURS) as (near, far):
        assert type(near) is type(far) is OURS.comm_class
        for size in (0, 1, 70_000, 5_000_000):
            array = np.arange(size, dtype="u1")
            sending = asyncio.ensure_future(near.write({"x": to_serialize(array), "size": size}))
            got = await far.read()
            await sending
            assert got["size"] == size
            assert np.array_equal(got["x"], array)
        assert near.local_address == far.peer_address
        assert near.extra_info["peer_pid"] == os.getpid()
        await near.close()
        with pytest.raises(CommClosedError):
            await far.read()


@asynchronous
async def test_its_links_are_shown_in_a_terminal() -> None:
    security = Security(require_encryption=False)
    async with distributed.Scheduler(
        protocol="unix://", port=0, dashboard=False, security=security
    ) as scheduler:
        ask = CliRunner().invoke
        done = await asyncio.to_thread(ask, main, ["top", "--json", scheduler.address])
        assert done.exit_code == 0, done.output
        ends = [link["peer"] for link in json.loads(done.stdout)["links"]]
        assert scheduler.address in ends
        assert all(end.startswith("unix://") for end in ends)
        number = scheduler.address.rpartition(":")[2]
        done = await asyncio.to_thread(ask, main, ["top", f"unix://127.0.0.1:{number}0"])
        assert done.exit_code == 1, done.output
        assert f"unix://127.0.0.1:{number}0" in done.output


@asynchronous
async def test_addresses_have_a_host_and_a_number() -> None:
    async with OURS.listen(echo) as first, OURS.listen(echo, "127.0.0.1:8786") as second:
        assert second.contact_address == second.listen_address == "unix://127.0.0.1:8786"
        host, port = get_address_host_port(first.contact_address)
        assert host == get_address_host(first.contact_address) == "127.0.0.1"
        assert port > 0
        assert resolve_address("unix://localhost:8786") == "unix://127.0.0.1:8786"
        for address in (first.contact_address, "unix://localhost:8786", second.contact_address):
            comm = await OURS.connect(address)
            await comm.write(address)
            assert await comm.read() == address
            await comm.close()
        with pytest.raises(OSError, match=r"cannot listen on unix://127.0.0.1:8786: address alr"):
            await OURS.listen(echo, "127.0.0.1:8786").start()
    with pytest.raises(OSError, match="connect to unix://127"):
        await OURS.connect("unix://127.0.0.1:8786", timeout=0.2)


@asynchronous
async def test_all_interfaces_are_this_machine() -> None:
    async with OURS.listen(echo, ":0") as listener:
        assert listener.contact_address.startswith("unix://127.0.0.1:")
        comm = await OURS.connect(listener.contact_address)
        await comm.write(1)
        assert await comm.read() == 1
        listener.stop()
        await comm.write(2)
        assert await comm.read() == 2
        await comm.close()


DYING = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1].encode().replace(b"@", b"\\0"))
sock.listen()
os.kill(os.getpid(), 9)
"""


@asynchronous
async def test_a_name_is_free_once_its_process_is_dead() -> None:
    name = f"@sealwire-{os.geteuid()}-20001"
    dead = await asyncio.create_subprocess_exec(sys.executable, "-c", DYING, name)
    assert await dead.wait() == -signal.SIGKILL
    async with OURS.listen(echo, "127.0.0.1:20001") as listener:
        comm = await OURS.connect(listener.contact_address)
        await comm.close()


@asynchronous
async def test_a_process_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says who the peer is; here we take ourselves for another one."""
    called: list[Any] = []
    async with OURS.listen(called.append, "127.0.0.1:20002") as listener:
        real = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: real + 1)
        name = f"\0sealwire-{real + 1}-20002"
        with socket.socket(socket.AF_UNIX) as squatter:
            squatter.bind(name)
            squatter.listen()
            refused = f"runs as user {real}, allowed is {real + 1}"
            with pytest.raises(CommClosedError, match=refused):
                await OURS.connect(listener.contact_address)
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(f"\0sealwire-{real}-20002")
            stranger.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(stranger, 1) == b""
        await turns()
        assert listener.stats.refused == {"other-user": 1}
    assert called == []


@pytest.mark.parametrize("setting", [None, False])
@asynchronous
async def test_encryption_is_required(setting: bool | None) -> None:
    with dask.config.set({"sealwire.unix.allow-plain": setting} if setting is not None else {}):
        with pytest.raises(EncryptionRequired, match="unix is plain"):
            listen("unix://127.0.0.1:0", echo, require_encryption=True)
        with pytest.raises(EncryptionRequired, match="unix is plain"):
            await connect("unix://127.0.0.1:1", require_encryption=True)


@asynchronous
async def test_or_the_machine_counts_as_safe() -> None:
    args = {"require_encryption": True}
    with dask.config.set({"sealwire.unix.allow-plain": True}):
        async with listen("unix://127.0.0.1:0", echo, **args) as listener:
            comm = await connect(listener.contact_address, **args)
            await comm.write(1)
            assert await comm.read() == 1
            await comm.close()
    with (
        dask.config.set({"sealwire.unix.allow-plain": "maybe"}),
        pytest.raises(ConfigError, match=r"bad setting sealwire\.unix\.allow-plain: got 'maybe'"),
    ):
        listen("unix://127.0.0.1:0", echo)


def test_uninstalling_leaves_no_scheme() -> None:
    assert "unix" in backends
    uninstall()
    assert "unix" not in backends
    with pytest.raises(ValueError, match="unknown address scheme 'unix'"):
        distributed.comm.registry.get_backend("unix")
