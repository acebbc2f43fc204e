"""Wrong uses of the standalone face; never run.

A type checker must report each line that ends in ``# wrong``, and no other. ``# wrong for mypy`` is
one that pyright has no rule for.
"""

from __future__ import annotations

from typing import Any

from sealwire.comm import (
    CallRefused,
    Calls,
    CloseCode,
    Comm,
    CommClosedError,
    EncodedMessage,
    Limits,
    ReconnectingClient,
    broadcast,
    closed_error,
    connect,
    listen,
    register_backend,
    register_error,
    register_type,
    stop_signal,
    sync,
)
from sealwire.comm.testing import pair
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


# calls


def add(a: int, b: int) -> int:
    return a + b


async def greet(calls: Calls) -> None: ...


def greet_two(calls: Calls, other: Calls) -> None: ...


class NoError: ...


async def calling(comm: Comm) -> None:
    calls = Calls(comm, {"add": add})
    Calls(connect("tcp://node:1"))  # wrong
    Calls(comm, [add])  # wrong
    Calls(comm, {"add": 5})  # wrong
    Calls(comm, {5: add})  # wrong
    Calls(comm, ping_intervall=5)  # wrong
    Calls(comm, ping_interval="5")  # wrong
    Calls(comm, max_running=None)  # wrong
    Calls(comm, max_running=1.5)  # wrong
    calls.call("add", 1)  # wrong
    calls.notify("add", 1)  # wrong
    calls.serve()  # wrong
    await calls.call(5)  # wrong
    await calls.call(add, 1)  # wrong
    await calls.call()  # wrong
    await calls.call("add", timeout="5")  # wrong
    await calls.ping("5")  # wrong
    await calls.close(grace="5")  # wrong
    await calls.close("done")  # wrong
    await calls.closed()  # wrong
    calls.result  # wrong
    with calls:  # wrong
        pass


async def reconnecting(client: ReconnectingClient) -> None:
    await client.call("add", idempotent=1)  # wrong
    await client.call("add", timeout="x")  # wrong
    client.call("add")  # wrong
    await client.sessions()  # wrong
    for _session in client.sessions():  # wrong
        pass
    ReconnectingClient("tcp://node:1", on_connect=5)  # wrong
    ReconnectingClient("tcp://node:1", on_connect=greet_two)  # wrong
    ReconnectingClient("tcp://node:1", greet)  # wrong
    ReconnectingClient("tcp://node:1", final_codes=4000)  # wrong
    ReconnectingClient("tcp://node:1", backoff=None)  # wrong
    await ReconnectingClient("tcp://node:1")  # wrong
    ReconnectingClient("tcp://node:1", timeout=5)  # wrong
    ReconnectingClient("tcp://node:1", ping_intervall=5)  # wrong
    ReconnectingClient("tcp://node:1", limits={})  # wrong
    ReconnectingClient("rdma://node:1", bandwidth=5)  # wrong


async def telling(comm: Comm, calls: Calls) -> None:
    broadcast([comm], 1)  # wrong
    await broadcast(comm, 1)  # wrong
    await broadcast([comm], 1, slow="drop")  # wrong
    await broadcast([comm], 1, max_queued=1.5)  # wrong
    await broadcast([comm], 1, timeout="5")  # wrong
    await broadcast([calls], 1)  # wrong
    _sent, _missed, _more = await broadcast([comm], 1)  # wrong
    EncodedMessage()  # wrong
    register_error(NoError)  # wrong
    register_error(KeyError())  # wrong
    register_error(KeyError, fields=5)  # wrong
    register_error(KeyError, name=b"x")  # wrong
    stop_signal()  # wrong
    await stop_signal(15)  # wrong
    await stop_signal(["SIGTERM"])  # wrong


def script(comm: Comm) -> None:
    sync.connect("tcp://node:1").reed()  # wrong
    sync.connect(5)  # wrong
    sync.connect("tcp://node:1", timeout="5")  # wrong
    sync.connect("tcp://node:1", max_attemps=1)  # wrong
    sync.connect("tcp://node:1", max_attempts="1")  # wrong
    sync.Calls(comm)  # wrong


async def testing() -> None:
    async with pair() as (_a, _b):  # wrong
        pass
    async with pair() as (_a, _b, link):
        link.delay = "1"  # wrong
        link.cut("a")  # wrong
        link.cut(5)  # wrong
        await link.hold()  # wrong
    with pair() as (_a, _b, link):  # wrong
        pass


async def others(comm: Comm) -> None:
    register_backend("x", Comm)  # wrong
    register_backend(5, 5)  # wrong
    closed_error("x", closed_by="them")  # wrong
    refusal = CallRefused()
    if refusal.kind == "overload":  # wrong
        pass
    await comm.drain(5)  # wrong
    comm.drain()  # wrong
    await comm.write_nowait(1)  # wrong
    comm.wait_closed()  # wrong
    comm.comms  # wrong
    async with listen("tcp://node:1", greet) as listener:  # wrong
        listener.close()  # wrong
        await listener.close(grace="5")  # wrong
        listener.serve_forever()  # wrong
