"""Keeps tasks in a file, gives them to workers, returns results: scheduler.py ADDRESS FILE

A task is accepted once it is in the file, and done once its result is; so a scheduler that was
killed continues where it stopped. What a lost worker has not done is given to another one. A result
comes with the number of attempts, since a lost worker may have run the task before it was lost.
"""

import asyncio
import json
import sys
from typing import Any

from sealwire.comm import CallLost, CallRefused, Calls, Comm, listen, register_error, stop_signal
from sealwire.security import Security

register_error(KeyError)  # for a task that was never submitted


class Scheduler:
    def __init__(self, path: str) -> None:
        self.tasks: dict[str, list[Any]] = {}
        self.attempts: dict[str, int] = {}
        self.results: dict[str, asyncio.Future[list[Any]]] = {}
        self.running: set[str] = set()
        self.waiting: asyncio.Queue[str] = asyncio.Queue()
        self.file = open(path, "a+b", buffering=0)  # noqa: SIM115
        self.file.seek(0)
        lines, _, torn = self.file.read().rpartition(b"\n")
        self.file.truncate(self.file.tell() - len(torn))  # half written when we were killed
        for line in lines.splitlines():
            self.replay(*json.loads(line))
        for key, result in self.results.items():
            if not result.done():
                self.waiting.put_nowait(key)

    def replay(self, kind: str, key: str, value: Any) -> None:
        if kind == "task":
            self.tasks[key], self.attempts[key], self.results[key] = value, 0, asyncio.Future()
        elif kind == "attempt":
            self.attempts[key] += 1
        else:
            self.results[key].set_result(value)

    def keep(self, kind: str, key: str, value: Any = None) -> None:
        self.file.write(json.dumps([kind, key, value]).encode() + b"\n")
        self.replay(kind, key, value)

    def submit(self, key: str, function: str, *args: Any) -> None:
        """Accept a task; a key that is known is the same task."""
        if key not in self.tasks:
            self.keep("task", key, [function, *args])
            self.waiting.put_nowait(key)

    async def result(self, key: str) -> list[Any]:
        """Wait for ["result" or "error", value, attempts]."""
        return [*await asyncio.shield(self.results[key]), self.attempts[key]]

    async def feed(self, worker: Calls) -> None:
        """Give a worker one task after the other."""
        while True:
            key = await self.waiting.get()
            self.keep("attempt", key)
            self.running.add(key)
            try:
                self.keep("result", key, ["result", await worker.call("run", *self.tasks[key])])
            except (CallLost, CallRefused):  # the worker is gone, or stops
                return
            except Exception as error:  # also of a result that does not fit in the file
                self.keep("result", key, ["error", repr(error)])
            finally:
                self.running.discard(key)
                if not self.results[key].done():
                    self.waiting.put_nowait(key)

    async def serve(self, comm: Comm) -> None:
        async def join(slots: int) -> None:  # cancelled when the comm ends
            await asyncio.gather(*(self.feed(calls) for _ in range(slots)))

        handlers: dict[str, Any] = {"submit": self.submit, "result": self.result, "join": join}
        async with Calls(comm, handlers, max_running=10_000, ping_interval=5) as calls:
            await calls.serve()


async def main(address: str, path: str) -> None:
    scheduler = Scheduler(path)
    listener = await listen(address, scheduler.serve, **Security().get_listen_args("scheduler"))
    print("scheduler at", listener.contact_address, flush=True)
    await stop_signal()
    scheduler.waiting = asyncio.Queue()  # no more tasks are given out; running ones may finish
    if running := [scheduler.results[key] for key in scheduler.running]:
        await asyncio.wait(running, timeout=10)
    await listener.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
