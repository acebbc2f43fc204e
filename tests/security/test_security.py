"""The `Security` class: parameters, roles, what it shows and hides, pickling, and its cache."""

from __future__ import annotations

import copy
import enum
import logging
import math
import os
import pickle
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask.config
import numpy as np
import pytest

from sealwire.security import ConfigError, Security, SecurityError, UnknownParameter
from sealwire.security.security import FIELDS, ROLES
from support import certs
from support.handshakes import client_context, security, server_context, shake

CA = certs.root()
NODE = certs.leaf(CA)
PAIR = NODE.pem + NODE.key_pem
TLS = ssl.TLSVersion
KEY = "distributed.comm.tls"


def test_the_fields_are_those_of_stock() -> None:
    import distributed

    names = distributed.Security.__slots__
    assert set(names) < set(FIELDS)
    stock, ours = distributed.Security(), Security()
    assert {name: getattr(ours, name) for name in names} == {n: getattr(stock, n) for n in names}
    assert all(getattr(ours, name) is None for name in set(FIELDS) - set(names))


def test_the_arguments_are_those_of_stock() -> None:
    import distributed

    stock, ours = distributed.Security.temporary(), Security.temporary()
    for role in ROLES:
        for method in ("get_connection_args", "get_listen_args", "get_tls_config_for_role"):
            assert set(getattr(ours, method)(role)) == set(getattr(stock, method)(role))


def test_an_unknown_parameter_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(TypeError, match=r"'tls_cafile'; did you mean tls_ca_file\?") as caught:
        Security(tls_cafile="ca.pem")
    assert caught.type is UnknownParameter
    assert isinstance(caught.value, SecurityError)
    with pytest.raises(UnknownParameter, match="known are require_encryption, "):
        Security(zzz=1)
    with pytest.raises(UnknownParameter):
        Security.temporary(tls_scheduler="x")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.2, TLS.TLSv1_2),
        ("1.2", TLS.TLSv1_2),
        (TLS.TLSv1_2, TLS.TLSv1_2),
        (1.3, TLS.TLSv1_3),
        ("1.3", TLS.TLSv1_3),
        (TLS.TLSv1_3, TLS.TLSv1_3),
    ],
)
def test_versions(value: object, expected: ssl.TLSVersion) -> None:
    one = security(NODE, [CA], tls_min_version=value, tls_max_version=value)
    for context in (server_context(one), client_context(one)):
        assert context.minimum_version is context.maximum_version is expected


BAD_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"tls_min_version": 1.1}, r"tls_min_version: got 1\.1; expected TLS 1\.2 or 1\.3"),
    ({"tls_max_version": "1.1"}, r"tls_max_version: got '1\.1'"),
    ({"tls_min_version": TLS.MINIMUM_SUPPORTED}, "tls_min_version: got MINIMUM_SUPPORTED"),
    ({"tls_min_version": []}, r"tls_min_version: got \[\]"),
    ({"tls_min_version": 1.3, "tls_max_version": 1.2}, "TLSv1_3: it is above .* TLSv1_2"),
    ({"tls_reload_interval": "soon"}, "tls_reload_interval: expected a time .* got 'soon'"),
    ({"tls_reload_interval": -1}, "tls_reload_interval: expected a time .* got -1"),
    ({"tls_reload_interval": True}, "tls_reload_interval: expected a time .* got True"),
    ({"tls_reload_interval": "3 lightyears"}, "tls_reload_interval: expected a time"),
    ({"tls_reload_interval": math.nan}, "tls_reload_interval: expected a time .* got nan"),
    ({"tls_ca_file": 7}, "tls_ca_file: expected a path or PEM text as str, got int"),
    ({"tls_worker_cert": b"x"}, "tls_worker_cert: expected .* got bytes"),
    ({"tls_ciphers": 3}, "tls_ciphers: expected str, got int"),
    ({"extra_conn_args": 3}, "extra_conn_args: expected a mapping, got int"),
    ({"require_encryption": "perhaps"}, "require_encryption: expected true or false"),
    (
        {"tls_ca_file": "ca", "tls_worker_key": "k.pem"},
        r"tls_worker_key \(/.*/k\.pem\) without .*cert",
    ),
    (
        {"tls_client_cert": "c.pem"},
        rf"tls_client_cert \(/.*/c\.pem\): .*tls_ca_file .*{KEY}\.ca-file",
    ),
]


