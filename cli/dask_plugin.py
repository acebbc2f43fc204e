"""What Dask's command line imports of us: `dask sealwire`, and the backend where configured.

`dask_hook.py` does the latter for every process, but only for what is under ``sealwire.tls``. And
`dask worker` opens its key before it imports the configured preloads, and would fail for an
encrypted one. So where the configuration contains something of ours, the backend is installed now.
Otherwise only the table of commands is imported. A `DASK_CONFIG` that names nothing is warned of.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence

from sealwire.cli.dask_hook import is_set
from sealwire.cli.main import main

__all__ = ["install_if_configured", "main"]

_PRELOAD = "sealwire.dask_backend.preload"
_PROCESSES = {"scheduler": ("scheduler",), "worker": ("worker",), "spec": ("scheduler", "worker")}


def install_if_configured(arguments: Sequence[str]) -> None:
    """Install the backend if `arguments` of `dask` start a process that is configured for it."""
    import dask

    command = next((each for each in arguments if not each.startswith("-")), None)
    if command not in _PROCESSES:
        return
    joins = os.environ.get("SEALWIRE_JOIN") or dask.config.get("sealwire.join.address", default="")
    named = (
        joins
        or is_set(dask.config.get("sealwire.tls", default=None))
        or any(
            any(map(_is_ours, _listed(dask.config.get(f"distributed.{each}.preload", default=()))))
            for each in _PROCESSES[command]
        )
        or any(map(_is_ours, _preloaded(arguments)))
        or _is_hopeless(arguments)
    )
    path = os.environ.get("DASK_CONFIG")
    if named or (path and not os.path.isfile(path)):
        from sealwire.dask_backend.startup import tell_configuration

        if named:
            _install("" if command == "spec" else str(command))
        tell_configuration()


def _install(role: str) -> None:
    """Install the backend; end the process if it was to join as `role` and could not.

    Dask would go on without this package's commands, and so without TLS.
    """
    from sealwire.dask_backend import install, membership
    from sealwire.joining import JoinError
    from sealwire.security import SecurityError

    membership.expect(role)
    try:
        install()
    except (JoinError, SecurityError) as error:
        sys.exit(f"Error: {error}")


def _is_hopeless(arguments: Sequence[str]) -> bool:
    """Whether TLS is asked for and nothing is there for it, of which our backend says more."""
    import dask

    asked = any(each.removeprefix("--protocol=") in ("tls", "tls://") for each in arguments)
    asked = asked or any("tls://" in each for each in arguments)
    given = any(each.startswith("--tls-") for each in arguments)
    return asked and not given and not dask.config.get("distributed.comm.tls.ca-file", default=None)


def _is_ours(module: object) -> bool:
    """Whether a preload is ours, or a package that contains it, which by itself does nothing."""
    return isinstance(module, str) and (f"{_PRELOAD}.").startswith(f"{module}.")


def _preloaded(arguments: Sequence[str]) -> list[str]:
    """Return what is named by ``--preload``."""
    follow = [b for a, b in itertools.pairwise(arguments) if a == "--preload"]
    equal = [each for each in arguments if each.startswith("--preload=")]
    return [*follow, *(each.partition("=")[2] for each in equal)]


def _listed(preload: object) -> Sequence[object]:
    return preload if isinstance(preload, (list, tuple)) else [preload]


install_if_configured(sys.argv[1:])
