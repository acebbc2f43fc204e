"""A client that connects again, for as long as that can help.

`attempts` says when another one is made. A close code among `final_codes` is final.

A call that was not sent, or that the server refused because it was stopping, waits for the next
session. One that may have run is sent again only if the caller says that it is idempotent, and
not if the comm ended because of a message: it may have been this one.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Union

from ..api import ConnectOptions, connect
from ..arguments import expect_bool
from ..close_codes import CloseCode
from ..errors import CommClosedError, CommError
from ..leaving import Leaving, is_failure
from ..transport.wakeup import begin_later
from .arguments import expect_codes, expect_end, expect_greeting, expect_handlers, expect_seconds
from .attempts import POISON, Attempts, again, given_up, left_of, may_pass
from .calls import Calls
from .errors import CallLost, CallRefused, CallTimeout, client_closed

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ReconnectingClient"]

logger = logging.getLogger("sealwire.comm")

OnConnect = Callable[[Calls], Union[Awaitable[object], object]]  # noqa: UP007 (evaluated on 3.10)


class ReconnectingClient(Leaving):
    """`Calls` over a comm that is replaced when it is lost.

    Connects as soon as it is made, in a running loop, and until it is closed.

    Parameters
    ----------
    address : str
        As for `connect`.
    handlers : mapping of str to callable, optional
        As for `Calls`.
    on_connect : callable, optional
        Called with the `Calls` of each new session, before those of other callers are sent; a
        function or a coroutine function. `CallTimeout`, `CallRefused` by a server that is
        overloaded or stopping, and a `CommError` that is `retryable` end the session; any other
        error ends the client.
    backoff, backoff_cap : float, default 0.1 and 30
        Bounds of the pause before an attempt, in seconds.
    connect_timeout : float, default 10
        Seconds of an attempt.
    ping_interval : float, optional
        As for `Calls`: a session is given up if a ping has no answer for as long.
    final_codes : collection of int, default ``PROTOCOL_ERROR``
        Close codes of the server after which it is not tried again.
    patience : float, default 300
        Seconds after which an answer that is no server of ours, or that refuses our certificate, is
        final if there has been a session before; it may be that of a load balancer, or of another
        program, until the server is back. Before the first session it is final at once.
    **connect_args
        Further arguments of `connect`, but for its timeout. With a `max_attempts` above 1, attempts
        of `connect` itself come in quick succession before each pause.

    Raises
    ------
    TypeError, ValueError, AddressError
        At once, as `connect(…)` and `Calls`. What awaiting `connect` raises, `call` does.

    Examples
    --------
    ::

        async def register(calls):
            await calls.call("register", name)

        async with ReconnectingClient(address, on_connect=register) as client:
            await client.call("put", key, value, timeout=60, idempotent=True)
    """

    def __init__(
        self,
        address: str,
        handlers: Mapping[str, Callable[..., Any]] | None = None,
        *,
        on_connect: OnConnect | None = None,
        backoff: float = 0.1,
        backoff_cap: float = 30.0,
        connect_timeout: float = 10.0,
        ping_interval: float | None = None,
        final_codes: Collection[int] = (CloseCode.PROTOCOL_ERROR,),
        patience: float = 300.0,
        **connect_args: Unpack[ConnectOptions],
    ) -> None:
        self.address = address
        self._handlers = expect_handlers(handlers)
        expect_greeting(on_connect)
        self._on_connect = on_connect
        self._final_codes = expect_codes(final_codes)
        times = {"backoff": backoff, "backoff_cap": backoff_cap, "patience": patience}
        seconds = {name: expect_seconds(value, name, "") for name, value in times.items()}
        if "timeout" in connect_args:
            call = "ReconnectingClient() got an unexpected argument"
            raise TypeError(f"{call} 'timeout'; did you mean connect_timeout?")
        if ping_interval is not None:
            ping_interval = expect_seconds(ping_interval, "ping_interval", "no pings")
        self._ping_interval = ping_interval
        self._connect_args: dict[str, Any] = {
            "max_attempts": 1,  # the pauses between them are ours
            **connect_args,
            "timeout": expect_seconds(connect_timeout, "connect_timeout", ""),
        }
        self._first = connect(address, **self._connect_args)  # checks the arguments
        self._loop = asyncio.get_running_loop()
        self._attempts = Attempts(address, **seconds)
        self._thread = threading.get_ident()
        self._session: Calls | None = None  # from when it is connected
        self._calls: Calls | None = None  # the same, from when it is greeted
        self._last: CommError | None = None  # why there is no session
        self._final: Exception | None = None  # and why there will be none
        self._waiting: set[asyncio.Future[Calls]] = set()
        self._task = begin_later(self._loop, self._run())

    async def call(
        self,
        method: str,
        /,
        *args: Any,
        timeout: float | None = None,
        idempotent: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Call a method of the server as `Calls.call`, in this session or a later one.

        Parameters
        ----------
        method, *args, **kwargs
            As for `Calls.call`.
        timeout : float, optional
            Seconds for all of it, waiting for a session included.
        idempotent : bool, default False
            Whether it does no harm to run it twice: it is sent again then, for as long as it takes.

        Returns
        -------
        object
            What the handler has returned, as from `Calls.call`.

        Raises
        ------
        CallLost
            If the comm ended and the call may have run, and is not `idempotent`; or if the client
            is closed.
        CallTimeout, CallRefused, RemoteError, EncodeError, MessageTooLarge
            As from `Calls.call`.
        CommError
            If there is no session, and will be none; as from `session`.

        Notes
        -----
        What a cancelled call leaves is as for `Calls.call`; the client goes on.
        """
        expect_bool("call()", "idempotent", idempotent)
        deadline = None if timeout is None else self._loop.time() + expect_seconds(timeout)
        while True:
            try:
                calls = await self.session(left_of(deadline, self._loop))
                left = left_of(deadline, self._loop)
                return await calls.call(method, *args, timeout=left, **kwargs)
            except CallLost as error:
                error.named(method)
                repeated = idempotent and error.code not in POISON
                if self._final is not None or (error.may_have_run and not repeated):
                    raise
            except CallRefused as error:
                if error.kind != "stopping":
                    raise
                if self._calls is calls:
                    self._calls = None  # what waits is for the next one
            except CallTimeout as error:
                error.named(method)
                raise

    async def session(self, timeout: float | None = None) -> Calls:
        """Return the `Calls` of the current session; wait for one if there is none.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; for ever without it.

        Raises
        ------
        CallTimeout
            If there is none in time.
        CallLost
            If the client is closed.
        CommError
            If the server cannot be reached, for a reason that another attempt does not mend.
        Exception
            What `on_connect` has raised, if that has ended the client.

        Notes
        -----
        A cancelled wait changes nothing.
        """
        self._expect_here()
        calls = self._calls
        if calls is not None and not calls.closed():
            return calls
        if self._final is not None:
            raise again(self._final)
        waiter: asyncio.Future[Calls] = self._loop.create_future()
        timer = None
        if timeout is not None:
            timeout = expect_seconds(timeout)
            timer = self._loop.call_later(timeout, self._too_late, waiter, timeout)
        self._waiting.add(waiter)
        try:
            return await waiter
        finally:
            self._waiting.discard(waiter)
            if timer is not None:
                timer.cancel()

    async def sessions(self) -> AsyncIterator[Calls]:
        """Yield the `Calls` of the current session and of each later one, until `close`.

        Raises what is final, as `session`.
        """
        seen: Calls | None = None
        while True:
            try:
                calls = await self.session()
                if calls is seen:
                    await calls.serve()
                    continue
            except CallLost:
                return
            except CommClosedError:
                if self._final is not None:
                    raise
                continue
            seen = calls
            yield calls

    async def serve(self) -> None:
        """Wait until the client has been closed; handlers run with or without it.

        Raises what is final, as `session`: a worker that its server refuses for good does not wait
        for ever. A cancelled wait changes nothing.
        """
        self._expect_here()
        await asyncio.wait([self._task])
        assert self._final is not None
        if not (isinstance(self._final, CommClosedError) and self._final.clean):
            raise again(self._final)

    def _too_late(self, waiter: asyncio.Future[Calls], seconds: float) -> None:
        if not waiter.done():
            why = f": {str(self._last).partition('; ')[0]}" if self._last else ""
            error = CallTimeout(
                f"call to {self.address} timed out: no session within {seconds:.3g} s{why}; check "
                f"that the server runs, or allow more time"
            )
            error.may_have_run = False
            waiter.set_exception(error)

    # Sessions

    async def _run(self) -> None:
        """Connect, again and again."""
        attempts = self._attempts
        connecting = self._first
        try:
            while True:
                try:
                    comm = await connecting
                except CommError as error:
                    if attempts.failed(error):
                        raise
                    end = error
                else:
                    attempts.succeeded()
                    pause = self._ping_interval
                    ended = await self._use(Calls(comm, self._handlers, ping_interval=pause))
                    if ended.code in self._final_codes:
                        raise ended
                    end = ended
                    attempts.ended()
                if self._final is not None:  # closed, by a handler of its own
                    return
                self._last = end
                logger.info("no session with %s: %s; trying again", self.address, end)
                await attempts.pause()
                connecting = connect(self.address, **self._connect_args)
        except BaseException as error:  # of `on_connect`, perhaps
            if not is_failure(error, self._task):
                raise
            self._finish(given_up(self.address, error))
        finally:
            if self._final is None and not self._loop.is_closed():
                self._finish(client_closed(self.address))  # it was cancelled

    async def _use(self, calls: Calls) -> CommClosedError:
        """Offer a session until it ends; return why it did."""
        self._session = calls
        try:
            await self._greet(calls)
            if not calls.closed():
                self._calls = calls
                for waiter in self._waiting:
                    if not waiter.done():
                        waiter.set_result(calls)
            await calls.wait_closed()
        finally:
            self._session = None
            if calls.failure is None:  # it is us who end
                calls.comm.abort()
                await calls.wait_closed()
        assert calls.failure is not None
        return calls.failure

    async def _greet(self, calls: Calls) -> None:
        if self._on_connect is None:
            return
        try:
            done = self._on_connect(calls)
            if inspect.isawaitable(done):
                await done
        except (CallTimeout, CallRefused, CommError) as error:
            if calls.closed():
                return
            if not may_pass(error):
                raise
            logger.warning("session with %s ended by on_connect: %s", self.address, error)
            await calls.close()

    # The end

    def _finish(self, error: Exception) -> None:
        """There will be no session any more."""
        self._final = error
        self._calls = None
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(again(error))

    async def close(
        self, code: int = CloseCode.NORMAL, reason: str = "", *, grace: float | None = None
    ) -> None:
        """End the session, and have no other.

        Calls that wait for a session are lost, as `CallLost`.

        Parameters
        ----------
        code, reason, grace : optional
            As for `Calls.close`, which raises the same.

        Notes
        -----
        A cancelled call aborts the session.
        """
        self._expect_here()
        expect_end(code, reason, grace)
        if self._final is None:
            self._finish(client_closed(self.address))
        try:
            if self._session is not None:
                await self._session.close(code, reason, grace=grace)
        finally:
            self._task.cancel()
        await asyncio.wait([self._task])

    def closed(self) -> bool:
        """Whether there will be no further session.

        Returns
        -------
        bool
        """
        return self._final is not None

    def _expect_here(self) -> None:
        if threading.get_ident() != self._thread or not self._loop.is_running():
            raise RuntimeError(
                f"cannot use the client of {self.address} outside the event loop that it was made "
                f"in; use asyncio.run_coroutine_threadsafe(client.call(…), loop) in other threads"
            )
