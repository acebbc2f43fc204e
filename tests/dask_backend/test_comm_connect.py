"""Connecting: what is refused, how long it takes, and what a peer's first words can do."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from distributed import protocol
from distributed.comm.core import CommClosedError, FatalCommClosedError
from distributed.comm.registry import get_backend
from distributed.protocol import to_serialize
from distributed.protocol.serialize import ToPickle

from sealwire.dask_backend import connectors
from support.parties import Party, accepted, asynchronous, dialled, echo, pair, select, turns
from support.rawpeer import OFFER, Forwarder, Recorder, dialling, first_block, hello, packed

VERSIONS = ["1.2", "1.3"]
MakeParty = Callable[..., Party]

# Before any I/O


@asynchronous
async def test_plain_is_refused_where_encryption_is_required(
    kind: str, make_party: MakeParty
) -> None:
    party = make_party(kind, "tcp")
    async with Recorder(hello()) as server:
        with pytest.raises(RuntimeError, match="encryption required by Dask") as caught:
            await party.connect(server.address, require_encryption=True)
        assert server.address in str(caught.value)
        assert server.accepted == 0
    with pytest.raises(RuntimeError, match="encryption required by Dask") as caught:
        party.listen(echo, require_encryption=True)
    assert "tcp://127.0.0.1:0" in str(caught.value)


@asynchronous
async def test_tls_without_a_context_is_a_mistake(kind: str, make_party: MakeParty) -> None:
    party = make_party(kind, "tls")
    async with Recorder(hello()) as server:
        with pytest.raises(TypeError, match="ssl_context"):
            await party.connect(server.address.replace("tcp", "tls"), ssl_context=None)
        assert server.accepted == 0
    with pytest.raises(TypeError, match="ssl_context"):
        party.listen(echo, ssl_context=None)


# Time


@asynchronous
async def test_an_address_without_a_listener_is_tried_until_the_timeout(party: Party) -> None:
    async with Recorder(None) as server:
        port = server.port
    with pytest.raises(OSError, match=r"Timed out trying to connect to t.*0\.3"):
        await party.connect(f"{party.scheme}://127.0.0.1:{port}", timeout=0.3)
    assert not dialled(port)
    connector = get_backend(party.scheme).get_connector()
    args = party.security.get_connection_args("client")
    with pytest.raises(CommClosedError, match=r"(?i)connection refused"):  # one attempt of them
        await connector.connect(f"127.0.0.1:{port}", **args)


@asynchronous
async def test_a_silent_server_does_not_hold_us(ours: Party) -> None:
    """The timeout covers TLS and the hello, which stock waits for without end."""
    loop = asyncio.get_running_loop()
    async with Recorder(None) as server:
        start = loop.time()
        with pytest.raises(OSError, match="Timed out"):
            await ours.connect(server.address.replace("tcp", ours.scheme), timeout=0.5)
        assert 0.4 < loop.time() - start < 10
        assert not dialled(server.port)


@asynchronous
async def test_a_cancelled_connect_leaves_nothing_open(ours: Party) -> None:
    """In the handshake over tls, in the hello over tcp."""
    async with Recorder(None) as server:
        connecting = asyncio.ensure_future(
            ours.connect(server.address.replace("tcp", ours.scheme), timeout=30)
        )
        await server.arrived.wait()
        await turns()
        assert len(dialled(server.port)) == 1
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        del connecting  # before Python 3.11 it has the error, whose traceback has the connector
        await turns()  # what closes it is a finalizer, and asks the loop to
        assert not dialled(server.port)


@asynchronous
async def test_a_silent_client_is_dropped(ours: Party) -> None:
    with dask.config.set({"sealwire.limits.handshake-timeout": "300 ms"}):
        async with ours.listen(echo) as listener, dialling(listener.contact_address) as (reader, _):
            sent = await reader.read()  # returns when the listener closes
            assert bool(sent) == (ours.scheme == "tcp")  # the hello


@asynchronous
async def test_stop_gives_up_on_those_in_the_handshake(ours: Party) -> None:
    listener = ours.listen(echo)
    await listener.start()
    async with dialling(listener.contact_address) as (reader, _):
        if ours.scheme == "tcp":
            await first_block(reader)
        else:
            async with dialling(listener.contact_address) as (later_reader, later):
                later.write(b"not TLS" * 10)
                await later_reader.read()  # dealt with, so the first one has been accepted too
        port = listener.get_host_port()[1]
        assert accepted(port)
        listener.stop()
        listener.abort_handshaking_comms()
        assert not accepted(port)
        assert await reader.read() == b""


# Certificates


def parties_that_disagree(
    who: str,
    version: str,
    server_kind: str,
    make_party: MakeParty,
    foreign_material: dict[str, str],
) -> tuple[Party, Party]:
    """A client of ours and a server, of which `who` has a certificate that the other refuses.

    The other way round the certificates are good: only one side has a reason to refuse.
    """
    client_fields: dict[str, Any] = {"tls_max_version": float(version)}
    server_fields: dict[str, Any] = {}
    if who == "client":
        for part in ("cert", "key"):
            client_fields[f"tls_client_{part}"] = foreign_material[f"tls_client_{part}"]
    else:
        for part in ("cert", "key"):
            server_fields[f"tls_scheduler_{part}"] = foreign_material[f"tls_scheduler_{part}"]
    return (
        make_party("ours", "tls", **client_fields),
        make_party(server_kind, "tls", **server_fields),
    )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("who", ["client", "server"])
@asynchronous
async def test_a_certificate_of_another_ca_ends_connect_at_once(
    who: str, version: str, kind: str, make_party: MakeParty, foreign_material: dict[str, str]
) -> None:
    """In TLS 1.3 too, where a client learns only afterwards that it was refused."""
    client, server = parties_that_disagree(who, version, kind, make_party, foreign_material)
    async with server.listen(echo) as listener, Forwarder(listener.contact_address) as forwarder:
        with pytest.raises(FatalCommClosedError, match=r"TLS handshake with tls://.*CA") as caught:
            await client.connect(forwarder.address)
        assert forwarder.count == 1
        assert ("refused our certificate" if who == "client" else "we refused its") in str(
            caught.value
        )
        assert not dialled(forwarder.port)
        good = make_party("ours", "tls")
        if who == "client":
            await (await good.connect(forwarder.address)).close()


@asynchronous
async def test_no_version_in_common_ends_connect_at_once(make_party: MakeParty) -> None:
    old, new = make_party("ours", "tls", tls_max_version=1.2), make_party("ours", "tls")
    listen_args = make_party("ours", "tls", tls_min_version=1.3).security.get_listen_args("worker")
    async with (
        new.listen(echo, **listen_args) as listener,
        Forwarder(listener.contact_address) as forwarder,
    ):
        with pytest.raises(FatalCommClosedError, match="TLS version"):
            await old.connect(forwarder.address)
        assert forwarder.count == 1


@asynchronous
async def test_a_server_that_speaks_plain_is_named(make_party: MakeParty) -> None:
    async with make_party("ours", "tcp").listen(echo) as listener:
        address = listener.contact_address.replace("tcp", "tls")
        with pytest.raises(FatalCommClosedError, match="does not speak TLS; use tls://"):
            await make_party("ours", "tls").connect(address)


@asynchronous
async def test_a_client_that_speaks_plain_is_named(
    make_party: MakeParty, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sealwire")
    async with (
        make_party("ours", "tls").listen(_unreachable) as listener,
        dialling(listener.contact_address) as (reader, writer),
    ):
        writer.write(hello())
        await reader.read()
    (record,) = [each for each in caplog.records if each.name == "sealwire.comm"]
    assert "does not speak TLS" in record.getMessage()
    assert record.exc_info is None


@asynchronous
async def test_the_log_says_what_a_silence_may_mean(
    make_party: MakeParty, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing answers in any language."""
    monkeypatch.setattr(connectors, "_SILENCE", 0.01)
    async with Recorder(None) as server:
        with pytest.raises(OSError, match="Timed out"):
            await make_party("ours", "tcp").connect(server.address, timeout=0.5)
        assert not dialled(server.port)
    hint = caplog.records[0].getMessage()
    assert f"connected to {server.address}, which has said nothing" in hint
    assert "a tls:// listener is silent to tcp://" in hint


