"""Configuration from files and environment, with Dask and without it, and what is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.config
import pytest

from sealwire.security import ConfigError, Security, UnknownKey, unknown_keys
from support import certs
from support.configured import WITHOUT_DASK, YAML, Start, Told, each_reader, run_each

VARIABLES = {
    "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": "/run/ca.pem",
    "DASK_DISTRIBUTED__COMM__TLS__MAX_VERSION": "1.3",
    "DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY": "/run/worker.key",
    "DASK_SEALWIRE__TLS__CRL_FILE": "/run/crl.pem",
    "DASK_SEALWIRE__TLS__KEY_PASSWORD": "0123",
}
MISSPELT = """
distributed: {comm: {tls: {cafile: x, scheduler: {certs: y}, zzz: {qqq: 1}}}}
sealwire: {tls: {crlfile: x}}
"""
STARTS: dict[str, Start] = {
    "all of it": ({"cluster.yaml": YAML}, VARIABLES),
    "nothing": ({"cluster.yaml": ""}, {}),
    "a word": ({"cluster.yaml": YAML}, {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "false"}),
    "misspelt": ({"cluster.yaml": MISSPELT}, {}),
    "malformed": ({"cluster.yaml": "distributed: ["}, {}),
}


@pytest.fixture(scope="module", params=[True, False], ids=["dask", "donfig"])
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Told]:
    """What processes make of each, with one reader."""
    folder = tmp_path_factory.mktemp("starts")
    return dict(zip(STARTS, run_each(folder, request.param, [*STARTS.values()]), strict=True))


def test_files_and_environment(told: dict[str, Told]) -> None:
    (fields, unknown), log = told["all of it"]
    expected = {
        "require_encryption": True,
        "tls_ca_file": "/run/ca.pem",
        "tls_ciphers": "ECDHE+AESGCM",
        "tls_min_version": "772",
        "tls_max_version": "772",
        "tls_worker_cert": "/etc/worker.pem",
        "tls_worker_key": "/run/worker.key",
        "tls_scheduler_cert": "/etc/scheduler.pem",
        "tls_scheduler_key": "/etc/scheduler.key",
        "tls_client_cert": None,
        "tls_client_key": None,
        "tls_crl_file": "/run/crl.pem",
        "tls_key_password": "0123",
        "tls_allowed_peers": {
            "worker": ["scheduler*", "worker*"],
            "scheduler": ["sha256:" + 4 * "0123456789abcdef"],
        },
        "tls_reload_interval": 10.0,
        "tls_expiry_warning": 14.0,
        "tls_server_hostname": "sched.lab",
        "extra_conn_args": {},
    }
    assert {name: str(value) if "version" in name else value for name, value in fields.items()} == (
        expected
    )
    assert not unknown
    assert not log


def test_nothing_configured(told: dict[str, Told]) -> None:
    (fields, unknown), log = told["nothing"]
    assert fields == json.loads(json.dumps({**Security().fields(), "require_encryption": False}))
    assert not unknown
    assert not log


def test_encryption_by_a_word_in_the_environment(told: dict[str, Told]) -> None:
    (fields, _), _ = told["a word"]
    assert fields["require_encryption"] is False


@pytest.mark.parametrize(
    ("value", "expected"),
    [("false", False), ("No", False), ("off", False), (0, False), ("TRUE", True), (1, True)],
)
def test_words_for_true_and_false(value: object, expected: bool) -> None:
    with dask.config.set({"distributed.comm.require-encryption": value}):
        assert Security().require_encryption is expected


def test_a_misspelt_key_is_reported_once_with_the_nearest_known_one(told: dict[str, Told]) -> None:
    (_, unknown), log = told["misspelt"]
    prefix = "distributed.comm.tls"
    assert unknown == [
        [f"{prefix}.cafile", f"{prefix}.ca-file"],
        [f"{prefix}.scheduler.certs", f"{prefix}.scheduler.cert"],
        [f"{prefix}.zzz.qqq", None],
        ["sealwire.tls.crlfile", "sealwire.tls.crl-file"],
    ]
    assert log.splitlines() == [
        f"WARNING sealwire.security: unknown configuration key {prefix}.cafile is ignored; "
        f"did you mean {prefix}.ca-file?",
        f"WARNING sealwire.security: unknown configuration key {prefix}.scheduler.certs is "
        f"ignored; did you mean {prefix}.scheduler.cert?",
        f"WARNING sealwire.security: unknown configuration key {prefix}.zzz.qqq is ignored",
        "WARNING sealwire.security: unknown configuration key sealwire.tls.crlfile is ignored; "
        "did you mean sealwire.tls.crl-file?",
    ]


UNUSABLE = [
    ("distributed: {comm: {tls: ca.pem}}", "distributed.comm.tls: expected a mapping, got str"),
    ("sealwire: {tls: crl.pem}", "sealwire.tls: expected a mapping, got str"),
    ("sealwire: {limits: [1]}", "sealwire.limits: expected a mapping, got list"),
    ("sealwire: 5", "sealwire: expected a mapping, got int"),
    ("sealwire: {tls: {reload-interval: soon}}", "tls_reload_interval: expected a time such"),
    ("distributed: {comm: {tls: {ca-file: 3}}}", "tls_ca_file: expected a path"),
    ("distributed: {comm: {tls: {min-version: 1.1}}}", "tls_min_version: got 1.1"),
    (
        "distributed: {comm: {require-encryption: maybe}}",
        "distributed.comm.require-encryption: expected true or false, got 'maybe'",
    ),
    (
        "distributed: {comm: {tls: {ca-file: x, client: {key: y}}}}",
        "/y) without its certificate; set tls_client_cert "
        "(configuration: distributed.comm.tls.client.cert)",
    ),
]


@each_reader
def test_what_cannot_be_used(tmp_path: Path, with_dask: bool) -> None:
    """By one reader or the other, in turn: what is read is judged afterwards."""
    rows = UNUSABLE[1 - with_dask :: 2]
    answers = run_each(tmp_path, with_dask, [({"cluster.yaml": yaml}, {}) for yaml, _ in rows])
    for (yaml, words), ((kind, message), _) in zip(rows, answers, strict=True):
        assert kind == "ConfigError", yaml
        assert words in message


def test_a_malformed_file_is_named(told: dict[str, Told]) -> None:
    (kind, message), _ = told["malformed"]
    assert kind == "ConfigError"
    assert "cluster.yaml" in message


LATER: list[tuple[str, str, Any]] = [
    ("[a]", "{client: [b]}", {"client": ["b"]}),
    ("a", "{client: [b]}", {"client": ["b"]}),
    ("{client: [a]}", "{worker: [b]}", {"client": ["a"], "worker": ["b"]}),
    ("null", "{client: [b]}", {"client": ["b"]}),
]


@each_reader
def test_a_later_mapping_counts_whatever_was_before(tmp_path: Path, with_dask: bool) -> None:
    starts: list[Start] = []
    for number, (first, second, _) in enumerate(LATER):
        etc = tmp_path / f"etc-{number}"
        etc.mkdir()
        (etc / "x.yaml").write_text(f"sealwire: {{tls: {{allowed_peers: {first}}}}}")
        later = f"sealwire: {{tls: {{allowed-peers: {second}}}}}"
        starts.append(({"cluster.yaml": later}, {"DASK_ROOT_CONFIG": str(etc)}))
    answers = run_each(tmp_path, with_dask, starts)
    for (first, _, peers), ((found, words), _) in zip(LATER, answers, strict=True):
        if with_dask and "a" in first and not first.startswith("{"):
            assert found == "ConfigError"  # releases of Dask differ in which one they drop
            assert "Dask drops one of the two" in words
        else:
            assert found["tls_allowed_peers"] == peers


def test_without_dask_each_construction_reads_anew(tmp_path: Path) -> None:
    program = WITHOUT_DASK + (
        "import os\n"
        "from sealwire.security import Security\n"
        "assert Security().tls_ca_file is None\n"
        "os.environ['DASK_DISTRIBUTED__COMM__TLS__CA_FILE'] = '/run/ca.pem'\n"
        "assert Security().tls_ca_file == '/run/ca.pem'\n"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        timeout=60,
        env={**os.environ, "DASK_CONFIG": str(tmp_path), "HOME": str(tmp_path)},
    )


def test_dask_config_set_counts() -> None:
    with dask.config.set({"distributed.comm.tls.ca_file": "ca.pem"}):
        assert Security().tls_ca_file == os.path.abspath("ca.pem")
    assert Security().tls_ca_file is None


def test_unknown_keys_in_this_process() -> None:
    assert unknown_keys() == []
    with dask.config.set({"distributed.comm.tls.min-versions": 1.3}):
        assert unknown_keys() == [
            UnknownKey("distributed.comm.tls.min-versions", "distributed.comm.tls.min-version")
        ]


def test_a_key_in_the_configuration_is_not_shown() -> None:
    secret = "-----BEGIN PRIVATE KEY-----\nMIGHAgEA\n-----END PRIVATE KEY-----\n"
    with (
        dask.config.set({"distributed.comm.require-encryption": secret}),
        pytest.raises(ConfigError) as caught,
    ):
        Security()
    assert "MIGHAgEA" not in str(caught.value)


def test_importing_loads_nothing_heavy() -> None:
    program = (
        "import sys, sealwire.security\n"
        "sealwire.security.Security, sealwire.security.unknown_keys\n"
        "heavy = ('tornado', 'cryptography', 'dask', 'distributed', 'donfig', 'yaml', 'numpy')\n"
        "loaded = [name for name in sys.modules if name.split('.')[0] in heavy]\n"
        "assert not loaded, loaded\n"
        "sealwire.security.Authority\n"
        "assert 'cryptography.x509' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_all_public_names_are_there() -> None:
    import sealwire.security as package

    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Securty'"):
        _ = package.Securty  # type: ignore[attr-defined]


MALFORMED = [
    "distributed:\n  comm:\n    tls:\n      worker:\n        key: {armour}\n{body}\n",
    "distributed: {{comm: {{tls: {{worker: {{key: {one_line}\n",
    "key: 'x\n{body}\n",
    "{one_line}: [\n",
    "key: *{one_line}\n",
    "key: !{one_line} x\n",
    "key: %{one_line}\n",
    "- {one_line}\n  {one_line}: {one_line}: {one_line}\n",
]


def test_a_malformed_file_with_a_key_does_not_show_it(tmp_path: Path) -> None:
    """A parser quotes the lines it stumbles over."""
    key = certs.leaf(certs.root()).key_pem
    lines = key.splitlines()
    body = "\n".join(lines[1:-1])
    one_line = "".join(lines[1:-1]).replace("+", "A").replace("/", "B").replace("=", "")
    texts = [each.format(armour=lines[0], body=body, one_line=one_line) for each in MALFORMED]
    told = run_each(tmp_path, False, [({"cluster.yaml": text}, {}) for text in texts])
    forbidden = {part[at : at + 16] for part in (body.replace("\n", ""), one_line)
                 for at in range(len(part) - 15)}  # fmt: skip
    for yaml, (answer, log) in zip(MALFORMED, told, strict=True):
        assert answer is not None, (yaml, log)
        bare = "".join((str(answer) + log).split())
        assert not {bare[at : at + 16] for at in range(len(bare) - 15)} & forbidden, (yaml, bare)
