"""What is over leaves journal and ledger, and nothing is lost: neither a line nor a right."""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sealwire.joining import Desk, Refused, Token, archive
from sealwire.joining import desk as module
from sealwire.joining.archive import of_journal, of_ledger
from sealwire.joining.client import signing_request
from sealwire.joining.ledger import LEDGER, Ledger
from sealwire.security.ca.atomic_files import apply, locked
from sealwire.security.ca.folder import Folder
from sealwire.security.ca.journal import JOURNAL, Journal
from sealwire.security.ca.renewal import revoke
from sealwire.security.ca.store import Store
from sealwire.security.x509 import keys
from sealwire.security.x509.templates import now
from support.joining import CA, HOUR

DAY = 24 * HOUR
ISSUER = "0123456789abcdef"


def line(ended: datetime.timedelta, serial: int, name: str, event: str = "issued") -> str:
    """A line of the journal; `ended` ago, or if negative in the future."""
    end = now() - ended
    detail = f"{end:%Y-%m-%dT%H:%M:%SZ}" if event == "issued" else "keyCompromise"
    begin = f"{end - HOUR:%Y-%m-%dT%H:%M:%SZ}"
    return "\t".join((begin, event, f"{serial:x}", ISSUER, detail, "CN=worker", name)) + "\n"


def moves(ca: CA, text: str, revoked: Any = ()) -> tuple[str, str]:
    """What stays of a journal, and what the archive has."""
    (ca.path / JOURNAL).write_text(text)
    apply(of_journal(Journal(Folder(ca.path)), revoked))
    moved = list(ca.path.glob("journal-*.tsv"))
    return (ca.path / JOURNAL).read_text(), moved[0].read_text() if moved else ""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime.timedelta], None]:
    """Let days go by, for the archive alone."""

    def set_clock(by: datetime.timedelta) -> None:
        monkeypatch.setattr(archive, "now", lambda: now() + by)

    return set_clock


KEPT = {
    "valid": line(-HOUR, 1, "joined/worker-1"),
    "the last of its name": line(20 * DAY, 1, "joined/worker-1"),
    "over for less than a day": line(HOUR, 1, "joined/w-1") + line(-HOUR, 2, "joined/w-1"),
    "not joined": line(90 * DAY, 1, "worker.pem") + line(-HOUR, 2, "worker.pem"),
    "printed": line(90 * DAY, 1, "-"),
    "outside": line(90 * DAY, 1, "/joined/worker-1"),
    "a revocation": line(90 * DAY, 1, "joined/worker-1", "revoked"),
    "cut off": line(90 * DAY, 1, "joined/worker-1")[:-30],
    "a comment": "#" + line(90 * DAY, 1, "joined/worker-1"),
    "no line": "\n\n\t\t\n\x0bé\u2028\n",
    "empty": "",
}


@pytest.mark.parametrize("what", KEPT)
def test_what_stays_in_the_journal(ca: CA, what: str) -> None:
    assert moves(ca, KEPT[what]) == (KEPT[what], "")
    over = line(60 * DAY, 7, "joined/gone-7")
    assert moves(ca, KEPT[what] + "\n" + over) == (KEPT[what] + "\n", over)


@pytest.mark.parametrize("by", ["serial", "key"])
def test_what_was_revoked_stays(ca: CA, by: str) -> None:
    text = line(60 * DAY, 7, "joined/worker-node-0123") + line(60 * DAY, 8, "joined/worker-45")
    revoked = {7} if by == "serial" else {"0123"}
    assert moves(ca, text, revoked) == tuple(text.splitlines(True))


def test_bytes_that_are_no_text_are_left_alone(ca: CA) -> None:
    data = line(60 * DAY, 7, "joined/worker-7").encode() + b"\xff\xfe\n"
    (ca.path / JOURNAL).write_bytes(data)
    assert of_journal(Journal(Folder(ca.path)), ()) == []


@pytest.mark.parametrize("which", [JOURNAL, LEDGER])
def test_a_crash_between_the_writes_loses_nothing(ca: CA, which: str) -> None:
    if which == JOURNAL:
        text = "".join(line(60 * DAY, n, f"joined/worker-{n}") for n in range(1, 9))
        text += line(-HOUR, 99, "joined/worker-99")

        def writes() -> Any:
            return of_journal(Journal(Folder(ca.path)), ())
    else:
        text = old_tokens(ca, 4)

        def writes() -> Any:
            return of_ledger(Ledger(Folder(ca.path)))

    (ca.path / which).write_text(text)
    both = writes()
    for count in range(len(both)):
        apply(both[:count])
        assert (ca.path / which).read_text() == text
    apply(writes())
    stem = which.partition(".")[0]
    (moved,) = ca.path.glob(f"{stem}-*.tsv")
    there = {*moved.read_text().splitlines(), *(ca.path / which).read_text().splitlines()}
    assert there == {*text.splitlines()}
    assert writes() == []
    mode = (ca.path / which).stat().st_mode & 0o777
    assert moved.stat().st_mode & 0o777 == mode == (0o644 if which == JOURNAL else 0o600)


