"""Uses of the standalone face that a type checker accepts; what runs them is test_checkers.py."""

from __future__ import annotations

import asyncio
import pathlib
import signal
import ssl
from typing import Any

from sealwire.comm import (
    Backend,
    CallError,
    CallLost,
    CallRefused,
    Calls,
    CloseCode,
    Comm,
    CommClosedError,
    EncodedMessage,
    Limits,
    Listener,
    ReconnectingClient,
    RemoteError,
    broadcast,
    closed_error,
    configure_gil,
    connect,
    listen,
    parse_address,
    register_backend,
    register_error,
    register_type,
    stop_signal,
    sync,
)
from sealwire.comm.testing import pair
from sealwire.comm.transport.client import FrameClient
from sealwire.comm.transport.server import FrameServer
from sealwire.comm.transport.stream import FrameStream
from sealwire.dask_backend import Security as DaskSecurity
from sealwire.security import ConnectionArgs, ListenArgs, Role, Security

role: Role = "worker"
security = Security(
    True,
    tls_ca_file="ca.pem",
    tls_worker_cert=pathlib.Path("worker.pem"),
    tls_worker_key=None,
    tls_min_version=1.2,
    tls_max_version=ssl.TLSVersion.TLSv1_3,
    tls_key_password={"worker": "secret"},
    tls_allowed_peers={"worker": ["scheduler*"], "client": "sha256:00"},
    tls_reload_interval="10 s",
    tls_expiry_warning=30,
    extra_conn_args={"server_hostname": "cluster.example"},
)
for_dask = DaskSecurity(tls_ca_file="ca.pem", tls_client_cert="client.pem")
in_memory: Security = Security.temporary(days=1, tls_min_version="1.3")
in_dask: DaskSecurity = DaskSecurity.temporary(days=1, tls_min_version="1.3")
configured: dict[str, Any] = {"tls_ca_file": "ca.pem"}
from_elsewhere = Security(**configured)
dialling: ConnectionArgs = security.get_connection_args(role)
accepting: ListenArgs = security.get_listen_args("scheduler")
context: ssl.SSLContext | None = dialling["ssl_context"]


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


def to_point(content: Any) -> Point:
    return Point(int(content))


register_type(Point, lambda point: point.x, to_point, name="example.Point")
register_type(Point, lambda point: [point.x, b"", {"deep": point}], to_point)
configure_gil(interval=1e-4, hold_tls=False)


async def handler(comm: Comm) -> None:
    async for message in comm:
        size: int = await comm.write({"doubled": 2 * message["number"]})
        assert size
    await comm.close(CloseCode.GOING_AWAY, "until tomorrow")


def without_waiting(comm: Comm) -> None:
    comm.abort()


class Server(FrameServer):
    async def handle_stream(  # type: ignore[override]
        self, stream: FrameStream, address: tuple[Any, ...]
    ) -> None:
        stream.write(await stream.read_frames())


async def main(backend: Backend) -> None:
    limits = Limits(handshake_timeout=5, max_queued=None)
    listener: Listener = await listen("tls://127.0.0.1:0", handler, limits=limits, **accepting)
    async with listen("tcp://127.0.0.1:0", without_waiting) as plain:
        await connect(plain.contact_address, timeout=5)
    comm: Comm = await connect(listener.contact_address, **security.get_connection_args("worker"))
    async with connect(
        listener.contact_address, timeout=3, server_hostname="cluster.example", **dialling
    ) as other:
        await other.write([1, 2.0, b"x"])
    dialled: asyncio.Task[Comm] = asyncio.create_task(connect(listener.contact_address))
    (await dialled).abort()
    of_third_parties: dict[str, Any] = {"bandwidth": 5}
    await connect("rdma://node:1", **of_third_parties)
    await connect("rdma://node:1", connection_args=of_third_parties)
    server = Server(**security.get_listen_args("scheduler"))
    server.listen(0, "127.0.0.1")
    stream: FrameStream = await FrameClient(limits).connect(
        "127.0.0.1", 1, ssl_options=dialling["ssl_context"]
    )
    stream.close()
    try:
        await asyncio.wait_for(comm.read(), 1)
    except CommClosedError as error:
        if error.closed_by == "peer":
            print(error.code, error.reason, error.clean)


