"""The interfaces a scheme's backend implements: `Comm`, `Connector`, `Listener`, `Backend`."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Generator, Mapping
from types import TracebackType
from typing import Any, ClassVar, Literal, Union

from .addressing import Address
from .close_codes import CloseCode
from .errors import CommClosedError
from .leaving import Leaving
from .limits import DEFAULT_LIMITS, Limits
from .listener_log import ListenerStats

__all__ = ["Backend", "Comm", "Connector", "Handler", "Listener"]


class Comm(Leaving, ABC):
    """A connection that carries whole messages, in order, in both directions.

    One task may read while others write. ``async for message in comm`` ends when the peer has said
    that it closes and nothing was wrong, or when we close; anything else raises. ``async with
    comm`` closes it, with the code ``HANDLER_FAILED`` if its block raises. In another event loop
    than its own, or another thread, whatever reads, writes or closes raises `RuntimeError`. Dask's
    is `distributed.comm.Comm`. A comm of your own implements what is abstract, `write_nowait` and
    `drain` for `Calls` and `broadcast`, and `wait_closed` for ``listen(…,
    cancel_on_disconnect=True)``.
    """

    # How whoever reads all of it ends it, with a code and a reason, when its listener is closed.
    _leave: Callable[[int, str], None] | None = None

    @abstractmethod
    async def read(self) -> Any:
        """Read the next message.

        Returns
        -------
        object
            The message; bytes-like values in it are writable.

        Raises
        ------
        CommClosedError
            If the comm is closed, or closes before a message is complete; a subclass if the peer
            violated the protocol.
        CommBusy
            If another task is reading.

        Notes
        -----
        A cancelled read consumes nothing: the next read gets the message.
        """

    @abstractmethod
    async def write(self, message: Any, *, timeout: float | None = None) -> int:
        """Send `message`.

        Waits until the kernel has taken all buffers in it, which may be reused or modified from
        then on, and while more than `Limits.write_ahead` bytes are queued (back-pressure).
        Messages of several writers are sent in the order of the calls.

        Parameters
        ----------
        message : object
            None, bool, int, float, str, datetime, list, tuple, dict with scalar keys, bytes,
            bytearray, memoryview, a numpy array, or an object of a registered type, nested as
            needed. Tuples arrive as lists, bytes writable, times with a zone in UTC;
            docs/messages.md has a table of all changes.
        timeout : float, optional
            Seconds to wait at most. None, the default, waits as long as the peer takes.

        Returns
        -------
        int
            Size of the message on the wire in bytes.

        Raises
        ------
        EncodeError
            For a value without a wire form, with its place; nothing was sent.
        MessageTooLarge
            For a message over a limit; nothing was sent.
        CommClosedError
            If the comm is closed, or closes before the message was sent.
        WriteTimeout
            If the timeout expired. The comm stays open.

        Notes
        -----
        A write that was cancelled, or whose timeout expired, still sends its message, whole and in
        its place; its buffers must not be modified until `drain` returns or the comm is closed.
        """

    def write_nowait(self, message: Any) -> bool:
        """Send `message` without waiting: what the kernel does not take now is queued.

        Parameters
        ----------
        message : object
            As for `write`. Buffers in it must not be changed before `drain`.

        Returns
        -------
        bool
            Whether there is room for more; if not, `drain` before the next one.

        Raises
        ------
        EncodeError, MessageTooLarge, CommClosedError
            As for `write`; also if more than `Limits.max_queued` bytes are queued already.
        """
        raise NotImplementedError(
            f"cannot write to {self.peer_address} without waiting: {type(self).__name__} has no "
            f"write_nowait; implement it as `Comm` describes"
        )

    async def drain(self, *, timeout: float | None = None) -> None:
        """Wait until the kernel has all that was written, by cancelled writes too.

        Raises `CommClosedError` if the comm is closed before, and `WriteTimeout`, with nothing
        changed, after `timeout` seconds; None, the default, means no limit.
        """
        return

    @property
    def queued(self) -> int:
        """Bytes that were written and that the kernel has not taken yet."""
        return 0

    @property
    def limits(self) -> Limits:
        """The bounds of this comm."""
        return DEFAULT_LIMITS

    @abstractmethod
    async def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Send what was written, say why, then close.

        From the call on nothing more can be written, and what arrives is dropped. Done when the
        peer's kernel has acknowledged everything, so that it arrives although the peer goes on
        talking. Gives up once nothing was taken for `Limits.close_timeout`; the connection is reset
        then. Closing what is closed does nothing. A cancelled close drops what is left.

        Parameters
        ----------
        code
            A `CloseCode`, or a number of the application's from 3000 to 4999: the peer's
            ``error.code``. Other implementations see an end without a code.
        reason
            Words for the peer's ``error.reason``; beyond 1000 characters they are cut, and what is
            not printable is replaced.

        Raises `ValueError` or `TypeError` for a code that cannot be sent and for a reason that is
        no text, with nothing closed.
        """

    @abstractmethod
    def abort(self) -> None:
        """Close at once and drop what is queued. The peer sees a lost connection."""

    @abstractmethod
    def closed(self) -> bool:
        """Whether either side has closed or begun to.

        Messages that arrived before the peer closed can still be read; closing ourselves drops
        them.

        Returns
        -------
        bool
        """

    async def wait_closed(self) -> CommClosedError:
        """Wait until the peer has closed or is lost, or we have closed; return what reads raise.

        For handlers that neither read nor write; any number of tasks may wait. Unread messages do
        not delay it, but beyond `Limits.read_ahead` bytes of them an end that our kernel has no
        room for is noticed only when some are read. A cancelled wait changes nothing.
        """
        raise NotImplementedError(f"{type(self).__name__} has no wait_closed()")

    @property
    def closed_by(self) -> Literal["us", "peer", "lost"] | None:
        """Who closed the comm, None while it is open; as `CommClosedError.closed_by`."""
        return None

    @property
    @abstractmethod
    def local_address(self) -> str:
        """Address of our end, with its scheme."""

    @property
    @abstractmethod
    def peer_address(self) -> str:
        """Address of the other end, with its scheme; as dialled, on the dialling side."""

    @property
    def extra_info(self) -> Mapping[str, Any]:
        """Facts about the connection; over TLS ``peercert``, ``cipher`` and ``protocol``.

        They have the forms of `ssl.SSLSocket.getpeercert`, ``cipher`` and ``version``.
        ``holds_gil`` tells whether large frames are received with the GIL held; see
        `configure_gil`.
        """
        return {}

    def __aiter__(self) -> Comm:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.read()
        except CommClosedError as error:
            if error.clean:
                raise StopAsyncIteration from None
            raise

    def __repr__(self) -> str:
        state = " closed" if self.closed() else ""
        return f"<{type(self).__name__}{state} {self.local_address} -> {self.peer_address}>"


