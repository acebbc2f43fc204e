"""A worker that its scheduler refuses says why, dials slowly, and misses no scheduler."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest
from distributed import Scheduler, Worker
from distributed.comm import connect
from distributed.comm.core import CommClosedError, FatalCommClosedError

from sealwire.comm import errors
from sealwire.dask_backend import Security, refusals
from support.kernel import free_port
from support.parties import HANG, Party, asynchronous, echo

MakeParty = Callable[..., Party]
ANYWHERE = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}


@pytest.fixture(autouse=True)
def _nothing_said() -> None:
    refusals.forget()


def final(words: str = "no") -> FatalCommClosedError:
    error = FatalCommClosedError(words)
    error.__cause__ = errors.HandshakeError(words)
    return error


@asynchronous
async def test_pauses_grow_and_are_forgotten() -> None:
    naps: list[float] = []
    outcomes: list[Any] = []

    async def dial(address: str) -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return str(outcome)

    async def nap(seconds: float) -> None:
        naps.append(seconds)

    patient = refusals.patient(dial)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "sleep", nap)
        for _ in range(12):
            outcomes.append(final())
            with pytest.raises(FatalCommClosedError):
                await patient("tls://here:1")
        assert len(naps) == 12
        expected = [min(0.5 * 2**attempt, 30.0) for attempt in range(12)]
        for each, longest in zip(naps, expected, strict=True):
            assert longest / 2 <= each <= longest
        assert len(set(naps)) == 12  # by chance, so that a thousand workers do not come at once
        naps.clear()
        stopped = FatalCommClosedError("it listens no longer")
        stopped.__cause__ = errors.CommClosedError("refused")
        for passing in (CommClosedError("lost"), OSError("timed out"), stopped, "joined"):
            outcomes += [final(), passing, final()]
            with pytest.raises(FatalCommClosedError):
                await patient("tls://here:1")
            if passing == "joined":
                assert await patient("tls://here:1") == "joined"
            else:
                with pytest.raises(type(passing)):
                    await patient("tls://here:1")
            naps.clear()
            with pytest.raises(FatalCommClosedError):
                await patient("tls://here:1")
            (first,) = naps
            assert first <= 0.5


@asynchronous
async def test_a_worker_says_why_and_joins_as_soon_as_it_may(
    material: dict[str, str],
    foreign_material: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    """Its scheduler comes back with a certificate of its CA, at the same port."""
    monkeypatch.setattr(refusals, "_LONGEST_PAUSE", 1.0)
    caplog.set_level(logging.INFO)
    good = Security(**material)
    async with Scheduler(security=Security(**foreign_material), port=0, **ANYWHERE) as scheduler:
        address = scheduler.address
        worker = Worker(
            address, security=good, nthreads=1, local_directory=str(tmp_path), **ANYWHERE
        )
        joining = asyncio.ensure_future(worker.start())
        listener = scheduler.listeners[0]
        while sum(listener.stats.refused.values()) < 4:
            await asyncio.sleep(0.05)
    said = [each for each in caplog.records if each.levelno == logging.WARNING]
    said = [each.getMessage() for each in said if each.name == "sealwire.dask_backend"]
    assert len([words for words in said if "we refused its certificate" in words]) == 1, said
    assert f"cannot connect to {address}: TLS handshake with" in said[0]
    port = int(address.rpartition(":")[2])
    async with Scheduler(security=good, port=port, **ANYWHERE) as again:
        await asyncio.wait_for(joining, HANG / 2)
        assert list(again.workers) == [worker.address]
        await worker.close()


def test_a_line_for_each_address_and_cause(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(refusals.time, "monotonic", lambda: now[0])
    for address, cause, expected in [
        ("tls://a:1", "revoked", 1),
        ("tls://a:1", "revoked", 1),
        ("tls://b:1", "revoked", 2),
        ("tls://a:1", "expired", 3),
        ("tls://b:1", "revoked", 3),
    ]:
        refusals.tell(address, cause, f"{address} {cause}")
        assert len(caplog.records) == expected
    now[0] += 60
    refusals.tell("tls://a:1", "revoked", "again")
    assert len(caplog.records) == 4
    assert {each.levelno for each in caplog.records} == {logging.WARNING}


@asynchronous
async def test_what_passes_is_no_warning(
    make_party: MakeParty, caplog: pytest.LogCaptureFixture, scheme: str
) -> None:
    party = make_party("ours", scheme)
    async with party.listen(echo) as listener:
        address = listener.contact_address
    with pytest.raises(OSError, match="Timed out"):
        await party.connect(address, timeout=0.3)
    assert not [each for each in caplog.records if "cannot connect" in each.getMessage()]


@asynchronous
async def test_a_worker_says_what_it_waits_for(
    material: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of it is final: the scheduler may be about to start."""
    dial = refusals.patient(connect)
    arguments = Security(**material).get_connection_args("worker")
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # the one that it has room for
            for address, words in (
                (f"tls://127.0.0.1:{free_port()}", "connection refused; check that a listener"),
                (f"tls://127.0.0.1:{port}", "Timed out trying to connect"),
            ):
                caplog.clear()
                for _ in range(2):
                    with pytest.raises(OSError, match="Timed out"):
                        await dial(address, timeout=0.3, **arguments)
                said = [each.getMessage() for each in caplog.records if each.levelno > logging.INFO]
                assert len(said) == 1, said
                assert said[0].startswith(f"cannot connect to {address} yet: {words}")
                assert said[0].count("cannot connect") == 1
