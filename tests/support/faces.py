"""The standalone comm and Dask's by one interface: what either must do, a test asks of both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import distributed.comm

import sealwire.comm
from sealwire.comm import Limits
from sealwire.dask_backend import Security
from support.links import connect_args, listen_args, security

Handler = Callable[[Any], Awaitable[None]]


@dataclass(frozen=True)
class Face:
    """One of them, over one scheme. Dask's takes its limits from the configuration."""

    kind: str
    scheme: str
    limits: Limits

    def __str__(self) -> str:
        return f"{self.kind}-{self.scheme}"

    async def listen(self, host: str, handler: Handler) -> Any:
        """A listener that has started; what else there is to know are its addresses."""
        shown = f"[{host}]" if ":" in host else host
        address = f"{self.scheme}://{shown}:0"
        if self.kind == "dask":
            args = self._security().get_listen_args("scheduler")
            listener: Any = distributed.comm.listen(address, handler, **args)
            await listener.start()
            return listener
        return await sealwire.comm.listen(
            address, handler, limits=self.limits, **listen_args(self.scheme)
        )

    async def connect(self, address: str, timeout: float = 20.0) -> Any:
        if self.kind == "dask":
            args = self._security().get_connection_args("worker")
            return await distributed.comm.connect(address, timeout=timeout, **args)
        return await sealwire.comm.connect(
            address, timeout=timeout, limits=self.limits, **connect_args(self.scheme)
        )

    def _security(self) -> Any:
        return security() if self.scheme == "tls" else Security(require_encryption=False)


def faces(limits: Limits) -> list[Face]:
    return [Face(kind, scheme, limits) for kind in ("standalone", "dask") for scheme in SCHEMES]


SCHEMES = ("tcp", "tls")


async def keep(comm: Any) -> None:
    """A handler that leaves its comm to the test."""
    await asyncio.sleep(600)  # a future that nothing refers to would be collected, and we with it
