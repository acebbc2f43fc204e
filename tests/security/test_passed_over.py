"""Settings that Dask passes over in silence: in a wrong place, or in two forms."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.config
import pytest
import yaml

from sealwire.security import Security, UnknownKey, config
from support.configured import YAML, Start, each_reader, run, run_each

OWN, TLS = "sealwire.tls", "distributed.comm.tls"
MISPLACED = [
    ("Sealwire: {tls: {crl-file: x}}", "Sealwire", "sealwire"),
    ("seal_wire: {tls: {crl-file: x}}", "seal-wire", "sealwire"),
    ("distributed: {sealwire: {tls: {crl-file: x}}}", "distributed.sealwire", "sealwire"),
    ("distributed: {comm: {sealwire: {a: x}}}", "distributed.comm.sealwire", "sealwire"),
    ("sealwire.tls.crl-file: x", f"{OWN}.crl-file", "sealwire: {tls: {crl-file: …}}"),
    ("sealwire.tls: {crl_file: x}", OWN, "sealwire: {tls: …}"),
    ("distributed.comm.tls.ca-file: x", f"{TLS}.ca-file",
     "distributed: {comm: {tls: {ca-file: …}}}"),
    ("sealwire: {crl-file: x}", "sealwire.crl-file", f"{OWN}.crl-file"),
    ("sealwire: {tls: {ca-file: x}}", f"{OWN}.ca-file", f"{TLS}.ca-file"),
    ("sealwire: {tls: {worker: {cert: x}}}", f"{OWN}.worker.cert", f"{TLS}.worker.cert"),
    ("distributed: {comm: {tls: {crl-file: x}}}", f"{TLS}.crl-file", f"{OWN}.crl-file"),
    ("distributed: {comm: {tls: {allowed_peers: {worker: [x]}}}}",
     f"{TLS}.allowed-peers.worker", f"{OWN}.allowed-peers.worker"),
    ("distributed: {comm: {crl-file: x}}", "distributed.comm.crl-file", f"{OWN}.crl-file"),
    ("distributed: {comm: {worker: {cert: x}}}", "distributed.comm.worker", f"{TLS}.worker"),
    ("distributed: {tls: {ca-file: x}}", "distributed.tls", TLS),
    ("distributed: {require-encryption: true}", "distributed.require-encryption",
     "distributed.comm.require-encryption"),
    ("comm: {tls: {ca-file: x}}", "comm", "distributed.comm"),
    ("tls: {ca_file: x}", "tls", TLS),
]  # fmt: skip


def unknown_of(text: str) -> list[UnknownKey]:
    tree = yaml.safe_load(text)
    return list(
        config.unknown_in(lambda key: dask.config.get(key, None, tree) if key else dict(tree))
    )


@pytest.mark.parametrize(("text", "key", "nearest"), MISPLACED)
def test_what_is_in_a_wrong_place_is_told_with_the_right_one(
    text: str, key: str, nearest: str
) -> None:
    assert unknown_of(text) == [UnknownKey(key, nearest)]


LOST: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder.yaml": (Path.mkdir, "is a directory"),  # as docker makes it where a file is not there
    "nowhere.yml": (lambda path: path.symlink_to("nothing"), "no such file or directory"),
    "loop.json": (lambda path: path.symlink_to(path), "too many levels of symbolic links"),
}
if hasattr(os, "geteuid") and os.geteuid():  # nothing is closed to root
    LOST["closed.yaml"] = (lambda path: path.touch(mode=0), "permission denied")


@each_reader
def test_a_process_tells_what_is_in_a_wrong_place(tmp_path: Path, with_dask: bool) -> None:
    """And which files are passed over, or lose what they say first."""
    own = tmp_path / ".config" / "dask"
    own.mkdir(parents=True)
    for name, (make, _) in LOST.items():
        make(own / name)
    (own / "twice.yaml").write_text("sealwire:\n tls: {crl-file: a}\nsealwire: {limits: {}}\n")
    texts = [text for text, key, _ in MISPLACED if "." not in key]
    _, log = run(tmp_path, with_dask, "\n".join(texts))
    for _, key, nearest in MISPLACED:
        said = f"unknown configuration key {key} is ignored; did you mean {nearest}?"
        assert (said in log) is ("." not in key)
    for name, (_, why) in LOST.items():
        said = f"nothing in '{own / name}' holds: it is ignored, as by Dask: {why}; let this user"
        assert log.count(said) == 1, log
    said = f"'{own / 'twice.yaml'}' has the name 'sealwire' in lines 1 and 3 of one mapping: what"
    assert log.count(said) == 1, log


@pytest.mark.parametrize(
    "text",
    [
        "comm: {port: 1}",  # of other programs
        "tls: on",
        "jobqueue: {slurm: {cores: 1}}",
        "distributed: {worker: {memory: {target: 0.6}}, comm: {timeouts: {tcp: 30s}}}",
        YAML,
    ],
)
def test_what_is_others_is_left_alone(text: str) -> None:
    assert not unknown_of(text)


PEERS = "DASK_SEALWIRE__TLS__ALLOWED_PEERS"
BY_ROLE, FOR_ALL = "{worker: [a], scheduler: [b]}", "[a, b]"


TWO_FORMS: list[tuple[str, str | None, dict[str, str]]] = [
    (BY_ROLE, None, {PEERS: "worker"}),
    (BY_ROLE, None, {PEERS: "['node7']"}),
    (FOR_ALL, None, {f"{PEERS}__WORKER": "['node7']"}),
    ("node7", None, {f"{PEERS}__WORKER": "['node7']"}),
    (BY_ROLE, FOR_ALL, {}),
    (FOR_ALL, BY_ROLE, {}),
]
ONE_FORM = [
    (BY_ROLE, {f"{PEERS}__WORKER": "['node7']"}),
    (FOR_ALL, {PEERS: "['node7']"}),
    ("null", {PEERS: "['node7']"}),
    (BY_ROLE, {PEERS: "None"}),
]


def test_two_forms_of_allowed_peers_are_refused_and_one_is_not(tmp_path: Path) -> None:
    """Dask drops one of them, and a process would accept peers that are not on its list."""
    starts: list[Start] = [
        (
            {
                "cluster.yaml": f"sealwire: {{tls: {{allowed-peers: {first}}}}}",
                "z.yaml": f"sealwire: {{tls: {{allowed_peers: {second or 'null'}}}}}",
            },
            variables,
        )
        for first, second, variables in TWO_FORMS
    ]
    starts += [
        ({"cluster.yaml": f"sealwire: {{tls: {{allowed-peers: {first}}}}}"}, variables)
        for first, variables in ONE_FORM
    ]
    answers = run_each(tmp_path, True, starts)
    for row, ((kind, words), _) in zip(TWO_FORMS, answers, strict=False):
        assert kind == "ConfigError", row
        assert "is set for all roles in one place and by role in another" in words
    for (fields, _), _ in answers[len(TWO_FORMS) :]:
        assert fields["require_encryption"] is False


def test_a_program_may_replace_a_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PEERS}__WORKER", "['node7']")
    monkeypatch.setenv(PEERS, "['node8']")
    with dask.config.set({"sealwire.tls.allowed-peers": {"worker": ["node9"]}}):
        assert Security().tls_allowed_peers == {"worker": ("node9",)}


VARIABLE = "DASK_SEALWIRE__TLS__CRL_FILE"


@pytest.mark.parametrize("text", ["crl.pem", "['a']", "False"])
def test_a_variable_that_comes_too_late_is_told(
    text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that a nanny gives its worker, below the defaults that it hands on."""
    monkeypatch.setattr(config, "_reported", set())
    monkeypatch.setenv(VARIABLE, text)
    with dask.config.set({"sealwire.tls.crl-file": None}):
        Security()
        Security()
    assert caplog.text.count(f"the variable {VARIABLE} does not hold in this process") == 1


