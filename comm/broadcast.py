"""One message to many comms, encoded once.

Comms with room get it at once, without a task each. Who is slow, because more than `max_queued`
bytes are queued for it already, is waited for, skipped, or closed, as the caller chooses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, get_args

from .calls.arguments import expect_seconds
from .codec import EncodedMessage
from .errors import CommClosedError, CommError, EncodeError
from .interfaces import Comm
from .words import repr_of

__all__ = ["BroadcastResult", "broadcast"]

logger = logging.getLogger("sealwire.comm")

Slow = Literal["wait", "skip", "close"]


class BroadcastResult(NamedTuple):
    """Who was sent a message, and who was not.

    Attributes
    ----------
    sent : list of Comm
        Those whose message is on its way, as after `Comm.write`.
    missed : dict of Comm to Exception
        The others, and why: `CommClosedError`, `EncodeError` or `MessageTooLarge` as from `write`;
        a `CommError` of the kind ``"slow-consumer"`` if it was slow.
    """

    sent: list[Comm]
    missed: dict[Comm, Exception]


async def broadcast(
    comms: Iterable[Comm],
    message: Any,
    *,
    slow: Slow = "wait",
    max_queued: int | None = None,
    timeout: float | None = None,
) -> BroadcastResult:
    """Send a message to many comms; one that fails does not keep the others from getting it.

    Parameters
    ----------
    comms : iterable of Comm
        One that is in it twice is sent the message once.
    message : object
        As for `Comm.write`, or an `EncodedMessage`. Buffers in it may be changed afterwards.
    slow : {"wait", "skip", "close"}, default "wait"
        What to do about comms for which more than `max_queued` bytes are queued: wait until they
        have room; leave them out; or abort them, so that they cost no more memory.
    max_queued : int, optional
        By default `Limits.write_ahead` of each comm, beyond which `write` waits, too.
    timeout : float, optional
        Seconds to wait for slow ones; for ever without it.

    Returns
    -------
    BroadcastResult

    Raises
    ------
    EncodeError
        If the message has no wire form; nobody was sent it.
    TypeError, ValueError
        For what is no comm, and for bounds and choices other than those above; nobody was sent
        anything.
    RuntimeError
        For a comm of another event loop, after the others were sent the message; as what a third
        party's comm raises that is none of the above.

    Notes
    -----
    A cancelled call has sent the message to all that had room.

    Examples
    --------
    ::

        sent, missed = await broadcast(comms, {"op": "news"}, slow="skip")
        for comm, error in missed.items():
            print(comm.peer_address, error)
    """
    if slow not in get_args(Slow):
        raise ValueError(f"bad slow {repr_of(slow)}: need one of {', '.join(get_args(Slow))}")
    if max_queued is not None and (type(max_queued) is not int or max_queued < 0):
        raise ValueError(f"bad max_queued {repr_of(max_queued)}: need a number of bytes, or None")
    if timeout is not None:
        timeout = expect_seconds(timeout)
    encoded = message if isinstance(message, EncodedMessage) else EncodedMessage(message)
    members = list(dict.fromkeys(comms))
    for comm in members:
        if not isinstance(comm, Comm):
            raise TypeError(f"cannot broadcast to {repr_of(comm)}: need a Comm")
    result = BroadcastResult([], {})
    behind: list[Comm] = []
    failed: list[Exception] = []
    for comm in members:
        if comm.queued <= _room(comm, max_queued):
            _write(comm, encoded, result, failed)
        elif slow == "wait":
            behind.append(comm)
        else:
            what = "was skipped" if slow == "skip" else "was aborted"
            result.missed[comm] = _too_slow(comm, comm.queued, what)
            if slow == "close":
                comm.abort()
    if behind:
        await _wait(behind, encoded, max_queued, timeout, result, failed)
    if failed:
        raise failed[0]
    return result


def _room(comm: Comm, most: int | None) -> int:
    return comm.limits.write_ahead if most is None else most


def _write(
    comm: Comm, encoded: EncodedMessage, result: BroadcastResult, failed: list[Exception]
) -> None:
    try:
        comm.write_nowait(encoded)
    except (CommClosedError, EncodeError) as error:
        result.missed[comm] = error
    except Exception as error:  # it is not to be used here, or it is a third party's
        failed.append(error)
    else:
        result.sent.append(comm)


async def _wait(
    behind: list[Comm],
    encoded: EncodedMessage,
    most: int | None,
    timeout: float | None,
    result: BroadcastResult,
    failed: list[Exception],
) -> None:
    """Write to those that are slow as soon as each has room."""

    async def follow(comm: Comm) -> None:
        try:
            while comm.queued > _room(comm, most):
                await comm.drain()
        except CommClosedError as error:
            result.missed[comm] = error
        except Exception as error:
            failed.append(error)
        else:
            _write(comm, encoded, result, failed)

    tasks = {asyncio.ensure_future(follow(comm)): comm for comm in behind}
    try:
        _, late = await asyncio.wait(tasks, timeout=timeout)
    except asyncio.CancelledError:
        late = set(tasks)
        raise
    finally:
        for task in late:
            task.cancel()
    if late:
        await asyncio.wait(late)
        for task in late:
            comm = tasks[task]
            if comm not in result.missed and task.cancelled():
                result.missed[comm] = _too_slow(comm, comm.queued, f"had no room in {timeout:g} s")


def _too_slow(comm: Comm, queued: int, what: str) -> CommError:
    error = CommError(
        f"comm with {comm.peer_address} {what}: {queued} bytes are queued for it; see whether that "
        f"process is stopped or overloaded",
        peer=comm.peer_address,
    )
    error.kind = "slow-consumer"
    return error
