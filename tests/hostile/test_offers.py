"""What a hello offers: values that no peer of distributed's says are refused in a line."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from distributed.comm.core import Comm

from sealwire.comm import HelloError
from sealwire.comm.wire import hello
from support import attacker
from support.attacker import packed
from support.target import Target, check

GOOD = {"compression": None, "python": (3, 11, 7), "pickle-protocol": 5}
DEEP: Any = 1
for _ in range(12):
    DEEP = [DEEP]
ODD = [True, False, -1, 0, -(2**63), 1.0, float("nan"), float("inf"), "5", "", b"5", (), [5], {}]
ODD += [{"a": 1}, DEEP, msgpack.Timestamp(1), msgpack.ExtType(1, b"5"), "x" * 50_000]
BAD = {
    "pickle-protocol": [*ODD, None],
    "compression": [each for each in ODD if type(each) is not str] + [1, 2**64 - 1],
    "python": [*ODD, None, 3, "3.11", (3, True), (3, 1.5), ("3", "11"), (1,) * 50, ([3], 11)],
}
BAD["python"].remove([5])
TABLE = [(name, value) for name, values in BAD.items() for value in values]
OTHERS = [
    {**GOOD, "pickle-protocol": 2**64 - 1},
    {**GOOD, "pickle-protocol": 1},
    {**GOOD, "compression": "no such"},
    {**GOOD, "compression": "x" * 50_000},
    {**GOOD, "address": [[5]], "remote_info": 1, "python": (3,)},
    {**GOOD, b"x": 4, "compression": "lz4"},
]


@pytest.mark.parametrize("name", GOOD)
def test_what_distributed_reads_must_be_there(name: str) -> None:
    offered = {key: value for key, value in GOOD.items() if key != name}
    words = f"bad hello from tcp://a:1: no {name} in a map of 2 keys"
    with pytest.raises(HelloError, match=words) as raised:
        hello.decode([msgpack.packb(offered)], "tcp://a:1")
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(("name", "value"), TABLE)
def test_an_unknown_value_is_refused(name: str, value: Any) -> None:
    words = f"bad hello from tcp://a:1: {name} is .*, need a?.*; check what listens on that port"
    with pytest.raises(HelloError, match=words) as raised:
        hello.decode([msgpack.packb({**GOOD, name: value})], "tcp://a:1")
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("offered", OTHERS)
def test_what_is_taken_is_of_use_to_distributed(offered: dict[Any, Any]) -> None:
    taken = hello.decode([msgpack.packb(offered)], "tcp://a:1")
    for protocol in (4, 5):
        agreed = Comm.handshake_configuration({**GOOD, "pickle-protocol": protocol}, taken)
        assert type(agreed["pickle-protocol"]) is int
        assert 1 <= agreed["pickle-protocol"] <= protocol
        assert agreed["compression"] is None


def test_a_listener_says_so_in_a_line_each_and_goes_on() -> None:
    with Target("dask", "tcp", max_log_lines=1000) as target:
        good = attacker.enter(target.address)
        for name, value in TABLE:
            sock = attacker.dial(target.address)
            sock.sendall(packed({**GOOD, name: value}))
            attacker.receive(sock)
            check(attacker.ended(sock) == b"", "more than its hello")
            sock.close()
        for offered in OTHERS:
            sock = attacker.enter(target.address, hello=packed(offered))
            attacker.ping(sock)
            sock.close()
        attacker.ping(good)
        target.until_stats(refused={"hello": len(TABLE)})
        check(target.log().count("bad hello") == len(TABLE), target.log())
        check("Traceback" not in target.log(), target.log())
        check(target.ask("held") < 0.5, "the loop was held")
        good.close()
