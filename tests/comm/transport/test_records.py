"""Large frames received with the GIL held: what `ssl` gives, byte for byte, word for word."""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import logging
import os
import random
import ssl
import statistics
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter, thread_time
from typing import Any

import pytest

from sealwire.comm import Comm, configure_gil
from sealwire.comm.transport import openssl, records, switch_interval
from sealwire.comm.transport.channel import Channel, secure
from sealwire.comm.transport.records import RECORD
from support.aio import aio
from support.doings import DOINGS, PLAIN, data, end, nothing
from support.handshakes import VERSIONS
from support.links import pair
from support.recordlink import RecordLink

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere it may be linked in another way"
)

RECORDS = 1_000_000 if os.environ.get("SEALWIRE_HOSTILE") == "full" else 1_500

versions = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
sides = pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])


@pytest.fixture(autouse=True)
def no_link_is_left() -> Iterator[None]:
    yield
    RecordLink.close_all()


@pytest.fixture
def hold_gil() -> Iterator[Callable[[bool], None]]:
    """Says whether connections that are opened from now on hold it."""
    before = switch_interval.policy()
    yield lambda hold: configure_gil(*before._replace(hold_tls=hold))
    configure_gil(*before)


def channel_of(link: RecordLink, held: bool) -> Channel:
    """Of one path or the other."""
    before = switch_interval.policy()
    configure_gil(*before._replace(hold_tls=held))
    try:
        channel = secure(link.near)
    finally:
        configure_gil(*before)
    assert channel.holds_gil is held
    return channel


def told_by(error: BaseException) -> tuple[Any, ...]:
    """All that there is to an error."""
    assert isinstance(error, OSError)
    return type(error), error.args, error.errno, str(error), vars(error)


def fill(channel: Channel, room: int) -> tuple[bytes, Any]:
    """What one call receives, and what it returns or raises."""
    target = bytearray(room)
    noted: list[int] = []
    with memoryview(target) as view:
        try:
            outcome: Any = channel.fill(view, noted.append)
        except OSError as error:
            outcome = told_by(error)
        else:
            assert outcome[0] == noted[0]
    assert len(noted) == 1
    if left_in_queue():  # of `ssl` itself, when a connection that was reset is read again
        assert outcome[0] is BrokenPipeError
        assert ssl.OPENSSL_VERSION_INFO >= (3, 2)
    assert not any(target[noted[0] :])  # the rest was left alone
    return bytes(target[: noted[0]]), outcome


def fill_until_end(channel: Channel, room: int = 4 * RECORD) -> list[tuple[bytes, Any]]:
    """Each call until there is no more, up to the third that brings nothing."""
    calls: list[tuple[bytes, Any]] = []
    empty = 0
    while empty < 3:
        calls.append(fill(channel, room))
        empty += not calls[-1][0]
        assert len(calls) < 1000
    return calls


def queue_is_empty() -> bool:
    peek = ctypes.PyDLL(_ssl.__file__).ERR_peek_error
    peek.restype = ctypes.c_ulong
    return not peek()


def left_in_queue() -> list[int]:
    """Take what is in OpenSSL's queue of errors."""
    take = ctypes.PyDLL(_ssl.__file__).ERR_get_error
    take.restype = ctypes.c_ulong
    return list(iter(take, 0))


@pytest.mark.parametrize("doing", DOINGS, ids=lambda doing: doing.__name__)
@sides
@versions
def test_whatever_the_peer_does_both_paths_tell_the_same(
    version: ssl.TLSVersion, server_side: bool, doing: Callable[[RecordLink], None]
) -> None:
    """Bytes, errors with all they say, what comes of asking again; and what the peer is told."""
    told = []
    for held in (False, True):
        link = RecordLink(version, server_side)
        channel = channel_of(link, held)
        doing(link)
        calls = fill_until_end(channel)
        pending = channel.pending()
        link.near.close()
        answer = link.hear_all() if link.far.fileno() >= 0 else b""
        told.append((calls, pending, [len(answer), answer[:5]]))
    assert told[0] == told[1]


