"""The demo's computations, each checked by an independent calculation.

Words: the runs of ASCII letters and underscores in Python sources, counted with a regular
expression in the workers and summed in a tree; checked here by splitting translated text.

Array: x @ x.T over blocks on different workers; checked with a vector r, since (x @ x.T) @ r must
equal x @ (x.T @ r). All values are integers far below 2**53, so that float64 represents them
exactly and the results must be equal, not just close.

Workers import this module, so it imports neither Dask nor numpy at the top.
"""

from __future__ import annotations

import os
import re
import string
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORD = re.compile(rb"[A-Za-z_]+")
LETTERS = frozenset((string.ascii_letters + "_").encode())
TO_SPACES = bytes(byte if byte in LETTERS else 32 for byte in range(256))

FAN_IN = 4  # tallies merged by one task of the tree
GRID = 4  # blocks of the array in each dimension
BLOCK = 512  # rows and columns of a block at scale 1: 2 MiB of float64
PATIENCE = 120.0  # seconds to wait for a computation, at scale 1 and below


@dataclass(frozen=True)
class Tally:
    """Word counts of some files."""

    files: int
    size: int
    counts: Counter[bytes]


@dataclass(frozen=True)
class Words:
    """Word counts of all files, by the workers and by the check."""

    files: int
    size: int
    distinct: int
    total: int
    total_again: int
    top: tuple[tuple[str, int], ...]
    top_again: int


@dataclass(frozen=True)
class Array:
    """The product's shape and sums, by the cluster and by the check."""

    side: int
    blocks: int
    block_bytes: int
    total: int
    total_again: int
    wrong_rows: int


def source_files(scale: float) -> list[str]:
    """Return the source files of the standard library, without installed packages.

    Each of them once at scale 1, an even choice of a tenth at 0.1, each three times at 3.
    """
    stdlib = sysconfig.get_paths()["stdlib"]
    files = []
    for folder, folders, names in os.walk(stdlib):
        folders[:] = sorted(set(folders) - {"site-packages", "dist-packages"})
        files += [os.path.join(folder, name) for name in sorted(names) if name.endswith(".py")]
    if not files:
        raise FileNotFoundError(f"cannot find Python sources in {stdlib}: no *.py file there")
    wanted = max(1, round(len(files) * scale))
    return [files[int(index / scale) % len(files)] for index in range(wanted)]


def count_words(paths: Sequence[str]) -> Tally:
    """Count the words of the files at `paths`. Runs in a worker."""
    counts: Counter[bytes] = Counter()
    size = 0
    for path in paths:
        text = Path(path).read_bytes()
        size += len(text)
        counts.update(WORD.findall(text))
    return Tally(len(paths), size, counts)


def merge(tallies: Sequence[Tally]) -> Tally:
    """Sum `tallies`. Runs in a worker."""
    counts: Counter[bytes] = Counter()
    for tally in tallies:
        counts.update(tally.counts)
    return Tally(sum(t.files for t in tallies), sum(t.size for t in tallies), counts)


def summary(tally: Tally) -> tuple[int, int, int, int, list[tuple[bytes, int]]]:
    """Files, bytes, different words, words, and the ten most frequent. Runs in a worker."""
    counts = tally.counts
    return tally.files, tally.size, len(counts), counts.total(), counts.most_common(10)


def recount(paths: Iterable[str], word: bytes) -> tuple[int, int]:
    """Count all words, and those equal to `word`, by another method than `count_words`."""
    total = alike = 0
    for path in paths:
        words = Path(path).read_bytes().translate(TO_SPACES).split()
        total += len(words)
        alike += words.count(word)
    return total, alike


def word_tree(client: Any, paths: Sequence[str]) -> list[Any]:
    """Submit the counting of `paths` as a tree of tasks. Return its futures, the root last."""
    chunks = [list(paths[start::32]) for start in range(min(32, len(paths)))]
    level = client.map(count_words, chunks, pure=False)
    futures = list(level)
    while len(level) > 1:
        groups = [level[start : start + FAN_IN] for start in range(0, len(level), FAN_IN)]
        level = [client.submit(merge, group, pure=False) for group in groups]
        futures += level
    futures.append(client.submit(summary, level[0], pure=False))
    return futures


def count_in_cluster(
    client: Any, paths: Sequence[str], scale: float, advance: Callable[[int, int], None]
) -> Words:
    """Count the words of `paths` with the workers of `client`; check the result here.

    `advance(done, all)` is called as tasks end. Raises what a task raised, or TimeoutError.
    """
    futures = word_tree(client, paths)
    follow(client, futures, scale, advance)
    files, size, distinct, total, top = futures[-1].result()
    total_again, top_again = recount(paths, top[0][0])
    named = tuple((word.decode("ascii"), count) for word, count in top)
    return Words(files, size, distinct, total, total_again, named, top_again)


def element(row: Any, column: Any) -> Any:
    """Return the value at (row, column) of x: an integer in 0…250, for numbers and numpy arrays."""
    return (row * 31 + column * 17 + row * column) % 251


def multiply_in_cluster(client: Any, scale: float, advance: Callable[[int, int], None]) -> Array:
    """Compute x @ x.T with the workers of `client`; check the result here, with numpy alone.

    x is stored on the workers first; otherwise each product would create its own blocks and none
    would be transferred. `advance(done, all)` is called as blocks end. Raises what a task raised,
    or TimeoutError.
    """
    import dask.array
    import numpy
    from distributed import futures_of

    block = max(8, round(BLOCK * scale**0.5))
    side = GRID * block
    x = dask.array.fromfunction(
        element, shape=(side, side), chunks=(block, block), dtype=numpy.float64
    )
    x = client.persist(x)
    follow(client, futures_of(x), scale, lambda done, of: advance(done, 2 * of))
    product = client.persist(x @ x.T)
    follow(client, futures_of(product), scale, lambda done, of: advance(of + done, 2 * of))

    r = numpy.arange(side, dtype=numpy.float64) % 7
    here = client.compute(product @ r).result(timeout=patience(scale))
    x_again = numpy.fromfunction(element, (side, side), dtype=numpy.float64)
    again = x_again @ (x_again.T @ r)
    return Array(
        side=side,
        blocks=GRID * GRID,
        block_bytes=block * block * 8,
        total=int(here.astype(numpy.int64).sum()),
        total_again=int(again.astype(numpy.int64).sum()),
        wrong_rows=int((here != again).sum()),
    )


def follow(
    client: Any, futures: Sequence[Any], scale: float, advance: Callable[[int, int], None]
) -> None:
    """Wait for `futures`, reporting progress to `advance`.

    Raises the first error of a task, or TimeoutError.
    """
    from distributed import as_completed

    done = as_completed(futures, loop=client.loop, timeout=patience(scale))
    for number, future in enumerate(done, 1):
        if future.status != "finished":
            future.result()
        advance(number, len(futures))


def patience(scale: float) -> float:
    """Seconds after which a computation counts as stuck."""
    return PATIENCE * max(1.0, scale)
