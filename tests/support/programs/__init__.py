"""Programs that tests run as processes of their own, and how they are run.

``python -m`` puts the current folder on ``sys.path``: run them in any but the repository's root,
whose folder ``comm`` would hide a package of that name. `HOME` will do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

#: the folder that holds the package `support`
HOME = Path(__file__).resolve().parents[2]


def command(name: str, *arguments: str, flags: Iterable[str] = ()) -> list[str]:
    """What runs the program `name` of this folder; `flags` are the interpreter's."""
    return [sys.executable, *flags, "-m", f"{__name__}.{name}", *arguments]


def environment(**more: str) -> dict[str, str]:
    """This process's environment and `more`, in which a program finds `support`."""
    before = [path] if (path := os.environ.get("PYTHONPATH")) else []
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), *before]), **more}
