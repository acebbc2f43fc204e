"""The computations on small known cases, where they need no cluster."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from sealwire.cli.demo.computations import (
    count_words,
    element,
    merge,
    recount,
    source_files,
    summary,
)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two files with 9 words, 4 of them `self`; letters beyond ASCII separate words."""
    (tmp_path / "a.py").write_bytes(b"self.self_2 = 'na\xc3\xafve'\nself\x00def")
    (tmp_path / "b.py").write_bytes(b"\tself self __init__")
    (tmp_path / "empty.py").write_bytes(b"")
    return [str(path) for path in sorted(tmp_path.iterdir())]


def test_words_of_known_files(files: list[str]) -> None:
    tally = merge([count_words([path]) for path in files])
    assert (tally.files, tally.size) == (3, sum(Path(path).stat().st_size for path in files))
    assert tally.counts == {
        b"self": 4,
        b"self_": 1,
        b"na": 1,
        b"ve": 1,
        b"def": 1,
        b"__init__": 1,
    }
    assert summary(tally) == (3, tally.size, 6, 9, tally.counts.most_common(10))
    assert summary(tally)[-1][0] == (b"self", 4)


def test_the_recount_agrees_and_would_notice(files: list[str]) -> None:
    assert recount(files, b"self") == (9, 4)
    assert recount(files[:1], b"self") == (6, 2)
    assert recount([], b"self") == (0, 0)


def test_files_grow_with_the_scale() -> None:
    every = source_files(1)
    assert len(every) == len(set(every)) > 100
    assert all(path.endswith(".py") for path in every)
    assert not any("site-packages" in path for path in every)
    tenth = source_files(0.1)
    assert len(tenth) == len(set(tenth)) == round(len(every) / 10)
    assert set(tenth) < set(every)
    twice = source_files(2)
    assert sorted(twice) == sorted(every * 2)
    assert len(source_files(1e-9)) == 1


def test_the_array_is_of_small_integers() -> None:
    x = numpy.fromfunction(element, (20, 30), dtype=numpy.float64)
    assert (x >= 0).all()
    assert (x < 251).all()
    assert (x == x.astype(int)).all()
    assert x[3, 5] == element(3, 5) == (3 * 31 + 5 * 17 + 15) % 251
    assert len(set(x.ravel())) > 200, "a block is not a few values over and over"
