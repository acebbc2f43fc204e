"""``unix://``: names of sockets, their files, and the users at either end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from sealwire.comm import (
    AddressError,
    CloseCode,
    Comm,
    CommClosedError,
    ConnectError,
    EncryptionRequired,
    Limits,
    connect,
    listen,
)
from sealwire.security import Security
from support.aio import aio, until
from support.endings import error_of
from support.links import echo, place

OURS = os.geteuid()
OTHER = OURS + 1


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: that of pytest may be longer than a socket's name."""
    with TemporaryDirectory() as name:
        yield Path(name)


async def answers(address: str) -> None:
    async with connect(address, max_attempts=1) as comm:
        await comm.write("x")
        assert await comm.read() == "x"


async def refused(address: str, **args: Any) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        await connect(address, max_attempts=1, **args)
    return caught.value


@pytest.mark.parametrize("name", ["x.sock", "a b.sock", "ümlaut", "a:8786", "://", "#x?y@z"])
@aio
async def test_files(folder: Path, name: str) -> None:
    path = folder / name.replace("/", "_")
    listener = await listen(f"unix://{path}", echo)
    assert listener.listen_address == listener.contact_address == f"unix://{path}"
    assert stat.S_ISSOCK(path.stat().st_mode)
    await answers(listener.contact_address)
    listener.stop()
    assert not path.exists()
    error = await refused(listener.contact_address)
    assert error.kind == "unreachable"
    assert "no such file or directory" in str(error)
    await listener.close()


@pytest.mark.parametrize("mode", [None, 0o600, 0o660, 0o666, 0o777, 0])
@pytest.mark.parametrize("mask", [0, 0o077, 0o777])
@aio
async def test_the_mode_of_the_file(folder: Path, mode: int | None, mask: int) -> None:
    path = folder / "x"
    before = os.umask(mask)
    try:
        args = {} if mode is None else {"mode": mode}
        listener = await listen(f"unix://{path}", echo, **args)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == (0o600 if mode is None else mode)
    await listener.close()


@pytest.mark.parametrize("mode", [-1, 0o1000, 1 << 40, True, "600", 6.0, None])
def test_what_is_no_mode(mode: Any) -> None:
    with pytest.raises(ValueError, match=r"mode is .*need permissions such as 0o600"):
        listen("unix:///tmp/x", echo, mode=mode)


