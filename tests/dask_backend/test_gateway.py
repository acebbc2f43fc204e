"""dask-gateway's client: its scheme is its own, its certificates are the gateway's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from dask_gateway import comm as gateway_comm
from dask_gateway.client import GatewaySecurity
from distributed import Client, Scheduler
from distributed.comm import connect, listen
from distributed.comm.registry import backends

from sealwire.dask_backend import Security, install, uninstall
from sealwire.dask_backend.guard import EncryptionRequired
from sealwire.dask_backend.links import links
from sealwire.security import ConfigError
from support import certs, certs_cli
from support.parties import HANG, asynchronous, echo, select

WHERE = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}


def of_a_cluster() -> tuple[str, str]:
    """Key and certificate as a gateway makes them for a cluster: its own CA, and no CA at all."""
    key = certs.p256()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dask")])
    now = certs.leaf(certs.root(), "x").certificate.not_valid_before_utc
    made = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now + 30 * certs.DAY
    ).sign(key, hashes.SHA256())
    node = certs.Node(made.public_bytes(certs.serialization.Encoding.DER), key)
    return node.key_pem, node.pem


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[Any]:
    """What `certs init` configures, in a process that has loaded us."""
    certs_cli.good("init", str(tmp_path / "certs"))
    tree = dask.config.collect([str(tmp_path / "certs" / "dask.yaml")], {})
    install()
    with dask.config.set(dask.config.merge(dask.config.config, tree)):
        yield tree


def server(key: str, certificate: str) -> Any:
    """The context of the cluster's scheduler, to which a gateway passes every byte on."""
    return Security(tls_ca_file=certificate, tls_scheduler_cert=certificate, tls_scheduler_key=key)


@pytest.mark.parametrize("behind", ["ours", "stock"])
@asynchronous
async def test_a_comm(behind: str, configured: Any, caplog: pytest.LogCaptureFixture) -> None:
    key, certificate = of_a_cluster()
    args = server(key, certificate).get_listen_args("scheduler")
    select(behind)
    async with listen("tls://127.0.0.1:0", echo, **args) as listener:
        install()
        address = listener.contact_address.replace("tls://", "gateway://") + "/cluster"
        dial = GatewaySecurity(key, certificate).get_connection_args("client")
        comm = await connect(address, **dial)
        await comm.write("in")
        assert await comm.read() == "in"
        (link,) = [each for each in links() if each["peer"].startswith("gateway://")]
        assert link["unprotected"] == []
        assert link["protocol"] == "TLSv1.3"
        comm.abort()
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


@asynchronous
async def test_a_client(configured: Any) -> None:
    """Whose preload is ours: it starts with the gateway's context, and adopts none."""
    key, certificate = of_a_cluster()
    async with Scheduler(security=server(key, certificate), **WHERE) as scheduler:
        address = scheduler.address.replace("tls://", "gateway://") + "/cluster"
        client = Client(
            address, security=GatewaySecurity(key, certificate), asynchronous=True, timeout=HANG / 2
        )
        async with client:
            assert await client.run_on_scheduler(lambda: 1) == 1


@asynchronous
async def test_with_the_configured_ca_it_is_refused(configured: Any, tmp_path: Path) -> None:
    """Whose lists its contexts would not look at."""
    text = (tmp_path / "certs" / "client.pem").read_text()
    security = GatewaySecurity(text, text + (tmp_path / "certs" / "ca.pem").read_text())
    with pytest.raises(ConfigError, match=r"crl-file is set, and it looks certificates up in no"):
        security.get_connection_args("client")


@pytest.mark.parametrize("there", [False, True])
def test_another_backend_of_that_name_is_looked_at(
    there: bool, configured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Backend(gateway_comm.GatewayBackend):
        """As it might be in a release that does not demand a context."""

    if there:
        monkeypatch.setitem(backends, "gateway", Backend())

    async def dial() -> None:
        with pytest.raises(EncryptionRequired if there else TypeError):
            await connect("gateway://127.0.0.1:1/x", timeout=1, require_encryption=True)

    asyncio.run(dial())
    uninstall()
