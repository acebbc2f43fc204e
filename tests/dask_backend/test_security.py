"""`Security` for Dask: distributed's by type, ours by behaviour, whatever carries it where."""

from __future__ import annotations

import json
import os
import pickle
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import distributed
import pytest
from distributed import Client, Nanny, Scheduler, Worker
from distributed.comm import connect, listen
from distributed.protocol.pickle import dumps, loads

from sealwire.dask_backend import Security, install, uninstall
from sealwire.dask_backend.settings import encryption_required
from sealwire.security import ConfigError, PEMError
from sealwire.security.contexts.policy import SealedContext
from sealwire.security.security import FIELDS
from support import forking
from support.parties import ROLES, Party, asynchronous, echo, pair

CONFIGURATION = {"tls_ca_file": "distributed.comm.tls.ca-file"} | {
    f"tls_{role}_{part}": f"distributed.comm.tls.{role}.{part}"
    for role in ROLES
    for part in ("cert", "key")
}
REQUIRE = "distributed.comm.require-encryption"


@pytest.fixture
def security(material: dict[str, str]) -> Security:
    return Security(**material)


def configured(files: dict[str, str], **more: Any) -> dict[str, Any]:
    """Dask's configuration with these files."""
    return {CONFIGURATION[field]: path for field, path in files.items()} | more


def key_lines(material: dict[str, str]) -> list[str]:
    """A line of each key that can stand nowhere else."""
    return [pem.splitlines()[2] for field, pem in material.items() if field.endswith("_key")]


# By type


def test_it_is_distributeds(security: Security) -> None:
    assert isinstance(security, distributed.Security)
    assert set(distributed.Security.__slots__) < set(FIELDS)


@asynchronous
async def test_everyone_takes_it(tmp_path: Path) -> None:
    """With Dask's own checks of the type, and connected by it."""
    security = Security.temporary()
    async with Scheduler(
        security=security,
        host="127.0.0.1",
        port=0,
        dashboard=False,
        dashboard_address="127.0.0.1:0",
    ) as scheduler:
        assert scheduler.address.startswith("tls://")
        async with (
            Worker(
                scheduler.address,
                security=security,
                nthreads=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                local_directory=str(tmp_path),
            ) as worker,
            Client(scheduler.address, security=security, asynchronous=True) as client,
        ):
            assert await client.submit(sum, [1, 2, 3]) == 6
            assert {comm.security for comm in (scheduler, worker, client)} == {security}
        nanny = Nanny(scheduler.address, security=security, local_directory=str(tmp_path))
        assert nanny.security is security
        await nanny.close()


# By behaviour


def test_every_field_can_be_given_read_and_set(material: dict[str, str]) -> None:
    given: dict[str, Any] = {
        **material,
        "require_encryption": False,
        "tls_ciphers": "ECDHE+AESGCM",
        "tls_min_version": ssl.TLSVersion.TLSv1_3,
        "tls_max_version": ssl.TLSVersion.TLSv1_3,
        "tls_crl_file": "/etc/crl.pem",
        "tls_key_password": {"worker": "hush"},
        "tls_allowed_peers": {"scheduler": ("worker*", "client")},
        "tls_reload_interval": 3.0,
        "tls_server_hostname": "alpha.sched",
        "tls_expiry_warning": 7.0,
        "extra_conn_args": {"server_hostname": "scheduler.lab"},
    }
    assert set(given) == set(FIELDS)
    security, empty = Security(**given), Security()
    for name, value in given.items():
        assert getattr(security, name) == value
        setattr(empty, name, value)
        assert getattr(empty, name) == value
    for role in ROLES:
        assert empty.get_tls_config_for_role(role) == security.get_tls_config_for_role(role)


def test_what_is_set_counts(security: Security, foreign_material: dict[str, str]) -> None:
    before = security.get_listen_args("worker")["ssl_context"]
    security.tls_worker_cert = foreign_material["tls_worker_cert"]
    security.tls_worker_key = foreign_material["tls_worker_key"]
    security.tls_min_version = 1.3
    after = security.get_listen_args("worker")["ssl_context"]
    assert after is not before
    assert after.minimum_version == ssl.TLSVersion.TLSv1_3
    security.require_encryption = False
    assert security.get_listen_args("worker")["require_encryption"] is False
    with pytest.raises(ConfigError, match="tls_max_version"):
        security.tls_max_version = 1.1


def test_connection_args_are_a_new_dict_each_time(security: Security) -> None:
    """Dask writes into it."""
    for role in ROLES:
        first = security.get_connection_args(role)
        first["handshake_overrides"] = first["extra_conn_args"]["headers"] = 1
        second = security.get_connection_args(role)
        assert set(second) == {"ssl_context", "require_encryption", "extra_conn_args"}
        assert second["extra_conn_args"] == {}
        assert isinstance(second["ssl_context"], SealedContext)
        listening = security.get_listen_args(role)
        assert set(listening) == {"ssl_context", "require_encryption"}
        assert listening["ssl_context"] is not second["ssl_context"]


