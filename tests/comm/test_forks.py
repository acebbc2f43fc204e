"""A comm belongs to the process that has opened it: no child that is forked can disturb it."""

from __future__ import annotations

import json
import subprocess

import pytest

from support import HANG, programs
from support.links import EVERYWHERE, SCHEMES

#: what a child does that needs a comm of its parent's
USES = ("write_nowait", "write", "read", "iterate")


@pytest.mark.parametrize(("loop", "schemes"), [("asyncio", EVERYWHERE), ("uvloop", SCHEMES)])
def test_a_child_can_neither_use_a_comm_nor_harm_it(loop: str, schemes: list[str]) -> None:
    """Over TLS it would use the keys and the record numbers of its parent once more."""
    done = subprocess.run(
        programs.command("forked_comms", loop, *schemes),
        cwd=programs.HOME,
        env=programs.environment(),
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcome = json.loads(done.stdout)
    assert set(outcome) == set(schemes)
    for scheme, told in outcome.items():
        for does, words in told.items():
            if does not in USES:
                assert words == "nothing", (scheme, does, words)
            else:
                assert words.startswith(f"us comm with {scheme}://"), (scheme, does, words)
                assert "it belongs to the process that has forked this one; " in words
