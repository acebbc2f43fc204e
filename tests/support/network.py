"""Two hosts and the link between them: threads in network namespaces that the tests make.

Nothing leaves the namespaces, and nothing of the machine's own network is in them. A `Side` is a
thread that has entered one of them, with an event loop: the sockets that it makes belong there.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from support import HANG, programs

DEVICE = "link0"
HOSTS = ("10.77.0.1", "10.77.0.2")
HOSTS_6 = ("fd77::1", "fd77::2")
LINK_LOCAL = ("fe80::1", "fe80::2")
NOBODY = "10.77.0.99"  # whom neither side knows: nothing answers

CLONE_NEWNET = 0x40000000

Result = TypeVar("Result")


class NoNetwork(Exception):
    """The namespaces cannot be made here."""


class Side:
    """A host. Its loop runs in a thread of its own until `stop`."""

    def __init__(
        self,
        namespace: str,
        host: str,
        make_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    ) -> None:
        self.host = host
        self.loop = make_loop()
        self.unhandled: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.unhandled.append(context))
        self._entered: Future[None] = Future()
        self._thread = threading.Thread(target=self._live, args=(namespace,), daemon=True)
        self._thread.start()
        self._entered.result(HANG)

    def _live(self, namespace: str) -> None:
        try:
            before = os.stat("/proc/thread-self/ns/net").st_ino
            descriptor = os.open(namespace, os.O_RDONLY)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(descriptor, CLONE_NEWNET):
                    raise NoNetwork(os.strerror(ctypes.get_errno()))
            finally:
                os.close(descriptor)
            # Whatever is dialled from here on must not meet the machine's own network.
            if os.stat("/proc/thread-self/ns/net").st_ino == before:
                raise NoNetwork("the thread is where it was")
        except BaseException as error:
            self._entered.set_exception(error)
            return
        self._entered.set_result(None)
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def begin(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Run it on this side."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run it on this side, and wait for what comes of it."""
        return self.begin(work).result(HANG)

    def stop(self) -> None:
        async def wind_up() -> None:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await self.loop.shutdown_default_executor()

        self.do(wind_up())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(HANG)
        self.loop.close()
        assert not self.unhandled, self.unhandled


class Network:
    """The link, as a context manager."""

    def __init__(self) -> None:
        self._program = subprocess.Popen(
            programs.command("network_link"),
            cwd=programs.HOME,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=programs.environment(),
            text=True,
        )
        assert self._program.stdout is not None
        line = self._program.stdout.readline()
        if not line:
            assert self._program.stderr is not None
            why = self._program.stderr.read().strip()
            self.end()
            raise NoNetwork(why.splitlines()[-1] if why else "the link has ended at once")
        self.namespaces = [f"/proc/{self._program.pid}/fd/{number}" for number in line.split()]

    def side(self, number: int, **more: Any) -> Side:
        """Near is 0, far is 1."""
        return Side(self.namespaces[number], HOSTS[number], **more)

    def _tell(self, **change: Any) -> None:
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(json.dumps(change) + "\n")
        self._program.stdin.flush()
        assert self._program.stdout.readline() == "ok\n"

    def both(self, **values: Any) -> None:
        """What holds for either direction from now on: ``delay``, ``loss``, ``cut``."""
        self._tell(both=values)

    def reset(self) -> None:
        """As it was at first."""
        self._tell(up=[0, 1], both={"delay": 0.0, "loss": 0.0, "cut": False})

    def fail(self, fault: str) -> None:
        """One of `FAULTS`."""
        if fault == "interface":
            self._tell(down=[0])
        else:
            self._tell(**{FAULTS[fault]: {"cut": True}})

    def heal(self) -> None:
        """Undo `fail`."""
        self._tell(up=[0], both={"cut": False})

    def end(self) -> None:
        with suppress(BrokenPipeError):
            self._program.communicate(timeout=HANG)

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


STATES = (
    "",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
)  # of Linux


def states(side: Side) -> Counter[str]:
    """How many connections of a host are in which state, but for those that only wait."""

    async def read() -> Counter[str]:
        with open("/proc/thread-self/net/tcp") as table:  # noqa: ASYNC230
            lines = table.readlines()[1:]
        return Counter(STATES[int(line.split()[3], 16)] for line in lines)

    counted = side.do(read())
    for idle in ("TIME_WAIT", "LISTEN"):
        del counted[idle]
    return counted


#: what may go wrong, and which direction it concerns
FAULTS = {
    "partition": "both",
    "to-far": "to_far",
    "to-near": "to_near",
    "interface": "near's own",
}