LEAVING = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1])
sock.listen()
os.kill(os.getpid(), 9)
"""


@aio
async def test_a_file_that_a_dead_listener_left_behind(folder: Path) -> None:
    path = folder / "x"
    dead = await asyncio.create_subprocess_exec(sys.executable, "-c", LEAVING, str(path))
    assert await dead.wait() == -signal.SIGKILL
    assert (await refused(f"unix://{path}")).kind == "refused"
    async with listen(f"unix://{path}", echo) as listener:
        await answers(listener.contact_address)
    await listener.close()


@aio
async def test_a_live_listener_and_other_files_stay(folder: Path) -> None:
    path = folder / "x"
    listener = await listen(f"unix://{path}", echo)
    for _ in range(3):
        with pytest.raises(OSError, match=r"cannot listen on unix:///.*: address already in use"):
            await listen(f"unix://{path}", echo)
    await answers(f"unix://{path}")
    await listener.close()

    path.write_text("precious")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to(path)
    (folder / "nowhere").symlink_to(folder / "not there")
    for name in ("x", "folder", "link", "nowhere"):
        with pytest.raises(OSError, match="a file that is no socket is in its place"):
            await listen(f"unix://{folder / name}", echo)
    assert path.read_text() == "precious"
    with pytest.raises(OSError, match="no such file"):
        await listen(f"unix://{folder}/not there/x", echo)


@aio
async def test_a_full_backlog_is_no_dead_listener(folder: Path) -> None:
    path = str(folder / "x")
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as first:
        full.bind(path)
        full.listen(0)
        first.connect(path)
        error = await refused(f"unix://{path}")
        assert "its backlog is full; try again" in str(error)
        assert error.retryable
        with pytest.raises(OSError, match="in use"):
            await listen(f"unix://{path}", echo)


@aio
async def test_the_file_of_another_listener_is_not_removed(folder: Path) -> None:
    path = folder / "x"
    first = await listen(f"unix://{path}", echo)
    path.unlink()
    second = await listen(f"unix://{path}", echo)
    await first.close()
    await answers(f"unix://{path}")
    await second.close()
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "need an absolute path or @name"),
        ("x.sock", "write unix:///.*/x.sock"),
        ("../x", "need an absolute path"),
        ("@", "no name"),
        ("/" + 107 * "x", "it has 108 bytes, the name of a socket may have 107"),
        ("@" + 107 * "x", "it has 108 bytes"),
        ("/" + 60 * "ü", "it has 121 bytes"),
        ("/a\0b", "control characters"),
        ("/a\nb", "control characters"),
    ],
)
@aio
async def test_names_that_are_none(name: str, why: str) -> None:
    with pytest.raises(AddressError, match=why):
        listen(f"unix://{name}", echo)
    with pytest.raises(AddressError, match=why):
        await connect(f"unix://{name}", max_attempts=1)


@aio
async def test_the_longest_names() -> None:
    for name in ("@" + 106 * "x", "@ü"):
        async with listen(f"unix://{name}", echo) as listener:
            await answers(listener.contact_address)
            with pytest.raises(OSError, match="in use"):
                await listen(f"unix://{name}", echo)
        await listener.close()


# Users: the kernel says that all of these are ours, and that others are asked for.


@pytest.mark.parametrize("given", [None, [OURS], (OTHER, OURS), {OURS}, range(OURS, OURS + 3)])
@aio
async def test_users_that_are_allowed(given: Any) -> None:
    async with (
        listen(place("unix"), echo, allowed_uids=given) as listener,
        connect(listener.contact_address, allowed_uids=given) as comm,
    ):
        await comm.write(1)
        assert await comm.read() == 1
        facts = {"peer_pid": os.getpid(), "peer_uid": OURS, "peer_gid": os.getegid()}
        assert comm.extra_info == listener.comms[0].extra_info == facts
    await listener.close()


@pytest.mark.parametrize("given", [[OTHER], (), {OTHER, OTHER + 1}, range(OTHER, OTHER + 9)])
@aio
async def test_users_that_are_not(given: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sealwire")
    called = []
    async with listen(place("unix"), called.append) as listener:
        with pytest.raises(CommClosedError, match=rf"runs as user {OURS}, allowed is") as caught:
            await connect(listener.contact_address, allowed_uids=given)  # no second attempt
        assert caught.value.kind == "other-user"
        assert not caught.value.retryable
    async with listen(place("unix"), called.append, allowed_uids=given) as listener:
        await refused(listener.contact_address)
        assert listener.stats.refused == {"other-user": 1}
        assert f"its process {os.getpid()} runs as user {OURS}" in caplog.text
    assert called == []


@pytest.mark.parametrize(
    "given", ["1000", 1000, [1.0], ["x"], [True], [None], b"1", {1000: "x"}.items()]
)
@aio
async def test_what_are_no_users(given: Any) -> None:
    with pytest.raises(TypeError, match="allowed_uids is"):
        listen(place("unix"), echo, allowed_uids=given)
    with pytest.raises(TypeError, match="allowed_uids is"):
        await connect("unix://@x", allowed_uids=given)


@aio
async def test_encryption_is_required_or_not() -> None:
    for args in ({}, {"allow_plain": False}):
        with pytest.raises(EncryptionRequired, match="pass allow_plain=True"):
            listen(place("unix"), echo, require_encryption=True, **args)  # type: ignore[arg-type]
        with pytest.raises(EncryptionRequired, match="pass allow_plain=True"):
            await connect("unix://@x", require_encryption=True, **args)  # type: ignore[arg-type]
    args = {"require_encryption": True, "allow_plain": True}
    async with (
        listen(place("unix"), echo, **args) as listener,  # type: ignore[arg-type]
        connect(listener.contact_address, **args) as comm,  # type: ignore[arg-type]
    ):
        await comm.write(1)
        assert await comm.read() == 1
    with pytest.raises(TypeError, match="allow_plain is 1, need a bool"):
        listen(place("unix"), echo, allow_plain=1)
    with pytest.raises(TypeError, match="unexpected argument 'mode'"):
        connect("unix://@x", mode=0o600)


@pytest.mark.parametrize("scheme", ["unix", "mem"])
@pytest.mark.parametrize("required", [True, False])
@aio
async def test_what_a_security_gives_fits(scheme: str, required: bool) -> None:
    """A program whose address says how it is reached passes the same arguments to all schemes."""
    security = Security.temporary(
        require_encryption=required, extra_conn_args={"server_hostname": "node"}
    )
    accepting = security.get_listen_args("scheduler")
    dialling = security.get_connection_args("worker")
    plain: dict[str, Any] = {"allow_plain": True}
    for args in ({}, {"allow_plain": False}):
        with pytest.raises((EncryptionRequired, TypeError), match="pass allow_plain=True"):
            listen(place(scheme), echo, **accepting, **args)
        with pytest.raises((EncryptionRequired, TypeError), match="pass allow_plain=True"):
            await connect(f"{scheme}://@x", **dialling, **args)
    async with (
        listen(place(scheme), echo, **accepting, **plain) as listener,
        connect(listener.contact_address, **dialling, **plain) as comm,
    ):
        await comm.write(1)
        assert await comm.read() == 1
        with pytest.raises(TypeError, match="unexpected argument 'headers'"):
            await connect(listener.contact_address, extra_conn_args={"headers": {}}, **plain)


# Ends


@aio
async def test_a_listener_that_closes_with_bytes_on_the_way_is_heard() -> None:
    """The kernel reports a reset, behind the closing message."""

    async def leave(comm: Comm) -> None:
        await comm.read()
        await comm.close(3000, "enough")

    async with (
        listen(place("unix"), leave) as listener,
        connect(listener.contact_address) as comm,
    ):
        for number in range(50):
            try:
                await comm.write([number, bytes(10_000)])
            except CommClosedError:
                break
        error = await error_of(comm.read())
        assert (error.code, error.reason, error.closed_by) == (3000, "enough", "peer")


PEER = """
import asyncio, os, sys
from sealwire.comm import connect
async def main():
    comm = await connect(sys.argv[1])
    await comm.write(os.getpid())
    await comm.read()
