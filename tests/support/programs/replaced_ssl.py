"""A process in which a library has put its own class into `ssl`, before or after sealwire came.

    python -m support.programs.replaced_ssl before|after

What truststore does, and `pip-system-certs` in every process, with this machine's CAs replaced by
one of the test's. Prints what goes wrong, and nothing if nothing does.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import Any

NATIVE = ssl.SSLContext


class Replaced(NATIVE):
    """It trusts others, and lacks methods, as `truststore.SSLContext` does."""

    trusted: str | None = None

    def __new__(cls, protocol: int) -> Replaced:
        made: Replaced = super().__new__(cls, protocol)
        if cls.trusted is not None:
            made.load_verify_locations(cadata=cls.trusted)
        return made

    def get_ca_certs(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def cert_store_stats(self) -> Any:
        raise NotImplementedError

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("maximum_version", "minimum_version", "options", "verify_flags", "verify_mode"):
            getattr(super(NATIVE, NATIVE), name).__set__(self, value)
        else:
            super().__setattr__(name, value)


def inject() -> None:
    ssl.SSLContext = Replaced  # type: ignore[misc]


async def check() -> None:
    from sealwire.comm import CommClosedError, connect, listen
    from sealwire.security import Security

    ours, others = Security.temporary(), Security.temporary()
    stranger = Security(
        tls_ca_file=ours.tls_ca_file,
        tls_client_cert=others.tls_client_cert,
        tls_client_key=others.tls_client_key,
    )
    Replaced.trusted = others.tls_ca_file

    async def echo(comm: Any) -> None:
        async for message in comm:
            await comm.write(message)

    async with listen("tls://127.0.0.1:0", echo, **ours.get_listen_args("worker")) as listener:
        address = listener.contact_address
        async with connect(address, **ours.get_connection_args("client")) as comm:
            await comm.write(b"x" * 2_000_000)
            if await comm.read() != b"x" * 2_000_000:
                print("what arrived is not what was sent")
        own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the program's, of the library's class
        own.check_hostname = False
        theirs = [each.get_connection_args("client")["ssl_context"] for each in (others, stranger)]
        for context in (*theirs, own):
            try:
                (await connect(address, ssl_context=context)).abort()
                print(f"a peer with {context} was let in")
            except CommClosedError as error:
                if error.kind not in ("other-ca", "by-peer"):
                    print(error.kind, error)


if __name__ == "__main__":
    if sys.argv[1] == "before":
        inject()
    import sealwire.comm
    import sealwire.security  # noqa: F401

    inject()
    asyncio.run(check())
