"""Members: identities in memory that renew themselves, through whatever becomes of the service."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from sealwire.comm import connect, listen
from sealwire.comm.addressing import Address
from sealwire.joining import Desk, JoinServer, Member, Refused, Unavailable
from sealwire.joining import client as client_module
from sealwire.joining.member import CAS, CRL, IDENTITY, steady
from sealwire.joining.memory import Memory
from sealwire.joining.service import limits
from sealwire.security import Security
from sealwire.security.ca.atomic_files import apply, locked
from sealwire.security.ca.renewal import renew, revoke
from sealwire.security.ca.rotation import begin, complete, left_behind
from sealwire.security.ca.store import Store
from support.aio import aio
from support.joining import CA, HOUR

SHORT = HOUR / 60  # a certificate's lifetime; members are made to be in a hurry


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew after 0.4 seconds, look every 0.2, try again every 0.1."""
    from sealwire.joining import member

    monkeypatch.setattr(member, "_RENEWED", (0.006, 0.007))
    monkeypatch.setattr(member, "_LOOKS", 300)
    monkeypatch.setattr(member, "_RETRIES", 600)
    monkeypatch.setattr(member, "_SHORTEST", 0.1)


async def eventually(condition: Callable[[], bool], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come to pass"
        await asyncio.sleep(0.02)


async def joined(address: Address, ca: CA, **how: Any) -> Member:
    token = ca.token(**{"lifetime": SHORT, **how})
    return await asyncio.to_thread(lambda: Member.join(address, token, node="a", patience=5))


async def ended(*members: Member) -> None:
    """While the service still answers on this loop, of whom each may be asking something."""
    await asyncio.gather(*(asyncio.to_thread(member.stop) for member in members))


def text_of(member: Member, name: str) -> str:
    return Path(member.paths[name]).read_text()


def is_gone(path: str) -> bool:
    return not os.path.exists(path)


def serial(member: Member) -> int:
    return x509.load_pem_x509_certificate(Path(member.paths[IDENTITY]).read_bytes()).serial_number


def security(member: Member) -> Security:
    return Security(
        tls_ca_file=member.paths[CAS], tls_crl_file=member.paths[CRL], tls_reload_interval=0,
        tls_worker_cert=member.paths[IDENTITY],
    )  # fmt: skip


@pytest.fixture(params=[False, True], ids=["memory", "disk"])
def memory(request: pytest.FixtureRequest) -> Iterator[Memory]:
    made = Memory(on_disk=request.param)
    yield made
    made.close()


def test_files_in_memory_are_replaced_as_a_whole(memory: Memory) -> None:
    path = memory.put("identity.pem", "one\n" * 10_000)
    assert Path(path).read_text() == "one\n" * 10_000
    before = os.stat(path)
    assert before.st_mode & 0o777 == 0o600
    with open(path) as reading:
        assert reading.read(4) == "one\n"
        assert memory.put("identity.pem", "two\n") == path
        assert Path(path).read_text() == "two\n"
        assert reading.read() == "one\n" * 9_999, "who reads the old one has it to its end"
    assert os.stat(path).st_ino != before.st_ino
    other = memory.put("ca.pem", "three")
    assert (Path(other).read_text(), Path(path).read_text()) == ("three", "two\n")
    said = subprocess.run([sys.executable, "-c", f"print(open({path!r}).read())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert said.stdout == "two\n\n", "for a process of the same user"
    memory.close()
    assert not os.path.exists(path)
    memory.close()


def test_files_that_took_their_numbers_are_left_alone(tmp_path: Path) -> None:
    """A program that closes all descriptors, as daemons do, loses nothing that it opens then."""
    memory = Memory(on_disk=False)
    number = int(memory.put("a", "first").rpartition("/")[2])
    os.close(number)
    assert memory.put("a", "second") == f"/proc/{os.getpid()}/fd/{number}", "it is free"
    os.close(number)
    with open(tmp_path / "theirs", "w") as theirs:
        os.dup2(theirs.fileno(), number)
        with pytest.raises(OSError, match="has closed the files in memory of its identity"):
            memory.put("a", "third")
        memory.close()
        os.write(number, b"all of it")
        os.close(number)
    assert (tmp_path / "theirs").read_text() == "all of it"


def test_files_in_memory_are_not_inherited() -> None:
    memory = Memory(on_disk=False)
    memory.put("identity.pem", "secret")
    inode = os.stat(memory.put("identity.pem", "secret again")).st_ino
    folder = "'/proc/self/fd'"
    code = f"import os; print([os.stat({folder} + '/' + n).st_ino for n in os.listdir({folder}) "\
           f"if os.path.exists({folder} + '/' + n)])"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          close_fds=False)  # fmt: skip
    assert str(inode) not in done.stdout
    memory.close()


@pytest.mark.parametrize("left", [0.0, 1e-9, 0.5])
@aio
async def test_one_whose_ca_ends_asks_with_pauses(ca: CA, left: float) -> None:
    """Each certificate is shorter than the last, and nobody is to be asked without a pause."""
    async with ca.service() as address:
        member = await joined(address, ca)
    before = steady()
    member._took(dataclasses.replace(member.joined, lifetime=left))
    assert member._next()[0] > before + 0.9
    for renewing in (False, True):
        before = steady()
        member._failed(Unavailable("it is not there"), renewing)
        assert member._next()[0] > before + 0.9
    member.stop()


@aio
async def test_a_member_has_an_identity_in_memory(ca: CA) -> None:
    async with ca.service() as address:
        member = await joined(address, ca)
        again = await joined(address, ca)
    served = listen("tls://127.0.0.1:0", lambda comm: comm.write("hello"),
                    **security(member).get_listen_args("worker"))  # fmt: skip
    async with served as listener:
        args = security(again).get_connection_args("worker")
        async with connect(listener.contact_address, **args) as comm:
            assert await comm.read() == "hello"
    assert member.joined.key in text_of(member, IDENTITY)
    assert member.joined.key not in f"{member} {vars(member)}"
    for each in (member, again):
        each.stop()
    assert is_gone(member.paths[IDENTITY])


@aio
@pytest.mark.usefixtures("hurry")
async def test_a_member_renews_itself_and_its_contexts_follow(ca: CA) -> None:
    async with ca.service() as address:
        member = await joined(address, ca)
        context = security(member).get_listen_args("worker")["ssl_context"]
        first, key = serial(member), member.joined.key
        member.start()
        await eventually(lambda: serial(member) != first and len(ca.issued()) >= 3)
        assert member.joined.key != key
        assert len(set(ca.issued())) == 1

        seen = set()

        async def attend(comm: Any) -> None:
            await comm.write("x")

        async with listen("tls://127.0.0.1:0", attend, ssl_context=context) as listener:

            async def look() -> None:
                args = security(member).get_connection_args("worker")
                async with connect(listener.contact_address, **args) as comm:
                    seen.add(comm.extra_info["peercert"]["serialNumber"])

            await look()
            deadline = time.monotonic() + 40
            while len(seen) < 3:  # a handshake waits for the new one for a moment only
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
                await look()
        await ended(member)


@aio
@pytest.mark.usefixtures("hurry")
async def test_a_service_that_is_away_is_waited_for(
    ca: CA, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = await JoinServer.of(Desk(ca.path), limits())
    server.listen(0, "127.0.0.1")
    address = Address("tls", *server.address)
    member = await joined(address, ca)
    first = serial(member)
    server.stop()
    server.close()
    member.start()

    def warnings() -> list[str]:
        return [r.getMessage() for r in caplog.records if "cannot renew, tried" in r.getMessage()]

    await eventually(lambda: len(warnings()) >= 3)
    assert serial(member) == first, "it goes on with what it has"
    again = await JoinServer.of(Desk(ca.path), limits())
    again.listen(address.port, "127.0.0.1")
    await eventually(lambda: serial(member) != first)
    await eventually(lambda: any("answers again" in r.getMessage() for r in caplog.records))
    await ended(member)
    again.stop()
    again.close()


@aio
@pytest.mark.usefixtures("hurry")
async def test_a_revoked_member_is_not_renewed_and_the_others_hear_of_it(
    ca: CA, caplog: pytest.LogCaptureFixture
) -> None:
    async with ca.service() as address:
        one, other = await joined(address, ca), await joined(address, ca)
        with locked(ca.path) as folder:
            _, writes = revoke(Store(folder), ca.issued()[0], "keyCompromise")
            apply(writes)
        revoked = serial(one)
        one.start()
        other.start()
        await eventually(lambda: not one._thread.is_alive())
        assert any("member no more" in r.getMessage() and r.levelno == logging.ERROR
                   for r in caplog.records)  # fmt: skip
        assert serial(one) == revoked

        def heard() -> bool:
            crl = x509.load_pem_x509_crl(Path(other.paths[CRL]).read_bytes())
            return crl.get_revoked_certificate_by_serial_number(revoked) is not None

        await eventually(heard)
        args = security(other).get_listen_args("worker")
        async with listen("tls://127.0.0.1:0", lambda comm: comm.write("x"), **args) as listener:
            for member, fails in ((one, True), (other, False)):
                try:
                    how = security(member).get_connection_args("worker")
                    async with connect(listener.contact_address, timeout=10, **how) as comm:
                        assert await comm.read() == "x"
                except OSError as error:
                    assert fails
                    assert "revoked" in str(error)
                else:
                    assert not fails
        await ended(one, other)


@aio
@pytest.mark.usefixtures("hurry")
async def test_a_new_ca_reaches_members_by_itself(ca: CA) -> None:
    """Trust first, then certificates, then the end of the old CA; each is seen from outside."""
    async with ca.service() as address:
        member = await joined(address, ca)
        member.start()
        with locked(ca.path) as folder:
            apply(begin(Store(folder)))
        await eventually(lambda: text_of(member, CAS).count("BEGIN CERT") == 2)
        with locked(ca.path) as folder:
            _, writes = renew(Store(folder))
            apply(writes)
        newest = Store(ca.path).authorities[0]

        def moved() -> bool:
            data = Path(member.paths[IDENTITY]).read_bytes()
            return newest.issued(x509.load_pem_x509_certificate(data))

        await eventually(moved)
        assert left_behind(Store(ca.path)) == [], "the CA's owner sees that it has come along"
        with locked(ca.path) as folder:
            apply(complete(Store(folder)))
        member._look = 0.0
        await eventually(lambda: text_of(member, CAS).count("BEGIN CERT") == 1)
        await ended(member)


@aio
async def test_a_token_that_does_not_allow_this_machines_name_gives_an_identity_without(
    ca: CA,
) -> None:
    async with ca.service() as address:
        member = await joined(address, ca, names=("nobody",))
    found = x509.load_pem_x509_certificate(member.joined.certificate.encode())
    assert found.subject.rfc4514_string() == "CN=worker"
    member.stop()


@aio
async def test_a_refusal_is_raised_where_it_was_asked(ca: CA) -> None:
    token = ca.token()
    ca.revoke(token)
    async with ca.service() as address:
        with pytest.raises(Refused) as caught:
            await asyncio.to_thread(lambda: Member.join(address, token, node="a", patience=9))
    assert caught.value.kind == "revoked"


def test_joining_blocks_and_fails_within_its_patience(
    ca: CA, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client_module, "_PAUSE", 0.01)
    began = time.monotonic()
    with pytest.raises(Unavailable):
        Member.join(Address("tls", "127.0.0.1", 1), ca.token(), patience=0.2)
    assert time.monotonic() - began < 20
    (waits,) = [each.getMessage() for each in caplog.records]
    assert "connection refused" in waits
    assert waits.endswith("; trying again for 0 s"), "told once"


def test_a_member_needs_no_collector(ca: CA) -> None:
    """Its thread ends with it, and its memory at once."""

    async def main() -> None:
        async with ca.service() as address:
            gc.disable()
            try:
                member = await joined(address, ca)
                member.start()
                path, thread = member.paths[IDENTITY], member._thread
                await asyncio.to_thread(member.stop)
                assert not thread.is_alive()
                assert is_gone(path)
            finally:
                gc.enable()

    asyncio.run(main())
