import asyncio

from sealwire.comm import connect
from sealwire.security import Security

security = Security(tls_ca_file="certs/ca.pem", tls_worker_cert="certs/worker.pem")


async def main() -> None:
    async with connect("tls://127.0.0.1:8786", **security.get_connection_args("worker")) as comm:
        await comm.write({"number": 21, "data": bytearray(64 * 2**20)})
        reply = await comm.read()
        print(reply["doubled"], len(reply["data"]), comm.extra_info["protocol"])


asyncio.run(main())
