"""Waiting for the signal by which a system ends a process in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Collection

__all__ = ["stop_signal"]

_STOP = (signal.SIGTERM, signal.SIGINT)


async def stop_signal(signals: Collection[signal.Signals] = _STOP) -> signal.Signals:
    """Wait for the signal that asks this process to end, and return it.

    For the main task of a server or worker, in the main thread: what is to be done then follows
    the ``await``. Further signals of the same kind have their usual effect, so that a second
    Ctrl-C interrupts an end that takes too long.

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
    A cancelled wait restores the handlers that were set before, as does its end.

    Examples
    --------
    ::

        async with listen(address, serve) as listener:
            await stop_signal()
            await listener.close(grace=10)
    """
    loop = asyncio.get_running_loop()
    told: asyncio.Future[signal.Signals] = loop.create_future()
    before = {number: signal.getsignal(number) for number in signals}
    if not before:
        raise ValueError("cannot wait for no signal; leave signals out for SIGTERM and SIGINT")

    def tell(number: signal.Signals) -> None:
        if not told.done():
            told.set_result(number)

    waited_for: list[signal.Signals] = []
    try:
        for number in before:
            loop.add_signal_handler(number, tell, number)
            waited_for.append(number)
        return await told
    except (NotImplementedError, ValueError, RuntimeError) as error:
        names = ", ".join(str(getattr(number, "name", number)) for number in before)
        raise RuntimeError(
            f"cannot wait for {names} in this event loop: {error or 'it has no signals'}; wait in "
            f"the main thread, on a system with POSIX signals"
        ) from error
    finally:
        for number in waited_for:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
