"""The connectors' common part: how they dial.

`backend` defines for each scheme which comm it creates, and what its arguments must be.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, NoReturn

from distributed.comm import tcp as stock
from distributed.comm.addressing import parse_host_port, unparse_host_port
from distributed.comm.core import CommClosedError, Connector, FatalCommClosedError

from sealwire.comm import errors
from sealwire.comm.addressing import Address
from sealwire.comm.arguments import expect_known
from sealwire.comm.tls_errors import NamingFiles
from sealwire.comm.transport.client import Dialling, FrameClient
from sealwire.comm.transport.stream import FrameStream
from sealwire.comm.wire import hello

from .refusals import tell
from .settings import DECIDED, ROLE, apply_gil_policy, limits
from .silence import Silence

__all__ = ["FrameConnector", "expect_spelled", "forget", "reraise"]

logger = logging.getLogger("sealwire.dask_backend")


def reraise(error: errors.CommClosedError, where: str, *, last: bool = False) -> NoReturn:
    """Raise distributed's error for ours; its `connect` decides by the class whether to retry.

    With `last` it never retries.
    """
    known = CommClosedError if error.retryable and not last else FatalCommClosedError
    raise known(f"{where}: {error}") from error


# What distributed and our `Security` pass for any scheme: the same arguments may serve for several,
# so an ssl_context is not an error for tcp:// here.
_KNOWN = frozenset((
    "ssl_context", "require_encryption", "extra_conn_args", "server_hostname",
    "handshake_overrides", DECIDED, ROLE,
    # Arguments that other releases of distributed may have for its own classes.
    *inspect.signature(stock.BaseTCPConnector.connect).parameters,
    *inspect.signature(stock.BaseTCPListener.__init__).parameters,
))  # fmt: skip
_ignored: set[str] = set()  # names already logged


def expect_spelled(call: str, given: Iterable[str]) -> None:
    """Raise `TypeError` for a name that looks misspelt.

    A misspelt ``ssl_context`` would open a plain port. Other unknown names are accepted, as by
    distributed's classes, and logged once each.
    """
    for name in given:
        if name in _KNOWN or name in _ignored:
            continue
        from difflib import get_close_matches

        if get_close_matches(name, _KNOWN, n=1):
            expect_known(call, [name], _KNOWN)
        _ignored.add(name)
        logger.warning("%s ignores its argument %r, of which neither we nor Dask know", call, name)


def forget() -> None:
    """Forget which names were logged."""
    _ignored.clear()


_SILENCE = 2.0  # seconds without a hello after which the log says what may be wrong


def _hint_at_tls(stream: FrameStream) -> None:
    """Log that the server may expect TLS, so it waits for us; Dask's timeout error cannot tell."""
    logger.warning(
        "connected to %s, which has said nothing for %g s; check that it speaks the same scheme "
        "(a tls:// listener is silent to tcp://) and is not overloaded",
        stream.peer,
        _SILENCE,
    )


_LEFT = 1.0  # seconds; the next attempt follows within hundredths


class _Left(NamedTuple):
    """A connection attempt that goes on for a while although nobody waits for it."""

    dialling: Dialling
    target: Address
    dial_args: dict[str, Any]
    timer: asyncio.TimerHandle

    @classmethod
    def going(cls, dialling: Dialling, target: Address, dial_args: dict[str, Any]) -> _Left:
        """Have the attempt closed if nobody continues it."""
        timer = asyncio.get_running_loop().call_later(_LEFT, dialling.close)
        return cls(dialling, target, dial_args, timer)


