"""Asks a scheduler for its cluster, over the cluster's own port."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from distributed.comm.addressing import parse_address
from distributed.comm.core import Comm, CommClosedError
from distributed.comm.registry import get_backend

from sealwire.comm import CommClosedError as OwnClosedError
from sealwire.comm.wire import hello
from sealwire.dask_backend import install
from sealwire.dask_backend.dashboard.extension import OPERATION

__all__ = ["Asker", "NoAnswer"]

_PARTS = ("summary", "processes", "links", "processes_left_out", "links_left_out", "time")
_INSTEAD = "give the address of a scheduler with the same version of sealwire"


class NoAnswer(Exception):
    """The scheduler did not answer, or with something else; says why, and what to do."""


class _Unrepeated(logging.Filter):
    """Drops what a connection logs of its failure: it is told as the answer."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.module not in ("connectors", "refusals")


class Asker:
    """A connection to a scheduler, made when it is needed, and again when it was lost.

    Parameters
    ----------
    address : str
    connection_args : mapping
        Those of ``Security.get_connection_args``.
    timeout : float
        Seconds for each question.
    """

    def __init__(self, address: str, connection_args: Mapping[str, Any], timeout: float) -> None:
        install()
        self.address = address
        self._args = dict(connection_args)
        self._timeout = timeout
        self._comm: Comm | None = None

    async def ask(self, find: str, rows: int) -> dict[str, Any]:
        """Return the cluster, as `cluster.as_dict` has it. Raises `NoAnswer`."""
        logger, unrepeated = logging.getLogger("sealwire.dask_backend"), _Unrepeated()
        logger.addFilter(unrepeated)
        try:
            return await asyncio.wait_for(self._ask(find, rows), self._timeout)
        except asyncio.TimeoutError:
            self.close()
            raise NoAnswer(
                f"no answer from {self.address} within {self._timeout:g} s; {_INSTEAD}"
            ) from None
        except Exception as error:  # what answers need not be a scheduler: its bytes raise anything
            self.close()
            told = str(error)
            if isinstance(error.__cause__, OwnClosedError) and told.startswith("in <"):
                told = str(error.__cause__)  # without the repr of the comm
            # That of one that did not connect has the address.
            asked = "" if told.startswith("cannot connect ") else f"cannot ask {self.address}: "
            raise NoAnswer(f"{asked}{told}") from error
        except BaseException:
            self.close()
            raise
        finally:
            logger.removeFilter(unrepeated)

    async def _ask(self, find: str, rows: int) -> dict[str, Any]:
        comm = self._comm
        if comm is None or comm.closed():
            comm = await self._connect()
        if hello.BACKEND not in comm.remote_info:
            raise CommClosedError(
                "it is on distributed's own backend, which knows nothing of its links; start the "
                "scheduler with --preload sealwire.dask_backend.preload"
            )
        await comm.write({"op": OPERATION, "find": find, "rows": rows, "reply": True})
        view = await comm.read()
        if not isinstance(view, dict) or view.get("version") != 1:
            raise ValueError(f"it knows no answer that this version understands; {_INSTEAD}")
        if not all(part in view for part in _PARTS):
            raise ValueError(f"its answer is not complete; {_INSTEAD}")
        return view

    async def _connect(self) -> Comm:
        """Connect, once: distributed's `connect` would try again until the time is up.

        Then nothing would be known but that it is. Nothing of what comes is unpickled: an answer
        needs plain values only.
        """
        scheme, place = parse_address(self.address)
        connector = get_backend(scheme).get_connector()
        comm: Comm = await connector.connect(place, deserialize=False, **self._args)
        self._comm = comm
        comm.local_info = comm.handshake_info()
        await comm.write(comm.local_info)
        comm.remote_info = {**await comm.read(), "address": comm.peer_address}
        comm.handshake_options = comm.handshake_configuration(comm.local_info, comm.remote_info)
        return comm

    def close(self) -> None:
        """Drop the connection."""
        comm, self._comm = self._comm, None
        if comm is not None:
            comm.abort()
