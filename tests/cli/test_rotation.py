"""A cluster lives through renewal, a new CA and a revocation, all from the command line.

``sealwire certs`` makes what ``dask scheduler`` and ``dask worker`` are started with; while tasks
run and comms come and go, every certificate is renewed, the CA is replaced, and one worker is shut
out. No task is lost, and no process restarted.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from distributed import Client

from sealwire.dask_backend import Security
from sealwire.security.ca.authority import Authority
from sealwire.security.pem import blocks
from support import HANG
from support.certs_cli import told
from support.processes import PRELOAD, Programs

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Visitor:
    """A client with an identity that looks at a listener's certificate."""

    def __init__(self, identity: str, folder: Path) -> None:
        path = folder / f"visitor-{time.monotonic_ns()}.pem"
        path.touch(mode=0o600)
        path.write_text(identity)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE  # it wants to see, whoever shows it
        self.context.load_cert_chain(path)

    def knock(self, address: str) -> str | None:
        """The certificate that a listener shows and lets us in with; None if it refuses us."""
        host, port = address.removeprefix("tls://").rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=HANG) as plain:
            try:
                with self.context.wrap_socket(plain) as tls:
                    der = tls.getpeercert(binary_form=True)
                    tls.recv(1)  # the listener's hello, or its refusal
                    return ssl.DER_cert_to_PEM_cert(der or b"")
            except ssl.SSLError:
                return None


def until(condition: Callable[[], bool]) -> None:
    """Wait for something outside."""
    deadline = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.05)


def leaf(path: Path) -> str:
    """The first certificate of a file."""
    return blocks(path.read_text())[0].text.strip()


def first_ca(folder: Path) -> Authority:
    """The CA that the folder's newest key and certificate make."""
    return Authority.load(leaf(folder / "ca.pem"), leaf(folder / "ca-key.pem"))


def tasks() -> tuple[Callable[[int], int], Callable[..., int]]:
    """Two functions that travel by value, since no other process can import this module."""

    def step(number: int) -> int:
        time.sleep(0.01)
        return number

    def total(*numbers: int) -> int:
        """Needs its arguments from wherever they were computed."""
        return sum(numbers)

    return step, total


step, total = tasks()


async def hang_up(dask_worker: Any) -> int:
    """Close the comms that a worker keeps to its peers, so that the next task opens new ones; how
    many there were."""
    idle = sum(len(comms) for comms in dask_worker.rpc.available.values())
    dask_worker.rpc.collect()
    return idle


async def dial(address: str, dask_worker: Any) -> str:
    """Open a new comm from a worker, as it does itself; how that ends."""
    dask_worker.rpc.collect()
    try:
        comm = await dask_worker.rpc.connect(address)
    except OSError as error:
        return str(error)
    dask_worker.rpc.reuse(address, comm)
    return "welcome"


def processes(client: Client) -> dict[str, int]:
    pids: dict[str, int] = client.run(lambda: __import__("os").getpid())
    return {**pids, "scheduler": client.run_on_scheduler(lambda: __import__("os").getpid())}


class Life:
    """Work without end: each round computes, hangs up everywhere, and sees a new client."""

    def __init__(self, address: str, security: Security) -> None:
        self.address, self.security = address, security
        self.rounds = 0
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Life:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(HANG)
        assert not self._thread.is_alive(), "work got stuck"
        if self.error is not None:
            raise self.error

    def goes_on(self) -> None:
        """Wait until a round that begins now has ended."""
        before = self.rounds
        until(lambda: self.rounds >= before + 2 or self.error is not None)
        assert self.error is None, self.error

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._round()
                self.rounds += 1
        except BaseException as error:
            self.error = error

    def _round(self) -> None:
        with Client(
            self.address, security=self.security, timeout=HANG, set_as_default=False
        ) as client:
            workers = list(client.sync(client.scheduler.identity, n_workers=-1)["workers"])
            assert len(workers) == 2
            parts = [
                client.submit(step, number, pure=False, workers=[workers[number % 2]])
                for number in range(20)
            ]
            sums = [client.submit(total, *parts, pure=False, workers=[w]) for w in workers]
            assert client.gather(sums) == [190, 190]
            assert all(client.run(hang_up).values())


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, dict[str, str], Programs]]:
    """Scheduler and two workers with certificates of their own, from the written dask.yaml.

    One of them has a nanny.
    """
    with Programs(folder) as programs:
        _, address = programs.scheduler("tls", *PRELOAD)
        listeners = {"scheduler": address}
        for name, nanny in (("worker-a.lab", "--nanny"), ("worker-b.lab", "--no-nanny")):
            options = ("--tls-cert", str(folder / "certs" / f"{name}.pem"), nanny)
            worker = programs.worker(address, *PRELOAD, "--host", "127.0.0.1", *options)
            listeners[name] = worker.wait_for(r"Listening to:\s+(tls://\S+)")[1]
        yield address, listeners, programs