def test_the_doings_are_worth_it() -> None:
    """Each kind of end is among them, not two names for one."""
    seen = set()
    for doing in DOINGS:
        link = RecordLink(ssl.TLSVersion.TLSv1_3)
        doing(link)
        for _, outcome in fill_until_end(channel_of(link, held=True)):
            seen.add(outcome[0] if isinstance(outcome[0], type) else outcome)
            seen.add(outcome[-1].get("reason") if isinstance(outcome[-1], dict) else None)
    assert {ssl.SSLWantReadError, ssl.SSLEOFError, ssl.SSLError, (0, 0)} <= seen
    assert "SSLV3_ALERT_BAD_RECORD_MAC" in seen
    assert {"DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "RECORD_LAYER_FAILURE"} & seen  # since 3.2
    assert {"WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING"} & seen


@versions
def test_a_stale_error_of_somebody_elses_is_not_ours(version: ssl.TLSVersion) -> None:
    """OpenSSL keeps errors per thread until they are taken out."""
    link = RecordLink(version)
    channel = channel_of(link, held=True)
    put = ctypes.PyDLL(_ssl.__file__).BIO_new_mem_buf
    put(None, -1)  # an error: null parameter
    assert not queue_is_empty()
    assert fill(channel, RECORD)[1][0] is ssl.SSLWantReadError
    assert queue_is_empty()
    data(link)
    assert fill(channel, 6 * RECORD)[0] == PLAIN[: 5 * RECORD + 123]


@pytest.mark.parametrize("held", [False, True], ids=["ssl", "held"])
@versions
def test_records_of_any_size_cut_anywhere(version: ssl.TLSVersion, held: bool) -> None:
    """Into room of any size: what arrives is what was sent."""
    chance = random.Random(f"{version}{held}")
    link = RecordLink(version)
    channel = channel_of(link, held)
    sent = received = 0
    wire = bytearray()
    expected = bytearray()
    target = bytearray(1 << 19)
    while received < RECORDS:
        if sent < RECORDS and len(wire) < 1 << 17:
            most = chance.choice([512, 700, 4096, RECORD - 1, RECORD, RECORD])
            link.fragments_of(most)
            several = chance.randint(1, 8)
            size = chance.choice(
                [chance.randint(1, 64), chance.randint(1, several * most), several * most]
            )
            start = chance.randint(0, len(PLAIN) - size)
            wire += link.encrypted(memoryview(PLAIN)[start : start + size])
            expected += memoryview(PLAIN)[start : start + size]
            sent += -(-size // most)
            if version is ssl.TLSVersion.TLSv1_3 and chance.random() < 0.01:
                link.encrypted(b"")
        cut = chance.choice([1, 5, chance.randint(1, 2000), 1 << 16, 1 << 17])
        if wire:
            with contextlib.suppress(BlockingIOError):
                del wire[: link.far.send(wire[:cut])]
        if chance.random() < 0.6:
            room = chance.choice(
                [chance.randint(1, 100), chance.randint(1, 1 << 19), 4 * RECORD, RECORD, RECORD + 1]
            )
            for _ in range(chance.randint(1, 4)):
                with memoryview(target)[:room] as view:
                    try:
                        size, last = channel.fill(view, int)
                    except ssl.SSLWantReadError:
                        break
                    assert 0 <= last <= size
                    assert view[:size] == memoryview(expected)[:size]
                del expected[:size]
        if sent >= RECORDS and not wire and not expected:
            received = sent


def test_the_turn_follows_the_speed() -> None:
    """Of the CPU and the cipher: less than a millisecond of this thread's time, within bounds."""
    link = RecordLink(ssl.TLSVersion.TLSv1_3)
    channel = channel_of(link, held=True)
    filler = channel.fill.__self__  # type: ignore[attr-defined]
    took = []
    target = bytearray(1 << 20)
    wire = b""
    for _ in range(300):
        wire = wire or link.encrypted(PLAIN)
        with contextlib.suppress(BlockingIOError):
            wire = wire[link.far.send(wire) :]
        turn = filler._turn
        assert records._FEWEST <= turn <= records._MOST
        assert turn % RECORD == 0
        began = thread_time()
        with contextlib.suppress(ssl.SSLWantReadError):
            size, _ = channel.fill(memoryview(target), int)
            assert size <= turn
            took.append((thread_time() - began) / size * turn)
    assert len(took) > 100
    assert statistics.median(took) < 1e-3


def test_nobody_is_waited_for_within_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a thread that computes, `ssl` waits for the switch interval, if not for several."""
    interval = 0.02
    records_in_a_turn = 8
    monkeypatch.setattr(records, "_FEWEST", records_in_a_turn * RECORD)
    over = False

    def compute() -> None:
        while not over:
            pass

    took: dict[bool, list[float]] = {False: [], True: []}
    target = bytearray(records_in_a_turn * RECORD)
    links = {held: RecordLink(ssl.TLSVersion.TLSv1_3) for held in took}
    channels = {held: channel_of(link, held) for held, link in links.items()}
    thread = threading.Thread(target=compute)
    before = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    try:
        thread.start()
        # The thread has to be awake within the microseconds in which `ssl` leaves the GIL to it,
        # which on a busy machine it may fail to be thousands of times in a row.
        given_up = perf_counter() + 60
        while len(took[True]) < 5 or (max(took[False]) < interval and perf_counter() < given_up):
            for held, link in links.items():
                link.say(PLAIN[: len(target)])
                began = perf_counter()
                channels[held].fill(memoryview(target), int)
                took[held].append(perf_counter() - began)
                assert target == PLAIN[: len(target)]
    finally:
        over = True
        thread.join()
        sys.setswitchinterval(before)
    assert max(took[False]) > interval
    assert statistics.median(took[True]) < interval


@aio
async def test_a_comm_holds_it_unless_told_otherwise(hold_gil: Callable[[bool], None]) -> None:
    for hold in (True, False):
        hold_gil(hold)
        async with pair("tls") as (near, far):
            await exchange(near, far)
            assert near.extra_info["holds_gil"] is far.extra_info["holds_gil"] is hold
    async with pair("tcp") as (near, _):
        assert "holds_gil" not in near.extra_info


async def exchange(near: Comm, far: Comm) -> None:
    import asyncio

    for size in (1, 70_000, 1 << 20, (5 << 20) + 1):
        message = {"data": bytearray(PLAIN * (size // len(PLAIN) + 1))[:size]}
        _, received = await asyncio.gather(near.write(message), far.read())
        assert received == message


def refused(
    link: RecordLink, caplog: pytest.LogCaptureFixture, hold_gil: Callable[[bool], None]
) -> str:
    """The one line that says why."""
    caplog.set_level(logging.DEBUG, "sealwire.comm")
    caplog.clear()
    records._tell.cache_clear()
    hold_gil(True)
    for _ in range(3):
        channel = secure(link.near)
        assert not channel.holds_gil
    link.say(PLAIN[: 2 * RECORD])
    assert fill(channel, 2 * RECORD) == (PLAIN[: 2 * RECORD], (2 * RECORD, RECORD))
    (line,) = [record.getMessage() for record in caplog.records]
    return line


@pytest.fixture
def fresh() -> Iterator[None]:
    """What was found out about OpenSSL counts for this test alone."""
    caches = openssl.library, openssl.why_not, records._calls, records._tell
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def test_where_it_cannot_be_had_one_line_says_why(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    hold_gil: Callable[[bool], None],
    fresh: None,
) -> None:
    link = RecordLink(ssl.TLSVersion.TLSv1_3)
    monkeypatch.setattr(openssl, "_word", lambda *_: 0)
    openssl.why_not.cache_clear()
    words = "large frames over TLS are received without holding the GIL: ssl's connections do not"
    assert refused(link, caplog, hold_gil).startswith(words)


@pytest.mark.parametrize("missing", ["SSL_read", "SSL_get_error", "ERR_clear_error"])
def test_without_a_function_of_openssls(
    missing: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    hold_gil: Callable[[bool], None],
    fresh: None,
) -> None:
    class Without:
        def __getattr__(self, name: str) -> Any:
            if name == missing:
                raise AttributeError(f"undefined symbol: {name}")
            return getattr(real, name)

    link = RecordLink(ssl.TLSVersion.TLSv1_3)
    real = openssl.library()
    monkeypatch.setattr(openssl, "library", Without)
    assert missing in refused(link, caplog, hold_gil)


def test_a_socket_that_blocks(
    caplog: pytest.LogCaptureFixture, hold_gil: Callable[[bool], None]
) -> None:
    """A call that waits would keep the GIL meanwhile."""
    link = RecordLink(ssl.TLSVersion.TLSv1_3)
    for timeout in (5.0, None):
        link.near.settimeout(timeout)
        assert "the socket blocks" in refused(link, caplog, hold_gil)


def test_the_connection_lives_as_long_as_it_may_be_read() -> None:
    link = RecordLink(ssl.TLSVersion.TLSv1_3)
    channel = channel_of(link, held=True)
    link.say(PLAIN[:RECORD])
    assert link.tls is link.near._sslobj  # type: ignore[attr-defined]
    link.tls = link.near._sslobj = None  # type: ignore[attr-defined]
    assert fill(channel, RECORD)[0] == PLAIN[:RECORD]


def test_nothing_of_the_target_is_kept() -> None:
    """Its memory can be let go at once, also by who has got an error."""
    link = RecordLink(ssl.TLSVersion.TLSv1_3)
    channel = channel_of(link, held=True)
    target = bytearray(8 * RECORD)
    kept = []
    for doing in (data, partial(RecordLink.say, data=b"x"), nothing, end):
        doing(link)
        view = memoryview(target)
        try:
            channel.fill(view, int)
        except OSError as error:
            kept.append(error)
        view.release()
        target += b"x"  # a BufferError, were it exported
        del target[-1:]
    assert len(kept) == 2
