"""Messages between the processes of a cluster, over TCP or mutually authenticated TLS.

::

    listener = await listen("tls://127.0.0.1:0", echo, **security.get_listen_args("scheduler"))
    comm = await connect(listener.contact_address, **security.get_connection_args("worker"))
    await comm.write({"op": "put", "data": array})
    reply = await comm.read()

Needs tornado and msgpack; numpy only where arrays are sent. Dask is never imported.
"""

from __future__ import annotations

from typing import Any

from .addressing import Address, parse_address
from .api import connect, listen
from .broadcast import BroadcastResult, broadcast
from .calls.calls import Calls
from .calls.errors import (
    CallError,
    CallLost,
    CallRefused,
    CallTimeout,
    RemoteError,
    register_error,
)
from .calls.reconnect import ReconnectingClient
from .close_codes import CloseCode
from .codec import EncodedMessage
from .codec import register as register_type
from .ends import closed_error
from .errors import (
    AddressError,
    CommBusy,
    CommClosedError,
    CommError,
    ConnectError,
    ConnectTimeout,
    DecodeError,
    EncodeError,
    EncryptionRequired,
    FramingError,
    HandshakeError,
    HelloError,
    MessageTooLarge,
    WriteTimeout,
)
from .interfaces import Backend, Comm, Connector, Listener
from .kinds import ErrorKind
from .limits import Limits
from .listener_log import ListenerStats
from .registry import register as register_backend
from .serving import ServingListener
from .signals import stop_signal
from .transport.switch_interval import configure as configure_gil

__all__ = [
    "Address",
    "AddressError",
    "Backend",
    "BroadcastResult",
    "CallError",
    "CallLost",
    "CallRefused",
    "CallTimeout",
    "Calls",
    "CloseCode",
    "Comm",
    "CommBusy",
    "CommClosedError",
    "CommError",
    "ConnectError",
    "ConnectTimeout",
    "Connector",
    "DecodeError",
    "EncodeError",
    "EncodedMessage",
    "EncryptionRequired",
    "ErrorKind",
    "FramingError",
    "HandshakeError",
    "HelloError",
    "Limits",
    "Listener",
    "ListenerStats",
    "MessageTooLarge",
    "ReconnectingClient",
    "RemoteError",
    "ServingListener",
    "WriteTimeout",
    "broadcast",
    "closed_error",
    "configure_gil",
    "connect",
    "listen",
    "parse_address",
    "register_backend",
    "register_error",
    "register_type",
    "stop_signal",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("sealwire")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