asyncio.run(main())
"""


@aio
async def test_a_peer_in_another_process_that_is_killed() -> None:
    ends: list[CommClosedError] = []
    pids: list[int] = []

    async def kill(comm: Comm) -> None:
        pids.append(await comm.read())
        assert comm.extra_info["peer_pid"] == pids[0]
        assert comm.peer_address.endswith(f"#{pids[0]}")
        os.kill(pids[0], signal.SIGKILL)
        ends.append(await comm.wait_closed())

    async with listen(place("unix"), kill) as listener:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PEER, listener.contact_address
        )
        assert await process.wait() == -signal.SIGKILL
        await until(lambda: bool(ends))
    assert pids == [process.pid]
    assert (ends[0].code, ends[0].closed_by) == (CloseCode.ABNORMAL, "lost")


@aio
async def test_closing_does_not_wait_for_a_peer_that_does_not_read() -> None:
    """What was written arrives all the same."""
    done = asyncio.Event()

    async def hold(comm: Comm) -> None:
        await done.wait()

    limits = Limits(read_ahead=1)
    async with listen(place("unix"), hold, limits=limits) as listener:
        comm = await connect(listener.contact_address)
        for number in range(5):
            await comm.write([number, bytes(10_000)])
        await until(lambda: bool(listener.comms))
        other = listener.comms[0]
        await asyncio.wait_for(comm.close(), 5)
        assert [(await other.read())[0] for _ in range(5)] == list(range(5))
        assert (await error_of(other.read())).clean
        done.set()
