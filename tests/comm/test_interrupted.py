"""The handler of a signal raises between a system call and our note of it; the loop runs again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sealwire.comm import Comm, CommClosedError, connect, listen
from support import HANG
from support.links import connect_args, listen_args, over_schemes, place

pytest_generate_tests = over_schemes


class Interrupt(KeyboardInterrupt):
    """What Ctrl-C raises, wherever the main thread is."""


def interrupt(channel: Any, *names: str) -> None:
    """Let the first call of one of these do its work, and then raise."""
    raised: list[None] = []

    def first(real: Any, *args: Any) -> Any:
        result = real(*args)
        if not raised:
            raised.append(None)
            raise Interrupt
        return result

    for name in names:
        if (real := getattr(channel, name)) is not None:
            setattr(channel, name, lambda *args, real=real: first(real, *args))


@pytest.mark.parametrize("size", [50, 70_000, 900_000])
@pytest.mark.parametrize("where", ["send", "receive"])
def test_no_message_that_nobody_sent(scheme: str, where: str, size: int) -> None:
    """It would be received wrong in silence, over TLS too."""
    loop = asyncio.new_event_loop()
    accepted: asyncio.Future[Comm] = loop.create_future()
    messages = [bytes([number]) * size for number in range(6)]

    async def keep(comm: Comm) -> None:
        accepted.set_result(comm)
        await comm.wait_closed()

    async def begin() -> tuple[Any, Any, Any]:
        listener = await listen(place(scheme), keep, **listen_args(scheme))
        ours = await connect(listener.contact_address, **connect_args(scheme))
        return listener, ours, await accepted

    async def send(comm: Comm) -> None:
        for message in messages:
            await comm.write(message)

    async def receive(comm: Comm) -> list[Any]:
        received: list[Any] = []
        try:
            while True:
                received.append(await asyncio.wait_for(comm.read(), HANG))
        except CommClosedError:
            return received

    async def end() -> list[Any]:
        received = await receiving
        with pytest.raises(CommClosedError):
            await asyncio.wait_for(ours.read(), HANG)
        await asyncio.gather(sending, return_exceptions=True)  # it may have sent all
        await listener.close()
        return received

    try:
        listener, ours, theirs = loop.run_until_complete(begin())
        if where == "send":
            interrupt(ours._stream._sender._channel, "send", "send_several")
        else:
            interrupt(theirs._stream._receiver._channel, "receive", "fill")
        receiving = loop.create_task(receive(theirs))
        sending = loop.create_task(send(ours))
        with pytest.raises(Interrupt):
            loop.run_until_complete(asyncio.wait([sending, receiving]))
        received = loop.run_until_complete(end())
        assert received == messages[: len(received)]
        assert len(received) < len(messages)
    finally:
        loop.close()