def add(a: int, b: int) -> int:
    return a + b


async def later(seconds: float) -> float:
    return await asyncio.sleep(seconds, seconds)


@register_error
class OutOfStock(Exception):
    pass


register_error(KeyError, fields=["args"], name="example.KeyError")


async def register(calls: Calls) -> None:
    await calls.call("register", "a", timeout=5)


class Registry:
    def __init__(self) -> None:
        self.members: set[Calls] = set()

    async def serve(self, comm: Comm) -> None:
        async with Calls(comm, {"add": add, "later": later}, ping_interval=5) as calls:
            self.members.add(calls)
            await calls.serve()

    def greet(self, calls: Calls) -> None:
        self.members.add(calls)


async def called(calls: Calls) -> None:
    result: object = await calls.call("add", 1, 2, timeout=5, carry=0)
    trip: float = await calls.ping(timeout=1)
    await calls.notify("later", seconds=5)
    print(result, trip, calls.pending, calls.running, calls.failure, calls.comm.queued)
    try:
        await calls.call("order")
    except OutOfStock:
        pass
    except CallLost as error:
        print(error.may_have_run, error.code, error.reason, error.closed_by, error.kind)
    except CallRefused as error:
        if error.kind == "overloaded":
            print(error.method)
    except RemoteError as error:
        print(error.name, error.message)
    except CallError as error:
        print(error.may_have_run)
    await calls.close(CloseCode.GOING_AWAY, "until tomorrow", grace=5)


async def serving(backend: Backend) -> None:
    register_backend("rdma", backend, replace=True)
    of_unix: dict[str, Any] = {"mode": 0o660, "allow_plain": True}
    async with listen(
        "unix://@example", Registry().serve, connection_args=of_unix, **accepting
    ) as listener:
        comms: tuple[Comm, ...] = listener.comms
        refused: int = listener.stats.refused.get("expired", 0)
        got: signal.Signals = await stop_signal()
        await stop_signal([signal.SIGUSR1])
        sent, missed = await broadcast(comms, {"op": "news"}, slow="skip", max_queued=5)
        for comm, why in missed.items():
            print(comm.peer_address, why, sent, refused, got)
        result = await broadcast(set(comms), EncodedMessage([1]), timeout=3)
        print(result.sent)
        await listener.close(grace=10)
        await listener.wait_closed()
        await listener.serve_forever(grace=3)
    print(parse_address(listener.contact_address).port)


async def reconnecting() -> None:
    async with ReconnectingClient(
        "tls://node:1",
        {"add": add},
        on_connect=register,
        ping_interval=5,
        final_codes=[4000, CloseCode.BAD_MESSAGE],
        limits=Limits(),
        **dialling,
    ) as client:
        async for calls in client.sessions():
            await called(calls)
        print(await client.session(timeout=3), client.closed())
        print(await client.call("add", 1, 2, timeout=3, idempotent=True))
    ReconnectingClient("tcp://node:1", on_connect=Registry().greet)
    ReconnectingClient("tcp://node:1", on_connect=lambda calls: calls.notify("join", 1))


async def tested() -> None:
    async with pair(Limits(write_ahead=1)) as (a, b, link):
        link.delay = 0.1
        link.cut(after=3, sender=a)
        link.hold()
        link.release()
        await a.write(await b.read(), timeout=3)
        await a.drain(timeout=3)
        if a.write_nowait(3):
            end: CommClosedError = await a.wait_closed()
            print(end.kind, closed_error("rdma://node:1", 4000, "done", closed_by="us"))


def script() -> None:
    with sync.connect("tcp://127.0.0.1:8786", timeout=5, limits=Limits()) as comm:
        comm.write({"op": 1}, timeout=5)
        print(comm.read(timeout=5))
        for message in comm:
            print(message)
        comm.close(4000, "done")
    with sync.Calls(sync.connect("tls://127.0.0.1:8786", **dialling), {"add": add}) as calls:
        print(calls.call("add", 1, 2, timeout=5), calls.ping(3))
        calls.notify("add", 1, 2)
        calls.serve()
