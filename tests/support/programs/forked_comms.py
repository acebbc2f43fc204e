"""A process with open comms forks, and its children do what they like with them.

    python -m support.programs.forked_comms asyncio|uvloop SCHEME ...

Prints a line of JSON: for each scheme and each thing that a child does, what the child was told,
and how the parent fared afterwards.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import sys
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from sealwire.comm import Comm, CommClosedError, ConnectError, connect, listen
from support.links import connect_args, echo, listen_args, place

Child = Callable[[list[Comm]], "Awaitable[Any] | None"]


def nothing(comms: list[Comm]) -> None:
    """It ends as a child should, by `os._exit`."""


def abort(comms: list[Comm]) -> None:
    for comm in comms:
        comm.abort()


def drop(comms: list[Comm]) -> None:
    comms.clear()
    gc.collect()


def write_nowait(comms: list[Comm]) -> None:
    comms[0].write_nowait("of the child")


async def write(comms: list[Comm]) -> None:
    await comms[0].write("of the child")


async def read(comms: list[Comm]) -> None:
    await comms[0].read()


async def close(comms: list[Comm]) -> None:
    await comms[0].close()


async def iterate(comms: list[Comm]) -> None:
    async for _ in comms[0]:
        pass


def leave(comms: list[Comm]) -> None:
    """Through all that the parent has begun, as a child should not."""
    asyncio._set_running_loop(loop)
    if asyncio.current_task() is None:  # since Python 3.14, where the parent's task could not end
        asyncio.tasks._enter_task(loop, parents)
    raise SystemExit(0)


async def one_of_its_own(comms: list[Comm]) -> None:
    async with (
        listen("tcp://127.0.0.1:0", echo) as listener,
        connect(listener.contact_address) as comm,
    ):
        await comm.write("mine")
        assert await comm.read() == "mine"


CHILDREN: list[Child] = [
    nothing, abort, drop, write_nowait, write, read, close, iterate, one_of_its_own, leave,
]  # fmt: skip


def run_child(does: Child, comms: list[Comm], pipe: int) -> None:
    told = "nothing"
    try:
        work = does(comms)
        if work is not None:
            asyncio.new_event_loop().run_until_complete(work)
    except CommClosedError as error:
        told = f"{error.closed_by} {error}"
    except Exception as error:
        told = repr(error)
    finally:
        os.write(pipe, told.encode())
        os.close(pipe)
    os._exit(0)


async def forked(scheme: str, does: Child) -> str:
    """What the child was told, if the parent's comm goes on."""
    async with listen(place(scheme), echo, **listen_args(scheme)) as listener:
        comms = [await connect(listener.contact_address, **connect_args(scheme))]
        await comms[0].write("before")
        assert await comms[0].read() == "before"
        ours, child_end = os.pipe()
        if not (pid := os.fork()):
            os.close(ours)
            run_child(does, comms, child_end)
        os.close(child_end)
        told = os.read(ours, 10_000).decode()
        os.close(ours)
        os.waitpid(pid, 0)  # noqa: ASYNC222
        for message in ("after", bytes(100_000)):
            await asyncio.wait_for(comms[0].write(message), 20)
            assert await asyncio.wait_for(comms[0].read(), 20) == message
        await asyncio.wait_for(comms[0].close(3000, "done"), 20)
        args = connect_args(scheme)
        async with connect(listener.contact_address, timeout=20, **args) as late:
            await late.write("late")
            assert await asyncio.wait_for(late.read(), 20) == "late"
        return told


async def outlived(scheme: str) -> str:
    """Whether a child that goes on keeps the address of its parent's listener: its error, if so."""
    listener = await listen(place(scheme), echo, **listen_args(scheme))
    address = listener.listen_address
    ours, child_end = socket.socketpair()
    if not (pid := os.fork()):
        ours.close()
        child_end.send(b"is there")
        child_end.recv(1)
        os._exit(0)
    child_end.close()
    try:
        ours.recv(1)
        listener.stop()
        try:
            await connect(address, timeout=20, max_attempts=1, **connect_args(scheme))
        except ConnectError as error:
            if error.__cause__ is None or getattr(error.__cause__, "kind", "") != "refused":
                return repr(error)
        async with listen(address, echo, **listen_args(scheme)):
            return "nothing"
    except OSError as error:
        return repr(error)
    finally:
        ours.close()
        os.waitpid(pid, 0)  # noqa: ASYNC222


async def elsewhere(scheme: str) -> str:
    """Which comms a child of another thread leaves open, in the loop's debug mode: some wait."""
    loop = asyncio.get_running_loop()
    async with listen(place(scheme), echo, **listen_args(scheme)) as listener:
        comms = [await connect(listener.contact_address, **connect_args(scheme)) for _ in range(3)]
        reading = [asyncio.ensure_future(comm.read()) for comm in comms]
        await asyncio.sleep(0)
        ours, kept = os.pipe()

        def fork() -> None:
            if not (pid := os.fork()):
                left = [n for n, comm in enumerate(comms) if not comm.closed()]
                os.write(kept, (f"open: {left}" if left else "nothing").encode())
                os._exit(0)
            os.waitpid(pid, 0)

        loop.set_debug(True)
        await asyncio.to_thread(fork)
        loop.set_debug(False)
        told = os.read(ours, 10_000).decode()
        os.close(ours)
        os.close(kept)
        for comm, read in zip(comms, reading, strict=True):
            await comm.write("after")
            assert await asyncio.wait_for(read, 20) == "after"
            await comm.close()
        return told


async def main(schemes: list[str]) -> dict[str, dict[str, str]]:
    told: dict[str, dict[str, str]] = {}
    for scheme in schemes:  # not one comprehension in another: Python 3.10 has none that await
        told[scheme] = {does.__name__: await forked(scheme, does) for does in CHILDREN}
        told[scheme]["outlived"] = await outlived(scheme)
        told[scheme]["elsewhere"] = await elsewhere(scheme)
    return told


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks
    parent = os.getpid()
    make = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[sys.argv[1]]
    loop = make()
    parents = loop.create_task(main(sys.argv[2:]))
    try:
        outcome = loop.run_until_complete(parents)
    finally:
        if os.getpid() != parent:
            os._exit(0)
    print(json.dumps(outcome))
    loop.close()
