"""Uses of the standalone face that a type checker accepts; what runs them is test_checkers.py."""

from __future__ import annotations

import asyncio
import pathlib
import ssl
from typing import Any

from sealwire.comm import (
    Backend,
    CloseCode,
    Comm,
    CommClosedError,
    Limits,
    Listener,
    configure_gil,
    connect,
    listen,
    register_type,
)
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
