"""One large message between two processes: it arrives, and neither side holds a second copy."""

from __future__ import annotations

import json
import pickle
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support import programs
from support.links import security
from support.target import count

MiB = 1 << 20
GiB = 1 << 30


@contextmanager
def peer(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        programs.command("large_peer", *arguments),
        cwd=programs.HOME,
        env=programs.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(pickle.dumps(security()))
            process.stdin.close()
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


@pytest.mark.parametrize(
    ("scheme", "size"),
    [("tcp", count(256 * MiB, 128 * MiB)), ("tls", count(5 * GiB + 12_345, 128 * MiB))],
)
def test_one_large_message(scheme: str, size: int) -> None:
    """In full runs of more bytes than 32 bits count; see also test_huge_messages.py."""
    with (
        peer("receive", scheme) as receiver,
        peer("send", line_of(receiver), str(size)) as sender,
    ):
        received: dict[str, Any] = json.loads(line_of(receiver))
        sent: dict[str, Any] = json.loads(line_of(sender))
        assert sender.wait(60) == 0
        assert receiver.wait(60) == 0
    assert received["size"] == size
    assert received["intact"]
    assert received["extra"] <= size + 16 * MiB
    assert sent["extra"] <= 8 * MiB
