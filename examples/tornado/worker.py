"""A worker of application.py: worker.py COMM_ADDRESS"""

import asyncio
import sys

from sealwire.comm import ReconnectingClient, stop_signal
from sealwire.security import Security


async def main(address):
    args = Security().get_connection_args("worker")
    handlers = {"square": lambda number: number**2}
    async with ReconnectingClient(address, handlers, ping_interval=10, **args):
        await stop_signal()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
