"""What a backend for a scheme provides: `Comm`, `Connector`, `Listener`, `Backend`."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Generator, Mapping
from types import TracebackType
from typing import Any, ClassVar, Union

from .addressing import Address
from .errors import CommClosedError
from .limits import Limits
from .listener_log import ListenerStats

__all__ = ["Backend", "Comm", "Connector", "Handler", "Listener"]


class Comm(ABC):
    """One connection that carries messages, in order and whole, in both directions.

    One task may read while others write. ``async for message in comm`` ends when the peer closes
    between two messages, or when we close; anything else raises. ``async with comm`` closes it.
    """

    @abstractmethod
    async def read(self) -> Any:
        """The next message.

        Raises `CommClosedError` if the comm is closed or closes before a whole message is there,
        with subclasses for what the peer did wrong, and `CommBusy` if another task is reading. A
        cancelled read takes nothing: the message goes to the next one.
        """

    @abstractmethod
    async def write(self, message: Any) -> int:
        """Send `message`; returns the bytes it has on the wire.

        Waits until the kernel has taken the buffers in it, which may be reused or changed from then
        on, and while more than `Limits.write_ahead` is queued. Messages of several writers go out
        in the order of the calls. Raises `EncodeError` or `MessageTooLarge` for a message that
        cannot be sent, with nothing sent, and `CommClosedError`. A cancelled write still sends its
        message, whole; its buffers must not change before the comm is closed.
        """

    @abstractmethod
    async def close(self) -> None:
        """Send what is queued, then close. Never raises.

        Gives up once the peer has taken nothing for `Limits.close_timeout`.

        A cancelled close drops what is left.
        """

    @abstractmethod
    def abort(self) -> None:
        """Close at once and drop what is queued."""

    @abstractmethod
    def closed(self) -> bool:
        """Whether either side has closed.

        What arrived before the peer closed can still be read; closing ourselves drops it.
        """

    @property
    @abstractmethod
    def local_address(self) -> str:
        """Our end, with its scheme."""

    @property
    @abstractmethod
    def peer_address(self) -> str:
        """The other end, with its scheme; as dialled, if we did."""

    @property
    def extra_info(self) -> Mapping[str, Any]:
        """Facts about the connection; over TLS ``peercert``, ``cipher`` and ``protocol``.

        In the form of `ssl.SSLSocket.getpeercert`, ``cipher`` and ``version``. ``holds_gil`` says
        whether large frames are received with the GIL held; see `configure_gil`.
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

    async def __aenter__(self) -> Comm:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = " closed" if self.closed() else ""
        return f"<{type(self).__name__}{state} {self.local_address} -> {self.peer_address}>"


Handler = Callable[[Comm], Union[Awaitable[None], None]]  # noqa: UP007 (evaluated on 3.10)
"""Called with each new comm. When it returns or raises, the comm is closed."""


class Connector(ABC):
    """Dials. One attempt a call; `connect` adds retries and the deadline."""

    @abstractmethod
    async def connect(self, address: Address, limits: Limits, **connection_args: Any) -> Comm:
        """A comm, with the hello behind it.

        `connection_args` are those of ``Security.get_connection_args``, and what
        `Backend.connect_arguments` names. Raises `CommError`; one
        that is not `retryable` ends the caller's attempts.
        """


class Listener(ABC):
    """Accepts. ``await listener`` starts it; ``async with`` starts and stops it."""

    @abstractmethod
    async def start(self) -> None:
        """Begin to accept. Raises `OSError` if the address cannot be bound."""

    @abstractmethod
    def stop(self) -> asyncio.Future[None]:
        """Stop accepting; open comms go on.

        Connections whose hello is under way have `Limits.stop_timeout` to finish it. Done when the
        call returns; awaiting the result is allowed, not needed.
        """

    @property
    @abstractmethod
    def listen_address(self) -> str:
        """The address bound, with the port that was chosen."""

    @property
    @abstractmethod
    def contact_address(self) -> str:
        """An address to dial: the bound one with a concrete host."""

    @property
    def stats(self) -> ListenerStats:
        """What the listener has counted since it started; all zero if it does not count."""
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
    """Connector and listener for one scheme; register it with `registry.register`.

    Attributes
    ----------
    connect_arguments, listen_arguments
        Names of the arguments that `connect` and `listen` take for this scheme besides their own;
        others are `TypeError`s before its connector or listener is asked.
    """

    connect_arguments: ClassVar[Collection[str]] = ()
    listen_arguments: ClassVar[Collection[str]] = ()

    @abstractmethod
    def connector(self) -> Connector:
        """A connector; it may be shared by any number of attempts."""

    @abstractmethod
    def listener(
        self, address: Address, handler: Handler, limits: Limits, **connection_args: Any
    ) -> Listener:
        """A listener that has not started.

        `connection_args` are those of ``Security.get_listen_args``, and what `listen_arguments`
        names. Raises `EncryptionRequired` if they demand encryption and the scheme has none.
        """
