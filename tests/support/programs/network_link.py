"""A link between two network namespaces of its own, which can be slow, lossy, or cut.

    python -m support.programs.network_link

Needs Linux, the right to make namespaces, and /dev/net/tun; no module of the kernel's traffic
control. Prints the numbers of the two descriptors by which others enter the namespaces, then obeys
each line of standard input: JSON with what is to change of `Way` in ``to_far``, ``to_near`` or
``both``, or ``down`` and ``up`` with the numbers of sides. Answers each with ``ok``; ends with its
standard input.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fcntl
import heapq
import json
import os
import random
import select
import socket
import struct
import sys
import time
from typing import Any

from support.network import DEVICE, HOSTS, HOSTS_6, LINK_LOCAL

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
SIOCSIFADDR, SIOCSIFNETMASK, SIOCGIFINDEX, SIOCSIFTXQLEN = 0x8916, 0x891C, 0x8933, 0x8943


@dataclasses.dataclass
class Way:
    """One direction. Times in seconds, loss as a part of 1."""

    delay: float = 0.0
    loss: float = 0.0
    cut: bool = False


def request(name: str, rest: bytes) -> bytes:
    """A ``struct ifreq``."""
    return struct.pack("16s24s", name.encode(), rest)


class End:
    """A namespace with a device in it. While it is made, the process stands in it."""

    def __init__(self, side: int) -> None:
        self.side = side
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "cannot make a network namespace")
        self.namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self.device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        flags = struct.pack("H", IFF_TUN | IFF_NO_PI)
        fcntl.ioctl(self.device, TUNSETIFF, request(DEVICE, flags))
        self._control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._control_6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self._set_up("lo", True)
        for code, host in ((SIOCSIFADDR, HOSTS[side]), (SIOCSIFNETMASK, "255.255.255.0")):
            address = struct.pack("HH4s", socket.AF_INET, 0, socket.inet_aton(host))
            fcntl.ioctl(self._control, code, request(DEVICE, address))
        fcntl.ioctl(self._control, SIOCSIFTXQLEN, request(DEVICE, struct.pack("i", 5000)))
        self.up()

    def _set_up(self, device: str, up: bool) -> None:
        known = fcntl.ioctl(self._control, SIOCGIFFLAGS, request(device, b""))
        (flags,) = struct.unpack_from("H", known, 16)
        flags = flags | IFF_UP if up else flags & ~IFF_UP
        fcntl.ioctl(self._control, SIOCSIFFLAGS, request(device, struct.pack("H", flags)))

    def up(self) -> None:
        """The device is there; IPv6 addresses are lost whenever it goes."""
        self._set_up(DEVICE, True)
        known = fcntl.ioctl(self._control, SIOCGIFINDEX, request(DEVICE, b""))
        (index,) = struct.unpack_from("i", known, 16)
        for host in (HOSTS_6[self.side], LINK_LOCAL[self.side]):
            address = socket.inet_pton(socket.AF_INET6, host)
            wanted = struct.pack("16sIi", address, 64, index)
            with contextlib.suppress(FileExistsError):
                fcntl.ioctl(self._control_6, SIOCSIFADDR, wanted)

    def down(self) -> None:
        self._set_up(DEVICE, False)


class Link:
    """What passes packets on."""

    def __init__(self) -> None:
        self.ends = [End(0), End(1)]
        self.ways = [Way(), Way()]  # from each end
        self._chance = random.Random(1)
        self._under_way: list[tuple[float, int, int, bytes]] = []
        self._count = 0

    def run(self) -> None:
        devices = {end.device: end.side for end in self.ends}
        while True:
            now = time.monotonic()
            self._deliver(now)
            wait = self._under_way[0][0] - now if self._under_way else 60.0
            ready, _, _ = select.select([0, *devices], [], [], wait)
            for descriptor in ready:
                if descriptor:
                    self._take(devices[descriptor], descriptor)
                elif not self._obey():
                    return

    def _take(self, side: int, device: int) -> None:
        way = self.ways[side]
        for _ in range(64):
            try:
                packet = os.read(device, 65536)
            except OSError:
                return
            if way.cut or self._chance.random() < way.loss:
                continue
            self._count += 1
            due = time.monotonic() + way.delay
            heapq.heappush(self._under_way, (due, self._count, 1 - side, packet))

    def _deliver(self, now: float) -> None:
        while self._under_way and self._under_way[0][0] <= now:
            _, _, side, packet = heapq.heappop(self._under_way)
            try:
                os.write(self.ends[side].device, packet)
            except OSError:  # it is down, or its queue is full: lost
                pass

    def _obey(self) -> bool:
        line = sys.stdin.readline()
        if not line:
            return False
        change: dict[str, Any] = json.loads(line)
        for side in change.pop("down", ()):
            self.ends[side].down()
        for side in change.pop("up", ()):
            self.ends[side].up()
        which = {"to_far": [0], "to_near": [1], "both": [0, 1]}
        for name, values in change.items():
            for side in which[name]:
                self.ways[side] = dataclasses.replace(self.ways[side], **values)
        print("ok", flush=True)
        return True


if __name__ == "__main__":
    try:
        link = Link()
    except OSError as error:
        sys.exit(f"{error.strerror} ({error.errno})")
    print(*(end.namespace for end in link.ends), flush=True)
    link.run()
