"""The doctor knows our own revocation list, whatever the other side makes of our certificate."""

from __future__ import annotations

from pathlib import Path

import dask
import pytest

from support import certs
from support.aio import aio
from support.handshakes import security
from support.listeners import CA, CLIENT, KINDS, NODE, OTHER_CA, Here, at, listening

pytestmark = pytest.mark.usefixtures("registry")

CRL = "sealwire.tls.crl-file"
ANOTHER = certs.leaf(CA, "client")


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@KINDS
@aio
async def test_we_are_let_in_all_the_same(kind: str, here: Here, tmp_path: Path) -> None:
    """By who has no list: a process without one, or distributed's own backend."""
    lists = written(tmp_path / "crl.pem", certs.crl(CA, CLIENT))
    with dask.config.set({CRL: lists}):
        told = await at(listening(kind, "tls", security(NODE, [CA], tls_crl_file=None)), *here())
    assert told["outcome"] == "here"
    assert told["exit_code"] == 3
    assert told["words"].startswith("our own certificate is revoked: tls_client_cert (")
    assert f"is on tls_crl_file ({lists})" in told["words"]
    assert f"; yet it was let in by {told['backend']}" in told["words"]


@pytest.mark.parametrize("kind", ["comm", "ours"])
@aio
async def test_we_are_refused(kind: str, here: Here, tmp_path: Path) -> None:
    lists = written(tmp_path / "crl.pem", certs.crl(CA, CLIENT))
    with dask.config.set({CRL: lists}):
        told = await at(listening(kind, "tls", security(NODE, [CA], tls_crl_file=lists)), *here())
    assert told["outcome"] == "refused"
    assert told["words"].startswith("our own certificate is revoked: ")
    assert "it refused our certificate: revoked" in told["words"]


@pytest.mark.parametrize("revoked", [None, NODE, ANOTHER], ids=["none", "others", "of our name"])
@aio
async def test_what_is_not_ours_is_no_matter(
    revoked: certs.Node | None, here: Here, tmp_path: Path
) -> None:
    lists = certs.crl(CA, *([revoked] if revoked else [])) + certs.crl(OTHER_CA)
    with dask.config.set({CRL: written(tmp_path / "crl.pem", lists)}):
        server = certs.leaf(CA, "node")
        told = await at(
            listening("ours", "tls", security(server, [CA], tls_crl_file=None)), *here()
        )
    assert told["outcome"] == "ok", told["words"]