@pytest.mark.parametrize(("fields", "words"), BAD_VALUES)
def test_what_is_refused_at_construction(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Security(**fields)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("field", [name for name in FIELDS if name != "extra_conn_args"])
def test_a_key_in_the_wrong_place_is_not_shown(field: str) -> None:
    """Every field is given a private key; whatever is said of it, the key is not."""
    said = ""
    try:
        one = Security(**{field: NODE.key_pem})
        said = repr(one) + one._repr_html_()
        one.tls_client_cert = one.tls_ca_file = NODE.key_pem
        one.get_listen_args("client")
    except SecurityError as error:
        said += str(error)
    assert said
    assert not any(line in said for line in NODE.key_pem.splitlines()[1:-1])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, False),
        ({"tls_ca_file": "ca.pem"}, True),
        ({"tls_min_version": 1.3}, True),
        ({"tls_ca_file": None, "tls_worker_cert": None}, False),
        ({"tls_ca_file": "ca.pem", "require_encryption": False}, False),
        ({"tls_ca_file": "ca.pem", "require_encryption": None}, True),
        ({"require_encryption": True}, True),
        ({"extra_conn_args": {"x": 1}}, False),
    ],
)
def test_encryption_is_required_once_tls_is_configured(
    fields: dict[str, Any], expected: bool
) -> None:
    one = Security(**fields)
    assert one.require_encryption is expected
    assert one.get_listen_args("worker")["require_encryption"] is expected
    assert one.get_connection_args("worker")["require_encryption"] is expected


@pytest.mark.parametrize(
    ("configured", "arguments", "expected"),
    [
        ({f"{KEY}.ca-file": "ca.pem"}, {}, True),
        ({f"{KEY}.worker.cert": "c.pem", f"{KEY}.ca-file": "ca.pem"}, {}, True),
        ({f"{KEY}.ca-file": "ca.pem", "distributed.comm.require-encryption": False}, {}, False),
        ({"distributed.comm.require-encryption": True}, {}, True),
        ({"distributed.comm.require-encryption": True}, {"require_encryption": False}, False),
        ({f"{KEY}.ca-file": "ca.pem"}, {"tls_ca_file": None}, False),
    ],
)
def test_encryption_is_required_by_configuration(
    configured: dict[str, Any], arguments: dict[str, Any], expected: bool
) -> None:
    with dask.config.set(configured):
        assert Security(**arguments).require_encryption is expected


def test_arguments_come_before_configuration() -> None:
    configured = {
        f"{KEY}.ca-file": "ca.pem",
        f"{KEY}.scheduler.cert": "configured.pem",
        f"{KEY}.scheduler.key": "configured.key",
        f"{KEY}.min-version": 1.3,
    }
    with dask.config.set(configured):
        one = Security(tls_scheduler_cert="given.pem", tls_scheduler_key=None)
    assert one.get_tls_config_for_role("scheduler") == {
        "ca_file": os.path.abspath("ca.pem"),
        "ciphers": None,
        "cert": os.path.abspath("given.pem"),
        "key": os.path.abspath("given.pem"),  # the file may hold both
    }
    assert one.tls_min_version is TLS.TLSv1_3


@pytest.mark.parametrize(
    "method", ["get_tls_config_for_role", "get_listen_args", "get_connection_args"]
)
def test_an_unknown_role_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="unknown role 'nanny'; expected one of client, sched"):
        getattr(Security(), method)("nanny")


class RoleName(str, enum.Enum):
    """As an author of a cluster names the roles; its members do not format as their texts."""

    CLIENT = "client"
    SCHEDULER = "scheduler"
    WORKER = "worker"


