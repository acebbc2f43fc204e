"""A peer that cannot be reached for a time: given up in time, or not at all."""

from __future__ import annotations

import time

import pytest

from support.activities import ROLES, at_work
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
