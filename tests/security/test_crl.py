"""Revocation lists: who is refused, in which words, and that a missing list lets nobody in."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sealwire.comm import Comm, HandshakeError, connect, listen
from sealwire.security import PEMError, Security
from sealwire.security.pem import Source, load_crls
from support import certs
from support.aio import aio
from support.handshakes import VERSIONS, client_context, security, server_context, shake

ROOT = certs.root("root")
BETWEEN = certs.intermediate(ROOT, "between")
OTHER = certs.root("other root")
GOOD = certs.leaf(ROOT, "good")
BAD = certs.leaf(ROOT, "bad")
DEEP = certs.leaf(BETWEEN, "deep", via=[BETWEEN])
OUTSIDER = certs.leaf(OTHER, "outsider")
PLAIN = [ROOT, OTHER]

LIST = certs.crl(ROOT, BAD)
EMPTY = certs.crl(ROOT)

# OpenSSL's X509_V_ERR_…
NO_CRL, CRL_EXPIRED, CRL_NOT_YET, CRL_SIGNATURE, REVOKED = 3, 12, 11, 8, 23

both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["TLS1.2", "TLS1.3"])


def refusal(crl: str, peer: certs.Node, version: ssl.TLSVersion = VERSIONS[1]) -> int | None:
    """OpenSSL's verdict on `peer` by one with this list, on both sides; None if it is let in."""
    ours = security(GOOD, PLAIN, tls_crl_file=crl, tls_max_version=version)
    theirs = security(peer, PLAIN)
    as_client = shake(server_context(ours), client_context(theirs))
    as_server = shake(server_context(theirs), client_context(ours))
    if as_client.accepted or as_server.accepted:
        assert as_client.accepted
        assert as_server.accepted
        return None
    code = as_client.refused_by("server")
    assert as_server.refused_by("client") == code
    return code


@both_versions
def test_revoked_certificates_are_refused_and_no_others(version: ssl.TLSVersion) -> None:
    assert refusal(LIST, BAD, version) == REVOKED
    assert refusal(LIST, GOOD, version) is None
    assert refusal(EMPTY, BAD, version) is None


CASES = {
    "no CRL of its CA": (LIST, OUTSIDER, NO_CRL),
    "out of date": (certs.crl(ROOT, end=-certs.SECOND), GOOD, CRL_EXPIRED),
    "not valid yet": (certs.crl(ROOT, start=certs.DAY), GOOD, CRL_NOT_YET),
    "signed by another key": (certs.crl(ROOT, key=OTHER.key), GOOD, CRL_SIGNATURE),
    "one of each CA": (LIST + certs.crl(OTHER), OUTSIDER, None),
    "one of each CA, revoked": (certs.crl(OTHER, OUTSIDER) + LIST, OUTSIDER, REVOKED),
    "the intermediate has none": (LIST, DEEP, NO_CRL),
    "the root has none": (certs.crl(BETWEEN), DEEP, NO_CRL),
    "the whole chain": (LIST + certs.crl(BETWEEN), DEEP, None),
    "the intermediate is revoked": (certs.crl(ROOT, BETWEEN) + certs.crl(BETWEEN), DEEP, REVOKED),
    "revoked by the intermediate": (LIST + certs.crl(BETWEEN, DEEP), DEEP, REVOKED),
    "an old one beside a new one": (certs.crl(ROOT, end=-certs.SECOND) + LIST, BAD, REVOKED),
    "words between them": (f"the list of\n{LIST}\nand\n{certs.crl(OTHER)}", BAD, REVOKED),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_list_decides(name: str) -> None:
    crl, peer, expected = CASES[name]
    assert refusal(crl, peer) == expected


def test_certificates_in_the_file_are_not_trusted() -> None:
    ours = security(GOOD, [ROOT], tls_crl_file=OTHER.pem + LIST + certs.crl(OTHER))
    assert server_context(ours).get_ca_certs(binary_form=True) == [ROOT.der]
    outcome = shake(server_context(ours), client_context(security(OUTSIDER, PLAIN)))
    assert outcome.refused_by("server") in (19, 20)
    assert server_context(ours).cert_store_stats()["crl"] == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ROOT.pem, r"no X509 CRL in it, only CERTIFICATE$"),
        ("neither\nthis nor that", r"no X509 CRL in it, nor any other complete PEM block"),
        (LIST[:200], r"no X509 CRL in it, nor any other complete PEM block"),
        (EMPTY + LIST[:200], r"a PEM block in it is cut short; give the whole text$"),
        (LIST.replace("MII", "AII", 1).replace("MIH", "AIH", 1), r"a CRL in it is damaged"),
        (EMPTY + LIST.replace("MII", "AII", 1).replace("MIH", "AIH", 1), r"a CRL in it is damaged"),
    ],
)
def test_a_list_that_cannot_be_used(text: str, words: str) -> None:
    one = security(GOOD, [ROOT], tls_crl_file=text)
    for get in (one.get_listen_args, one.get_connection_args):
        with pytest.raises(PEMError, match=rf"tls_crl_file \(PEM text in memory\): {words}"):
            get("worker")


