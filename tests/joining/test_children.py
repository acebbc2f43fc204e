"""Processes that are started by one that has joined: whose identity they use."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest

from sealwire.comm.addressing import Address
from sealwire.dask_backend import membership
from sealwire.joining import JoinError, Member
from support.aio import aio
from support.joining import CA

#: what the parent is, which role the child's command needs, which tokens it is given: what it is
CASES = {
    "a nanny's worker": ("worker", "", "", "parent"),
    "a nanny's worker, with the file": ("worker", "", "file of worker", "parent"),
    "a worker's client, with the file": ("worker", "", "file of worker", "parent"),
    "dask worker of a worker": ("worker", "worker", "", "parent"),
    "dask worker of a client": ("client", "worker", "variable of worker", "worker"),
    "dask worker of a client, with a file": ("client", "worker", "file of worker", "worker"),
    "dask scheduler of a client": ("client", "scheduler", "variable of scheduler", "scheduler"),
    "dask worker of a worker, with a token": ("worker", "worker", "variable of worker", "worker"),
    "a client of a scheduler": ("scheduler", "", "variable of client", "client"),
    "dask worker of a client, without": ("client", "worker", "", "there is no token"),
}


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a process that has just started."""
    before = dict(os.environ)
    for name in ("_member", "_set", "_has"):
        monkeypatch.setattr(membership, name, None)
    monkeypatch.setattr(membership, "_role", "")
    with dask.config.set(dict(dask.config.config)):
        yield
        membership.end()
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("child")
@aio
async def test_whose_identity_a_child_uses(ca: CA, case: str, tmp_path: Path) -> None:
    parent_is, needs, given, becomes = CASES[case]

    def parent(address: Address) -> Member:
        return Member.join(address, ca.token(parent_is), node="a", patience=5)

    async with ca.service() as address:
        member = await asyncio.to_thread(parent, address)
        told: Any = (parent_is, member.paths, member.joined.lifetime)
        os.environ.update(SEALWIRE_JOIN=f"{address.host}:{address.port}",
                          SEALWIRE_JOINED=json.dumps(told))  # fmt: skip
        kind, _, role = given.partition(" of ")
        if kind == "variable":
            os.environ["SEALWIRE_TOKEN"] = ca.token(role).text()
        elif kind == "file":
            (tmp_path / "token").write_text(ca.token(role).text())
            (tmp_path / "token").chmod(0o600)
            os.environ["SEALWIRE_TOKEN_FILE"] = str(tmp_path / "token")
        membership.expect(needs)
        if becomes == "there is no token":
            with pytest.raises(JoinError, match=becomes):
                await asyncio.to_thread(membership.begin)
            return
        await asyncio.to_thread(membership.begin)
        assert membership.joined_as() == (parent_is if becomes == "parent" else becomes)
        own = membership.member()
        assert (own is None) == (becomes == "parent")
        path = dask.config.get("distributed.comm.tls.ca-file")
        assert path == (own or member).paths["ca.pem"]
        member.stop()