def test_an_explicit_false_of_ours_is_meant() -> None:
    """Also for a role without a certificate, whose context is None like an undecided one's."""
    with dask.config.set({"distributed.comm.tls.ca-file": "ca.pem"}):
        ours = Security(require_encryption=False)
        for args in (ours.get_listen_args("scheduler"), ours.get_connection_args("worker")):
            assert args["ssl_context"] is None
            assert not encryption_required(args)
            args.pop("encryption_decided")
            assert encryption_required(args)


def test_what_has_no_certificate_gets_no_context() -> None:
    for args in (Security().get_connection_args("client"), Security().get_listen_args("worker")):
        assert args["ssl_context"] is None
        assert args["require_encryption"] is False


@pytest.mark.parametrize("make", [Security, Security.temporary])
def test_an_unknown_parameter_is_named_with_the_nearest(make: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"'tls_ca_flie'.*did you mean tls_ca_file"):
        make(tls_ca_flie="ca.pem")


def test_what_cannot_be_used_is_named(material: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tls_worker_key"):
        Security(tls_ca_file=material["tls_ca_file"], tls_worker_key=material["tls_worker_key"])
    missing = str(tmp_path / "nowhere.pem")
    with pytest.raises(PEMError, match=r"tls_client_cert.*nowhere\.pem"):
        Security(tls_ca_file=material["tls_ca_file"], tls_client_cert=missing).get_connection_args(
            "client"
        )


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, FileNotFoundError), ("nonsense", OSError), ("another key", OSError)],
)
def test_code_that_catches_stocks_errors_catches_ours(
    text: str | None, expected: type[OSError], material: dict[str, str], tmp_path: Path
) -> None:
    """distributed's own class gives out our contexts, and ours are errors of its kinds."""
    file = tmp_path / "worker.pem"
    if text == "another key":
        text = material["tls_worker_cert"] + material["tls_client_key"]
    if text is not None:
        file.touch(mode=0o600)
        file.write_text(text)
    stock = distributed.Security(
        tls_ca_file=material["tls_ca_file"], tls_worker_cert=str(file), require_encryption=True
    )
    for switch, kind in ((uninstall, OSError), (install, PEMError)):
        switch()
        with pytest.raises(expected) as caught:
            stock.get_connection_args("worker")
        assert isinstance(caught.value, kind)


def test_temporary_makes_an_identity_for_each_role() -> None:
    one, other = Security.temporary(), Security.temporary(tls_min_version=1.3)
    assert type(one) is type(other) is Security
    assert one.require_encryption
    assert other.tls_min_version == ssl.TLSVersion.TLSv1_3
    assert one.tls_ca_file != other.tls_ca_file
    certificates = {getattr(one, f"tls_{role}_cert") for role in ROLES}
    assert len(certificates) == len(ROLES)
    assert one.tls_ca_file not in certificates


def test_nothing_secret_is_shown(security: Security, material: dict[str, str]) -> None:
    for shown in (repr(security), str(security), security._repr_html_()):
        assert "PRIVATE" not in shown
        assert not [line for line in key_lines(material) if line in shown]
        assert "require_encryption" in shown


# Pickled


@pytest.mark.parametrize(
    ("there", "back"),
    [(dumps, loads), (pickle.dumps, pickle.loads), (cloudpickle.dumps, cloudpickle.loads)],
    ids=["distributed", "pickle", "cloudpickle"],
)
@asynchronous
async def test_a_pickled_one_is_as_good(
    there: Callable[..., Any], back: Callable[..., Any], security: Security, material: Any
) -> None:
    security.extra_conn_args = {"server_hostname": "scheduler.lab"}
    security.get_listen_args("scheduler")  # a context does not pickle
    copy = back(there(security))
    assert type(copy) is Security
    assert copy is not security
    for name in FIELDS:
        assert getattr(copy, name) == getattr(security, name)
    async with pair(Party("ours", "tls", copy), Party("ours", "tls", security)) as (near, far):
        await near.write("let in")
        assert await far.read() == "let in"


def test_unpickling_installs(security: Security, material: dict[str, str], tmp_path: Path) -> None:
    """In a process where nothing of ours is configured, as a nanny and its worker may be."""
    (tmp_path / "security.pickle").write_bytes(dumps(security))
    code = """
import sys
from pathlib import Path
from distributed.comm.registry import get_backend
from distributed.protocol.pickle import loads
ours = {name for name in sys.modules if name.startswith("sealwire")}
assert ours <= {"sealwire", "sealwire.cli", "sealwire.cli.dask_hook"}, ours
assert type(get_backend("tls")).__module__ == "distributed.comm.tcp"
security = loads(Path("security.pickle").read_bytes())
assert type(security).__module__ == "sealwire.dask_backend.security"
for scheme in ("tcp", "tls"):
    assert type(get_backend(scheme)).__module__ == "sealwire.dask_backend.backend"
assert security.get_listen_args("worker")["ssl_context"] is not None
"""
    done = forking.run([sys.executable, "-c", code], tmp_path, dict(os.environ))
    assert done.returncode == 0, done.stderr


# Configured


