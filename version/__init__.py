"""Messages between the processes of a cluster, over TCP or mutually authenticated TLS.

`sealwire.comm` carries them, `sealwire.security` names and trusts their ends, and
`sealwire.dask_backend` does both for Dask. Importing this package loads none of the three.
"""

from __future__ import annotations

from typing import Any

__all__ = ["__version__"]

__version__: str


def __getattr__(name: str) -> Any:
    """Look up what is seldom asked for: reading metadata takes as long as all imports."""
    if name == "__version__":
        from importlib.metadata import version

        return version("sealwire")
    if name == "dask_setup":  # asked of a preload
        from sealwire.dask_backend import dask_setup

        return dask_setup
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
