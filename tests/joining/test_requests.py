"""What a request asks for is judged as it would be signed; and other ways around a token."""

from __future__ import annotations

import datetime
import itertools
import re
import shutil
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from sealwire.joining import Desk, LedgerError, Refused, Token, Unavailable, join, ledger
from sealwire.joining.client import signing_request
from sealwire.joining.ledger import LEDGER, Grant
from sealwire.joining.requests import Asked
from sealwire.security.x509 import keys
from sealwire.security.x509.templates import now
from support.aio import aio
from support.joining import CA, HOUR

ROLES = ("client", "scheduler", "worker", "authority")


def asked(hosts: list[str], node: str = "") -> Asked:
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, node)] if node else []
    names = [x509.DNSName(host) for host in hosts]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Asked(builder.sign(keys.generate(), hashes.SHA256()).public_bytes(Encoding.DER))


def grant(*patterns: str) -> Grant:
    end = now() + datetime.timedelta(hours=1)
    return Grant("id", b"", "client", 1, now(), end, 3600.0, patterns or ("*",))


FORMS = (
    "{}",
    "{}.",
    "{}..",
    "[{}]",
    "[{}.]",
    "[[{}]]",
    " {}",
    "{} ",
    "{}\t",
    ".{}",
    "[{}].",
    "{}\0",
)


@pytest.mark.parametrize("role", ROLES)
def test_no_form_of_a_role_is_a_name(role: str) -> None:
    for form, case in itertools.product(FORMS, (str.lower, str.upper, str.title)):
        name = form.format(case(role))
        for hosts, node in (([name], ""), (["node7", name], ""), ([], name)):
            with pytest.raises(Refused) as caught:
                asked(hosts, node).must_fit(grant())
            assert caught.value.kind in ("names", "request"), name


def test_a_pattern_is_of_what_is_signed() -> None:
    request = asked(["node7.lab.", "[10.0.0.7]", "[::1]"], "node7.lab")
    assert request.hosts == ["node7.lab", "10.0.0.7", "::1"]
    request.must_fit(grant("node7.lab", "10.0.0.*", "::1"))
    for patterns in (("node7.lab.", "10.0.0.*", "::1"), ("*.", "1*", ":*"), ("[*", "*.lab")):
        with pytest.raises(Refused):
            request.must_fit(grant(*patterns))


PAGE = (Path(__file__).resolve().parents[2] / "docs/joining.md").read_text(encoding="utf-8")
FAILURES = re.findall(
    r"^\| `([^`]+)` \|",
    PAGE.partition("## When joining fails")[2].partition("\n## ")[0],
    re.MULTILINE,
)


def test_each_refusal_of_a_token_says_what_to_do(ca: CA, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one who reads it has the token, and perhaps nothing else."""
    cases = {
        "unknown": (CA(ca.path.parent / "other").token(), "", "worker"),
        "revoked": (ca.token(), "", "worker"),
        "expired": (ca.token(expires=HOUR / 60), "", "worker"),
        "role": (ca.token(), "", "client"),
        "used": (ca.token(), "", "worker"),
        "names": (ca.token(names=["*.lab", "10.0.0.*"]), "node7", "worker"),
    }
    ca.revoke(cases["revoked"][0])
    desk = Desk(ca.path)
    desk.join(*question(cases["used"][0]), "", "tls://there")
    monkeypatch.setattr(ledger, "now", lambda: now() + HOUR / 30)
    listed = [each for each in FAILURES if each not in BEFORE]
    assert len(listed) + len(BEFORE) == len(FAILURES)
    for kind, (token, node, role) in cases.items():
        with pytest.raises(Refused, match=r"^[^;]+; [^;]+$") as caught:
            desk.join(*question(token, node), role, "tls://there")
        assert caught.value.kind == kind
        (row,) = [each for each in listed if each in str(caught.value)]
        listed.remove(row)
        if kind == "names":
            assert "'node7'" in str(caught.value)
            assert "*.lab, 10.0.0.*" in str(caught.value)
    assert listed == [], "each row of docs/joining.md can be met"


#: rows of what no service has said: test_dask.py, test_commands.py, test_join.py and
#: test_answers.py meet them
BEFORE = (
    "there is no token",
    "cannot ask",
    "not one of the CA that made the token",
    "is no service to join",
)


def question(token: Token, node: str = "") -> tuple[str, bytes, bytes, bytes]:
    """What a process says of its token, and for a key of its own."""
    return token.id, token.sign(b"proved"), b"proved", signing_request(keys.generate(), node)


@aio
async def test_a_token_is_used_in_the_folder_that_is_there(ca: CA, tmp_path: Path) -> None:
    """Replaced by a copy, as a restored backup or a synchronised folder is."""
    token, other = ca.token(), ca.token()
    async with ca.service() as address:
        await join(address, ca.token(), keys.generate())
        shutil.copytree(ca.path, tmp_path / "copy")
        ca.path.rename(tmp_path / "before")
        (tmp_path / "copy").rename(ca.path)
        await join(address, token, keys.generate())
        assert len(ca.grant(token).used) == 1
        ca.revoke(other)
        with pytest.raises(Refused):
            await join(address, other, keys.generate())
    async with ca.service() as address:
        with pytest.raises(Refused) as caught:
            await join(address, token, keys.generate())
    assert caught.value.kind == "used"


@pytest.mark.parametrize("end", [".\r", ". ", ".\t", ".\t.", "..", "x", ".\x0b", "-"])
def test_a_whole_line_with_a_damaged_end_stops_all_joining(ca: CA, end: str) -> None:
    token = ca.token()
    path = ca.path / LEDGER
    text = path.read_text()
    assert text.endswith("\t.\n")
    path.write_bytes(b"\t" * 30 + b"\n" + text.encode())
    with pytest.raises(LedgerError, match="line 1 is damaged"):
        ca.grant(token)
    path.write_bytes((text[:-2] + end + "\n").encode())
    with pytest.raises(LedgerError, match="damaged"):
        ca.grant(token)


@aio
async def test_the_lifetime_is_that_of_the_certificate(ca: CA) -> None:
    short = CA(ca.path.parent / "short", ca_days=0.1)
    token, key = short.token(lifetime=24 * HOUR), keys.generate()
    async with short.service() as address:
        joined = await join(address, token, key)
        again = await join(address, token, key)
    ends = x509.load_pem_x509_certificate(joined.certificate.encode()).not_valid_after_utc
    left = (ends - now()).total_seconds()
    assert left < 8641
    for answer in (joined, again):
        assert left - 60 < answer.lifetime <= left + 60


@aio
async def test_strangers_do_not_fill_the_log_of_a_service_that_cannot_answer(
    ca: CA, caplog: pytest.LogCaptureFixture
) -> None:
    async with ca.service() as address:
        token = ca.token()
        with (ca.path / LEDGER).open("a") as ledger:
            ledger.write("x\t" * 12 + "\n")
        for _ in range(20):
            with pytest.raises(Unavailable):
                await join(address, token, keys.generate())
    lines = [r.getMessage() for r in caplog.records if "cannot answer" in r.getMessage()]
    assert len(lines) == 1
    assert "is damaged" in lines[0]