@pytest.mark.parametrize("broken", ["missing", "empty", "directory", "DER"])
def test_a_file_that_cannot_be_used(broken: str, tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    if broken == "directory":
        path.mkdir()
    elif broken != "missing":
        path.write_bytes(b"" if broken == "empty" else ssl.PEM_cert_to_DER_cert(GOOD.pem))
    one = security(GOOD, [ROOT], tls_crl_file=path)
    with pytest.raises(PEMError, match=r"tls_crl_file \(.*crl\.pem\)"):
        one.get_listen_args("worker")


def test_a_list_is_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A new one counts for new handshakes; without a usable one, the last still revokes."""
    path = tmp_path / "crl.pem"

    def write(text: str) -> None:
        (tmp_path / "new").write_text(text)
        os.replace(tmp_path / "new", path)

    write(EMPTY)
    ours = security(GOOD, [ROOT], tls_crl_file=path, tls_reload_interval=0)
    server, bad = server_context(ours), client_context(security(BAD, [ROOT]))
    assert shake(server, bad).accepted
    write(LIST)
    assert shake(server, bad).refused_by("server") == REVOKED
    path.unlink()
    assert shake(server, bad).refused_by("server") == REVOKED
    write(LIST[:100])
    assert shake(server, bad).refused_by("server") == REVOKED
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "tls_crl_file" in caplog.text
    write(EMPTY)
    assert shake(server, bad).accepted


SHOWN = r"(?: \(it is \w+, valid until [\d-]+\))?"  # which certificate: clients know
WORDS = {
    "revoked": (
        LIST,
        BAD,
        rf"it has been revoked{SHOWN}; issue a new one",
        "it refused our certificate",
    ),
    "no CRL": (
        LIST,
        OUTSIDER,
        rf"we have no revocation list of a CA above it{SHOWN} \(our CRL: tls_crl_file .*\); "
        "add the CRL of every CA to tls_crl_file \\(sealwire.tls.crl-file\\)$",
        "it refused our certificate",
    ),
    "out of date": (
        certs.crl(ROOT, end=-certs.SECOND),
        GOOD,
        rf"the revocation list of its CA has expired{SHOWN} \(our CRL: tls_crl_file .*\); "
        "put the CA's present one into tls_crl_file \\(sealwire.tls.crl-file\\)$",
        "it refused our certificate: .*or its own CRL is out of date",
    ),
}


@pytest.mark.parametrize("name", WORDS)
@both_versions
@aio
async def test_both_sides_are_told(
    name: str, version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sealwire.comm")
    crl, peer, ours_says, theirs_says = WORDS[name]
    ours = security(GOOD, PLAIN, tls_crl_file=crl, tls_max_version=version)
    theirs = security(peer, PLAIN)

    def never(comm: Comm) -> None:
        raise AssertionError("let in")

    for server, client, at_client, in_log in (
        (ours, theirs, theirs_says, ours_says),
        (theirs, ours, ours_says, theirs_says),
    ):
        caplog.clear()
        args = server.get_listen_args("scheduler")
        async with listen("tls://127.0.0.1:0", never, **args) as listener:
            with pytest.raises(HandshakeError, match=at_client):
                await connect(
                    listener.contact_address, timeout=20, **client.get_connection_args("worker")
                )
            while not (said := told(caplog)):  # the listener may be slower
                await asyncio.sleep(0.01)
        assert len(said) == 1
        assert re.search(in_log, said[0]), said


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "sealwire.comm"]


UNSEEN = """
import os, sys
text = sys.stdin.read()
from sealwire.security.pem import Source, load_crls
import ssl
written = []
def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and not isinstance(path, int):
            written.append(path)
sys.addaudithook(watch)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
load_crls(context, Source("tls_crl_file", text, in_memory=True))
assert context.cert_store_stats()["crl"] == 1
assert not hasattr(os, "memfd_create") or not written, written
assert os.listdir(os.environ["TMPDIR"]) == []
"""


def test_text_in_memory_leaves_nothing_behind(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", UNSEEN],
        input=LIST,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )


def test_without_files_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    load_crls(context, Source("tls_crl_file", LIST, in_memory=True))
    assert context.cert_store_stats()["crl"] == 1
    assert not list(tmp_path.iterdir())


def test_no_crl_is_no_check() -> None:
    assert Security.temporary().tls_crl_file is None
    one = security(GOOD, [ROOT])
    assert shake(server_context(one), client_context(security(BAD, [ROOT]))).accepted
