"""What the sockets of our contexts verify after OpenSSL has, under every stack that drives them."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from typing import Any

import pytest
from tornado.iostream import SSLIOStream
from tornado.tcpserver import TCPServer

from sealwire.security import SessionResumed
from support import certs
from support.aio import aio
from support.handshakes import VERSIONS, client_context, foreign_context, security, server_context

CA = certs.root()
NODE = certs.leaf(CA)
SECRET = b"for those who have shown a certificate"


def visit(
    port: int, client: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[ssl.SSLSession | None, bool, bytes]:
    """The session that a visit leaves, whether it was resumed, and what was served."""
    served = b""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        client.wrap_socket(plain, session=session, do_handshake_on_connect=False) as tls,
    ):
        try:
            tls.do_handshake()
            tls.sendall(b"smuggled")
            # An end without close_notify makes OpenSSL 3.6 resume a session no more.
            while served != SECRET and (data := tls.recv(1000)):
                served += data
        except OSError:
            pass
        return tls.session, bool(tls.session_reused), served


class Stack:
    """Serves `SECRET` to each, notes what each had sent, and what went wrong."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.met: list[bytes] = []
        self.errors: list[BaseException] = []


class Blocking(Stack):
    """`how` the handshake comes about: by itself, or by the first read or write."""

    how = "handshake"

    async def __aenter__(self) -> int:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()
        return int(self.server.getsockname()[1])

    async def __aexit__(self, *args: object) -> None:
        # close() alone does not wake accept().
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join(20)

    def serve(self) -> None:
        while True:
            try:
                plain, _ = self.server.accept()
            except OSError:
                return
            with plain:
                plain.settimeout(20)
                try:
                    with self.context.wrap_socket(
                        plain, server_side=True, do_handshake_on_connect=self.how == "handshake"
                    ) as tls:
                        if self.how == "write":
                            tls.sendall(SECRET)
                        self.met.append(tls.recv(1000))
                        if self.how != "write":
                            tls.sendall(SECRET)
                except OSError as error:
                    self.errors.append(error)


class FirstRead(Blocking):
    how = "read"


class FirstWrite(Blocking):
    how = "write"


class Listening(Blocking):
    """The listening socket is wrapped, and each it accepts by itself."""

    def serve(self) -> None:
        with self.context.wrap_socket(self.server, server_side=True) as listening:
            while True:
                try:
                    tls, _ = listening.accept()
                    with tls:
                        self.met.append(tls.recv(1000))
                        tls.sendall(SECRET)
                except ssl.SSLError as error:
                    self.errors.append(error)
                except OSError:
                    return

    async def __aexit__(self, *args: object) -> None:
        with socket.socket(fileno=socket.dup(self.descriptor)) as copy:
            copy.shutdown(socket.SHUT_RDWR)
        self.thread.join(20)

    async def __aenter__(self) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        self.descriptor = server.fileno()
        self.server = server
        self.thread = threading.Thread(target=self.serve, daemon=True)
        port = int(server.getsockname()[1])
        self.thread.start()
        return port


class Asyncio(Stack):
    async def __aenter__(self) -> int:
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: self.errors.append(context.get("exception", Exception()))
        )

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.met.append(await reader.read(1000))
            writer.write(SECRET)
            await writer.drain()
            writer.close()

        self.server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=self.context)
        return int(self.server.sockets[0].getsockname()[1])

    async def __aexit__(self, *args: object) -> None:
        self.server.close()


class Tornado(Stack):
    async def __aenter__(self) -> int:
        stack = self

        class Server(TCPServer):
            async def handle_stream(self, stream: Any, address: Any) -> None:
                assert isinstance(stream, SSLIOStream)
                stack.met.append(await stream.read_bytes(1000, partial=True))
                await stream.write(SECRET)
                stream.close()

        self.server = Server(ssl_options=self.context)
        self.server.listen(0, "127.0.0.1")
        (sock,) = self.server._sockets.values()
        return int(sock.getsockname()[1])

    async def __aexit__(self, *args: object) -> None:
        self.server.stop()


STACKS: list[type[Any]] = [Blocking, FirstRead, FirstWrite, Listening, Asyncio, Tornado]


# A server's cache keeps the sessions of connections that ended in order: only asyncio ends them so.
CASES = [*((stack, True) for stack in STACKS), (Asyncio, False)]


@pytest.mark.parametrize(("stack", "ticket"), CASES)
@aio
async def test_a_resumed_session_is_served_nothing(stack: type[Any], ticket: bool) -> None:
    """TLS 1.2: for 1.3 our servers give nothing out that could be resumed."""
    client = foreign_context("client", NODE, [CA], version=ssl.TLSVersion.TLSv1_2)
    if not ticket:
        client.options |= ssl.OP_NO_TICKET
    serving = stack(server_context(security(NODE, [CA])))
    loop = asyncio.get_running_loop()
    async with serving as port:
        for _ in range(2):  # with a new one: OpenSSL may drop a session whose connection fails
            session, resumed, served = await loop.run_in_executor(None, visit, port, client, None)
            assert (resumed, served) == (False, SECRET)
            assert session is not None
            again = await loop.run_in_executor(None, visit, port, client, session)
            assert again[1:] == (True, b"")
        _, resumed, served = await loop.run_in_executor(None, visit, port, client, None)
        assert (resumed, served) == (False, SECRET)
    assert serving.met == [b"smuggled"] * 3
    if isinstance(serving, Blocking):
        assert [type(error) for error in serving.errors] == [SessionResumed] * 2
    else:
        assert all(isinstance(error, OSError) for error in serving.errors)


@pytest.mark.parametrize("how", ["recv", "recv_into", "read", "told"])
@pytest.mark.parametrize("version", VERSIONS)
def test_an_end_without_close_notify(version: ssl.TLSVersion, how: str) -> None:
    """It is what it is to `ssl` in every version of Python: 3.11.2 raises another error for it."""
    ours = security(NODE, [CA], tls_max_version=version)
    with socket.create_server(("127.0.0.1", 0)) as server:
        plain = socket.create_connection(server.getsockname(), timeout=30)
        accepted, _ = server.accept()
    accepted.settimeout(30)

    def serve() -> None:
        with server_context(ours).wrap_socket(accepted, server_side=True) as tls:
            tls.sendall(b"all")

    thread = threading.Thread(target=serve)
    thread.start()
    context = client_context(ours)
    with context.wrap_socket(plain, suppress_ragged_eofs=how != "told") as tls:
        assert tls.recv(10) == b"all"
        thread.join(30)
        if how == "told":
            with pytest.raises(ssl.SSLEOFError):
                tls.recv(10)
        else:
            take = {"recv": lambda: tls.recv(10), "read": lambda: tls.read(10)}
            assert take.get(how, lambda: tls.recv_into(bytearray(10)))() in (b"", 0)
    assert not thread.is_alive()
