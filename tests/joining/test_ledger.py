"""The ledger: what it says of a token whatever became of its file, its values and the clock."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealwire.joining import Desk, LedgerError, Refused, Token
from sealwire.joining import ledger as module
from sealwire.joining.client import signing_request
from sealwire.joining.ledger import LEDGER, Ledger
from sealwire.security.ca.atomic_files import apply
from sealwire.security.ca.folder import Folder
from sealwire.security.ca.store import Store
from sealwire.security.x509 import keys
from sealwire.security.x509.templates import now
from support.joining import CA, HOUR

KEYS = [f"{number:064x}" for number in range(3)]


def use(ca: CA, token: Token, key: str) -> None:
    ledger = Ledger(Folder(ca.path))
    line = ledger.use(ledger.find(token.id), key, now(), "joined/worker-x", "127.0.0.1:1")
    apply(ledger.write([line]))


def test_it_remembers_what_is_written(ca: CA) -> None:
    one = ca.token(uses=2, names=("*.lab", "10.*"), about="job\t4711\n\x1b[31m", lifetime=2 * HOUR)
    other = ca.token("client", expires=HOUR / 60)
    use(ca, one, KEYS[0])
    ca.revoke(other)
    grant = ca.grant(one)
    assert (grant.role, grant.uses, grant.names) == ("worker", 2, ("*.lab", "10.*"))
    assert grant.about == "job 4711  [31m"
    assert (list(grant.used), grant.status, grant.lifetime) == ([KEYS[0]], "valid", 7200)
    use(ca, one, KEYS[1])
    use(ca, one, KEYS[1])
    assert (len(ca.grant(one).used), ca.grant(one).status) == (2, "used up")
    assert ca.grant(other).status == "revoked"


def test_its_reader_cannot_make_or_prove_a_token(ca: CA) -> None:
    token = ca.token()
    text = (ca.path / LEDGER).read_text()
    assert (ca.path / LEDGER).stat().st_mode & 0o777 == 0o600
    everything = b"".join(p.read_bytes() for p in ca.path.iterdir())
    for secret in (token.seed, token.seed.hex().encode(), token.text().encode()):
        assert secret not in everything
    assert token.id in text


def test_cut_anywhere_no_token_gains_a_use_that_was_allowed(ca: CA) -> None:
    """A line is whole, or what it would have allowed was not done."""
    token = ca.token(uses=2)
    path = ca.path / LEDGER
    before = path.read_bytes()
    use(ca, token, KEYS[0])
    whole = path.read_bytes()
    for size in range(len(before), len(whole) + 1):
        path.write_bytes(whole[:size])
        known = list(ca.grant(token).used)
        assert known == ([KEYS[0]] if size >= len(whole) - 1 else []), size
        use(ca, token, KEYS[1])  # what is appended to a cut line is whole
        assert list(ca.grant(token).used) == [*known, KEYS[1]]


@pytest.mark.parametrize("column", [0, 1, 3])
@pytest.mark.parametrize("event", ["made", "used", "revoked"])
def test_a_whole_line_that_is_damaged_stops_everything(ca: CA, event: str, column: int) -> None:
    token = ca.token()
    use(ca, token, KEYS[0])
    ca.revoke(token)
    path = ca.path / LEDGER
    lines = path.read_text().splitlines()
    number = next(n for n, line in enumerate(lines) if f"\t{event}\t" in line)
    columns = lines[number].split("\t")
    if event == "revoked" and column == 3:
        column = 1  # it has no key
    columns[column] = "?" * 64
    lines[number] = "\t".join(columns)
    path.write_text("\n".join([*lines, ""]))
    with pytest.raises(LedgerError, match=f"line {number + 1} is damaged"):
        Ledger(Folder(ca.path))


@pytest.mark.parametrize("data", [b"", b"\0" * 99, b"\xff\xfe\n\n", b"#\n", b"\t" * 10, b"a\n" * 9])
def test_what_is_no_line_is_no_token(ca: CA, data: bytes) -> None:
    (ca.path / LEDGER).write_bytes(data)
    assert Ledger(Folder(ca.path)).grants == {}
    token = ca.token()
    assert ca.grant(token).status == "valid"


@pytest.mark.parametrize(
    "how",
    [
        {"role": "authority"}, {"role": ""}, {"role": "Worker"},
        {"uses": 0}, {"uses": -1}, {"uses": 10**9},
        {"expires": HOUR * 0}, {"expires": -HOUR}, {"expires": HOUR * 24 * 400},
        {"lifetime": HOUR / 3600}, {"lifetime": HOUR * 24 * 400},
        {"names": ()}, {"names": ("",)}, {"names": ("a b",)}, {"names": ("a\t",)},
        {"names": ("é",)}, {"names": ("*" * 300,)},
    ],
)  # fmt: skip
def test_values_that_no_token_can_have(ca: CA, how: dict[str, Any]) -> None:
    with pytest.raises(LedgerError, match="cannot make a token"):
        ca.token(**how)
    assert not (ca.path / LEDGER).exists()


def test_a_token_is_found_by_the_beginning_of_its_name_alone(ca: CA) -> None:
    one = ca.token()
    ledger = Ledger(Folder(ca.path))
    assert ledger.find(one.id[:6]).id == one.id
    for bad in ("", "zz", one.id + "0", "*"):
        with pytest.raises(LedgerError, match="cannot find the token"):
            ledger.find(bad)


def test_a_clock_that_is_set_back_revives_nothing(ca: CA, monkeypatch: pytest.MonkeyPatch) -> None:
    token = ca.token()
    ahead: datetime.datetime = now() + 2 * HOUR
    monkeypatch.setattr(module, "now", lambda: ahead)
    ledger = Ledger(Folder(ca.path))
    assert ledger.grants[token.id].status == "expired"
    apply(ledger.write([ledger.end(ledger.grants[token.id], "expired", "")]))
    monkeypatch.undo()
    assert ca.grant(token).status == "expired"


def test_a_token_of_the_future_is_not_valid(ca: CA, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock has been set back beyond its making: nobody knows when it expires."""
    token = ca.token(expires=240 * HOUR)
    monkeypatch.setattr(module, "now", lambda: now() - HOUR)
    assert ca.grant(token).status == "of the future"


