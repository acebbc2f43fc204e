"""Asks a scheduler for its cluster, over the cluster's own port."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from distributed.comm.core import Comm, CommClosedError, connect

from sealwire.comm.wire import hello
from sealwire.dask_backend import install
from sealwire.dask_backend.dashboard.extension import OPERATION

__all__ = ["Asker", "NoAnswer"]

_PARTS = ("summary", "processes", "links", "processes_left_out", "links_left_out", "time")
_INSTEAD = "give the address of a scheduler with the same version of sealwire"


class NoAnswer(Exception):
    """The scheduler did not answer, or with something else; says why, and what to do."""


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
        try:
            return await asyncio.wait_for(self._ask(find, rows), self._timeout)
        except asyncio.TimeoutError:
            self.close()
            raise NoAnswer(
                f"no answer from {self.address} within {self._timeout:g} s; {_INSTEAD}"
            ) from None
        except Exception as error:  # what answers need not be a scheduler: its bytes raise anything
            self.close()
            raise NoAnswer(f"cannot ask {self.address}: {error}") from error
        except BaseException:
            self.close()
            raise

    async def _ask(self, find: str, rows: int) -> dict[str, Any]:
        comm = self._comm
        if comm is None or comm.closed():
            # Nothing in the answer is unpickled: it needs plain values only.
            comm = await connect(
                self.address, timeout=self._timeout, deserialize=False, **self._args
            )
            self._comm = comm
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

    def close(self) -> None:
        """Drop the connection."""
        comm, self._comm = self._comm, None
        if comm is not None:
            comm.abort()
