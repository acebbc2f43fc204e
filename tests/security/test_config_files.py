"""Configuration files and variables that Dask does not read, or not as they were meant."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import dask
import pytest
import yaml
from click.testing import CliRunner

from sealwire.cli.main import main
from sealwire.security import config_files
from support.forking import sealwire

QUOTE = "quote a value"
PASSWORD = "tr0ub4dor"

# What a file says, words of the error, words of the advice.
MALFORMED = [
    ("a:\n\tb: 1\n", "line 2, column 1", "indent with spaces"),
    ("a: 'x\nb: 2\n", "(of what begins in line 1)", "close what is opened"),
    (f"sealwire: {{tls: {{key-password: {PASSWORD}: x}}}}", "line 1", QUOTE),
    ("sealwire:\n  tls:\n    crl-file: {{HOME}}/crl.pem\n", "line 3", QUOTE),
    *(
        (f"sealwire:\n  tls:\n    key-password: {mark}{PASSWORD} x\n", "line 3", QUOTE)
        for mark in "*&!%@`|>["
        if mark != "&"  # a name for what follows
    ),
    (f"sealwire:\n  tls:\n    key-password: {PASSWORD}: x\n", "line 3", QUOTE),
    ("---\na: 1\n---\nb: 2\n", "another document", ""),
    ("a: café\n".encode("latin-1"), "no UTF-8 text (byte 6)", "save it as UTF-8 text"),
    ("a: 1\n".encode("utf-16"), "no UTF-8 text (byte 0)", "save it as UTF-8 text"),
    (bytes(range(256)), "no UTF-8 text", "save it as UTF-8 text"),
    ("a: \0\n", "special characters are not allowed", ""),
    ("- a\n", "a value of type list at its top", "`name: value` lines"),
    ("dask\n", "a value of type str at its top", "`name: value` lines"),
    ("5\n", "a value of type int at its top", "`name: value` lines"),
    ("a: &a {b: *a}\n", "an alias in it", "write out what"),
    ("a: " + "[" * 600, "nested too deeply", "fewer levels"),
    ("1: 2\n", "the name 1 in it is no text", "put the name in quotes"),
    ("a: {b: {on: 2}}\n", "the name True in it is no text", "put the name in quotes"),
    ("sealwire: {limits: {2020-01-01: 2}}\n", "is no text", "put the name in quotes"),
    ("sealwire: 5\n", "cannot use sealwire: expected a mapping, got int", "below it"),
    ("sealwire: {tls: [x]}\n", "cannot use sealwire.tls: expected a mapping", "below it"),
    ("distributed: []\n", "cannot use distributed: expected a mapping, got list", "below it"),
    ("distributed: {comm: x}\n", "cannot use distributed.comm: expected a mapping", "below it"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "why", "advice"), MALFORMED)
def test_a_malformed_file_is_one_line_with_what_to_do(
    content: str | bytes, why: str, advice: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = CliRunner().invoke(main, ["certs", "check", str(file)])
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    said = result.output.strip()
    assert len(said.splitlines()) == 1
    assert "\\n" not in said
    assert why in said
    assert advice in said.partition("; ")[2]
    assert PASSWORD not in said
    if "expected a mapping" not in why:
        assert str(file) in said


@pytest.mark.parametrize(
    ("command", "code"), [("probe tls://127.0.0.1:1", 3), ("top tls://127.0.0.1:1", 3), ("demo", 1)]
)
@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        # Not every error of it is a ValueError.
        ("DASK_CONFIG", "x.yaml", "cannot read the configuration {folder}/x.yaml: the name 1 in"),
        ("DASK_X", "{{}}", "cannot read the configuration in the variable DASK_X: it looks like"),
    ],
)
def test_what_ends_the_import_of_dask_is_no_traceback(
    command: str, code: int, variable: str, value: str, words: str, tmp_path: Path
) -> None:
    """One command in an interpreter of its own, the others in forks."""
    (tmp_path / "x.yaml").write_text("1: 2\n")
    given = str(tmp_path / value) if variable == "DASK_CONFIG" else value
    if command == "demo":
        done = subprocess.run(
            [sys.executable, "-m", "sealwire.cli", command],
            env={**os.environ, variable: given},
            capture_output=True,
            timeout=60,
        )
        ended, out, errors = done.returncode, done.stdout, done.stderr
    else:
        ended, out, errors = sealwire(*command.split(), folder=tmp_path, **{variable: given})
    assert ended == code
    assert words.format(folder=tmp_path) in (out + errors).decode()
    assert b"Traceback" not in errors


DEEP = "-" * 20_000 + "1"
INHERITED = config_files.INHERITED


def handed(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


VARIABLES: list[tuple[dict[str, str], str]] = [
    ({"DASK_A": "{{}}"}, "DASK_A"),
    ({"DASK_A": "{[1]: 2}", "DASK_B": "3"}, "DASK_A"),
    ({"DASK_SEALWIRE__TLS__ALLOWED_PEERS": '{{"worker": ["w"]}}'}, "DASK_SEALWIRE__TLS__ALLOWED"),
    ({"DASK_CONFIG": "{{}}"}, "DASK_CONFIG"),
    ({"DASK_A": DEEP}, "DASK_A"),
    ({"DASK_A": "1", "DASK_A__B": "2"}, "DASK_A__B"),
    ({"DASK_A": "", "DASK_A__B": "2"}, "DASK_A__B"),
    ({"DASK_A_B": "[1]", "DASK_A_B__C__D": "2"}, "DASK_A_B__C__D"),
    ({"DASK_A__B": "None", "DASK_A__B__C__D": "2"}, "DASK_A__B__C__D"),
    ({INHERITED: ""}, INHERITED),
    ({INHERITED: "x"}, INHERITED),
    ({INHERITED: handed("[1]")}, INHERITED),
    ({INHERITED: handed("{")}, INHERITED),
    ({"DASK_A__B": "1", INHERITED: handed('{"a": 3}')}, "DASK_A__B"),
    ({"DASK_A__B": "2", "DASK_A": "1"}, ""),
    ({"DASK_A": "{'b': 1}", "DASK_A__C": "2"}, ""),
    ({"DASK_A": "{{ x }}", "DASK_B": "(", "DASK_C": "1+", "DASK___": "1"}, ""),
    ({"DASK_": "1", "DASK___": "1"}, "DASK___"),
    ({INHERITED: handed('{"a": {"b": 3}}'), "DASK_A__B": "1"}, ""),
    ({"DASKA": "{{}}", "dask_a": "{{}}"}, ""),
]


@pytest.mark.parametrize(("environment", "name"), VARIABLES, ids=lambda value: f"{value!s:.40}")
def test_variables_that_end_the_import_of_dask(environment: dict[str, str], name: str) -> None:
    """Those with which Dask itself raises an error, and no others."""
    found = list(config_files.variables(environment))
    assert [each.startswith(name) for each, _ in found] == ([True] if name else [])
    assert all(type(why) is config_files.Unread and why.fatal and why.advice for _, why in found)
    with pytest.raises(Exception) if name else nullcontext():  # noqa: PT011
        dask.config.collect_env(environment)


@pytest.mark.parametrize("value", ["{{}}", f"{{['{PASSWORD}']}}", DEEP])
def test_config_names_the_variable_and_not_its_value(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DASK_SEALWIRE__TLS__KEY_PASSWORD", value)
    result = CliRunner().invoke(main, ["config"])
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 2
    assert "error DASK_SEALWIRE__TLS__KEY_PASSWORD: it looks like a Python value" in result.output
    assert "or unset it" in result.output
    assert PASSWORD not in result.output


TWICE = [
    ("distributed: {a: 1}\nb: 1\ndistributed: {c: 2}\n", ("'distributed'", 1, 3)),
    ("a:\n  - b: 1\n    c: 2\n    b: 3\n", ("'b'", 2, 4)),
    ("'a': 1\na: 1\n", ("'a'", 1, 2)),
    ("x: &x {a: 1,\n a: 2}\ny: *x\n", ("'a'", 1, 2)),
]


@pytest.mark.parametrize(("text", "expected"), TWICE)
def test_a_name_that_is_there_twice(
    text: str, expected: tuple[str, int, int], tmp_path: Path
) -> None:
    """As where one configuration was appended to another: what the first has is lost."""
    file = tmp_path / "x.yaml"
    file.write_text(text)
    assert config_files.twice(str(file)) == [expected]
    for command in (["certs", "check"], ["config"]):
        result = CliRunner().invoke(main, [*command, str(file)])
        assert f"the name {expected[0]} is in lines {expected[1]} and {expected[2]}" in (
            result.output.replace("\n", " ")
        )
        assert result.exit_code


def test_what_is_there_once(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    for text in ("", "a: {b: 1}\nc: {b: 1}", "x: &x {a: 1}\ny: {<<: *x, b: 2}", "- a\n- a", "a: ["):
        file.write_text(text)
        assert config_files.twice(str(file)) == []


def test_aliases_that_stand_for_billions_of_values(tmp_path: Path) -> None:
    keys = ["key-password", "crl-file", "expiry-warning", "server-hostname", "x", "y", "z", "u"]
    lines = [f"    {keys[0]}: &a0 [x]", *(
        f"    {key}: &a{n} [{', '.join([f'*a{n - 1}'] * 40)}]"
        for n, key in enumerate(keys[1:], 1)
    ), "    allowed-peers: *a7", "distributed: {comm: {tls: {ca-file: x}}}"]  # fmt: skip
    file = tmp_path / "x.yaml"
    file.write_text("sealwire:\n  tls:\n" + "\n".join(lines) + "\n")
    assert yaml.safe_load(file.read_text())
    for command in (["certs", "check"], ["config"]):
        result = CliRunner().invoke(main, [*command, str(file)])
        assert result.exit_code == 2
        assert "a value of type list" in result.output or "got list" in result.output


# A DASK_CONFIG that names nothing


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("{home}/a.yaml:{home}/b.yaml", "Dask takes one path, not several: name a folder"),
        ("{home}/a.yaml,{home}/none.yaml", "Dask takes one path, not several"),
        ("{home};{home}/b.yaml", "Dask takes one path, not several"),
        ("['{home}/a.yaml', '{home}/b.yaml']", "Dask takes one path, not several"),
        ("~/a.yaml", "replaces no ~ and no $NAME in it: write '{home}/a.yaml'"),
        ("$HOME/a.yaml", "replaces no ~ and no $NAME in it: write '{home}/a.yaml'"),
        ('"{home}/a.yaml"', "without the quotes or spaces around it: '{home}/a.yaml'"),
        (" {home}/a.yaml\n", "without the quotes or spaces around it: '{home}/a.yaml'"),
        ("{home}/dsak.yaml", "correct the variable, with an absolute path"),
        ("{home}/x:y.yaml", "correct the variable, with an absolute path"),
        ("{home}/empty", "name the file itself, or one that ends in .yaml"),
    ],
)
def test_a_dask_config_that_names_nothing(
    value: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yaml").write_text("")
    (tmp_path / "b.yaml").write_text("")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DASK_CONFIG", value.format(home=tmp_path))
    found = config_files.named_in_vain()
    assert found is not None
    assert advice.format(home=tmp_path) in found.advice


ENDLESS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "it is a named pipe: whatever imports Dask waits"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a character device: whatever"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and devices have no paths")
@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("command", [["certs", "check"], ["probe", "tls://127.0.0.1:1"]])
def test_what_import_dask_would_never_have_read_is_named(
    kind: str, command: list[str], tmp_path: Path
) -> None:
    make, words = ENDLESS[kind]
    make(tmp_path / "odd.yaml")
    code, out, errors = sealwire(*command, folder=tmp_path, DASK_CONFIG="odd.yaml")
    assert code not in (0, 1)
    assert words in (out + errors).decode()
    assert b"Traceback" not in errors


@pytest.mark.skipif(sys.platform == "win32", reason="another name there")
def test_no_file_at_all_may_be_named() -> None:
    config_files.must_end(os.devnull)
    assert config_files.read(os.devnull) == {}
