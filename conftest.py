"""Guard: the tests must meet the packages as they are installed, under `sealwire`.

With the repository's root on the path, `import comm` would find the folder of that name here
instead of Jupyter's package, and a second copy of our modules.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent


def pytest_configure() -> None:
    """Stop if the repository's root is on the path."""
    if any(os.path.realpath(entry or os.curdir) == str(ROOT) for entry in sys.path):
        raise pytest.UsageError(
            f"cannot run the tests: {ROOT} is on sys.path, where its folder comm would hide the "
            "package of that name; call .venv/bin/pytest instead of python -m pytest, and leave "
            "the folder out of PYTHONPATH"
        )
