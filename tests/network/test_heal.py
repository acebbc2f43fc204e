"""A network that comes back before anybody is given up: work goes on soon, nothing is lost."""

from __future__ import annotations

import errno
import socket
import time

import pytest

from sealwire.comm.transport import sockets
from support.activities import abort_all, at_work, until
from support.faces import Face
from support.network import FAULTS, Network, Side

ABSENCE = 3.2  # seconds; the kernel doubles its pauses, and would send again 6.2 s after the start


def bounds_pauses() -> bool:
    """Whether this kernel is one that can."""
    with socket.socket() as sock:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, sockets._RTO_MAX_MS, 1000)
        except OSError as error:
            assert error.errno == errno.ENOPROTOOPT
            return False
    return True


@pytest.fixture
def keepalive() -> float:
    return 6.0


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "to-near"])
def test_work_goes_on_after_a_shorter_absence(
    fault: str, network: Network, near: Side, far: Side, both_faces: list[Face]
) -> None:
    ends = at_work(both_faces, near, far)
    network.fail(fault)
    time.sleep(ABSENCE)
    assert not [(end.name, end.told.result(0)) for end in ends if end.told and end.told.done()]
    network.heal()
    before = {end: end.messages for end in ends}
    receivers = [end for end in ends if end.name.endswith(("sending, far", "receiving, near"))]
    assert len(receivers) == 2 * len(both_faces)
    seconds = until(
        lambda: all(end.messages > before[end] + 2 for end in receivers), "nothing goes through"
    )
    assert seconds < (2 if bounds_pauses() else 2 * ABSENCE), seconds
    waiting = [end for end in ends if "waiting" in end.name]
    for end in waiting:
        end.side.do(end.comm.write("still here"))
    until(lambda: all(end.messages == 1 for end in waiting), "nothing goes through")
    assert not [(end.name, end.told.result(0)) for end in ends if end.told and end.told.done()]
    abort_all(ends)