CHILDREN = """
import json, multiprocessing, pickle
import distributed
from sealwire.dask_backend import install, uninstall

ARRIVED = '''
import sys
ours = "sealwire.dask_backend" in sys.modules
queue.put((ours, type(security).__name__, security.tls_ca_file))
'''
stock = distributed.Security(tls_ca_file="here.pem", require_encryption=True)
results = {}
for method in ("spawn", "forkserver"):
    context = multiprocessing.get_context(method)
    for switch in (install, uninstall):
        switch()
        assert b"sealwire" not in pickle.dumps(stock)  # in a message, to wherever
        queue = context.SimpleQueue()
        child = context.Process(target=exec, args=(ARRIVED, {"queue": queue, "security": stock}))
        child.start()
        results[f"{method}, {switch.__name__}"] = queue.get()
        child.join()
print(json.dumps(results))
"""


def test_a_child_gets_our_backends_with_distributeds_security(tmp_path: Path) -> None:
    """Before it opens a key, while ours are installed here; else there is no trace of us.

    In a process of its own: a fork server leaves a folder until the one that has started it ends.
    """
    done = forking.run([sys.executable, "-c", CHILDREN], tmp_path, dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        f"{method}, {switch}": [switch == "install", "Security", "here.pem"]
        for method in ("spawn", "forkserver")
        for switch in ("install", "uninstall")
    }


def test_configuration_is_dasks(files: dict[str, str]) -> None:
    with dask.config.set(configured(files, **{"distributed.comm.tls.min-version": 1.3})):
        security = Security()
    assert {field: getattr(security, field) for field in files} == files
    assert security.require_encryption
    assert security.tls_min_version == ssl.TLSVersion.TLSv1_3
    assert security.get_connection_args("client")["ssl_context"] is not None


def test_arguments_come_before_configuration(files: dict[str, str]) -> None:
    with dask.config.set(configured(files)):
        security = Security(tls_ciphers="ECDHE+AESGCM", tls_worker_cert=None, tls_worker_key=None)
        assert security.tls_worker_cert is None
        assert security.tls_scheduler_cert == files["tls_scheduler_cert"]
        plain = Security(require_encryption=False)
        assert not plain.require_encryption


def test_files_and_environment_count(files: dict[str, str], tmp_path: Path) -> None:
    """As an operator writes them, in a process of its own."""
    roles = {
        role: {part: files[f"tls_{role}_{part}"] for part in ("cert", "key")} for role in ROLES[:2]
    }
    tree = {"distributed": {"comm": {"tls": roles}}}
    (tmp_path / "distributed.yaml").write_text(repr(tree))  # a dict of strings is YAML
    environment = {
        **os.environ,
        "DASK_CONFIG": str(tmp_path),
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": files["tls_ca_file"],
        "DASK_DISTRIBUTED__COMM__TLS__WORKER__CERT": files["tls_worker_cert"],
        "DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY": files["tls_worker_key"],
    }
    code = """
from sealwire.dask_backend import Security
security = Security()
assert security.require_encryption
for role in ("client", "scheduler", "worker"):
    assert security.get_listen_args(role)["ssl_context"] is not None, role
    assert security.get_connection_args(role)["ssl_context"] is not None, role
"""
    done = forking.run([sys.executable, "-c", code], tmp_path, environment)
    assert done.returncode == 0, done.stderr


# Plain links where certificates are configured, by distributed's own Security


@pytest.mark.parametrize("field", ["tls_ca_file", "tls_worker_cert", "tls_client_key"])
@asynchronous
async def test_certificates_without_a_decision_mean_encryption(
    field: str, files: dict[str, str]
) -> None:
    install()
    args = distributed.Security().get_listen_args("scheduler")
    assert not args["require_encryption"]
    with dask.config.set(configured({field: files[field]})):
        with pytest.raises(RuntimeError, match="refusing tcp://") as caught:
            listen("tcp://127.0.0.1:0", echo, **args)
        with pytest.raises(RuntimeError, match="refusing tcp://127"):
            await connect("tcp://127.0.0.1:1", **args)
    assert "--protocol tls" in str(caught.value)
    assert REQUIRE in str(caught.value)


@pytest.mark.parametrize(
    "configuration",
    [
        {REQUIRE: False, "distributed.comm.tls.ca-file": "ca.pem"},
        {"distributed.comm.tls.ciphers": "ECDHE+AESGCM"},
        {"distributed.comm.tls.min-version": 1.3},
        {},
    ],
)
@asynchronous
async def test_plain_is_allowed_where_nothing_speaks_against_it(
    configuration: dict[str, Any], make_party: Callable[..., Party]
) -> None:
    party = make_party("ours", "tcp")
    with dask.config.set(configuration):
        for security in (distributed.Security(), Security(require_encryption=False)):
            async with pair(Party("ours", "tcp", security), party) as (near, far):
                await near.write("plain")
                assert await far.read() == "plain"


@asynchronous
async def test_a_security_that_says_false_is_believed(material: dict[str, str]) -> None:
    security = Security(require_encryption=False, **material)
    async with pair(Party("ours", "tcp", security)) as (near, far):
        await near.write("plain")
        assert await far.read() == "plain"
