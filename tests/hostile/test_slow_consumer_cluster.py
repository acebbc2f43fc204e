"""Past `Limits.max_queued` a scheduler closes clients and workers that take nothing."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import distributed.comm
import psutil
import pytest
from distributed import Client

from sealwire.dask_backend import install, uninstall
from support.processes import PRELOAD, Program, Programs
from support.target import SLOW_CONSUMER, MiB, figure

SUBSCRIBER = """
import sys, time
from distributed import Client
from sealwire.dask_backend import install

if __name__ == "__main__":
    install()
    client = Client(sys.argv[1], timeout="60 s")
    client.subscribe_topic("news", lambda event: None)
    print("subscribed", flush=True)
    for n in range(300):
        try:
            client.submit(int, n, pure=False).result(timeout=20)
            print("result over", client.scheduler_comm.comm.local_address, flush=True)
        except Exception as error:
            print("failed", type(error).__name__, error, flush=True)
        time.sleep(0.2)
"""
NEWS = "n" * 1_500_000  # of more than a million bytes distributed keeps no copy for its own log
TIMES = 80


async def publish(dask_scheduler: Any) -> None:
    """Tell every client that has subscribed, as fast as a scheduler tells anything."""
    for _ in range(TIMES):
        dask_scheduler.log_event("news", NEWS)
        await asyncio.sleep(0.005)


async def instruct(address: str, dask_scheduler: Any) -> int:
    """Tell a worker, in words that change nothing, until there is nobody to be told."""
    for sent in range(TIMES):
        if address not in dask_scheduler.stream_comms:
            return sent
        try:
            message = {"op": "free-keys", "keys": [], "stimulus_id": NEWS}
            dask_scheduler.stream_comms[address].send(message)
        except distributed.comm.CommClosedError:
            return sent
        await asyncio.sleep(0.005)
    return TIMES


def test_a_scheduler_outlives_a_client_and_a_worker_that_are_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays small, serves the others, says so in a line each, and takes the client back."""
    monkeypatch.setenv("DASK_SEALWIRE__LIMITS__MAX_QUEUED", "4 MiB")
    monkeypatch.setenv("DASK_DISTRIBUTED__ADMIN__LOG_LENGTH", "2")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    script = tmp_path / "subscriber.py"
    script.write_text(SUBSCRIBER)
    stopped: list[psutil.Process] = []
    install()
    try:
        with Programs(tmp_path) as programs:
            scheduler, address = programs.scheduler("tcp", *PRELOAD)
            programs.worker(address, *PRELOAD, "--no-nanny", "--name", "stays")
            worker = programs.worker(address, *PRELOAD, "--no-nanny", "--name", "stops")
            subscriber = Program([sys.executable, str(script), address], tmp_path)
            programs.started.append(subscriber)
            subscriber.wait_for("subscribed")
            with Client(address, timeout="60 s") as client:
                client.wait_for_workers(2, timeout=60)
                names = {w["name"]: a for a, w in client.scheduler_info()["workers"].items()}
                connection = subscriber.wait_for(r"result over (\S+)")[1]
                process = psutil.Process(scheduler.process.pid)
                before = process.memory_info().rss
                told = len(scheduler.output)

                stopped.append(psutil.Process(subscriber.process.pid))
                stopped[-1].suspend()
                client.run_on_scheduler(publish)
                scheduler.wait_for(r"listener on tcp://\S+: comm with tcp://\S+ closed: \d+ bytes")
                assert client.submit(int, 1, pure=False).result(timeout=30) == 1

                pids = client.run(os.getpid, workers=[names["stops"]])
                stopped.append(psutil.Process(pids[names["stops"]]))
                stopped[-1].suspend()
                sent = client.run_on_scheduler(instruct, names["stops"])
                assert sent < TIMES, "it is told no more"
                scheduler.wait_for(r"listener on tcp://\S+: comm with tcp://\S+ closed: \d+ bytes")
                numbers = client.map(int, range(20), pure=False)
                assert client.gather(numbers) == list(range(20))
                grown = process.memory_info().rss - before
                assert grown < 60 * MiB, f"{grown / MiB:.0f} MiB of {TIMES * 3 / 2:.0f} and more"
                words = "".join(scheduler.output[told:])
                line = rf"sealwire\.comm - INFO - listener on {address}: {SLOW_CONSUMER.pattern}"
                assert len(re.findall(line, words)) == 2, words
                stats = client.run_on_scheduler(
                    lambda dask_scheduler: dask_scheduler.listeners[0].stats
                )
                assert stats.broken == {"slow-consumer": 2}

                for each in stopped:
                    each.resume()
                subscriber.wait_for(rf"result over (?!{connection}\s)")
                # With the connection it lost what it waited for, and what it asked before it knew.
                lost = [line for line in subscriber.output if line.startswith("failed")]
                assert len(lost) <= 2, lost
                assert all("FutureCancelledError" in line for line in lost), lost
                # A worker that its scheduler has given up ends, as any with stock's comms.
                assert worker.process.wait(60) is not None
                assert len(client.run(os.getpid)) == 1
                figure(f"the scheduler has grown by {grown / MiB:.0f} MiB")
    finally:
        uninstall()
        for each in stopped:
            if each.is_running():
                each.resume()