@pytest.mark.parametrize(
    "given",
    [
        {"server_hostname": "scheduler.lab"},
        {"extra_conn_args": {"server_hostname": "scheduler.lab"}},
    ],
)
@asynchronous
async def test_the_server_is_asked_for_by_name(
    given: dict[str, Any], make_party: MakeParty
) -> None:
    client, server = make_party("ours", "tls"), make_party("stock", "tls")
    asked: list[str | None] = []
    select("stock")  # whose contexts are not sealed
    context = server.security.get_listen_args("scheduler")["ssl_context"]
    context.sni_callback = lambda _, name, __: asked.append(name)
    listen_args = {"ssl_context": context}
    for connect_args in (given, {}):
        async with pair(client, server, listen_args=listen_args, connect_args=connect_args):
            pass
    assert asked == ["scheduler.lab", None]


# The hello


class Armed:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def hostile(path: Path) -> dict[str, list[Any]]:
    """First messages that would make `path`, if they were read as messages."""
    armed = Armed(path)
    return {
        "pickled marker": protocol.dumps({**OFFER, "x": ToPickle(armed)}),
        "serialized marker": protocol.dumps({**OFFER, "x": to_serialize(armed)}),
        "marker alone": protocol.dumps(ToPickle(armed)),
        "pickled key": protocol.dumps({**OFFER, "compression": ToPickle(armed)}),
    }


