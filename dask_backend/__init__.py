"""Our backends for distributed's ``tcp`` and ``tls``. Importing this package installs them.

::

    $ dask scheduler --preload sealwire.dask_backend.preload --tls-ca-file ca.pem --tls-cert …

    from sealwire.dask_backend import Security
    client = Client("tls://…", security=Security(…))

A `Security` of this package, being unpickled, installs the backends in every process it reaches.
"""

from __future__ import annotations

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
from .registration import install, installed, uninstall
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

install()
