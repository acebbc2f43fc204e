import asyncio

from sealwire.comm import Comm, listen
from sealwire.security import Security

security = Security(tls_ca_file="certs/ca.pem", tls_scheduler_cert="certs/scheduler.pem")


async def double(comm: Comm) -> None:
    async for message in comm:  # ends when the peer closes the connection
        await comm.write({"doubled": 2 * message["number"], "data": message["data"]})


async def main() -> None:
    async with listen("tls://0.0.0.0:8786", double, **security.get_listen_args("scheduler")):
        await asyncio.Event().wait()


asyncio.run(main())
