"""What peers can make a listener write: little, one line each, and nothing that looks like more."""

from __future__ import annotations

import msgpack
import pytest

from sealwire.comm.listener_log import ListenerLog
from support import attacker
from support.aio import aio
from support.attacker import OUR_HELLO, message
from support.target import Target, check


def test_a_flood_of_one_kind_hides_no_other() -> None:
    with Target("standalone", "tls", max_log_lines=2) as target:
        for _ in range(5):
            with attacker.dial(target.address) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                attacker.ended(sock)
        target.until_stats(pending=0, unlogged=3)
        with attacker.dial(target.address, tls=attacker.context("foreign")) as sock:
            attacker.ended(sock)
        target.until(lambda: "we refused its certificate" in target.log(), "it is hidden")
        check(target.log().count("plain HTTP") == 2, target.log())
        target.ask("stop")
        target.until(lambda: "3 more like these (not-tls: 3)" in target.log(), "not summed up")


def test_a_line_is_short_whatever_a_message_holds() -> None:
    """The name of a type that nobody registered is as long as its peer likes."""
    with Target("standalone", "tcp") as target:
        sock = attacker.enter(target.address, hello=OUR_HELLO)
        name = "\n2026-11-24 - CRITICAL - all is lost\x1b[2J" * 10_000
        sock.sendall(message(msgpack.packb(msgpack.ExtType(3, msgpack.packb([name, None])))))
        attacker.ended(sock)
        target.until(lambda: "\n" in target.log(), "no line")
        check(target.log().count("\n") == 1, target.log()[:3000])
        check(len(target.log()) < 1500, len(target.log()))
        check("\x1b" not in target.log())
        sock.close()


@aio
async def test_nothing_forges_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """Should a text ever come through as the peer wrote it."""
    caplog.set_level("INFO", "sealwire")
    watch = ListenerLog(lambda: "tls://127.0.0.1:8786", 2)
    forged = "bad\r\nERROR - forged\x1b[31m\x00\u2028\u202e€"
    watch.refused("hello", lambda: forged)
    (record,) = caplog.records
    check(
        record.getMessage() == "listener on tls://127.0.0.1:8786: "
        r"bad\r\nERROR - forged\x1b[31m\x00\u2028\u202e€",
        record.getMessage(),
    )


@aio
async def test_words_that_are_not_logged_are_not_made(caplog: pytest.LogCaptureFixture) -> None:
    """Naming our files costs as much as the handshake: a flood must not have that done."""
    caplog.set_level("INFO", "sealwire")
    made: list[str] = []

    def words() -> str:
        made.append("words")
        return "no"

    watch = ListenerLog(lambda: "tls://127.0.0.1:8786", 3)
    for _ in range(100):
        watch.refused("other-ca", words)
    watch.close()
    check(len(made) == 3, made)
    check(watch.stats().refused == {"other-ca": 100})
    check(watch.stats().unlogged == 97)
    (*_, last) = caplog.messages
    check(len(caplog.messages) == 4, caplog.messages)
    check("97 more like these (other-ca: 97)" in last, last)
