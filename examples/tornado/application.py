"""A Tornado application whose workers connect by comms: application.py WEB_PORT COMM_ADDRESS

Workers are other processes; GET /square/12 has one of them compute the square. The listener runs in
the event loop of the application, and needs no other thread.
"""

import asyncio
import sys

import tornado.web

from sealwire.comm import CallError, Calls, listen, stop_signal
from sealwire.security import Security


class Square(tornado.web.RequestHandler):
    async def get(self, number):
        workers = self.application.settings["workers"]
        if not workers:
            raise tornado.web.HTTPError(503, reason="no worker")
        calls = workers[0]
        workers.append(workers.pop(0))  # the next one next time
        try:
            self.write({"square": await calls.call("square", int(number), timeout=10)})
        except CallError as error:
            raise tornado.web.HTTPError(502, reason="the worker failed") from error


async def main(port, address):
    workers = []

    async def serve(comm):
        async with Calls(comm, ping_interval=10) as calls:
            workers.append(calls)
            try:
                await calls.serve()
            finally:
                workers.remove(calls)

    application = tornado.web.Application([(r"/square/(\d+)", Square)], workers=workers)
    server = application.listen(int(port), "127.0.0.1")  # as before
    listener = await listen(address, serve, **Security().get_listen_args("scheduler"))
    print("workers at", listener.contact_address, flush=True)
    await stop_signal()
    server.stop()
    await listener.close(grace=5)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
