"""How a third party's comm says that it has ended, in the words and codes of ours."""

from __future__ import annotations

from typing import Literal

from .close_codes import CloseCode, expect_reason, expect_sendable
from .errors import CommClosedError
from .transport.end_errors import closed_by_peer, closed_by_us
from .wire.closing import Closing
from .words import repr_of

__all__ = ["closed_error"]


def closed_error(
    peer: str,
    code: int = CloseCode.NORMAL,
    reason: str = "",
    *,
    closed_by: Literal["us", "peer", "lost"] = "peer",
) -> CommClosedError:
    """Return the error that a comm of your own raises once it has ended.

    ``async for message in comm`` is over without an error if `Comm.read` raises one that is
    ``clean``: the peer, or we, closed with ``NORMAL`` or ``GOING_AWAY``.

    Parameters
    ----------
    peer : str
        The peer's address, with its scheme.
    code, reason
        What the side that closed said; meaningless for ``"lost"``.
    closed_by : {"peer", "us", "lost"}, default "peer"
        Who closed; ``"lost"`` if the connection ended without either.

    Raises
    ------
    TypeError, ValueError
        For a code or reason that is none, as in `Comm.close`, or another `closed_by`.
    """
    if closed_by == "lost":
        return CommClosedError(
            f"connection with {peer} lost: it ended without a closing message; see whether the "
            f"peer still runs, and its log",
            peer=peer,
        )
    number = expect_sendable(code)
    expect_reason(reason)
    if closed_by == "peer":
        return closed_by_peer(peer, Closing(number, reason))
    if closed_by == "us":
        return closed_by_us(peer, number, reason)
    raise ValueError(f"got closed_by={repr_of(closed_by)}: need 'peer', 'us' or 'lost'")