Handler = Callable[[Comm], Union[Awaitable[None], None]]  # noqa: UP007 (evaluated on 3.10)
"""Called with each new comm. When it returns or raises, the comm is closed."""


class Connector(ABC):
    """Dials; each call is one attempt. `connect` adds retries and the timeout."""

    @abstractmethod
    async def connect(self, address: Address, limits: Limits, **connection_args: Any) -> Comm:
        """Open a comm, with the hellos exchanged.

        Parameters
        ----------
        address : Address
            Complete, with scheme and port.
        limits : Limits
            Bounds for the comm.
        **connection_args
            Those of ``Security.get_connection_args``, and the names in
            `Backend.connect_arguments`.

        Returns
        -------
        Comm

        Raises
        ------
        CommError
            If the attempt fails; one that is not `retryable` ends the caller's attempts.

        Notes
        -----
        It may be cancelled at any time, and must then leave no socket open.
        """


class Listener(ABC):
    """Accepts comms. ``await listener`` starts it; ``async with listener`` starts and stops it.

    Leaving the context is `stop`: the handlers of open comms go on. `close` ends them as well.
    """

    @abstractmethod
    async def start(self) -> None:
        """Bind and begin to accept, unless it does already.

        Raises
        ------
        OSError, RuntimeError
            If the address cannot be bound; if it accepts in another event loop.
        """

    @abstractmethod
    def stop(self) -> asyncio.Future[None]:
        """Stop accepting; open comms are not affected.

        Pending connections have `Limits.stop_timeout` to finish their hello.

        Returns
        -------
        asyncio.Future
            Already done; awaiting it is allowed, not needed.

        Raises
        ------
        RuntimeError
            In another thread than its event loop's, while that runs; nothing was stopped.
        """

    @property
    def comms(self) -> tuple[Comm, ...]:
        """The open comms that were accepted and whose handlers run, as a snapshot."""
        raise NotImplementedError(f"{type(self).__name__} does not own its comms")

    async def close(self, grace: float = 0.0) -> None:
        """Stop accepting, let the handlers finish, and end their comms.

        The reads of every comm end, as after a clean end; writes go on. `Calls` are closed with the
        same grace. Once its handler has returned, a comm is closed with ``CloseCode.GOING_AWAY``.
        After `grace` seconds the other handlers are cancelled, and their comms closed in the same
        way. See `ServingListener.close`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not own its comms")

    async def wait_closed(self) -> None:
        """Wait until it has stopped or closed, and its last comm has ended.

        Raises `RuntimeError` in one of its handlers, which would wait for itself.
        """
        raise NotImplementedError(f"{type(self).__name__} does not own its comms")

    async def serve_forever(self, *, grace: float = 0.0) -> None:
        """Start, if that has not been done, and return when closed, as `wait_closed`.

        A cancelled call, as by Ctrl-C under `asyncio.run`, closes the listener with `grace`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not own its comms")

    @property
    @abstractmethod
    def listen_address(self) -> str:
        """The bound address, with the actual port."""

    @property
    @abstractmethod
    def contact_address(self) -> str:
        """An address to dial: the bound one with a concrete host."""

    @property
    def stats(self) -> ListenerStats:
        """The listener's counters since it started; all zero if it does not count."""
        return ListenerStats()

    def __await__(self) -> Generator[Any, None, Listener]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Listener:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class Backend(ABC):
    """Connector and listener for one scheme; register it with `register_backend`.

    The counterpart in Dask is `distributed.comm.registry.Backend`.

    Attributes
    ----------
    connect_arguments, listen_arguments : collection of str
        Names of the additional arguments that `connect` and `listen` take for this scheme; others
        raise `TypeError` before the connector or listener is asked.
    host_port : bool
        Whether addresses are ``host:port``. If False, all that follows ``scheme://`` is the
        backend's own and stands in `Address.host`, with port 0.
    """

    host_port: ClassVar[bool] = True
    connect_arguments: ClassVar[Collection[str]] = ()
    listen_arguments: ClassVar[Collection[str]] = ()

    @abstractmethod
    def connector(self) -> Connector:
        """Return a connector; any number of attempts may share it."""

    @abstractmethod
    def listener(
        self, address: Address, handler: Handler, limits: Limits, **connection_args: Any
    ) -> Listener:
        """Return a listener that has not started.

        Parameters
        ----------
        address : Address
            Complete but for the port, which may be 0.
        handler : callable
            Function or coroutine function to call with each comm.
        limits : Limits
            Bounds for the listener and each comm.
        **connection_args
            Those of ``Security.get_listen_args``, and the names in `listen_arguments`.

        Raises
        ------
        EncryptionRequired
            If the arguments require encryption and the scheme does not encrypt.
        """
