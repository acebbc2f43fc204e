"""gRPC with its asyncio API: a stream of bytes each way, the op in the first byte."""

from __future__ import annotations

from typing import Any

import grpc

from .adapters import Adapter, Handler
from .sockets_adapter import OPS

METHOD = "/benchmark/talk"
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Comm:
    """Messages ``{"op", "data"}`` over one call: on either side a thing that reads and writes."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def write(self, message: dict[str, Any]) -> None:
        data = message.get("data", b"")
        # A message of gRPC is one bytes object.
        await self._call.write(b"".join((bytes([OPS.index(message["op"])]), memoryview(data))))

    async def read(self) -> dict[str, Any]:
        data = await self._call.read()
        if data is grpc.aio.EOF:
            raise ConnectionResetError("closed")
        return {"op": OPS[data[0]], "data": memoryview(data)[1:]}

    async def close(self) -> None:
        """The call ends with its handler, or with the process."""


class GRPC(Adapter):
    """A server and a channel; over tls both sides show their certificates."""

    async def listen(self, handler: Handler) -> str:
        async def talk(_: Any, context: Any) -> None:
            await handler(Comm(context))

        self.server = grpc.aio.server(options=OPTIONS)
        methods = {"talk": grpc.stream_stream_rpc_method_handler(talk)}
        generic = grpc.method_handlers_generic_handler("benchmark", methods)
        self.server.add_generic_rpc_handlers((generic,))
        if self.link == "tls":
            given = grpc.ssl_server_credentials(
                [self._pair("scheduler")], self._ca(), require_client_auth=True
            )
            port = self.server.add_secure_port("127.0.0.1:0", given)
        else:
            port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        return f"127.0.0.1:{port}"

    async def connect(self, address: str) -> Comm:
        if self.link == "tls":
            given = grpc.ssl_channel_credentials(self._ca(), *self._pair("client"))
            name = ("grpc.ssl_target_name_override", "scheduler")
            channel = grpc.aio.secure_channel(address, given, options=[*OPTIONS, name])
        else:
            channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        self.channel = channel
        call = channel.stream_stream(METHOD)()
        await call.wait_for_connection()
        return Comm(call)

    def _ca(self) -> bytes:
        return self.credentials["tls_ca_file"].encode()

    def _pair(self, role: str) -> tuple[bytes, bytes]:
        key, certificate = (self.credentials[f"tls_{role}_{part}"] for part in ("key", "cert"))
        return key.encode(), certificate.encode()


ADAPTER = GRPC
