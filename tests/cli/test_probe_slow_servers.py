"""The doctor at servers that take their time: each step has one deadline, whatever comes."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sealwire.cli.probe.deadline import Deadline
from sealwire.comm.wire import hello
from sealwire.comm.wire.framing import pack
from support import certs
from support.ambush import Ambush
from support.handshakes import foreign_context
from support.listeners import CA, NODE, OTHER_CA, Here, probe

pytestmark = pytest.mark.usefixtures("registry")

STEP = 0.1
# Resolving, connecting, TLS, hello and two more looks at what is there, and room for the machine.
SOON = 6 * STEP + 4
PAUSE = 0.02  # between two bytes: less than the time of a step

Act = Callable[[socket.socket], None]

FRAME = hello.encode(hello.offer())
HELLO = pack([len(FRAME)], shared=1) + FRAME
RECORD = b"\x16\x03\x03\x40\x00"  # the head of a record of 16 KiB
CHANGE = b"\x14\x03\x03\x00\x01\x01"  # of which TLS 1.3 passes over as many as may come


def drip(data: bytes = b"\x02", first: bytes = b"") -> Act:
    """A byte now and then, for ever."""

    def act(sock: socket.socket) -> None:
        sock.sendall(first)
        for byte in itertools.cycle(data):
            sock.sendall(bytes([byte]))
            time.sleep(PAUSE)

    return act


def flood(data: bytes, first: bytes = b"") -> Act:
    """As much as goes through, for ever; what comes is never read."""

    def act(sock: socket.socket) -> None:
        sock.sendall(first)
        many = data * (65536 // len(data) + 1)
        while True:
            sock.sendall(many)

    return act


def silent(sock: socket.socket) -> None:
    """Nothing, and no end."""
    with contextlib.suppress(TimeoutError):
        while sock.recv(65536):
            pass


def deaf(sock: socket.socket) -> None:
    """Not even read, until the other side has gone."""
    gone = select.poll()
    gone.register(sock, select.POLLRDHUP)
    gone.poll(1000 * SOON)


def secured(then: Act, node: certs.Node = NODE, version: ssl.TLSVersion | None = None) -> Act:
    """TLS first, with a certificate that is accepted or one that is not."""
    context = foreign_context("server", node, [CA])
    if version is not None:
        context.maximum_version = version

    def act(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            then(tls)

    return act


def beneath(then: Act) -> Act:
    """On the connection that carries TLS."""

    def act(tls: socket.socket) -> None:
        with socket.socket(fileno=socket.dup(tls.fileno())) as raw:
            then(raw)

    return act


def one_by_one(*acts: Act) -> Act:
    """Another act for each connection; the last goes on."""
    left = iter(acts)
    lock = threading.Lock()
    current = acts[-1]

    def act(sock: socket.socket) -> None:
        with lock:
            chosen = next(left, current)
        chosen(sock)

    return act


FOREIGN = certs.leaf(OTHER_CA, "foreign")
REFUSED = secured(silent, FOREIGN)
CLOSED: Act = socket.socket.close

SERVERS: dict[str, Act] = {
    "drips from the start": drip(),
    "drips a record": drip(first=RECORD),
    "drips an alert": drip(b"\x15\x03\x03\x00\x02\x01\x00"),
    "drips a hello": drip(b"\x00", HELLO[:20]),
    "drips HTTP": drip(b"HTTP/1.0 200 OK\r\n"),
    "floods with zeros": flood(b"\0"),
    "floods with empty records": flood(b"\x16\x03\x03\x00\x00"),
    "floods with changes of cipher": flood(CHANGE),
    "floods with warnings": flood(b"\x15\x03\x03\x00\x02\x01\x5a"),
    "floods with a hello": flood(b"\x81\xa1x\xc0", HELLO[:16]),
    "is silent": silent,
    "is deaf": deaf,
    "is refused, then drips a record": one_by_one(REFUSED, drip(first=RECORD)),
    "is refused, then floods": one_by_one(REFUSED, flood(CHANGE)),
    "is refused, then is silent": one_by_one(REFUSED, silent),
    "is refused, then is deaf": one_by_one(REFUSED, deaf),
    "closes, then drips": one_by_one(CLOSED, drip()),
    "closes, then drips HTTP": one_by_one(CLOSED, drip(b"HTTP/1.0 200 OK\r\n")),
    "closes, then floods": one_by_one(CLOSED, flood(b"\0")),
    "drips after TLS": secured(drip(b"\x00")),
    "drips a hello after TLS": secured(drip(b"\x00", HELLO[:20])),
    "drips after TLS 1.2": secured(drip(b"\x00"), version=ssl.TLSVersion.TLSv1_2),
    "floods after TLS": secured(flood(b"\x81\xa1x\xc0", HELLO[:16])),
    "is silent after TLS": secured(silent),
    "drips raw after TLS": secured(beneath(drip(first=b"\x17\x03\x03\x40\x00"))),
    "floods raw after TLS": secured(beneath(flood(CHANGE))),
}


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
@pytest.mark.parametrize("server", SERVERS)
def test_it_returns_in_time(server: str, scheme: str, here: Here) -> None:
    with Ambush(scheme, SERVERS[server]) as ambush:
        began = time.monotonic()
        told = probe(ambush.address, "--timeout", str(STEP), *here())
        spent = time.monotonic() - began
    assert spent < SOON, told
    assert told["exit_code"] in (4, 5), told
    assert told["words"]
    for step in told["steps"]:
        assert step["ms"] < 1000 * (STEP + 2), step


def test_a_name_that_takes_long_to_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(30) and [])
    began = time.monotonic()
    told = probe("tcp://slow.example:8786", "--timeout", str(STEP))
    over.set()
    assert time.monotonic() - began < SOON
    assert told["exit_code"] == 1
    expected = f"slow.example did not resolve within {STEP} s; check this machine's DNS"
    assert expected in told["words"]


def test_addresses_of_a_name_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener whose queue is full answers nobody, as a host that is down."""
    with socket.socket() as full, contextlib.ExitStack() as held:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        place = (socket.AF_INET, socket.SOCK_STREAM, 6, "", full.getsockname())
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [place] * 40)
        began = time.monotonic()
        told = probe("tcp://many.example:8786", "--timeout", str(STEP))
        spent = time.monotonic() - began
    assert told["exit_code"] == 1
    assert f"no answer within {STEP} s" in told["words"]
    assert spent < STEP + 3


@contextlib.contextmanager
def joined() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_a_deadline_ends_a_call_that_has_no_timeout() -> None:
    with joined() as (near, _), Deadline(near, 0.2) as deadline:
        assert near.recv(1) == b""
    assert deadline.over


def test_what_ends_in_time_leaves_the_connection_alone() -> None:
    with joined() as (near, far):
        for _ in range(3):
            with Deadline(near, 30) as deadline:
                assert 29 < deadline.left() <= 30
            assert not deadline.over
        far.sendall(b"x")
        assert near.recv(1) == b"x"


def test_errors_after_the_end_are_timeouts() -> None:
    def late(near: socket.socket) -> None:
        with Deadline(near, 0.05) as deadline:
            while not deadline.over:
                time.sleep(0.01)
            raise ConnectionResetError("reset")

    with joined() as (near, _):
        with pytest.raises(TimeoutError):
            late(near)
        near.settimeout(0.01)
        with pytest.raises(TimeoutError), Deadline(near, 0) as deadline:
            deadline.left()


def test_an_error_in_time_stays_what_it_is() -> None:
    with joined() as (near, _), pytest.raises(ConnectionResetError), Deadline(near, 30):
        raise ConnectionResetError("reset")
