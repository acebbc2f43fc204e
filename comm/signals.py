"""The signals by which a system ends a process: one is waited for, another one warned of."""

from __future__ import annotations

import asyncio
import logging
import operator
import signal
from collections.abc import Collection
from typing import Any, NamedTuple

__all__ = ["stop_signal", "warn_of_sigpipe"]

logger = logging.getLogger("sealwire.comm")

_STOP = (signal.SIGTERM, signal.SIGINT)


async def stop_signal(signals: Collection[signal.Signals] = _STOP) -> signal.Signals:
    """Wait for the signal that asks this process to end, and return it.

    For servers and workers, in the main thread: what is to be done then follows the ``await``.
    Several tasks may wait, and each of them gets the signal. Further signals of the same kind have
    their usual effect, so that a second Ctrl-C interrupts an end that takes too long.

    Parameters
    ----------
    signals : collection of signal.Signals, default SIGTERM and SIGINT
        Which ones are waited for.

    Returns
    -------
    signal.Signals
        The one that arrived.

    Raises
    ------
    RuntimeError
        In another thread than the main one, or if the event loop cannot wait for signals, or for
        one of these.
    TypeError, ValueError
        For what is no signal, or no signals.

    Notes
    -----
    Whoever waits last for a signal restores the handler that was set before, also if cancelled.

    Examples
    --------
    ::

        async with listen(address, serve) as listener:
            await stop_signal()
            await listener.close(grace=10)
    """
    numbers = {operator.index(number): number for number in signals}  # what was given is returned
    if not numbers:
        raise ValueError("cannot wait for no signal; leave signals out for SIGTERM and SIGINT")
    for number in numbers:
        signal.getsignal(number)  # raises for what is no signal
    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waited_for: list[int] = []
    try:
        for number in numbers:
            _wait_for(number, told)
            waited_for.append(number)
        return numbers[await told]
    except (NotImplementedError, ValueError, RuntimeError) as error:
        names = ", ".join(str(getattr(number, "name", number)) for number in numbers.values())
        raise RuntimeError(
            f"cannot wait for {names} in this event loop: {error or 'it has no signals'}; wait in "
            f"the main thread, on a system with POSIX signals"
        ) from error
    finally:
        for number in waited_for:
            _forget(number, told)


class _Watched(NamedTuple):
    """A signal that tasks wait for: in which loop, who got it before, and who are to get it."""

    loop: asyncio.AbstractEventLoop
    before: Any
    waiting: list[asyncio.Future[int]]


_watched: dict[int, _Watched] = {}  # an event loop has one handler for a signal


def _wait_for(number: int, told: asyncio.Future[int]) -> None:
    loop = told.get_loop()
    known = _watched.get(number)
    if known is None or known.loop is not loop:
        before = signal.getsignal(number)
        loop.add_signal_handler(number, _tell, number)
        known = _watched[number] = _Watched(loop, before, [])
    known.waiting.append(told)


def _tell(number: int) -> None:
    for told in _watched[number].waiting:
        if not told.done():
            told.set_result(number)


def _forget(number: int, told: asyncio.Future[int]) -> None:
    """Leave a signal, to whoever got it before if nobody waits for it any more."""
    known = _watched.get(number)
    if known is None or told not in known.waiting:
        return
    known.waiting.remove(told)
    if not known.waiting:
        del _watched[number]
        known.loop.remove_signal_handler(number)
        signal.signal(number, known.before)


_SIGPIPE: signal.Signals | None = getattr(signal, "SIGPIPE", None)  # not on Windows
_warned = False


def warn_of_sigpipe() -> None:
    """Log, once, that the peers of this process can end it.

    Python ignores SIGPIPE, but command line programs restore what the system does, to end quietly
    when their output is read no more.
    """
    global _warned
    if not _warned and _SIGPIPE and signal.getsignal(_SIGPIPE) is signal.SIG_DFL:
        _warned = True
        logger.warning(
            "this process has SIGPIPE set to SIG_DFL, so that any peer that goes away can end it; "
            "leave out signal.signal(signal.SIGPIPE, signal.SIG_DFL), or ignore it (SIG_IGN)"
        )
