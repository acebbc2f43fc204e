"""What is configured for the configured CA breaks no other that is given as an argument."""

from __future__ import annotations

import datetime
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import distributed
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from distributed.comm import connect, listen

from sealwire.dask_backend import Security, install, startup
from sealwire.dask_backend.links import links
from sealwire.security import Security as OwnSecurity
from sealwire.security import belonging
from support import certs, certs_cli, forking
from support.parties import ROLES, asynchronous, echo
from support.programs import HOME, environment

CA, OTHER = certs.root("ca"), certs.root("ca")
REVOKED = certs.leaf(CA, "worker")


@pytest.fixture(autouse=True)
def _installed() -> None:
    install()


@pytest.fixture
def configured(tmp_path: Path) -> Any:
    (tmp_path / "ca.pem").write_text(CA.pem)
    (tmp_path / "crl.pem").write_text(certs.crl(CA, REVOKED))
    return dask.config.set(
        {
            "distributed.comm.tls.ca-file": str(tmp_path / "ca.pem"),
            "sealwire.tls.crl-file": str(tmp_path / "crl.pem"),
            "sealwire.tls.allowed-peers": {role: ["node*"] for role in ROLES},
        }
    )


def pem(ca: certs.Node) -> dict[str, str]:
    made = {"tls_ca_file": ca.pem}
    for role in ROLES:
        node = certs.leaf(ca, role)
        made[f"tls_{role}_cert"] = node.pem + node.key_pem
    return made


ANOTHER: dict[str, Callable[[], Any]] = {
    "ours, temporary": Security.temporary,
    "distributed's, temporary": distributed.Security.temporary,
    "ours, as arguments": lambda: Security(**pem(OTHER)),
    "distributed's, as arguments": lambda: distributed.Security(**pem(OTHER)),
}


@pytest.mark.parametrize("make", ANOTHER.values(), ids=ANOTHER)
@asynchronous
async def test_another_is_let_be_and_the_log_says_so(
    make: Callable[[], Any], configured: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sealwire")
    belonging._told.clear()
    startup.forget()
    with configured:
        security = make()
        args = security.get_listen_args("scheduler")
        async with listen("tls://127.0.0.1:0", echo, **args) as listener:
            dial = security.get_connection_args("worker")
            comm = await connect(listener.contact_address, **dial)
            await comm.write("in")
            assert await comm.read() == "in"
            assert [words for link in links() for words in link["unprotected"]] == []
            comm.abort()
    said = [each.getMessage() for each in caplog.records]
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING], said
    words = "sealwire.tls.crl-file and sealwire.tls.allowed-peers: not used with tls_ca_file"
    assert sum(words in each for each in said) == 1, said
    assert "CRL off, allow-list off" in said[-1]


def renewed(ca: certs.Node) -> str:
    """Another certificate of the same name and key."""
    old = ca.certificate
    builder = x509.CertificateBuilder(
        issuer_name=old.issuer,
        subject_name=old.subject,
        public_key=old.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=old.not_valid_before_utc,
        not_valid_after=old.not_valid_after_utc + datetime.timedelta(days=30),
        extensions=list(old.extensions),
    )
    made = builder.sign(ca.key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


THE_SAME: dict[str, Callable[[Path], Any]] = {
    "its file": lambda folder: str(folder / "ca.pem"),
    "its path": lambda folder: folder / "." / "ca.pem",
    "its text": lambda folder: CA.pem,
    "a copy": lambda folder: _copy(folder, CA.pem),
    "among others": lambda folder: OTHER.pem + CA.pem,
    "as words before it": lambda folder: _copy(folder, "the cluster's CA\n" + CA.pem),
    "renewed": lambda folder: renewed(CA),
}


def _copy(folder: Path, text: str) -> str:
    (folder / "copy.pem").write_text(text)
    return str(folder / "copy.pem")


@pytest.mark.parametrize("kind", [OwnSecurity, Security, distributed.Security])
@pytest.mark.parametrize("make", THE_SAME.values(), ids=THE_SAME)
def test_the_configured_one_is_known_in_every_form(
    make: Callable[[Path], Any], kind: Any, configured: Any, tmp_path: Path
) -> None:
    """Else its lists would be lost by a copy."""
    given = make(tmp_path)
    if kind is distributed.Security:
        given = str(given)
    fields = {**pem(CA), "tls_ca_file": given}
    with configured:
        context = kind(**fields).get_listen_args("scheduler")["ssl_context"]
        crl, allowed = "sealwire.tls.crl-file", "sealwire.tls.allowed-peers"
        assert context.lacks(crl=crl, allowed=allowed) == []


def test_what_is_given_is_given(configured: Any, tmp_path: Path) -> None:
    with configured:
        one = OwnSecurity(**{**pem(OTHER), "tls_allowed_peers": "node*"})
        assert one.tls_allowed_peers == dict.fromkeys(ROLES, ("node*",))
        assert one.tls_crl_file is None


@pytest.mark.parametrize("broken", ["no file", "no PEM", "nothing configured"])
def test_in_doubt_it_holds(broken: str, configured: Any, tmp_path: Path) -> None:
    with configured, dask.config.set({}):
        if broken == "no file":
            (tmp_path / "ca.pem").unlink()
        elif broken == "no PEM":
            (tmp_path / "ca.pem").write_text("nothing\nat all\n")
        else:
            dask.config.set({"distributed.comm.tls.ca-file": None})
        one = OwnSecurity(**pem(OTHER))
        assert one.tls_crl_file == str(tmp_path / "crl.pem")
        assert one.tls_allowed_peers == dict.fromkeys(ROLES, ("node*",))


README = """
from dask.distributed import Client, LocalCluster
from sealwire.dask_backend import Security

if __name__ == "__main__":
    for security in (Security.temporary(), True):
        with LocalCluster(
            n_workers=1, security=security, dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
        ) as cluster:
            with Client(cluster) as client:
                print(client.submit(sum, range(100)).result())
"""


def test_the_readmes_second_example_in_the_terminal_of_its_first(tmp_path: Path) -> None:
    assert "security = Security.temporary()" in (HOME.parent / "README.md").read_text()
    certs_cli.good("init", str(tmp_path / "certs"))
    (tmp_path / "example.py").write_text(README)
    variables = environment(DASK_CONFIG=str(tmp_path / "certs" / "dask.yaml"))
    done = forking.run([sys.executable, "-m", "example"], tmp_path, variables)
    assert done.stdout.split() == ["4950", "4950"], done.stderr
