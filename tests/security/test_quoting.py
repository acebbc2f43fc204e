"""No part of a private key is shown, whatever became of it on the way and wherever it was put."""

from __future__ import annotations

import base64
import functools
import json
import logging
import random
import re
import textwrap
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.config
import pytest

from sealwire.security import Security
from sealwire.security.config import KEYS
from sealwire.security.quoting import damage, hides_key, redacted, shown
from sealwire.security.security import FIELDS
from support import certs

CA = certs.root()
NODES = [certs.leaf(CA), certs.leaf(CA, key=certs.rsa_key(2048))]
RUN = 16  # characters of a key's base64 that must not stand together in anything that is shown


def body(key: str) -> str:
    return "".join(line for line in key.splitlines() if not line.startswith("-"))


def flat(key: str, by: str) -> str:
    return key.strip().replace("\n", by)


DAMAGES: dict[str, Callable[[str], Any]] = {
    "whole": lambda key: key,
    "base64 alone": body,
    "lines without armour": lambda key: "\n".join(key.splitlines()[1:-1]),
    "one line of it": lambda key: key.splitlines()[2],
    "the first 40": lambda key: body(key)[:40],
    "40 from the middle": lambda key: body(key)[70:110],
    "half": lambda key: body(key)[: len(body(key)) // 2],
    "without BEGIN": lambda key: key.partition("\n")[2],
    "without BEGIN, one line": lambda key: flat(key.partition("\n")[2], ""),
    "cut short": lambda key: key[: len(key) // 2],
    "four dashes": lambda key: flat(key.replace("-----", "----"), " "),
    "one dash": lambda key: flat(key.replace("-----", "-"), " "),
    "no dashes": lambda key: flat(key.replace("-----", ""), " "),
    "em dashes": lambda key: flat(key.replace("-----", "\u2014\u2014-"), ""),
    "en dashes": lambda key: flat(key.replace("-----", "\u2013\u2013\u2013"), ""),
    "small letters around": lambda key: flat(
        key.replace("BEGIN PRIVATE KEY", "begin private key"), " "
    ),
    "no spaces": lambda key: flat(key, "").replace(" ", ""),
    "underscores": lambda key: flat(key, "").replace(" ", "_"),
    "\\n written out": lambda key: flat(key, "\\n"),
    "\\\\n written out": lambda key: flat(key, "\\\\n"),
    "\\r\\n written out": lambda key: flat(key, "\\r\\n"),
    "\\n written out, no armour": lambda key: "\\n".join(key.splitlines()[1:-1]),
    "spaces for line ends": lambda key: flat(key, " "),
    "spaces for line ends, no armour": lambda key: " ".join(key.splitlines()[1:-1]),
    "commas for line ends": lambda key: ",".join(key.splitlines()[1:-1]),
    "no line ends": lambda key: flat(key, ""),
    "carriage returns": lambda key: flat(key, "\r"),
    "tabs": lambda key: "\t".join(key.splitlines()[1:-1]),
    "quoted": lambda key: repr(body(key)),
    "JSON": lambda key: json.dumps({"key": key}),
    "JSON without armour": lambda key: json.dumps({"key": body(key)}),
    "in a list": lambda key: [body(key)],
    "in a dictionary": lambda key: {"worker": body(key)},
    "in a tuple of bytes": lambda key: (body(key).encode(),),
    "bytes": lambda key: key.encode(),
    "bytes without armour": lambda key: body(key).encode(),
    "DER": lambda key: base64.b64decode(body(key)),
    "DER as text": lambda key: base64.b64decode(body(key)).decode("latin-1"),
    "DER as UTF-8": lambda key: base64.b64decode(body(key)).decode("utf-8", "replace"),
    "for URLs": lambda key: urllib.parse.quote(key),
    "base64 for URLs": lambda key: body(key).replace("+", "-").replace("/", "_"),
    "base64 of PEM": lambda key: base64.b64encode(key.encode()).decode(),
    "folded": lambda key: textwrap.fill(body(key), 30),
    "indented": lambda key: textwrap.indent(key, "    "),
    "behind words": lambda key: f"key: {body(key)}",
    "behind a path": lambda key: f"/etc/certs/{body(key)}",
    "behind ./": lambda key: f"./{body(key)}",
    "behind ~": lambda key: f"~/{body(key)}",
    "behind file:": lambda key: f"file://{body(key)}",
    "before .pem": lambda key: f"{body(key)}.pem",
    "a path object": lambda key: Path(body(key)[:200]),
    "a path object with PEM": lambda key: Path(key),
    "twice": lambda key: body(key) * 2,
    "backwards lines": lambda key: "".join(reversed(key.splitlines()[1:-1])),
    "NUL": lambda key: body(key) + "\x00",
    "surrogates": lambda key: "\ud800" + body(key),
}


@functools.cache
def runs(key: str) -> set[str]:
    """All that must not be seen of a key: but for what all keys of its kind begin with."""
    text = body(key)
    return {text[at : at + RUN] for at in range(len(text) - RUN + 1)}


def said_by(error: BaseException) -> Iterator[str]:
    """All that is told of an error: its words, its repr, and those of its causes."""
    current: BaseException | None = error
    while current is not None:
        yield str(current)
        yield repr(current)
        hidden = current.__suppress_context__  # as in tracebacks
        current = current.__cause__ or (None if hidden else current.__context__)


def used(**fields: Any) -> Iterator[str]:
    """Everything that is shown of a `Security` when it is made and used."""
    try:
        one = Security(**fields)
    except Exception as error:
        yield from said_by(error)
        return
    yield repr(one)
    yield one._repr_html_()
    for role, get in (("worker", one.get_listen_args), ("client", one.get_connection_args)):
        try:
            context = get(role)["ssl_context"]
        except Exception as error:
            yield from said_by(error)
        else:
            yield str(context and context.describe())


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def assert_hidden(key: str, said: list[str], how: str = "") -> None:
    assert said, how
    forbidden = runs(key)
    for text in said:
        bare = re.sub(r"\s", "", text)
        seen = {bare[at : at + RUN] for at in range(len(bare) - RUN + 1)}
        assert not seen & forbidden, (how, text)


GOOD = {
    "tls_ca_file": CA.pem,
    "tls_worker_cert": NODES[0].pem,
    "tls_worker_key": NODES[0].key_pem,
    "tls_client_cert": NODES[0].pem + NODES[0].key_pem,
}


def each_damage(place: int) -> Iterator[tuple[certs.Node, str, Callable[[str], Any]]]:
    """Each, of one key or the other: over all places, every damage of either is tried."""
    for number, (how, damaged) in enumerate(DAMAGES.items()):
        yield NODES[(place + number) % len(NODES)], how, damaged


SHOWN = [*FIELDS, "tls_worker_kye"]


@pytest.mark.parametrize("field", SHOWN)
def test_no_field_shows_a_key(field: str, log: pytest.LogCaptureFixture) -> None:
    for node, how, damaged in each_damage(SHOWN.index(field)):
        log.clear()
        said = list(used(**{**GOOD, field: damaged(node.key_pem)}))
        said += [record.getMessage() + str(record.exc_text) for record in log.records]
        assert_hidden(node.key_pem, said, how)


@pytest.mark.parametrize("how", DAMAGES)
def test_no_name_or_role_shows_a_key(how: str, log: pytest.LogCaptureFixture) -> None:
    for node in NODES:
        value = DAMAGES[how](node.key_pem)
        name = value if isinstance(value, str) else repr(value)
        said = [*used(**{name: 1}), *used(tls_allowed_peers={name: "x"})]
        said += used(tls_key_password={name: "x"})
        for do in (
            lambda name=name: setattr(Security(), name, 1),
            lambda value=value: Security().get_listen_args(value),
            lambda value=value: Security().get_tls_config_for_role(value),
        ):
            try:
                do()
            except Exception as error:
                said += said_by(error)
        assert_hidden(node.key_pem, said)


CONFIGURED = [*KEYS.values(), "distributed.comm.tls", "sealwire.tls"]


@pytest.mark.parametrize("key", CONFIGURED)
def test_no_configuration_shows_a_key(key: str, log: pytest.LogCaptureFixture) -> None:
    for node, how, damaged in each_damage(CONFIGURED.index(key)):
        log.clear()
        value = damaged(node.key_pem)
        with dask.config.set({key: value}):
            said = list(used())
        if isinstance(value, str) and "." not in value:
            with dask.config.set({f"distributed.comm.tls.{value}": 1}):
                said += used()
        said += [record.getMessage() for record in log.records]
        assert_hidden(node.key_pem, said, how)


def test_many_slices_of_many_keys() -> None:
    """Any 48 characters of a key's random part, as a value of a field."""
    shown_ones = total = 0
    source = random.Random(1)
    for _ in range(20):
        text = base64.b64encode(source.randbytes(600)).decode()
        for at in range(0, len(text) - 48, 7):
            total += 1
            shown_ones += not hides_key(text[at : at + 48])
    assert total > 2000
    assert shown_ones <= total / 500  # 0.1 % are expected


PATHS = [
    "ca.pem",
    "certs/ca.pem",
    "/etc/sealwire/tls.crt",
    "/home/zoë/dask certs/worker-node7.lab.example.pem",
    "C:\\Users\\Zoe\\new\\certs\\ca.pem",
    "~/certs/ca.pem",
    "/etc/kubernetes/pki/..2026_11_28_12_00_00.123456789/ca.crt",
    "/var/lib/docker/overlay2/" + "0123456789abcdef" * 4 + "/merged/ca.pem",
    "/nix/store/9s4ykrxr4xv1pb8hn4a1lgfb0mj5mz8a-cacert-3.95/etc/ssl/certs/ca-bundle.crt",
    "/run/secrets/TLS_PRIVATE_KEY",
    "/opt/MyCompany/DaskCluster/TlsCertificates/WorkerIdentity.pem",
    "front-end/back__end.pem",
    "begin-end.pem",
    "/srv/cluster/3f2b8c1e-7d4a-4f6b-9c0d-1e2f3a4b5c6d/ca.pem",
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_are_shown(path: str) -> None:
    assert damage(path) is None
    assert not hides_key(path)
    assert shown(path) == repr(path)
    one = Security(tls_ca_file=path)
    assert one.tls_ca_file is not None
    assert one.tls_ca_file.endswith(path.removeprefix("~"))
    assert repr(one.tls_ca_file) in repr(one)


def test_what_exists_is_a_path_whatever_it_looks_like(tmp_path: Path) -> None:
    """A folder as `mktemp` names it; a file with the name of a key."""
    wild = tmp_path / "tmp.Xa3bC9Kz1QxY7" / body(NODES[0].key_pem)[:60].replace("/", "_")
    assert hides_key(str(wild / "ca.pem"))
    wild.mkdir(parents=True)
    assert not hides_key(str(wild / "ca.pem"))
    one = Security(tls_ca_file=str(wild / "ca.pem"))
    assert str(wild / "ca.pem") in repr(one)


WORDS = [
    ("base64 alone", "it looks like base64 without its BEGIN and END lines"),
    ("four dashes", "it looks like PEM text whose BEGIN line is damaged"),
    ("em dashes", "it looks like PEM text whose BEGIN line is damaged"),
    ("\\n written out, no armour", "it looks like base64 without its BEGIN and END lines"),
    ("spaces for line ends", "it looks like PEM text without its line breaks"),
    ("lines without armour", "nor any other complete PEM block"),
    ("bytes", "expected a path or PEM text as str, got bytes"),
]


@pytest.mark.parametrize(("how", "words"), WORDS, ids=[how for how, _ in WORDS])
def test_the_error_says_what_it_looks_like(how: str, words: str) -> None:
    for node in NODES:
        said = list(used(**{**GOOD, "tls_worker_key": DAMAGES[how](node.key_pem)}))
        assert any(words in text and "tls_worker_key" in text for text in said), said


def test_binary_data_is_named() -> None:
    said = next(used(**{**GOOD, "tls_worker_key": "0\x81\x87\x02\x01\x00"}))
    assert "tls_worker_key: it looks like binary data, such as DER; convert it to PEM" in said


def test_long_values_are_not_echoed() -> None:
    assert shown("x" * 100) == repr("x" * 100) or "100 characters" in shown("x" * 100)
    assert len(shown("a b " * 10**5)) < 100
    assert len(shown(list(range(10**5)))) < 100
    assert shown(b"\x00" * 10**6) == "1000000 bytes"
    assert shown(None) == "None"
    assert shown([]) == "[]"
    assert shown(1.1) == "1.1"


@pytest.mark.parametrize("piece", ["-", "BEGIN ", "-----BEGIN", " ", "aB3", "\\n", "/", "é", "\\"])
def test_judging_a_mebibyte_takes_a_moment(piece: str) -> None:
    import time

    text = piece * (2**20 // len(piece))
    began = time.process_time()
    damage(text)
    shown(text)
    hides_key(text)
    assert time.process_time() - began < 5


def test_a_parsers_words_stay_without_the_key() -> None:
    key = NODES[0].key_pem
    text = f'while scanning a simple key\n  in "<x>", line 3, column 1:\n    {body(key)}\n    ^'
    assert_hidden(key, [redacted(text)])
    assert "while scanning a simple key" in redacted(text)
    assert "line 3, column 1:" in redacted(text)
