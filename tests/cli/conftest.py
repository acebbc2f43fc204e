"""Fixtures for the command line's tests; evidence of a good demo, for those that spoil it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealwire.cli.demo.computations import Array, Words
from sealwire.cli.demo.observations import Link, Process
from sealwire.cli.demo.unauthorized import FRIEND, VISITORS, Attempt
from sealwire.cli.demo.verdict import Evidence
from sealwire.dask_backend import install, installed, uninstall
from support import listeners
from support.certs_cli import request, run

LISTENERS = {
    "scheduler": "tls://127.0.0.1:8786",
    "worker-0 nanny": "tls://127.0.0.1:9000",
    "worker-0": "tls://127.0.0.1:9001",
    "worker-1 nanny": "tls://127.0.0.1:9002",
    "worker-1": "tls://127.0.0.1:9003",
}


def link(local: str, peer: str, names: str, bytes_in: int, bytes_out: int) -> Link:
    return Link(
        backend="sealwire.dask_backend.backend.TLS",
        local=local,
        peer=peer,
        protocol="TLSv1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        peer_certificate=names,
        bytes_in=bytes_in,
        bytes_out=bytes_out,
    )


@pytest.fixture
def registry() -> Iterator[None]:
    """Leave distributed's registry as it was."""
    before = installed()
    yield
    (install if before else uninstall)()


@pytest.fixture
def here(tmp_path: Path) -> listeners.Here:
    """Options that name an identity, the client's if none is given, and the CA."""
    return functools.partial(listeners.options, tmp_path)


@pytest.fixture
def evidence() -> Evidence:
    """What a good demo with two workers observes: everybody dials the scheduler, worker-0 dials
    worker-1, and the scheduler dials the nannies."""
    links: dict[str, list[Link]] = {name: [] for name in [*LISTENERS, "client"]}
    dialled = [
        ("client", "scheduler"),
        ("worker-0", "scheduler"),
        ("worker-1", "scheduler"),
        ("worker-0", "worker-1"),
        ("scheduler", "worker-0 nanny"),
        ("scheduler", "worker-1 nanny"),
    ]

    def role(name: str) -> str:
        return name.partition("-")[0]

    def subject(name: str) -> str:
        node = name.partition(" ")[0]
        return f"CN={role(name)}" + (f", CN={node}" if node.startswith("worker") else "")

    for port, (dialler, listener) in enumerate(dialled, 40000):
        near, far = f"tls://127.0.0.1:{port}", LISTENERS[listener]
        links[dialler].append(link(near, far, subject(listener), 3_000_000, 5_000))
        links[listener].append(link(far, near, subject(dialler), 5_000, 3_000_000))
    processes = tuple(
        Process(
            role="nanny" if name.endswith("nanny") else role(name),
            name=name,
            address=LISTENERS.get(name),
            pid=pid,
            installed=True,
            links=tuple(found),
            bytes_in=6_000_000,
            bytes_out=6_000_000,
        )
        for pid, (name, found) in enumerate(links.items(), 1001)
    )
    attempts = tuple(
        Attempt(visitor, address, "let in" if visitor == FRIEND else "refused", "words of it")
        for address in LISTENERS.values()
        for visitor in VISITORS
    )
    return Evidence(
        workers=2,
        words=Words(
            files=3,
            size=9_000,
            distinct=40,
            total=700,
            total_again=700,
            top=(("self", 90), ("[b]", 50)),
            top_again=90,
        ),
        array=Array(
            side=2048,
            blocks=16,
            block_bytes=2_097_152,
            total=12_345,
            total_again=12_345,
            wrong_rows=0,
        ),
        processes=processes,
        attempts=attempts,
        answers=True,
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: in it certs, as `init` makes it, and a request."""
    monkeypatch.chdir(tmp_path)
    assert run("init").exit_code == 0
    request(tmp_path / "node8.csr")
    return tmp_path
