"""The memory for received frames: whoever has a view of a block keeps it for himself."""

from __future__ import annotations

import ctypes
import gc
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sealwire.comm.transport import buffers
from sealwire.comm.transport.buffers import allocate

MEDIUM = 1 << 20


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "_recycled", buffers._Recycled())


def address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


HOLDERS: dict[str, Callable[[memoryview], Any]] = {
    "the buffer": lambda view: view,
    "a view of it": lambda view: memoryview(view),
    "a byte of it": lambda view: view[-1:],
    "a cast": lambda view: view.cast("Q"),
    "read-only": lambda view: view.toreadonly(),
    "an array": lambda view: np.frombuffer(view, dtype="f8"),
    "a slice of an array": lambda view: np.frombuffer(view, dtype="u1")[10:20:3],
    "an array of an array": lambda view: np.asarray(np.frombuffer(view)).reshape(2, -1).T,
    "a PickleBuffer": lambda view: pickle.PickleBuffer(view),
    "a raw PickleBuffer": lambda view: pickle.PickleBuffer(view).raw(),
    "a ctypes array": lambda view: (ctypes.c_char * len(view)).from_buffer(view),
    "what it is a view of": lambda view: view.obj,
    "an unpickled array": lambda view: pickle.loads(
        pickle.dumps(np.zeros(len(view), "u1"), protocol=5, buffer_callback=lambda _: False),
        buffers=[view],
    ),
    "an iterator": lambda view: iter(np.frombuffer(view, dtype="u1")),
    "a dict of it": lambda view: {"data": [(view,)]},
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_who_has_a_view_keeps_the_block(holder: str) -> None:
    view = allocate(MEDIUM)
    place = address(view)
    held = HOLDERS[holder](view)
    del view
    gc.collect()
    others = [allocate(MEDIUM) for _ in range(3)]
    assert place not in map(address, others)
    del held


def test_a_block_that_nobody_has_is_used_again() -> None:
    places = set()
    for _ in range(100):
        view = allocate(MEDIUM)
        places.add(address(view))
        del view
    assert len(places) == 1


@pytest.mark.parametrize("alive", [1, 2, 4])
def test_a_few_blocks_take_turns(alive: int) -> None:
    held = [allocate(MEDIUM) for _ in range(alive)]
    places = set()
    for number in range(100):
        held[number % alive] = None  # type: ignore[call-overload]
        held[number % alive] = allocate(MEDIUM)
        places.add(address(held[number % alive]))
    assert len(places) <= alive + 1


@pytest.mark.parametrize("numpy", [True, False])
def test_what_is_alive_never_changes(numpy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of buffers of any size, held for any time, in any order."""
    if not numpy:
        monkeypatch.setitem(sys.modules, "numpy", None)
    chance = random.Random(5)
    alive: list[tuple[memoryview, int]] = []
    for number in range(3000):
        size = chance.choice(
            [1, 1 << 15, 200_000, 210_000, 1 << 18, (1 << 18) + 9, 1 << 20, 1 << 22]
        )
        view = allocate(size)
        assert (view.nbytes, view.readonly, view.format) == (size, False, "B")
        mark = number % 251
        view[0] = view[-1] = mark
        alive.append((view[: chance.randint(1, size)] if chance.random() < 0.3 else view, mark))
        del view
        while len(alive) > 12 or (alive and chance.random() < 0.4):
            held, mark = alive.pop(chance.randrange(len(alive)))
            assert held[0] == mark
            del held
    assert all(held[0] == mark for held, mark in alive)


def test_little_is_kept_for_later() -> None:
    for size in (192 << 10, 1 << 18, 1 << 20, 3 << 20, 1 << 22):
        held = [allocate(size) for _ in range(50)]
        del held
        kept = buffers._recycled._blocks
        assert sum(map(len, kept)) == buffers._recycled._size <= buffers._KEPT
    assert sum(map(len, kept)) > 0


@pytest.mark.parametrize("size", [0, 1, (192 << 10) - 1, (1 << 22) + 1, 40 << 20])
def test_other_sizes_are_not_kept(size: int) -> None:
    assert allocate(size).nbytes == size
    assert not buffers._recycled._blocks


@pytest.mark.parametrize("size", [200_000, 1 << 18, MEDIUM, 1 << 22])
def test_a_block_is_not_much_larger_than_what_it_is_for(size: int) -> None:
    """The array that a program keeps would tie the rest to its own life: with Dask at most 5 %."""
    place = address(allocate(size))
    assert address(allocate(size - size // 100)) == place
    for smaller in (size - size // 20, size - size // 10, size // 2):
        assert memoryview(allocate(smaller).obj).nbytes == smaller


def test_threads_have_their_own() -> None:
    seen: list[set[int]] = [set(), set()]
    both = threading.Barrier(2, timeout=30)

    def work(mine: set[int]) -> None:
        for _ in range(200):
            view = allocate(MEDIUM)
            mine.add(address(view))
            view[0] = id(mine) % 251
            both.wait()
            assert view[0] == id(mine) % 251
            both.wait()

    threads = [threading.Thread(target=work, args=(mine,)) for mine in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen[0]
    assert seen[1]
    assert not seen[0] & seen[1]


def test_an_interpreter_that_counts_no_references_shares_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(sys, "getrefcount")
    monkeypatch.setattr(buffers, "_recycled", buffers._Recycled())
    first = allocate(MEDIUM)
    first[0] = 7
    assert not any(address(allocate(MEDIUM)) == address(first) or first[0] != 7 for _ in range(20))


def test_memory_stays_warm_where_the_system_takes_it_back() -> None:
    """As in Dask's workers: few page faults, though the C library returns what is freed."""
    program = """
import resource, sys
if sys.argv[1] == "numpy": import numpy
from sealwire.comm.transport.buffers import allocate
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use():
    view = allocate(1 << 20)
    view[::4096] = bytes(256)
for _ in range(3): use()
before = faults()
for _ in range(100): use()
print(faults() - before)
"""
    for kind in ("numpy", "plain"):
        found = subprocess.run(
            [sys.executable, "-c", program, kind],
            env={"MALLOC_TRIM_THRESHOLD_": "65536"},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert int(found.stdout) < 1000  # of 25,600
