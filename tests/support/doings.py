"""What the peer of a TLS connection may do after the handshake, one function for each."""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import random
import ssl

from sealwire.comm.transport.records import RECORD
from support.recordlink import RecordLink

PLAIN = random.Random(15).randbytes(1 << 20)


def nothing(link: RecordLink) -> None:
    """It is silent."""


def data(link: RecordLink) -> None:
    link.say(PLAIN[: 5 * RECORD + 123])


def half_a_record(link: RecordLink) -> None:
    link.put(link.encrypted(PLAIN[:RECORD])[:-1])


def a_record_and_a_half(link: RecordLink) -> None:
    link.put(link.encrypted(PLAIN[: 2 * RECORD])[:-100])


def goodbye(link: RecordLink) -> None:
    with contextlib.suppress(ssl.SSLWantReadError):
        link.peer.unwrap()
    link.put(link.outgoing.read())


def goodbye_and_end(link: RecordLink) -> None:
    goodbye(link)
    link.end()


def data_and_goodbye(link: RecordLink) -> None:
    data(link)
    goodbye(link)


def end(link: RecordLink) -> None:
    link.end()


def data_and_end(link: RecordLink) -> None:
    data(link)
    link.end()


def full_records_and_end(link: RecordLink) -> None:
    link.say(PLAIN[: 4 * RECORD])
    link.end()


def end_within_a_record(link: RecordLink) -> None:
    half_a_record(link)
    link.end()


def end_within_a_header(link: RecordLink) -> None:
    link.put(link.encrypted(PLAIN[:10])[:3])
    link.end()


def reset(link: RecordLink) -> None:
    link.reset()


def reset_within_a_record(link: RecordLink) -> None:
    a_record_and_a_half(link)
    link.reset()


def no_tls(link: RecordLink) -> None:
    link.put(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


def data_and_no_tls(link: RecordLink) -> None:
    data(link)
    no_tls(link)


def damaged(link: RecordLink) -> None:
    record = bytearray(link.encrypted(PLAIN[:RECORD]))
    record[-7] ^= 1
    link.put(bytes(record))


def data_and_damaged(link: RecordLink) -> None:
    link.say(PLAIN[: 2 * RECORD])
    damaged(link)


def too_long(link: RecordLink) -> None:
    link.put(b"\x17\x03\x03\xff\xff" + bytes(100))


def replayed(link: RecordLink) -> None:
    record = link.encrypted(PLAIN[:RECORD])
    link.put(record + record)


def alert(link: RecordLink) -> None:
    """Ours was damaged, and the peer says so."""
    link.tls.write(b"x" * 100)
    said = bytearray(link.hear())
    said[-7] ^= 1
    link.incoming.write(said)
    with contextlib.suppress(ssl.SSLError):
        link.peer.read(100)
    assert link.outgoing.pending
    link.put(link.outgoing.read())


def alert_after_data(link: RecordLink) -> None:
    data(link)
    alert(link)


def alert_and_reset(link: RecordLink) -> None:
    alert(link)
    link.reset()


def new_keys(link: RecordLink) -> None:
    """In TLS 1.2 there are none; a new handshake is asked for."""
    library = ctypes.PyDLL(_ssl.__file__)
    pointer = ctypes.c_void_p(link.pointer)
    link.say(PLAIN[: 3 * RECORD])
    if link.peer.version() == "TLSv1.3":
        for ours in (0, 1):  # those of the peer alone, and ours too
            assert library.SSL_key_update(pointer, ours) == 1
            link.peer.do_handshake()
            link.say(PLAIN[: 2 * RECORD])
    else:
        library.SSL_renegotiate(pointer)
        with contextlib.suppress(ssl.SSLError):
            link.peer.do_handshake()
        link.put(link.outgoing.read())


def new_keys_and_data(link: RecordLink) -> None:
    new_keys(link)
    with contextlib.suppress(ssl.SSLError):
        data(link)


def we_said_goodbye(link: RecordLink) -> None:
    with contextlib.suppress(OSError):
        link.near._sslobj.shutdown()  # type: ignore[attr-defined]
    data(link)
    link.end()


DOINGS = [
    nothing, data, half_a_record, a_record_and_a_half, goodbye, goodbye_and_end, data_and_goodbye,
    end, data_and_end, full_records_and_end, end_within_a_record, end_within_a_header, reset,
    reset_within_a_record, no_tls, data_and_no_tls, damaged, data_and_damaged, too_long, replayed,
    alert, alert_after_data, alert_and_reset, new_keys, new_keys_and_data, we_said_goodbye,
]  # fmt: skip
