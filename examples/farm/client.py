"""Has the workers square COUNT numbers, and prints their sum: client.py ADDRESS NAME COUNT"""

import asyncio
import sys

from sealwire.comm import ReconnectingClient
from sealwire.security import Security


async def main(address: str, name: str, count: str) -> None:
    args = Security().get_connection_args("client")  # over tls://, those of DASK_CONFIG
    async with ReconnectingClient(address, ping_interval=5, **args) as farm:

        async def square(number: int) -> int:
            key = f"{name}-{number}"  # with it, both calls may be repeated
            await farm.call("submit", key, "square", number, idempotent=True)
            kind, value, _ = await farm.call("result", key, idempotent=True)
            return value if kind == "result" else 0

        print(sum(await asyncio.gather(*map(square, range(int(count))))))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
