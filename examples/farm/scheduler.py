"""Keeps tasks in a file, gives them to workers, tells results: scheduler.py ADDRESS FILE

A task is accepted once it is in the file, and done once its result is; so a scheduler that is
killed goes on where it was. What a lost worker has not done is given to another one. The file also
has each attempt, so whoever gets a result learns whether the task may have run more than once.
"""

import asyncio
import json
import sys

from common import credentials, told_to_stop

from sealwire.comm import CallError, Calls, CloseCode, listen, register_error


@register_error
class NoSuchTask(Exception):
    pass


class Scheduler:
    def __init__(self, path):
        self.tasks, self.results, self.attempts = {}, {}, {}
        self.waiting = asyncio.Queue()
        self.done = asyncio.Condition()
        self.guests, self.feeders = set(), set()
        self.stopping = False
        self.file = open(path, "a+b", buffering=0)  # noqa: SIM115
        self.file.seek(0)
        size = 0
        for line in self.file:
            if line.endswith(b"\n"):  # else it was being written when we were killed
                size += len(line)
                self.replay(*json.loads(line))
        self.file.truncate(size)
        for key in self.tasks.keys() - self.results.keys():
            self.waiting.put_nowait(key)

    def replay(self, kind, key, value):
        if kind == "attempt":
            self.attempts[key] = self.attempts.get(key, 0) + 1
        else:
            (self.tasks if kind == "task" else self.results)[key] = value

    def keep(self, kind, key, value=None):
        self.file.write(json.dumps([kind, key, value]).encode() + b"\n")
        self.replay(kind, key, value)

    def submit(self, key, function, *args):
        """Accept a task; a key that is known is the same task."""
        if key not in self.tasks:
            self.keep("task", key, [function, *args])
            self.waiting.put_nowait(key)

    async def result(self, key):
        """Wait for ["result" or "error", value, attempts]."""
        if key not in self.tasks:
            raise NoSuchTask(key)
        async with self.done:
            await self.done.wait_for(lambda: key in self.results)
        return [*self.results[key], self.attempts[key]]

    async def feed(self, worker):
        """Give a worker one task after the other."""
        while key := await self.waiting.get():  # None ends us
            self.keep("attempt", key)
            try:
                result = await worker.call("run", *self.tasks[key])
                self.keep("result", key, ["result", result])
            except Exception as error:  # also of a result that does not fit in the file
                if worker.closed() or getattr(error, "kind", "") == "stopping":
                    self.waiting.put_nowait(key)
                    return
                self.keep("result", key, ["error", str(error)])
            except asyncio.CancelledError:
                self.waiting.put_nowait(key)
                raise
            async with self.done:
                self.done.notify_all()
            if self.stopping:
                return

    async def serve(self, comm):
        feeders = []

        def join(slots):
            feeders.extend(asyncio.create_task(self.feed(calls)) for _ in range(slots))
            self.feeders.update(feeders)

        handlers = {"submit": self.submit, "result": self.result, "join": join}
        async with Calls(comm, handlers, max_running=10_000) as calls:
            self.guests.add(calls)
            try:
                while True:  # heartbeats: who is stopped is as good as lost
                    await calls.ping(timeout=10)
                    await asyncio.sleep(1)
            except CallError:
                comm.abort()
            finally:
                self.guests.discard(calls)
                self.feeders.difference_update(feeders)
                for feeder in feeders:
                    feeder.cancel()


async def main(address, path):
    scheduler = Scheduler(path)
    stop = told_to_stop()
    listener = await listen(address, scheduler.serve, **credentials(address, "scheduler"))
    print("scheduler at", listener.contact_address, flush=True)
    await stop.wait()
    listener.stop()
    scheduler.stopping = True  # what runs may finish
    for _ in scheduler.feeders:
        scheduler.waiting.put_nowait(None)
    if scheduler.feeders:
        await asyncio.wait(scheduler.feeders, timeout=10)
    guests = [guest.close(CloseCode.GOING_AWAY) for guest in scheduler.guests]
    await asyncio.gather(*guests)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
