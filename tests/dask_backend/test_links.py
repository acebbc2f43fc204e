"""What a process tells of its links and of the bytes on them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from distributed.protocol import to_serialize

from sealwire.dask_backend.links import links, traffic
from support.parties import Party, asynchronous, pair, turns

ARRAY = np.ones(200_000)


def grown(before: dict[str, int]) -> dict[str, int]:
    return {name: size - before[name] for name, size in traffic().items()}


@asynchronous
async def test_both_ends_of_a_link_tell_the_same(ours: Party) -> None:
    async with pair(ours) as (near, far):
        sent = await near.write({"x": to_serialize(ARRAY)})
        await far.read()
        by_local = {link["local"]: link for link in links()}
        one, other = by_local[near.local_address], by_local[far.local_address]
        assert one["peer"] == far.local_address
        assert other["peer"] == near.local_address
        assert one["bytes_out"] == other["bytes_in"] > sent
        assert one["bytes_in"] == other["bytes_out"] > 0
        for link, role in ((one, "scheduler"), (other, "client")):
            assert link["backend"] == f"sealwire.dask_backend.backend.{ours.scheme.upper()}"
            if ours.scheme == "tls":
                assert link["protocol"] == "TLSv1.3"
                assert link["cipher"] == near.extra_info["cipher"][0]
                assert link["peer_certificate"] == f"CN={role}"
            else:
                assert link["protocol"] is link["cipher"] is link["peer_certificate"] is None
    local = {link["local"] for link in links()}
    assert not local & {near.local_address, far.local_address}


@asynchronous
async def test_a_link_of_stocks_is_shown_too(make_party: Callable[..., Party]) -> None:
    async with pair(make_party("stock", "tls")) as (near, _):
        (link,) = [link for link in links() if link["local"] == near.local_address]
        assert link["backend"] == "distributed.comm.tcp.TLS"
        assert (link["protocol"], link["peer_certificate"]) == ("TLSv1.3", "CN=scheduler")
        assert link["bytes_in"] is link["bytes_out"] is None


@asynchronous
async def test_traffic_remembers_closed_links(ours: Party) -> None:
    before = traffic()
    async with pair(ours) as (near, far):
        sent = await near.write({"x": to_serialize(ARRAY)})
        await far.read()
        hellos = near.stream.bytes_in, far.stream.bytes_in - sent  # those of listeners say more
        while_open = grown(before)
    await turns()  # a stream tells of its end in the loop's next turn
    assert while_open == {"bytes_in": sent + sum(hellos), "bytes_out": sent + sum(hellos)}
    assert grown(before) == while_open
