"""Runs a file as ``python FILE ARGUMENT ...`` does, with the event loop that is asked for.

``script.py LOOP FILE ARGUMENT ...``, where LOOP is ``asyncio`` or ``uvloop``.
"""

from __future__ import annotations

import runpy
import sys

if __name__ == "__main__":
    del sys.argv[0]
    if sys.argv.pop(0) == "uvloop":
        import uvloop

        uvloop.install()
    runpy.run_path(sys.argv[0], run_name="__main__")
