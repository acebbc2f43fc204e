"""The doctor where a certificate is refused, by either side, or our own cannot be used."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import dask
import pytest
from click.testing import CliRunner

from sealwire.cli.main import main
from sealwire.cli.probe.diagnosis import Outcome
from support import certs
from support.aio import aio, until
from support.handshakes import security
from support.listeners import CA, CLIENT, GOOD, KINDS, NODE, OTHER_CA, Here, at, listening, probe

pytestmark = pytest.mark.usefixtures("registry")


# Refused, by either side


@KINDS
@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize(
    ("node", "words"),
    [
        (
            certs.leaf(OTHER_CA, "client"),
            "it refused our certificate: not signed by its CA (our certificate: ",
        ),
        (certs.leaf(CA, "client", end=-certs.SECOND), "it refused our certificate: expired or not"),
        (
            certs.leaf(CA, "client", purposes=[certs.SERVER]),
            "its extended key usage, or that of a CA",
        ),
    ],
    ids=["other CA", "expired", "purpose"],
)
@aio
async def test_it_refuses_us(
    kind: str, version: str, node: certs.Node, words: str, here: Here
) -> None:
    one = security(NODE, [CA], tls_max_version=version)
    told = await at(listening(kind, "tls", one), *here(node))
    assert told["exit_code"] == Outcome.REFUSED.value == 5
    assert words in told["words"]
    assert told["words"].startswith(f"TLS handshake with {told['address']} failed: ")
    assert told["certificates"]["ours"]["issuer"] == node.certificate.issuer.rfc4514_string()
    if version == "1.3":
        assert told["certificates"]["theirs"]["subject"] == "CN=node"


@aio
async def test_it_has_revoked_us(here: Here) -> None:
    one = security(NODE, [CA], tls_crl_file=certs.crl(CA, CLIENT))
    told = await at(listening("comm", "tls", one), *here())
    assert told["exit_code"] == 5
    assert re.search(
        r"it refused our certificate: revoked \(our certificate: tls_client_cert \(.*client\.pem\)"
        r", valid until [0-9-]+\); issue a new one$",
        told["words"],
    )


@KINDS
@aio
async def test_it_does_not_list_us(kind: str, here: Here) -> None:
    one = security(NODE, [CA], tls_allowed_peers=["worker*"])
    told = await at(listening(kind, "tls", one), *here())
    assert told["exit_code"] == 5
    if kind != "stock":
        assert (
            "it refused our certificate: its names (CN=client, DNS client) match" in told["words"]
        )
        assert "add one of them to the other side's tls_allowed_peers" in told["words"]
        return
    assert (
        "closed the connection after the TLS handshake and before its hello; its log says why: "
        in (told["words"])
    )
    assert "our certificate may not be among its allowed peers (tls_allowed_peers)" in told["words"]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (certs.leaf(OTHER_CA, "node"), "we refused its certificate: it is not signed by our CA"),
        (certs.leaf(CA, "node", end=-certs.SECOND), "we refused its certificate: it has expired"),
        (certs.make("node", names=["node"]), "we refused its certificate: it is self-signed"),
    ],
    ids=["other CA", "expired", "self-signed"],
)
@KINDS
@aio
async def test_we_refuse_it(kind: str, node: certs.Node, words: str, here: Here) -> None:
    """And show the certificate that was refused."""
    told = await at(listening(kind, "tls", security(node, [CA])), *here())
    assert told["exit_code"] == 5
    assert words in told["words"]
    theirs = told["certificates"]["theirs"]
    assert theirs["serial"] == f"{node.certificate.serial_number:x}"
    assert theirs["issuer"] == node.certificate.issuer.rfc4514_string()
    assert told["certificates"]["our_ca"]["subject"] == "CN=our ca"


@aio
async def test_we_do_not_list_it(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    """And it is told, as by any process of a cluster."""
    caplog.set_level("INFO", "sealwire.comm")
    with dask.config.set({"sealwire.tls.allowed-peers": ["scheduler*"]}):
        async with listening("comm", "tls", GOOD) as listener:
            told = await asyncio.to_thread(probe, listener.contact_address, *here())
            await until(lambda: bool(listener.stats.refused))
    assert "it refused our certificate: its names (CN=node, DNS node)" in caplog.text
    assert told["exit_code"] == 5
    assert "its names (CN=node, DNS node) match none of the allowed peers" in told["words"]


@aio
async def test_no_version_in_common(here: Here) -> None:
    older = security(NODE, [CA], tls_max_version="1.2")
    with dask.config.set({"distributed.comm.tls.min-version": 1.3}):
        told = await at(listening("comm", "tls", older), *here())
    assert told["exit_code"] == 5
    assert "TLS version" in told["words"]


# Wrong here


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda folder: (folder / "client.pem").unlink(), "cannot read tls_client_cert"),
        (lambda folder: (folder / "ca.pem").write_text("x"), "no certificate in it"),
        (
            lambda folder: (folder / "client.pem").write_text(CLIENT.pem + NODE.key_pem),
            "the private key does not belong to the first certificate",
        ),
        (
            lambda folder: (folder / "client.pem").write_text(
                CLIENT.pem + CLIENT.encrypted_key_pem(b"x")
            ),
            "its private key is encrypted and no password was given; set tls_key_password",
        ),
    ],
    ids=["missing", "no CA", "mismatch", "encrypted"],
)
def test_our_own_files(
    break_it: Callable[[Path], object],
    words: str,
    here: Here,
    tmp_path: Path,
) -> None:
    options = here()
    break_it(tmp_path)
    told = probe("tls://127.0.0.1:1", *options)
    assert told["exit_code"] == Outcome.HERE.value == 3
    assert words in told["words"]
    assert told["steps"] == []


@aio
async def test_encryption_is_required_here() -> None:
    with dask.config.set({"distributed.comm.require-encryption": True}):
        told = await at(listening("comm", "tcp", GOOD))
    assert told["exit_code"] == 3
    assert "in plain text, but encryption is required here" in told["words"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tls://127.0.0.1"], "need tcp://host:port or tls://host:port"),
        (["ucx://127.0.0.1:1"], "need tcp://host:port or tls://host:port"),
        (["tls://127.0.0.1:x"], "got port 'x', need 0 to 65535"),
        (["tls://127.0.0.1:1", "--as", "nanny"], "'nanny' is not one of"),
        (["tls://127.0.0.1:1", "--timeout", "0"], "is not in the range"),
        ([], "Missing argument 'ADDRESS'"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str, here: Here) -> None:
    done = CliRunner().invoke(main, ["probe", *arguments, *here()])
    assert done.exit_code == 2
    assert words in done.output
