"""Wrong uses of the standalone face; never run.

A type checker must report each line that ends in ``# wrong``, and no other. ``# wrong for mypy`` is
one that pyright has no rule for.
"""

from __future__ import annotations

from typing import Any

from sealwire.comm import CloseCode, Comm, CommClosedError, Limits, connect, listen, register_type
from sealwire.comm.transport.client import FrameClient
from sealwire.comm.transport.server import FrameServer
from sealwire.dask_backend import Security as DaskSecurity
from sealwire.security import Role, Security

# Security

role: Role = "wroker"  # wrong
Security(tls_ca="ca.pem")  # wrong
Security(tls_ca_file=5)  # wrong
Security(tls_ca_file=b"-----BEGIN")  # wrong
Security("yes")  # wrong
Security(True, "ca.pem")  # wrong
Security(tls_worker_cert=["worker.pem"])  # wrong
Security(tls_min_version=["1.2"])  # wrong
Security(tls_allowed_peers={"wroker": ["scheduler"]})  # wrong
Security(tls_allowed_peers={"worker": 5})  # wrong
Security(tls_key_password={"wroker": "secret"})  # wrong
Security(tls_key_password=1234)  # wrong
Security(extra_conn_args=["server_hostname"])  # wrong
Security(tls_reload_interval=["1 s"])  # wrong
Security.temporary(10)  # wrong
Security.temporary(days="10")  # wrong
Security.temporary(tls_worker_cert="worker.pem")  # wrong
DaskSecurity(tls_ca="ca.pem")  # wrong
DaskSecurity.temporary(day=1)  # wrong
security = Security()
security.get_listen_args("server")  # wrong
security.get_connection_args("wroker")  # wrong
security.get_connection_args()  # wrong
security.get_tls_config_for_role("all")  # wrong
security.get_listen_args("worker")["ssl_contxt"]  # wrong
security.get_listen_args("worker")["ssl_context"].check_hostname  # wrong
security.tls_worker_crt  # wrong
security.reload("worker")  # wrong


# comm


async def handler(comm: Comm) -> None:
    comm.write(1)  # wrong
    comm.read()  # wrong
    comm.close()  # wrong
    size: str = await comm.write(1)  # wrong
    await comm.write()  # wrong
    await comm.write(1, 2)  # wrong
    await comm.read(timeout=1)  # wrong
    await comm.close("done")  # wrong
    await comm.close(CloseCode.DONE)  # wrong
    await comm.abort()  # wrong
    await comm.closed()  # wrong
    for _ in comm:  # wrong
        pass
    with comm:  # wrong
        pass
    print(size, comm.peer_adress)  # wrong


async def of_two(comm: Comm, message: Any) -> None: ...


def of_none() -> None: ...


async def of_text(comm: str) -> None: ...


async def main() -> None:
    accepting = security.get_listen_args("scheduler")
    dialling = security.get_connection_args("worker")
    await connect("tcp://127.0.0.1:1", timeout="3")  # wrong
    await connect("tcp://127.0.0.1:1", timeout=None)  # wrong
    await connect("tcp://127.0.0.1:1", 3)  # wrong
    await connect("tcp://127.0.0.1:1", timout=3)  # wrong
    await connect(("127.0.0.1", 1))  # wrong
    await connect(b"tcp://127.0.0.1:1")  # wrong
    await connect("tcp://127.0.0.1:1", limits={})  # wrong
    await connect("tls://127.0.0.1:1", ssl_context=True)  # wrong
    await connect("tls://127.0.0.1:1", ssl_context="ca.pem")  # wrong
    await connect("tls://127.0.0.1:1", server_hostname=b"cluster")  # wrong
    await connect("tls://127.0.0.1:1", security=security)  # wrong
    await connect("tls://127.0.0.1:1", security)  # wrong
    await connect("tls://127.0.0.1:1", extra_conn_args="server_hostname")  # wrong
    await connect("tls://127.0.0.1:1", **security)  # wrong
    connect("tcp://127.0.0.1:1").read()  # wrong
    await connect("tcp://127.0.0.1:1").write(1)  # wrong
    comm = connect("tcp://127.0.0.1:1")
    await comm.read()  # wrong
    with connect("tcp://127.0.0.1:1"):  # wrong
        pass
    connect("tcp://127.0.0.1:1")  # wrong for mypy
    listen("tcp://127.0.0.1:1", handler)  # wrong for mypy
    await listen("tcp://127.0.0.1:1")  # wrong
    await listen("tcp://127.0.0.1:1", None)  # wrong
    await listen("tcp://127.0.0.1:1", of_two)  # wrong
    await listen("tcp://127.0.0.1:1", of_none)  # wrong
    await listen("tcp://127.0.0.1:1", of_text)  # wrong
    await listen("tcp://127.0.0.1:1", handler, limits=5)  # wrong
    await listen("tcp://127.0.0.1:1", handler, contxt=None)  # wrong
    await listen("tcp://127.0.0.1:1", handler, timeout=3)  # wrong
    await listen("tls://127.0.0.1:1", handler, **dialling)  # wrong
    await listen("tls://127.0.0.1:1", handler, server_hostname="x")  # wrong
    async with listen("tls://127.0.0.1:1", handler, **accepting) as listener:
        await connect(listener.address)  # wrong
        await connect(listener)  # wrong
        listener.stats.conections  # wrong
    Limits(handshake_timeout="5")  # wrong
    Limits(handshake_timout=5)  # wrong
    Limits(max_message_size=None)  # wrong
    Limits().backlog = 5  # wrong
    FrameServer(ssl_context=True)  # wrong
    FrameServer(limits=None)  # wrong
    FrameServer(**dialling)  # wrong
    FrameClient().connect("127.0.0.1", 1)  # wrong
    await FrameClient().connect("127.0.0.1", "1")  # wrong
    await FrameClient(5).connect("127.0.0.1", 1)  # wrong
    error = CommClosedError("x")
    if error.closed_by == "them":  # wrong
        pass


class Point:
    x = 0


def to_text(content: Any) -> str:
    return str(content)


def to_point(content: Any) -> Point:
    return Point()


register_type("Point", lambda point: 0, to_point)  # wrong
register_type(Point(), lambda point: 0, to_point)  # wrong
register_type(Point, lambda point: point.y, to_point)  # wrong
register_type(Point, lambda: 0, to_point)  # wrong
register_type(Point, lambda point: 0)  # wrong
register_type(Point, lambda point: 0, to_text())  # wrong
register_type(Point, lambda point: 0, to_point, "example.Point")  # wrong
