"""What Dask's command line imports of us: `dask sealwire`, and the backend where configured.

`dask worker` opens its key before it imports the configured preloads, and would fail for an
encrypted one. So where the configuration names our preload, and the command is one that runs
preloads, the backend is installed now. Otherwise only the table of commands is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sealwire.cli.main import main

__all__ = ["install_if_configured", "main"]

_PRELOAD = "sealwire.dask_backend.preload"
_COMMANDS = ("scheduler", "worker")


def install_if_configured(arguments: Sequence[str]) -> None:
    """Install the backend if the `arguments` of `dask` start a process that is to preload it."""
    import dask

    command = next((each for each in arguments if not each.startswith("-")), None)
    if command not in _COMMANDS:
        return
    preload = dask.config.get(f"distributed.{command}.preload", default=())
    if _PRELOAD in ([preload] if isinstance(preload, str) else preload or ()):
        from sealwire.dask_backend import install

        install()


install_if_configured(sys.argv[1:])
