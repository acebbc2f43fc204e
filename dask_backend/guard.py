"""Refuses plain connections where encryption is required, also those of other backends.

distributed leaves that to each backend, and its ``ws://`` does not check. While our backends are
installed, requests for a scheme without encryption in distributed's registry are checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import dask
from distributed.comm.registry import Backend

from sealwire.security import config

from .settings import any_certificate, encryption_required

__all__ = ["EncryptionRequired", "Guard", "refuse_plain"]

#: Schemes that need no check: in-process ones and those over TLS. Other backends declare that they
#: encrypt by an attribute ``encrypted``, and that they check by themselves, as ours for ``tcp://``,
#: by ``refuses_plain``.
_UNCHECKED = frozenset(("inproc", "tls", "wss"))

#: Backends that encrypt always, and do not declare it.
_ENCRYPTED = frozenset(("dask_gateway.comm.GatewayBackend",))


class EncryptionRequired(RuntimeError):
    """A plain address under ``require_encryption``. Not an OSError: `connect` must not retry."""


def refuse_plain(address: str, connection_args: Mapping[str, Any], *, listens: bool) -> None:
    """Raise `EncryptionRequired` for a plain address if it is to be refused."""
    if encryption_required(connection_args):
        scheme, _, rest = address.partition("://")
        raise EncryptionRequired(
            f"refusing {address}: encryption required by Dask configuration and {scheme} is plain; "
            f"{_instead(rest, connection_args, listens)}"
        )


def _instead(rest: str, connection_args: Mapping[str, Any], listens: bool) -> str:
    """Say what to do. A listener's address is most often written by nobody."""
    required = config.KEYS["require_encryption"]
    if listens:
        remedy = (
            "start the process with --protocol tls (in Python: protocol='tls'), and write tls:// "
            "before the address of a worker's scheduler"
        )
        if dask.config.get(required, None) is None:
            remedy += f", or set {required}: true, by which it is the default"
    else:
        remedy = (
            f"use tls://{rest}, or set distributed.comm.default-scheme: tls if the address was "
            f"written without tcp://"
        )
    if connection_args.get("ssl_context") is None and not any_certificate():
        remedy += ", and configure certificates: sealwire certs init makes them, with a dask.yaml"
    return remedy


class Guard:
    """Replaces `registry.get_backend`; once it is `off`, it only delegates."""

    def __init__(self, find: Callable[[str], Backend]) -> None:
        self.find = find
        self.off = False
        self._checked: dict[str, Backend] = {}  # distributed asks nine times per connection

    def __call__(self, scheme: str) -> Backend:
        """Return the backend of a scheme, guarded unless it is known to need no check."""
        backend = self.find(scheme)
        if self._checked.get(scheme) is backend:
            return backend
        if (
            scheme in _UNCHECKED
            or self.off
            or getattr(backend, "refuses_plain", False) is True
            or getattr(backend, "encrypted", False) is True
            or f"{type(backend).__module__}.{type(backend).__qualname__}" in _ENCRYPTED
        ):
            self._checked[scheme] = backend
            return backend
        return _Guarded(scheme, backend)

    def end(self) -> None:
        """Stop checking; others may have wrapped this object."""
        self.off = True
        self._checked.clear()


class _Guarded(Backend):
    """A backend whose connectors and listeners are refused where encryption is required."""

    def __init__(self, scheme: str, backend: Backend) -> None:
        self._scheme = scheme
        self._backend = backend

    def get_connector(self) -> Any:
        return _GuardedConnector(self._scheme, self._backend.get_connector())

    def get_listener(
        self, loc: str, handle_comm: Any, deserialize: bool, **connection_args: Any
    ) -> Any:
        refuse_plain(f"{self._scheme}://{loc}", connection_args, listens=True)
        return self._backend.get_listener(loc, handle_comm, deserialize, **connection_args)

    def get_address_host(self, loc: str) -> Any:
        return self._backend.get_address_host(loc)

    def get_address_host_port(self, loc: str) -> Any:
        return self._backend.get_address_host_port(loc)

    def resolve_address(self, loc: str) -> Any:
        return self._backend.resolve_address(loc)

    def get_local_address_for(self, loc: str) -> Any:
        return self._backend.get_local_address_for(loc)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


class _GuardedConnector:
    def __init__(self, scheme: str, connector: Any) -> None:
        self._scheme = scheme
        self._connector = connector

    async def connect(self, address: str, deserialize: bool = True, **connection_args: Any) -> Any:
        refuse_plain(f"{self._scheme}://{address}", connection_args, listens=False)
        return await self._connector.connect(address, deserialize=deserialize, **connection_args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connector, name)
