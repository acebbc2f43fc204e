"""The service under attack: strangers cost little, are told little, and keep nobody waiting."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest

from sealwire.comm.addressing import Address
from sealwire.joining import (
    JoinError,
    Refused,
    Token,
    Unavailable,
    join,
    lists,
    messages,
    renew,
)
from sealwire.joining import service as module
from sealwire.joining.client import patiently, signing_request
from sealwire.joining.errors import BadMessage
from sealwire.security.ca.atomic_files import apply, locked
from sealwire.security.ca.journal import Record
from sealwire.security.ca.store import Store
from sealwire.security.x509 import keys
from sealwire.security.x509.templates import now
from support.aio import aio, until
from support.joining import CA, ask, question, send


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Any:
    """No traceback and no error of ours is logged, whatever a peer does."""
    with caplog.at_level(logging.DEBUG):
        yield
    bad = [r.getMessage() for r in caplog.records if r.exc_info or r.levelno >= logging.ERROR]
    assert not bad


def packed(**message: Any) -> bytes:
    return bytes(msgpack.packb(message))


TOO_DEEP = b"\x91" * 5000 + b"\xc0"
MESSAGES: dict[str, list[bytes]] = {
    "empty": [b""],
    "no frame": [],
    "two frames": [packed(asks="join"), b"x"],
    "not msgpack": [b"\xc1" * 50],
    "http": [b"GET / HTTP/1.1\r\n\r\n"],
    "a list": [bytes(msgpack.packb([1, 2]))],
    "a number": [b"\x07"],
    "nothing": [b"\xc0"],
    "deep": [TOO_DEEP],
    "a map in a map": [packed(asks={"a": {}})],
    "a list in a map": [packed(asks=[])],
    "many keys": [packed(**{f"k{n}": n for n in range(100)})],
    "numbers as keys": [bytes(msgpack.packb({1: 2}))],
    "claims 4 GiB": [b"\xdf\xff\xff\xff\xff"],
    "an extension": [b"\x81\xa4asks\xd4\x05\x00"],
    "too large": [os.urandom(64 * 1024)],
}
QUESTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "unknown": {"asks": "certificates, please"},
    "a number": {"asks": 7},
    "nobody's token": {"asks": "join", "token": "a" * 20, "proof": b"", "request": b"", "role": ""},
    "no proof": {"asks": "join", "token": "a" * 20},
    "a text for a proof": {"asks": "join", "token": "", "proof": "", "request": b"", "role": ""},
    "a number for a token": {"asks": "join", "token": 3, "proof": b"", "request": b"", "role": ""},
    "nil": {"asks": "join", "token": None, "proof": None, "request": None, "role": None},
    "a nonce of one's own": {"asks": "join", "nonce": bytes(32)},
    "renew without a certificate": {"asks": "renew", "request": b"x"},
    "lists without a certificate": {"asks": "lists"},
}


@aio
@pytest.mark.parametrize("what", MESSAGES)
@pytest.mark.usefixtures("quiet")
async def test_messages_that_are_no_questions(ca: CA, what: str) -> None:
    async with ca.service() as address:
        with pytest.raises(OSError, match=r"closed|lost|limit|reset|pipe"):
            await send(address, ca.trusted, MESSAGES[what])
        assert (await join(address, ca.token(), keys.generate())).role == "worker"


@aio
@pytest.mark.parametrize("what", QUESTIONS)
@pytest.mark.usefixtures("quiet")
async def test_questions_that_make_no_sense(ca: CA, what: str) -> None:
    async with ca.service() as address:
        with pytest.raises(Refused):
            await ask(address, ca.trusted, QUESTIONS[what])
        assert (await join(address, ca.token(), keys.generate())).role == "worker"


@aio
@pytest.mark.usefixtures("quiet")
async def test_random_messages(ca: CA) -> None:
    chance = random.Random(4711)
    async with ca.service() as address:
        token = ca.token(uses=100)
        whole = messages.encode(
            {**question(token, signing_request(keys.generate())), "proof": bytes(64)}
        )
        for _ in range(40):
            data = bytearray(whole)
            for _ in range(chance.randint(1, 8)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            with contextlib.suppress(OSError):
                (answer,) = await send(
                    address, ca.trusted, [bytes(data[: chance.choice((9**9, 80))])]
                )
                assert b"refused" in answer
        assert not ca.grant(token).used
        assert (await join(address, token, keys.generate())).role == "worker"


@contextlib.asynccontextmanager
async def connected(address: Address, data: bytes = b"") -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(data)
        yield reader
    finally:
        writer.close()


@aio
@pytest.mark.usefixtures("quiet")
async def test_the_silent_and_the_slow_are_dropped(ca: CA) -> None:
    """Before the handshake, within it, after the hello, and within the question."""
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    async with ca.service(timeout=1.0) as address, contextlib.AsyncExitStack() as stack:
        began = time.monotonic()
        silent = await stack.enter_async_context(connected(address))
        within = await stack.enter_async_context(connected(address, b"\x16\x03\x01\x02\x00\x01"))
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=stranger)
        stack.callback(writer.close)
        for each in (silent, within, reader):
            with contextlib.suppress(ConnectionError):
                while await each.read(65536):
                    pass
        assert 0.7 < time.monotonic() - began < 20


@aio
@pytest.mark.usefixtures("quiet")
async def test_plain_and_old_tls_are_refused(ca: CA) -> None:
    async with ca.service() as address:
        for data in (b"GET / HTTP/1.1\r\n\r\n", bytes(16), b"sealwire_join_\n"):
            async with connected(address, data) as reader:
                with contextlib.suppress(ConnectionError):
                    answer = await reader.read(100)
                    assert b"CERTIFICATE" not in answer
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection(address.host, address.port, ssl=old)
        assert (await join(address, ca.token(), keys.generate())).role == "worker"


@aio
@pytest.mark.usefixtures("quiet")
async def test_a_flood_of_bad_tokens_keeps_nobody_out(
    ca: CA, caplog: pytest.LogCaptureFixture
) -> None:
    """Good ones are served in turn while sixteen at a time ask for nothing good.

    Counted in questions, since time is no verdict on a shared machine: each of the two connections
    of one who joins waits for those before it, and not for those after.
    """
    known = ca.token()
    request = signing_request(keys.generate())
    bad = [
        question(Token(known.digests, bytes(32)), request),
        {**question(known, request), "proof": bytes(64)},
    ]
    over, asked = asyncio.Event(), 0

    async def flood(address: Address, number: int) -> None:
        nonlocal asked
        while not over.is_set():
            with contextlib.suppress(JoinError, OSError):
                try:
                    await ask(address, ca.trusted, bad[number % 2])
                finally:
                    asked += 1

    async with ca.service() as address:
        flooding = [asyncio.ensure_future(flood(address, number)) for number in range(16)]
        await until(lambda: asked > 16)
        passed = []
        for _ in range(8):
            token, before = ca.token(), asked
            await join(address, token, keys.generate(), timeout=60)
            passed.append(asked - before)
        over.set()
        await asyncio.gather(*flooding)
    assert sorted(passed)[len(passed) // 2] < 5 * 16, passed
    assert len([r for r in caplog.records if "refused" in r.getMessage()]) <= 80 < asked


@aio
async def test_more_questions_than_the_desk_can_answer_are_told_to_come_again(
    ca: CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WAITING", 0)
    token, key = ca.token(), keys.generate()
    async with ca.service() as address:
        with pytest.raises(Unavailable, match="ask again"):
            await join(address, token, key)
        attempts = 0

        async def attempt() -> Any:
            nonlocal attempts
            attempts += 1
            if attempts == 2:
                monkeypatch.undo()
            return await join(address, token, key)

        assert (await patiently(attempt, 30)).role == "worker"
        assert attempts == 2


@aio
async def test_a_folder_that_fails_is_told_here_and_not_there(
    ca: CA, caplog: pytest.LogCaptureFixture
) -> None:
    token, key = ca.token(), keys.generate()
    async with ca.service() as address:
        ledger = ca.path / "tokens.tsv"
        kept = ledger.read_text()
        ledger.write_text(kept.replace("\tmade\t", "\tbaked\t"))
        with pytest.raises(Unavailable) as caught:
            await join(address, token, key)
        assert str(ca.path) not in str(caught.value)
        assert any("is damaged" in record.getMessage() for record in caplog.records)
        ledger.write_text(kept)
        assert (await join(address, token, key)).role == "worker"


@aio
async def test_nobody_there_is_told_within_the_time(ca: CA) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with pytest.raises(Unavailable, match="check"):
        await join(Address("tls", "127.0.0.1", port), ca.token(), keys.generate())
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        there = Address("tls", "127.0.0.1", deaf.getsockname()[1])
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"no answer within 0\.5 s"):
            await join(there, ca.token(), keys.generate(), timeout=0.5)
        assert time.monotonic() - began < 20


@aio
async def test_a_cancelled_question_leaves_a_service_that_answers(ca: CA) -> None:
    """At any moment; the token is used by the key that asked, or by nobody."""
    async with ca.service() as address:
        for number in range(20):
            token, key = ca.token(), keys.generate()
            asking = asyncio.ensure_future(join(address, token, key))
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asking, 0.002 * number)
            assert (await join(address, token, key)).role == "worker"
            with pytest.raises(Refused):
                await join(address, token, keys.generate())


def said(**message: Any) -> bytes:
    return messages.encode(message)


async def heard(sent: list[bytes]) -> dict[str, Any]:
    """What one who asked makes of messages; it must not wait for one that never comes."""
    waiting = iter(sent)

    async def read() -> list[bytes]:
        return [next(waiting)]

    found = await messages.whole(read, "the service")
    assert not list(waiting)
    return found


@aio
@pytest.mark.parametrize("over", [-40_000, -40, -1, 0, 1, messages.PART, 10 * messages.PART + 7])
async def test_an_answer_of_any_size_arrives_in_messages_that_a_service_may_send(over: int) -> None:
    around = len(said(crl="x" * messages.PART)) - messages.PART
    answer = {"crl": "x" * max(0, messages.PART - around + over)}
    parts = list(messages.in_parts(answer))
    assert (len(parts) > 1) == (over > 0)
    assert all(len(part) <= messages.PART for part in parts)
    assert await heard(parts) == answer


WHOLE = said(role="worker")
NO_ANSWERS: dict[str, list[bytes]] = {
    "no end": [said(part=b"x", left=5), said(part=b"x", left=5)],
    "more and more": [said(part=b"x", left=5), said(part=b"x" * 9, left=5)],
    "less than nothing": [said(part=b"x", left=-1)],
    "empty parts": [said(part=b"", left=0)],
    "more than anybody has": [said(part=b"x", left=messages.LARGEST + 1)],
    "an endless number": [said(part=b"x", left=2**64 - 1)],
    "a text": [said(part="x", left=0)],
    "no count": [said(part=b"x")],
    "half a number": [said(part=b"x", left=0.5)],
    "another answer within": [said(part=WHOLE[:3], left=len(WHOLE) - 3), WHOLE],
    "no message when whole": [said(part=WHOLE[:-1], left=0)],
}


@aio
@pytest.mark.parametrize("what", NO_ANSWERS)
async def test_parts_of_no_answer(what: str) -> None:
    with pytest.raises(BadMessage, match="bad message"):
        await heard(NO_ANSWERS[what])


def revoke_many(ca: CA, count: int) -> str:
    """Revoke as many as a busy cluster has in years; the lists."""
    with locked(ca.path) as folder:
        store = Store(folder)
        signer = store.signer().parsed
        issuer, until = keys.identifier(signer.public_key()), f"{signer.not_valid_after_utc:{TIME}}"
        records = [
            Record(now(), event, 2**158 + n, issuer, detail, "CN=worker", "joined/w-1")
            for n in range(count)
            for event, detail in (("issued", until), ("revoked", "unspecified"))
        ]
        apply(store.journal.write(records))
        apply(Store(folder).crl())
    return (ca.path / "crl.pem").read_text()


TIME = "%Y-%m-%dT%H:%M:%SZ"


@aio
@pytest.mark.usefixtures("quiet")
async def test_revocation_lists_that_have_grown_keep_nobody_out(ca: CA) -> None:
    """Far more than what the service takes from a stranger."""
    listed = revoke_many(ca, 3000)
    assert len(listed) > 3 * messages.PART
    async with ca.service() as address:
        joined = await join(address, ca.token(), keys.generate())
        renewed = await renew(address, joined, keys.generate())
        assert joined.crl == renewed.crl == (await lists(address, renewed)).crl == listed