class Lying(str):
    def __str__(self) -> str:
        return "nanny"

    __format__ = lambda self, _: "nanny"  # noqa: E731

    def __hash__(self) -> int:
        return 1


@pytest.mark.parametrize("make", [RoleName, Lying])
def test_a_role_may_be_of_a_subclass(make: Any) -> None:
    one = Security.temporary(tls_allowed_peers={make("worker"): ["scheduler*"]})
    assert one.tls_allowed_peers == {"worker": ("scheduler*",)}
    for role in ROLES:
        role_of_theirs = make(role)
        values = one.get_tls_config_for_role(role)
        assert one.get_tls_config_for_role(role_of_theirs) == values
        server = one.get_listen_args(role_of_theirs)["ssl_context"]
        assert server is not None
        assert server is one.get_listen_args(role)["ssl_context"]
        client = one.get_connection_args(role_of_theirs)["ssl_context"]
        assert client is one.get_connection_args(role)["ssl_context"]


class Unspeakable:
    def __repr__(self) -> str:
        raise SystemExit(3)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize(
    "value",
    [Unspeakable(), np.array([1, 2]), np.array(["a", "b"]), 10**5000, [Unspeakable()]],
    ids=["exits", "array", "texts", "digits", "nested"],
)
def test_what_has_no_text_or_no_truth_is_refused_as_any(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"cannot use {name}\b"):
        Security(**{name: value})
    with pytest.raises(ConfigError, match="unknown role"):
        Security().get_listen_args(value)


def test_a_role_without_certificate_has_no_context(caplog: pytest.LogCaptureFixture) -> None:
    one = Security(tls_ca_file=CA.pem, tls_scheduler_cert=PAIR)
    server_context(one)
    assert not caplog.records
    for _ in range(2):
        assert one.get_connection_args("worker")["ssl_context"] is None
        assert one.get_listen_args("worker")["ssl_context"] is None
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    assert "role worker has no certificate, so it can neither" in caplog.text
    assert f"set tls_worker_cert (configuration: {KEY}.worker.cert)" in caplog.text
    assert Security().get_listen_args("client")["ssl_context"] is None
    assert len(caplog.records) == 1, "nothing is wrong where no encryption is required"


def test_a_missing_ca_is_found_at_first_use_if_taken_away_knowingly() -> None:
    one = Security(tls_worker_cert=PAIR, tls_ca_file=None)
    with pytest.raises(ConfigError, match="there is no CA to verify peers with"):
        one.get_listen_args("worker")
    one.tls_ca_file = CA.pem
    server_context(one, "worker")


def test_connection_arguments_are_new_each_time() -> None:
    one = security(NODE, [CA], extra_conn_args={"header": "x"})
    arguments = one.get_connection_args("worker")
    arguments["extra_conn_args"]["header"] = "changed"
    arguments["ssl_context"] = None
    assert one.get_connection_args("worker")["extra_conn_args"] == {"header": "x"}
    client_context(one)


def test_fields_can_be_assigned_and_are_checked() -> None:
    one = security(NODE, [CA])
    before = server_context(one)
    one.tls_min_version = "1.3"  # type: ignore[assignment]
    assert one.tls_min_version is TLS.TLSv1_3
    assert server_context(one) is not before
    assert server_context(one).minimum_version is TLS.TLSv1_3
    one.require_encryption = False
    assert not one.get_listen_args("worker")["require_encryption"]
    with pytest.raises(ConfigError, match="tls_ca_file"):
        one.tls_ca_file = 3  # type: ignore[assignment]
    with pytest.raises(AttributeError, match="no field 'tls_cafile'"):
        one.tls_cafile = "x"  # type: ignore[attr-defined]
    late = Security()
    late.tls_ca_file = "ca.pem"
    assert late.require_encryption