HOSTILE = list(hostile(Path("unused")))
HARMLESS = {
    "a pickle": [pickle.dumps(OFFER)],
    "a marker that points nowhere": protocol.dumps({"__Pickled__": 1}),
    "a list": protocol.dumps([1, 2]),
    "no map": protocol.dumps(5),
    "an array": protocol.dumps({"x": to_serialize(np.arange(10))}),
    "no msgpack": [b"\xc1\xc1\xc1"],
}


@pytest.mark.parametrize("name", HOSTILE)
@asynchronous
async def test_a_hello_runs_nothing(name: str, make_party: MakeParty, tmp_path: Path) -> None:
    path = tmp_path / "made"
    frames = hostile(path)[name]
    protocol.loads(frames)
    assert path.exists(), "the message is not armed"
    path.unlink()
    await refuses(make_party("ours", "tcp"), packed(frames))
    assert not path.exists()


@pytest.mark.parametrize("name", HARMLESS)
@asynchronous
async def test_a_bad_hello_ends_the_comm(name: str, make_party: MakeParty) -> None:
    frames = HARMLESS[name]
    await refuses(make_party("ours", "tcp"), packed(frames))


async def refuses(party: Party, first_words: bytes) -> None:
    """Neither connect() nor a listener accepts these bytes as a hello; both go on."""
    async with Recorder(first_words) as server:
        with pytest.raises(FatalCommClosedError, match="bad hello"):
            await party.connect(server.address)
        await turns()
        assert server.accepted == 1
        assert not dialled(server.port)
    async with (
        party.listen(_unreachable) as listener,
        dialling(listener.contact_address) as (reader, writer),
    ):
        writer.write(first_words)
        await first_block(reader)
        assert await reader.read() == b""


async def _unreachable(comm: Any) -> None:
    raise AssertionError(f"a handler got {comm}")


@pytest.mark.parametrize(
    "offer",
    [{}, {"pickle-protocol": "five", "compression": None}, {"pickle-protocol": 5}],
)
@asynchronous
async def test_an_incomplete_hello_is_refused_in_one_line(
    offer: dict[str, Any], make_party: MakeParty, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sealwire")
    async with (
        make_party("ours", "tcp").listen(_unreachable) as listener,
        dialling(listener.contact_address) as (reader, writer),
    ):
        writer.write(packed(protocol.dumps(offer)))
        await first_block(reader)
        assert await reader.read() == b""
    (record,) = caplog.records
    assert "bad hello from tcp://127.0.0.1:" in record.getMessage()
    assert record.levelno == logging.INFO
    assert record.exc_info is None


@asynchronous
async def test_a_message_cut_short_closes_the_comm(kind: str, make_party: MakeParty) -> None:
    """Fewer bytes than its pickle needs, well framed: as after a sender's mistake."""
    arrived: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def keep(comm: Any) -> None:
        arrived.set_result(comm)

    async with (
        make_party(kind, "tcp").listen(keep) as listener,
        dialling(listener.contact_address) as (reader, writer),
    ):
        *frames, _ = protocol.dumps({"x": to_serialize({1, 2})})
        writer.write(hello() + packed([*frames, b""]))
        comm = await arrived
        with pytest.raises(CommClosedError, match=r"truncated|cut short"):
            await comm.read()
        assert comm.closed()
        await first_block(reader)
        assert await reader.read() == b""
