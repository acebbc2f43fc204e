"""Clocks that are wrong, set, or stand still: what a process that joins or has joined makes of it.

A machine may start with a clock that is years off, join, and have it set right a moment later.
"""

from __future__ import annotations

import asyncio
import datetime
import time
from typing import Any

import pytest

from sealwire.joining import Desk, Member, Unavailable, WrongAuthority, desk, given, join
from sealwire.joining import member as module
from sealwire.joining.member import blocking, steady
from sealwire.security.ca import crl
from sealwire.security.ca.atomic_files import apply, locked
from sealwire.security.ca.crl import read_lists
from sealwire.security.ca.renewal import revoke
from sealwire.security.ca.store import Store
from sealwire.security.x509 import keys, templates
from support.aio import aio
from support.joining import CA, HOUR

DAY = 24 * HOUR
MOVES = [HOUR, 20 * HOUR, DAY, 3650 * DAY]


class Clocks:
    """`time`, whose two clocks can be moved: that which is set, and that which nobody sets."""

    def __init__(self) -> None:
        self.set = self.passed = 0.0

    def time(self) -> float:
        return time.time() + self.set

    def monotonic(self) -> float:
        return time.monotonic() + self.passed

    def clock_gettime(self, _: int) -> float:
        return self.monotonic()


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    made = Clocks()
    monkeypatch.setattr(module, "time", made)
    return made


AHEAD = [2 * HOUR, 20 * HOUR, 6 * DAY, 3000 * DAY]


@pytest.mark.parametrize("ahead", AHEAD, ids=str)
def test_a_service_whose_clock_was_ahead_and_is_right_again(
    ca: CA, monkeypatch: pytest.MonkeyPatch, ahead: datetime.timedelta
) -> None:
    """As of a machine that has just started: what it has made until then, nobody takes yet."""
    real = templates.now
    for each in (templates, crl, desk, given):
        monkeypatch.setattr(each, "now", lambda: real() + ahead)
    service = Desk(ca.path)
    own = service.own()
    assert own.since > real()
    with locked(ca.path) as folder:
        apply(revoke(Store(folder), "client", "keyCompromise")[1])
    assert since(service) > real()
    monkeypatch.undo()
    right = service.own(own)
    assert right.since <= real() < right.until
    assert service.own(right) is right
    assert since(service) <= real()
    assert since(Desk(ca.path)) <= real(), "it is on the disk as well"
    (revoked,) = read_lists(service.trust().crl)
    assert len(revoked) == 1


def since(service: Desk) -> datetime.datetime:
    """When the list that it gives was made."""
    (found,) = read_lists(service.trust().crl)
    return found.last_update_utc


def asked(member: Member) -> list[str]:
    """What is asked until nothing is due: that much for one move of a clock."""
    done: list[str] = []
    while len(done) < 20 and (due := member._next())[0] <= module.steady():
        blocking(due[1])
        done.append(due[1].__name__)
    return done


async def joined(ca: CA, address: Any) -> Member:
    token = ca.token(lifetime=DAY)
    return await asyncio.to_thread(lambda: Member.join(address, token, node="a", patience=5))


@pytest.mark.parametrize("move", [each * sign for each in MOVES for sign in (1, -1)], ids=str)
@aio
async def test_a_clock_that_is_set_costs_one_renewal_at_most(
    ca: CA, clocks: Clocks, move: datetime.timedelta
) -> None:
    async with ca.service() as address:
        member = await joined(ca, address)
        assert await asyncio.to_thread(asked, member) == []
        clocks.set = move.total_seconds()
        wanted = ["_renew"] if move > 0.7 * DAY else []
        assert await asyncio.to_thread(asked, member) == wanted
        assert await asyncio.to_thread(asked, member) == []
        member.stop()


@aio
async def test_a_machine_that_slept_renews_at_once(ca: CA, clocks: Clocks) -> None:
    async with ca.service() as address:
        member = await joined(ca, address)
        clocks.set = clocks.passed = 20 * 3600.0
        assert (await asyncio.to_thread(asked, member))[:1] == ["_renew"]
        assert await asyncio.to_thread(asked, member) == []
        member.stop()


@pytest.mark.parametrize("move", [each * sign for each in MOVES for sign in (1, -1)], ids=str)
@aio
async def test_a_clock_that_is_set_ends_no_membership(
    ca: CA, clocks: Clocks, move: datetime.timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    """The service is away at that moment: it is asked again, as long as the certificate is good."""
    async with ca.service() as address:
        member = await joined(ca, address)
    clocks.set = move.total_seconds()
    member._failed(Unavailable("it is away"), renewing=True)
    assert not member._is_over()
    assert "tried again for 24.0 h" in caplog.text
    assert member._next() == (member._renewal, member._renew)
    clocks.passed = 24 * 3600.0 + 1
    member._failed(Unavailable("it is away"), renewing=True)
    assert member._is_over()
    assert "has expired" in caplog.text
    member.stop()


def test_it_is_the_clock_that_goes_on_while_the_machine_sleeps() -> None:
    if hasattr(time, "CLOCK_BOOTTIME"):
        assert abs(steady() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 5
    assert steady() <= steady()


@pytest.mark.parametrize(
    ("ahead", "why"),
    [(-3000 * DAY, "expired"), (-8 * DAY, "expired"), (-6 * DAY, ""), (-HOUR, ""),
     (0.9 * HOUR, ""), (1.1 * HOUR, "not valid yet"), (300 * DAY, "not valid yet")],
    ids=str,
)  # fmt: skip
@aio
async def test_a_machine_whose_clock_is_wrong(
    ca: CA, monkeypatch: pytest.MonkeyPatch, ahead: datetime.timedelta, why: str
) -> None:
    """The service is `ahead` of it; what TLS verifies are the days of the service's certificate."""
    real, token = templates.now, ca.token()
    monkeypatch.setattr(templates, "now", lambda: real() + ahead)
    async with ca.service() as address:
        monkeypatch.undo()
        try:
            await join(address, token, keys.generate())
        except WrongAuthority as error:
            assert why, error
            assert why in str(error)
            assert f"set the clock, which is {real():%Y-%m-%d %H:}" in str(error)
        else:
            assert not why
    assert len(ca.issued()) == (not why)
