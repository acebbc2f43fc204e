"""A peer that cannot be reached for a time: given up in time, or not at all."""

from __future__ import annotations

import time
from typing import Any

import pytest

from support.activities import ROLES, at_work, open_comms, stream_of, until_calm
from support.endings import kind_of, told_of
from support.faces import Face
from support.network import FAULTS, HANG, Network, Side

each_fault = pytest.mark.parametrize("fault", FAULTS)
EVENTS = dict.fromkeys(FAULTS, "the network between is cut")
EVENTS["interface"] = "a network interface goes"
TOLERANCE = 0.5  # seconds; the kernel's timers, and a machine that others use too


@each_fault
def test_who_is_out_of_reach_is_given_up_in_time(
    fault: str,
    network: Network,
    near: Side,
    far: Side,
    both_faces: list[Face],
    keepalive: float,
) -> None:
    """Whatever a comm does meanwhile, both its ends are told within `keepalive-timeout`."""
    ends = at_work(both_faces, near, far)
    network.fail(fault)
    start = time.monotonic()
    told = {end.name: end.told.result(HANG) for end in ends if end.told is not None}
    late = {name: when - start for name, (when, _) in told.items() if when - start > keepalive}
    assert len(told) == len(both_faces) * len(ROLES) * 2
    assert not {name: s for name, s in late.items() if s > keepalive + TOLERANCE}
    documented = told_of(EVENTS[fault])
    assert documented.when == "within `keepalive_timeout`"
    for name, (_, error) in told.items():
        kinds, _ = documented.kinds[name.partition(",")[0]]
        assert kind_of(error) in kinds, (name, error)
        if fault in ("partition", "interface"):  # else one end may hear that the other gave up
            assert "connection timed out; check the network between" in str(error), name


def test_so_it_is_where_the_kernel_is_first(
    network: Network, near: Side, far: Side, both_faces: list[Face]
) -> None:
    """As it is with a `keepalive-timeout` of half a minute; OpenSSL may hide what it says."""
    ends = [end for face in both_faces for end in near.do(open_comms(face, near, far, 1))[0]]
    for end in ends:
        stream_of(end)._liveness.forget(stream_of(end))
    until_calm(ends)  # what nobody has acknowledged is sent again for 15 s

    async def told(comm: Any) -> OSError:
        try:
            await comm.read()
        except OSError as error:
            return error
        raise AssertionError("a message came")

    network.both(cut=True)
    sides = (near, far) * len(both_faces)
    waiting = [side.begin(told(end)) for side, end in zip(sides, ends, strict=True)]
    for each in waiting:
        error = each.result(HANG)
        assert kind_of(error) == "lost"
        assert "connection timed out; check the network between" in str(error)