class FrameConnector(Connector):
    """Dials for one call of distributed's `connect`, which reuses it for its retries."""

    client: ClassVar[FrameClient] = FrameClient()
    prefix: str
    comm_class: type[Any]
    _left: _Left | None = None

    def __init__(self) -> None:
        self._interrupted = False  # whether an attempt ended between connection and hello
        self._first = True  # whether there was no attempt yet
        self._lasted: float | None = None  # the first one, if distributed's `connect` ended it

    def __del__(self) -> None:
        if self._left is not None:
            self._left.dialling.drop()

    async def connect(self, address: str, deserialize: bool = True, **connection_args: Any) -> Any:
        """Open a comm whose peer has sent its hello: the caller's timeout covers the wait for it.

        Parameters
        ----------
        address : str
            ``host:port``, without the scheme.
        deserialize : bool, default True
            Passed to the comm.
        **connection_args
            Those of ``Security.get_connection_args``.

        Returns
        -------
        TCP or TLS

        Raises
        ------
        CommClosedError
            If the attempt fails; distributed repeats it.
        FatalCommClosedError
            If another attempt cannot succeed.
        EncryptionRequired
            For a plain address where encryption is required.
        TypeError, ValueError
            For a misspelt argument or an unsuitable context.

        Notes
        -----
        distributed gives its first attempt a fifth of the timeout, which a slow network may need
        for TCP and TLS alone. So the first call, when it is cancelled, leaves its connection in the
        making for a second; the next call with the same arguments continues it. All other
        cancelled calls leave no socket open, and nor does a connector that is dropped.
        """
        try:
            host, port = parse_host_port(address)
        except ValueError as error:
            raise ValueError(
                f"cannot connect to {self.prefix}{address}: {error}; write for example "
                f"{self.prefix}127.0.0.1:8786"
            ) from error
        target = Address(self.prefix[:-3], host, port)
        apply_gil_policy()
        expect_spelled(f"connect() to {self.prefix}{address}", connection_args)
        dial_args = self._dial_args(address, connection_args)
        dialling = self._taken_up(target, dial_args)
        first, self._first = self._first, False
        if dialling is None:
            dialling = self.client.dialling(target, limits(), **dial_args, outlives=True)
        silence = Silence(self.client, target, self._lasted)
        began = asyncio.get_running_loop().time()
        dialling.when_connected(silence.begins)
        try:
            stream = await dialling.stream()
            hint = asyncio.get_running_loop().call_later(_SILENCE, _hint_at_tls, stream)
            try:
                # In TLS 1.3 a client learns only here that it was refused.
                with NamingFiles(dial_args.get("context")):
                    while not stream.inbox:
                        await stream.arrival()
                    offered = hello.decode(stream.inbox[0][0], stream.peer)
                local = self.prefix + unparse_host_port(*stream.local_host_port)
                comm = self.comm_class(stream, local, self.prefix + address, deserialize)
                comm.offered = offered
                return comm
            except errors.CommClosedError:
                self._interrupted = True
                raise
            finally:
                hint.cancel()
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and first:
                self._lasted = asyncio.get_running_loop().time() - began
                self._left = _Left.going(dialling, target, dial_args)
                raise
            dialling.close()
            if not isinstance(error, errors.CommClosedError):
                raise
            # A peer that has closed a connection before and does not listen any more was stopped.
            # distributed's own connector, which does not wait for the hello, gives up at the first.
            stopped = self._interrupted and isinstance(error.__cause__, ConnectionRefusedError)
            if not error.retryable:
                tell(str(target), error.kind, f"cannot connect to {target}: {error}")
            reraise(error, f"cannot connect to {target}", last=stopped)
        finally:
            asking = silence.ends()
            if asking is not None:
                await asyncio.wait([asking])

    def _taken_up(self, target: Address, dial_args: dict[str, Any]) -> Dialling | None:
        """Return the attempt that a cancelled call has left, if it fits."""
        left, self._left = self._left, None
        if left is None:
            return None
        left.timer.cancel()
        if left.dialling.closed or (left.target, left.dial_args) != (target, dial_args):
            left.dialling.close()
            return None
        return left.dialling

    def _dial_args(self, address: str, connection_args: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of `FrameClient.dial` for the scheme. Raises for what it does not allow."""
        raise NotImplementedError