def test_nothing_secret_is_shown() -> None:
    one = Security.temporary(extra_conn_args={"token": "hush"}, tls_max_version=1.3)
    one.tls_worker_cert = "/etc/<dask>/worker.pem"
    for text in (repr(one), one._repr_html_()):
        assert "BEGIN" not in text
        assert "hush" not in text
        assert "in memory" in text
        assert "tls_scheduler_key" in text
        assert "TLSv1_3" in text
        values = [one.tls_client_key, one.tls_scheduler_key, one.tls_worker_key, one.tls_ca_file]
        for value in values:
            assert value is not None
            assert not any(line in text for line in value.splitlines())
    assert "'/etc/<dask>/worker.pem'" in repr(one)
    assert "/etc/&lt;dask&gt;/worker.pem" in one._repr_html_()
    assert "<dask>" not in one._repr_html_()


@pytest.mark.parametrize("clone", [lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy])
def test_copies_are_worth_the_original(clone: Any) -> None:
    one = Security.temporary(extra_conn_args={"a": 1}, tls_ciphers="ECDHE+AESGCM")
    server_context(one)
    with dask.config.set({f"{KEY}.max-version": 1.2, "distributed.comm.require-encryption": False}):
        other = clone(one)
    assert other.fields() == one.fields()
    assert other.require_encryption
    assert shake(server_context(other), client_context(one)).accepted
    assert Security(**one.fields()).fields() == one.fields()


def test_temporary_is_valid_from_before_now_for_as_long_as_asked() -> None:
    import datetime

    now = datetime.datetime.now(datetime.timezone.utc)
    for fields, days in (({}, 365), ({"days": 2}, 2)):
        one = Security.temporary(**fields)
        assert one.require_encryption
        subjects = set()
        for role in ROLES:
            text = getattr(one, f"tls_{role}_cert")
            certificate = certs.x509.load_pem_x509_certificate(text.encode())
            subjects.add(certificate.subject.rfc4514_string())
            public = certificate.public_key()
            assert isinstance(public, certs.ec.EllipticCurvePublicKey)
            assert isinstance(public.curve, certs.ec.SECP256R1)
            assert certificate.not_valid_before_utc <= now - 5 * datetime.timedelta(minutes=1)
            left = certificate.not_valid_after_utc - now
            assert abs(left - datetime.timedelta(days=days)) < datetime.timedelta(minutes=1)
        assert subjects == {f"CN={role}" for role in ROLES}
    keys = {one.tls_client_key, one.tls_scheduler_key, one.tls_worker_key}
    assert len(keys) == 3


def test_temporary_ignores_configured_identities_and_refuses_given_ones() -> None:
    with dask.config.set({f"{KEY}.ca-file": "/nowhere.pem", f"{KEY}.max-version": 1.2}):
        one = Security.temporary()
    assert shake(server_context(one), client_context(one)).client.tls.version() == "TLSv1.2"
    with pytest.raises(TypeError, match="tls_ca_file"):
        Security.temporary(tls_ca_file="ca.pem")
    with dask.config.set({"distributed.comm.require-encryption": False}):
        assert Security.temporary().require_encryption
    assert not Security.temporary(require_encryption=False).require_encryption


def test_a_context_is_kept_until_values_change(tmp_path: Path) -> None:
    one = Security(tls_ca_file=CA.pem, tls_worker_cert=PAIR)
    first = server_context(one, "worker")
    assert server_context(one, "worker") is first
    assert client_context(one, "worker") is not first
    one.tls_reload_interval = 3  # type: ignore[assignment]
    assert server_context(one, "worker") is not first


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0),
        (2.5, 2.5),
        ("7", 7),
        (" 10 s ", 10),
        ("500ms", 0.5),
        ("2 min", 120),
        ("1.5h", 5400),
        ("3 days", 259200),
        ("never", math.inf),
        (False, math.inf),
        (math.inf, math.inf),
        (None, None),
    ],
)
def test_times(value: object, seconds: float | None) -> None:
    assert Security(tls_reload_interval=value).tls_reload_interval == seconds


def test_threads_share_one_context() -> None:
    one = security(NODE, [CA])
    with ThreadPoolExecutor(8) as pool:
        contexts = list(pool.map(lambda _: server_context(one), range(64)))
    assert len({id(context) for context in contexts}) == 1
