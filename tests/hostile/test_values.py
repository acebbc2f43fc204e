"""Messages of strange values, decoded in processes of their own: what comes out is judged.

Not only are the documented errors all that escapes. What a message decodes to is the same whatever
was in memory before; its buffers have no more bytes than were sent; it can be printed, and sent
back as the same; and that takes time in proportion to its size.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support import programs
from support.target import HANG, MODES, check, count, figure

SECONDS = count(300, 0.5)  # of each


@pytest.mark.parametrize("mode", ["plain", "optimised"])
def test_strange_values(mode: str, tmp_path: Path) -> None:
    last = tmp_path / "last.bin"
    how = MODES[mode]
    run = subprocess.run(
        programs.command("value_fuzz", str(SECONDS), mode, flags=how.get("flags", ())),
        cwd=tmp_path,
        env=programs.environment(**how.get("environment", {}), VALUE_FUZZ_LAST=str(last)),
        capture_output=True,
        text=True,
        timeout=SECONDS + HANG,
    )
    crashed = f"killed by signal {-run.returncode}" if run.returncode < 0 else ""
    check(run.returncode == 0, crashed, run.stderr, crashed and last.read_bytes()[:5000])
    done = json.loads(run.stdout)
    check(done["messages"] > 50 * SECONDS and done["good"] > done["messages"] // 10, done)
    figure(f"{done['messages']} messages, {done['good']} of them good")
