"""Which pending connections are to go, on a clock of the test's own."""

from __future__ import annotations

import pytest

from sealwire.comm.transport.pending import Pending, dropped, too_late

SECONDS = 8.0


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pending(clock: Clock) -> Pending[str]:
    return Pending(SECONDS, clock)


def test_each_has_the_same_time(pending: Pending[str], clock: Clock) -> None:
    assert pending.add("a") == 108.0
    clock.now = 103.0
    assert pending.add("b") == 111.0
    assert list(pending) == ["a", "b"]


@pytest.mark.parametrize(
    ("now", "planned", "late", "then"),
    [
        # Three that came at 100, 101 and 104 and have until 108, 109 and 112.
        (107.9, 107.9, [], 108.0),  # a timer that is early
        (108.0, 108.0, ["a"], 109.0),  # exactly then
        (108.0003, 108.0, ["a"], 109.0),
        (108.9999, 108.9998, ["a"], 109.0),  # less than a timer's grain to the next
        (109.4, 109.0, ["a", "b"], 112.0),
        (112.0, 112.0, ["a", "b", "c"], None),
        # Something has held the loop: they are given as much again, a quarter of the time at most.
        (108.6, 108.0, [], 109.2),
        (110.0, 108.0, [], 112.0),
        (150.0, 108.0, [], 152.0),
    ],
)
def test_which_are_late_and_when_to_ask_again(
    pending: Pending[str],
    clock: Clock,
    now: float,
    planned: float,
    late: list[str],
    then: float | None,
) -> None:
    for name, at in (("a", 100.0), ("b", 101.0), ("c", 104.0)):
        clock.now = at
        pending.add(name)
    clock.now = now
    found, again = pending.late(planned)
    assert found == late
    assert again == (None if then is None else pytest.approx(then))
    assert len(pending) == 3  # to be removed by who asked


def test_after_the_grace_they_go(pending: Pending[str], clock: Clock) -> None:
    pending.add("a")
    clock.now = 120.0
    late, then = pending.late(108.0)
    assert (late, then) == ([], 122.0)
    clock.now = then
    assert pending.late(then) == (["a"], None)


def test_a_loop_that_is_held_again_and_again_puts_them_off_each_time(
    pending: Pending[str], clock: Clock
) -> None:
    """Nobody is dropped for what we did not look at; time that was looked at is counted."""
    pending.add("a")
    planned = 108.0
    for _ in range(3):
        clock.now = planned + 1.0
        late, then = pending.late(planned)
        assert late == []
        assert then == clock.now + 1.0
        planned = then
    clock.now = planned + 0.4
    assert pending.late(planned) == (["a"], None)


@pytest.mark.parametrize(
    ("number", "most", "surplus"),
    [(0, 1, 0), (3, 5, 0), (3, 4, 0), (3, 3, 1), (3, 1, 3), (5, 2, 4)],
)
def test_the_oldest_give_way(pending: Pending[str], number: int, most: int, surplus: int) -> None:
    names = [str(each) for each in range(number)]
    for name in names:
        pending.add(name)
    assert pending.surplus(most) == names[:surplus]


def test_a_finished_connection_is_not_pending(pending: Pending[str], clock: Clock) -> None:
    pending.add("a")
    pending.add("b")
    assert pending.remove("a")
    assert not pending.remove("a")
    assert "a" not in pending
    clock.now = 108.0
    assert pending.late(108.0) == (["b"], None)
    pending.remove("b")
    assert not pending
    assert pending.late(108.0) == ([], None)


def test_any_may_be_removed_while_all_are_gone_through(pending: Pending[str]) -> None:
    for name in "abc":
        pending.add(name)
    for name in pending:
        pending.remove(name)
    assert not pending


def test_the_errors_say_what_was_owed_and_what_to_do() -> None:
    error = too_late("tls://peer:1", "TLS handshake", 30.0)
    assert str(error) == (
        "connection with tls://peer:1 dropped: no TLS handshake within 30 s; check that the other "
        "side speaks the same protocol and is not overloaded"
    )
    assert (error.kind, error.peer) == ("timeout", "tls://peer:1")
    error = dropped("tcp://peer:1", "crowded", "its hello was not done", "try again")
    assert str(error) == "connection with tcp://peer:1 dropped: its hello was not done; try again"
    assert error.kind == "crowded"