def test_a_cluster_outlives_its_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "certs"
    told("init")
    for name in ("a.lab", "b.lab"):
        told("issue", "worker", name, "127.0.0.1")
    config = home / "dask.yaml"
    config.write_text(config.read_text() + "    reload-interval: 100 ms\n")
    assert told("check", "certs") == []
    monkeypatch.setenv("DASK_CONFIG", str(config))

    security = Security(
        tls_ca_file=home / "ca.pem",
        tls_client_cert=home / "client.pem",
        tls_crl_file=home / "crl.pem",
        tls_reload_interval="100 ms",
    )
    visitor = Visitor((home / "client.pem").read_text(), tmp_path)
    with (
        cluster(tmp_path) as (address, listeners, programs),
        Client(address, security=security, timeout=HANG, set_as_default=False) as client,
    ):
        client.wait_for_workers(2, timeout=HANG)
        before = processes(client)

        def all_show(files: dict[str, Path]) -> bool:
            shown = {name: visitor.knock(listeners[name]) for name in files}
            return all((shown[name] or "").strip() == leaf(path) for name, path in files.items())

        def everybody(other: Visitor, welcome: bool) -> bool:
            return all((other.knock(each) is not None) == welcome for each in listeners.values())

        files = {name: home / f"{name}.pem" for name in listeners}
        assert all_show(files)
        with Life(address, security) as life:
            life.goes_on()

            said = told("renew")
            assert {each["status"] for each in said["identities"]} == {"renewed"}
            until(lambda: all_show(files))
            life.goes_on()

            old = Visitor((home / "client.pem").read_text(), tmp_path)
            told("rotate-ca")
            issued = first_ca(home).issue("client")
            visitor = Visitor(issued.certificate + issued.key, tmp_path)
            until(lambda: everybody(visitor, True))  # each has heard of the new CA
            ours = security.get_connection_args("client")["ssl_context"]
            until(lambda: len(ours.get_ca_certs()) == 2)  # so have we, on a busy machine as well
            told("renew")
            until(lambda: all_show(files))
            life.goes_on()
            told("rotate-ca", "--complete")
            until(lambda: everybody(old, False))  # and has forgotten the old one
            life.goes_on()

        assert told("check", "certs") == []
        assert processes(client) == before

        # A key is stolen while both workers are at work. Whoever shows its certificate is shut out,
        # its rightful owner too, until that has a new one; then all work comes to its end.
        owner = listeners["worker-b.lab"]
        slow = client.map(step, range(200), pure=False)
        slow[20].result(timeout=HANG)
        thief = Visitor((home / "worker-b.lab.pem").read_text(), tmp_path)
        assert thief.knock(address) is not None
        told("revoke", "worker-b.lab", "--reason", "keyCompromise")
        until(lambda: everybody(thief, False))
        assert "revoked" in client.run(dial, address, workers=[owner])[owner]
        (found,) = told("check", "certs")
        assert (found["code"], found["severity"]) == ("revoked", "note")
        needs_all = client.submit(total, *slow, pure=False, workers=[listeners["worker-a.lab"]])

        told("renew", "worker-b.lab")
        until(lambda: all_show(files))
        assert client.run(dial, address, workers=[owner])[owner] == "welcome"
        assert needs_all.result(timeout=HANG) == 19900
        assert client.gather(slow) == list(range(200))
        assert everybody(thief, False)
        assert told("check", "certs") == []
        assert processes(client) == before
        assert all(each.process.poll() is None for each in programs.started)
