"""Backends for distributed's ``tcp`` and ``tls``.

Importing this package changes nothing, but for the defaults in Dask's configuration.

::

    $ dask scheduler --preload sealwire.dask_backend.preload --tls-ca-file ca.pem --tls-cert …

    from sealwire.dask_backend import Security
    client = Client("tls://…", security=Security(…))

The preload installs the backends, as does `install`. Creating or unpickling a `Security` of this
package installs them in every process it reaches.
"""

from __future__ import annotations

import logging
from typing import Any

from . import defaults
from .backend import (
    TCP,
    TLS,
    TCPBackend,
    TCPConnector,
    TCPListener,
    TLSBackend,
    TLSConnector,
    TLSListener,
)
from .patches import install, installed, uninstall
from .security import Security

__all__ = [
    "TCP",
    "TLS",
    "Security",
    "TCPBackend",
    "TCPConnector",
    "TCPListener",
    "TLSBackend",
    "TLSConnector",
    "TLSListener",
    "install",
    "installed",
    "uninstall",
]

defaults.add()


def dask_setup(server: Any) -> Any:
    """Do what the preload does, or warn: as a preload, this package installs nothing by itself."""
    if installed():
        from .preload import dask_setup as ours

        return ours(server)
    logging.getLogger("sealwire.dask_backend").warning(
        "%s uses distributed's own backend: preloading the package sealwire.dask_backend does not "
        "install that of sealwire; preload sealwire.dask_backend.preload",
        type(server).__name__,
    )
    return None