MANY = {
    "the last of each, over for an hour": [line(HOUR, n, f"joined/v-{n}") for n in range(1, 9)],
    "the last of each, over for a week": [line(7 * DAY, n, f"joined/v-{n}") for n in range(1, 9)],
    "of one, over for a minute": [line(HOUR / 60, n, "joined/w-1") for n in range(1, 9)],
    "of one, over for two hours": [line(2 * HOUR, n, "joined/w-1") for n in range(1, 9)],
}
NEEDED = {
    "valid": [line(-HOUR, n, "joined/w-1") for n in range(1, 9)],
    "not joined": [line(90 * DAY, n, "-") for n in range(1, 9)],
    "revoked": [line(90 * DAY, n, "joined/w-ee") for n in range(1, 9)],
    "revocations": [line(90 * DAY, n, "joined/w-ee", "revoked") for n in range(1, 9)],
}


@pytest.mark.parametrize("what", [*MANY, *NEEDED])
def test_many_lines_stay_less_long(ca: CA, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is needed never goes, however much it is: then the log says what to do."""
    monkeypatch.setattr(archive, "MOST", 4)
    last = [line(-HOUR, 99, "joined/w-1")]
    lines = [*(MANY | NEEDED)[what], *last]
    kept, moved = moves(ca, "".join(lines), {"ee"})
    gone = [] if what in NEEDED else MANY[what]
    assert (kept, moved) == ("".join(each for each in lines if each not in gone), "".join(gone))
    monkeypatch.setattr(archive, "MOST", 99)
    if "week" not in what and "minute" not in what:
        return
    (ca.path / JOURNAL).write_text("".join(lines))
    assert of_journal(Journal(Folder(ca.path)), ()) == [], "few stay as long as there is room"


def test_short_certificates_of_many_processes_leave_a_bounded_journal(
    ca: CA, clock: Callable[[datetime.timedelta], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred processes with certificates of a minute, of which each renews every minute."""
    monkeypatch.setattr(archive, "MOST", 400)
    longest, whole = 0, 0
    for minute in range(60):
        ends = [f"joined/w-{n}" for n in range(100)]
        with (ca.path / JOURNAL).open("a") as file:
            for n, name in enumerate(ends):
                file.write(line(-HOUR / 60 * (minute + 1), minute * 100 + n + 1, name))
        clock(minute * HOUR / 60)
        whole += 100
        journal = Journal(Folder(ca.path))
        if len(journal.records) > 500:
            apply(of_journal(journal, ()))
            longest = max(longest, len((ca.path / JOURNAL).read_text().splitlines()))
    assert longest < 410
    (moved,) = ca.path.glob("journal-*.tsv")
    texts = moved.read_text() + (ca.path / JOURNAL).read_text()
    assert texts.count("joined/w-") == whole


@pytest.mark.parametrize(
    ("event", "ago", "room", "stays"),
    [
        ("revoked", 2 * DAY, 99, True),
        ("revoked", 40 * DAY, 99, False),
        ("revoked", 2 * DAY, 4, False),
        ("revoked", HOUR / 2, 4, True),
        ("expired", 2 * DAY, 4, False),
        ("used", 2 * DAY, 4, True),
    ],
)
def test_tokens_that_nobody_can_use_make_room(
    ca: CA, event: str, ago: datetime.timedelta, room: int, stays: bool,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """A token of many uses that is revoked takes them all along; one that is valid is needed."""
    monkeypatch.setattr(archive, "MOST", room)
    monkeypatch.setattr(archive, "_ALARMING", 5)
    token, other = ca.token(uses=9, expires=300 * DAY), ca.token()
    ledger = Ledger(Folder(ca.path))
    grant = ledger.grants[token.id]
    used = [ledger.use(grant, f"{n:064x}", now(), f"joined/w-{n}", "there") for n in range(6)]
    end = [] if event == "used" else [ledger.end(grant, event, "")]
    when = [each._replace(time=now() - ago) for each in (*used, *end)]
    apply(ledger.write(when))
    apply(of_ledger(Ledger(Folder(ca.path))))
    assert set(Ledger(Folder(ca.path)).grants) == {other.id, *([token.id] if stays else [])}
    assert ("revoke those that were used the most" in caplog.text) is stays


def old_tokens(ca: CA, count: int) -> str:
    """The ledger with tokens that were over long ago, and one that is valid."""
    ca.token()
    made = []
    with locked(ca.path) as folder:
        ledger = Ledger(folder)
        for _ in range(count):
            token = Token.make(Store(folder).trusted)
            written = ledger.make(token, "worker").text().split("\t")
            written[0] = f"{now() - 90 * DAY:%Y-%m-%dT%H:%M:%SZ}"
            written[6] = f"{now() - 40 * DAY:%Y-%m-%dT%H:%M:%SZ}"
            made.append("\t".join(written))
    return (ca.path / LEDGER).read_text() + "".join(made)


def test_tokens_that_were_over_long_ago_are_moved_and_stay_refused(ca: CA) -> None:
    token = ca.token(uses=2)
    text = old_tokens(ca, 3)
    (ca.path / LEDGER).write_text(text + "cut off\tmade")
    apply(of_ledger(Ledger(Folder(ca.path))))
    assert set(Ledger(Folder(ca.path)).grants) >= {token.id}
    assert len(Ledger(Folder(ca.path)).grants) == 2
    assert (ca.path / LEDGER).read_text().endswith("cut off\tmade")
    (moved,) = ca.path.glob("tokens-*.tsv")
    assert moved.read_text().count("\tmade\t") == 3
    desk = Desk(ca.path)
    request = signing_request(keys.generate())
    for each in moved.read_text().splitlines():
        with pytest.raises(Refused, match="no such token"):
            desk.join(each.split("\t")[2], b"", request, request, "", "127.0.0.1:1")


def join(desk: Desk, token: Token, key: Any) -> x509.Certificate:
    request = signing_request(key)
    given = desk.join(token.id, token.sign(request), request, request, "", "127.0.0.1:2")
    return x509.load_pem_x509_certificate(given.certificate.encode())


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look after 20 lines."""
    monkeypatch.setattr(module, "LEAST", 20)
    monkeypatch.setattr(module, "_OFTEN", 10**9)


@pytest.mark.usefixtures("soon")
def test_a_service_keeps_its_journal_short_and_goes_on(
    ca: CA, clock: Callable[[datetime.timedelta], None]
) -> None:
    desk = Desk(ca.path)
    token = ca.token(uses=4, lifetime=2 * HOUR)
    made = [keys.generate() for _ in range(3)]
    held = [join(desk, token, key) for key in made]
    with locked(ca.path) as folder:
        _, writes = revoke(Store(folder), f"{held[2].serial_number:x}", "keyCompromise")
        apply(writes)
    longest = 0
    for number in range(60):
        clock(number * 10 * HOUR)
        for index in range(2):
            old = held[index].public_bytes(Encoding.DER)
            given = desk.renew(old, signing_request(keys.generate()))
            held[index] = x509.load_pem_x509_certificate(given.certificate.encode())
        longest = max(longest, len((ca.path / JOURNAL).read_text().splitlines()))
    assert 20 <= longest < 45
    (moved,) = ca.path.glob("journal-*.tsv")
    everything = moved.read_text() + (ca.path / JOURNAL).read_text()
    assert everything.count("joined/worker-") == 3 + 120 + 1
    with pytest.raises(Refused) as caught:
        join(desk, token, made[2])
    assert caught.value.kind == "revoked"
    with pytest.raises(Refused) as caught:
        join(Desk(ca.path), token, made[2])
    assert caught.value.kind == "revoked", "another service reads it from the disk"
    join(desk, token, keys.generate())


@pytest.mark.usefixtures("soon")
@pytest.mark.skipif(os.geteuid() == 0 and not Path("/dev/full").exists(), reason="no way to fail")
def test_a_disk_that_takes_no_archive_keeps_nobody_out(
    ca: CA, caplog: pytest.LogCaptureFixture
) -> None:
    text = (ca.path / JOURNAL).read_text()
    text += "".join(line(60 * DAY, n, f"joined/worker-{n}") for n in range(1, 40))
    (ca.path / JOURNAL).write_text(text)
    for month in (now(), now() + DAY):  # a folder in its place
        (ca.path / f"journal-{month:%Y-%m}.tsv").mkdir(exist_ok=True)
    desk = Desk(ca.path)
    token = ca.token(uses=3)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            join(desk, token, keys.generate())
    assert (ca.path / JOURNAL).read_text().startswith(text)
    words = [r.getMessage() for r in caplog.records if "cannot rewrite" in r.getMessage()]
    assert len(words) == 1