def test_a_link_in_the_place_of_the_ledger_is_not_followed(ca: CA, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("")
    (ca.path / LEDGER).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        ca.token()
    assert (tmp_path / "elsewhere").read_text() == ""
    assert Store(ca.path).journal.issued()


AFTER: dict[str, Callable[[CA, Token, bytes], bytes]] = {
    "another token": lambda ca, token, text: (ca.token(), read_of(ca))[1],
    "a use": lambda ca, token, text: (use(ca, token, KEYS[1]), read_of(ca))[1],
    "a revocation": lambda ca, token, text: (ca.revoke(token), read_of(ca))[1],
    "nothing": lambda ca, token, text: text,
    "the beginning of a line": lambda ca, token, text: text + text.splitlines()[-1][:-9],
    "a comment": lambda ca, token, text: text + b"# by hand\n",
    "a correction in place": lambda ca, token, text: text.replace(
        b"\tworker\t2\t", b"\tclient\t2\t"
    ),
    "a use that is taken back": lambda ca, token, text: text[: text.rindex(b"\n", 0, -1) + 1],
    "a correction, and more": lambda ca, token, text: text.replace(b"127.0.0.1", b"127.0.0.9") * 2,
    "an end without a newline": lambda ca, token, text: text[:-1],
    "no file": lambda ca, token, text: b"",
}


def read_of(ca: CA) -> bytes:
    return (ca.path / LEDGER).read_bytes()


@pytest.mark.parametrize("what", AFTER)
def test_what_was_appended_is_followed_and_all_else_read_anew(ca: CA, what: str) -> None:
    """Whatever became of the file, a ledger that follows it knows what a new one does."""
    token = ca.token(uses=2)
    use(ca, token, KEYS[0])
    known = Ledger(Folder(ca.path))
    (ca.path / LEDGER).write_bytes(AFTER[what](ca, token, read_of(ca)))
    followed = known.follow()
    assert followed is (what in list(AFTER)[:6])
    anew = Ledger(Folder(ca.path))
    if followed:
        assert (known.grants, known.lifetimes) == (anew.grants, anew.lifetimes)
        assert known.lines in (anew.lines, anew.lines + 1)
        assert known.follow()
        token = ca.token()
        assert known.follow()
        assert token.id in known.grants, "after a line that was cut, a new one has begun"


def test_a_desk_that_follows_its_ledger_obeys_each_change(ca: CA) -> None:
    """Made, revoked, damaged and mended while it serves; by appending and in place."""
    desk = Desk(ca.path)

    def join(token: Token) -> str:
        request = signing_request(keys.generate())
        try:
            return desk.join(
                token.id, token.sign(request), request, request, "", "127.0.0.1:2"
            ).role
        except Refused as error:
            return error.kind
        except LedgerError:
            return "damaged"

    token = ca.token(uses=9)
    assert join(token) == join(token) == "worker"
    known, other = desk._ledger, ca.token("client")
    assert (join(other), join(other), join(token)) == ("client", "used", "worker")
    assert desk._ledger is known, "it was followed, not read anew"
    whole = read_of(ca)
    (ca.path / LEDGER).write_bytes(
        whole + whole.splitlines(True)[-1].replace(b"\tused\t", b"\tusd\t")
    )
    assert join(token) == join(token) == "damaged"
    (ca.path / LEDGER).write_bytes(whole)
    assert join(token) == "worker"
    ca.revoke(token)
    assert join(token) == "revoked"
    (ca.path / LEDGER).write_bytes(whole)
    assert join(token) == "worker", "a revocation that was taken back by hand"
    (ca.path / LEDGER).unlink()
    assert join(token) == "unknown"
