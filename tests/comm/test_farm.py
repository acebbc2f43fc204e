"""The example of a task farm, in real processes: killed, poisoned and stopped."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sealwire.comm import CallRefused, EncodeError, ReconnectingClient, RemoteError
from sealwire.testing import Certificates, temporary_certificates
from support import programs
from support.aio import aio
from support.processes import Program
from support.restarting import free_port

FARM = Path(__file__).resolve().parents[2] / "examples" / "farm"


class Farm:
    """The processes of one farm."""

    def __init__(
        self, folder: Path, scheme: str, loop: str, certificates: Certificates | None
    ) -> None:
        self.folder = folder
        place = folder / "socket" if scheme == "unix" else f"127.0.0.1:{free_port()}"
        self.address = f"{scheme}://{place}"
        self.certificates = certificates
        self.patience = 0  # seconds; those of the example, unless some are given
        self._loop = loop
        self._started: list[Program] = []

    def start(self, name: str, *arguments: str, forked: bool = True) -> Program:
        """Forked by a process that has imported what they need, or as users start them."""
        path = FARM / f"{name}.py"
        if self.patience:
            text = path.read_text()
            assert text.count("ping_interval=5") == 1
            path = self.folder / path.name
            path.write_text(text.replace("ping_interval=5", f"ping_interval={self.patience}"))
        command = programs.command("script", self._loop, str(path), self.address, *arguments)
        variables = {}
        if self.certificates is not None:
            variables["DASK_CONFIG"] = str(self.certificates.folder / "dask.yaml")
        program = Program(
            command, self.folder, support=True, kind="program" if forked else None, **variables
        )
        self._started.append(program)
        return program

    def scheduler(self, *, forked: bool = True) -> Program:
        program = self.start("scheduler", "tasks", forked=forked)
        program.wait_for("scheduler at")
        return program

    def worker(self, *, forked: bool = True) -> Program:
        program = self.start("worker", "4", forked=forked)
        program.wait_for("worker")
        return program

    def end(self) -> None:
        for program in self._started:
            program.process.kill()
            program.process.wait()
            program.finish()


def kill(program: Program) -> None:
    program.process.kill()
    program.process.wait()


def stop(program: Program) -> int:
    program.process.send_signal(signal.SIGTERM)
    return program.process.wait(30)


LINKS = [("tcp", "asyncio"), ("unix", "uvloop"), ("tls", "uvloop")]
# All links carry the first test, which kills and stops; these are not about links.
plain_link = pytest.mark.parametrize("farm", [LINKS[0]], ids="-".join, indirect=True)
tls_link = pytest.mark.parametrize("farm", [LINKS[2]], ids="-".join, indirect=True)


@pytest.fixture(params=LINKS, ids="-".join)
def farm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Farm]:
    scheme, loop = request.param
    certificates = None
    with contextlib.ExitStack() as stack:
        if scheme == "tls":
            certificates = stack.enter_context(temporary_certificates())
        made = Farm(tmp_path, scheme, loop, certificates)
        stack.callback(made.end)
        yield made


def client_of(farm: Farm) -> ReconnectingClient:
    args: dict[str, Any] = {}
    if farm.certificates is not None:
        args |= farm.certificates.security().get_connection_args("client")
    return ReconnectingClient(farm.address, backoff_cap=1, **args)


async def beside(function: Callable[[Program], object], program: Program) -> object:
    return await asyncio.get_running_loop().run_in_executor(None, function, program)


@aio
async def test_no_task_is_lost_or_done_twice_unnoticed(farm: Farm) -> None:
    """Under a scheduler and a worker that are killed, and a worker that is stopped in order."""
    scheduler = farm.scheduler()
    workers = [farm.worker(), farm.worker()]
    notes = farm.folder / "notes"
    attempts = {}
    async with client_of(farm) as client:

        async def have_done(number: int) -> None:
            key = f"note-{number}"
            await client.call("submit", key, "note", str(notes), key, idempotent=True)
            kind, value, attempts[key] = await client.call("result", key, idempotent=True)
            assert (kind, value) == ("result", None)

        for round_ in range(4):
            tasks = [asyncio.ensure_future(have_done(100 * round_ + n)) for n in range(100)]
            for done in itertools.islice(asyncio.as_completed(tasks), 20):
                await done
            if round_ == 0:
                await beside(kill, scheduler)
                scheduler = farm.scheduler()
            elif round_ == 1:
                await beside(kill, workers[0])
                workers[0] = farm.worker()
            elif round_ == 2:
                assert await beside(stop, workers[1]) == 0
                workers[1] = farm.worker()
            await asyncio.gather(*tasks)
    ran = collections.Counter(notes.read_text().split())
    assert ran.keys() == attempts.keys() == {f"note-{n}" for n in range(400)}
    assert all(count <= attempts[key] for key, count in ran.items())
    assert await beside(stop, scheduler) == 0
    assert [await beside(stop, worker) for worker in workers] == [0, 0]


@plain_link
@aio
async def test_poison_is_refused_and_the_farm_goes_on(farm: Farm) -> None:
    farm.scheduler()
    farm.worker()
    async with client_of(farm) as client:
        with pytest.raises(EncodeError):
            await client.call("submit", "a", "square", object(), idempotent=True)
        with pytest.raises(CallRefused, match="no method 'sumbit'"):
            await client.call("sumbit", "a", "square", 2)
        with pytest.raises(CallRefused, match="missing 1 required"):
            await client.call("submit", "a")
        with pytest.raises(RemoteError, match="TypeError"):  # it does not fit in the file
            await client.call("submit", "b", "square", b"bytes")
        with pytest.raises(RemoteError, match="KeyError"):
            await client.call("result", "nothing")
        for key, call, why in (
            ("c", ("set", [1]), "cannot encode"),
            ("d", ("nothing",), "KeyError"),
            ("e", ("square", "a"), "TypeError"),
        ):
            await client.call("submit", key, *call)
            kind, text, attempts = await client.call("result", key, timeout=30)
            assert (kind, attempts) == ("error", 1)
            assert why in text
        await client.call("submit", "f", "square", 3)
        assert await client.call("result", "f", timeout=30) == ["result", 9, 1]


@plain_link
@aio
async def test_a_stop_lets_what_runs_finish(farm: Farm) -> None:
    scheduler = farm.scheduler()
    worker = farm.worker()
    async with client_of(farm) as client:
        for key in "abc":
            await client.call("submit", key, "sleep", 1.0, idempotent=True)
        await client.call("submit", "d", "square", 4, idempotent=True)
        results = [
            asyncio.ensure_future(client.call("result", key, idempotent=True)) for key in "abcd"
        ]
        assert await results.pop() == ["result", 16, 1]  # so those before it are being run
        assert await beside(stop, worker) == 0
        assert await asyncio.gather(*results) == [["result", None, 1]] * 3
        await client.call("submit", "e", "square", 5, idempotent=True)
        farm.worker()
        kind, value, _ = await client.call("result", "e", timeout=30, idempotent=True)
        assert (kind, value) == ("result", 25)
    assert await beside(stop, scheduler) == 0


@tls_link
@aio
async def test_the_client_of_the_example(farm: Farm) -> None:
    farm.scheduler(forked=False)
    farm.worker(forked=False)
    for _ in range(2):  # the second has everything from the file
        client = farm.start("client", "squares", "50", forked=False)
        client.wait_for(f"^{sum(n**2 for n in range(50))}$")


@tls_link
@aio
async def test_a_worker_that_is_stopped_is_as_good_as_lost(farm: Farm) -> None:
    """Its heartbeats end, and what it ran is run by another one, which the result says."""
    farm.patience = 2
    farm.scheduler()
    worker = farm.worker()
    async with client_of(farm) as client:
        await client.call("submit", "a", "sleep", 3600, idempotent=True)
        await client.call("submit", "b", "square", 2, idempotent=True)
        assert await client.call("result", "b", timeout=30, idempotent=True) == ["result", 4, 1]
        worker.process.send_signal(signal.SIGSTOP)
        await client.call("submit", "c", "square", 3, idempotent=True)
        farm.worker()
        assert await client.call("result", "c", timeout=60, idempotent=True) == ["result", 9, 2]
    tasks = (farm.folder / "tasks").read_text()
    assert tasks.count('["attempt", "a"') == 2