EMPTIED = {
    "tls_crl_file": "/etc/crl.pem",
    "tls_ca_file": "/etc/ca.pem",
    "tls_worker_cert": "/etc/worker.pem",
    "tls_min_version": "1.3",
    "tls_ciphers": "ECDHE+AESGCM",
    "require_encryption": "true",
    "tls_reload_interval": "10 s",
}


@each_reader
def test_an_empty_variable_takes_nothing_away(tmp_path: Path, with_dask: bool) -> None:
    """As what starts containers makes it of a value that it does not have."""
    tree: dict[str, Any] = {}
    for field, value in EMPTIED.items():
        *sections, name = config.KEYS[field].split(".")
        below = tree
        for section in sections:
            below = below.setdefault(section, {})
        below[name] = value
    text = yaml.safe_dump(tree)
    names = {field: config.KEYS[field].replace(".", "__").replace("-", "_") for field in EMPTIED}
    empty = {f"DASK_{name.upper()}": "" for name in names.values()}
    starts: list[Start] = [({"cluster.yaml": text}, variables) for variables in ({}, empty)]
    (of_file, _), (emptied, _) = run_each(tmp_path, with_dask, starts)
    assert (of_file[0]["tls_crl_file"], of_file[0]["require_encryption"]) == ("/etc/crl.pem", True)
    assert emptied == of_file


@pytest.mark.parametrize("text", ["", "None", "null"])
def test_a_variable_that_sets_nothing_is_left_alone(
    text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(config, "_reported", set())
    monkeypatch.setenv(VARIABLE, text)
    Security()
    monkeypatch.setenv(VARIABLE, "crl.pem")
    with dask.config.set({"sealwire.tls.crl-file": "other.pem"}):
        Security()
    assert not caplog.text
