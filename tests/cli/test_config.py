"""`sealwire config`: values, where they are from, and what is wrong with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import pytest
from click.testing import CliRunner, Result

from sealwire.cli.config import sources
from sealwire.cli.main import main
from sealwire.security import config_files, schema
from sealwire.security.config import KEYS

PASSWORD = "correct horse battery"
TOKEN = "sealwire_join_" + "abcdefg234" * 15
KEY = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder for Dask's configuration, the only one; no variables."""
    for name in os.environ:
        if name.startswith(("DASK_", "SEALWIRE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DASK_ROOT_CONFIG", str(tmp_path / "nothing"))
    folder = tmp_path / ".config/dask"
    folder.mkdir(parents=True)
    return folder


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(main, ["config", *arguments], catch_exceptions=True)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "Traceback" not in done.output
    return done


def told(*arguments: str) -> tuple[dict[str, Any], list[dict[str, str]], int]:
    """Settings by name, findings, exit code."""
    done = run("--json", *arguments)
    answer = json.loads(done.stdout)
    return {each["key"]: each for each in answer["settings"]}, answer["findings"], done.exit_code


def test_each_setting_is_there_with_its_default(home: Path) -> None:
    settings, findings, code = told()
    assert (findings, code) == ([], 0)
    assert {*schema.settings(), *KEYS.values()} <= set(settings)
    for key, setting in schema.settings().items():
        assert settings[key]["value"] == setting.default
        assert settings[key]["source"] == {"kind": "default", "name": ""}
        assert bool(settings[key]["applies"]) is (setting.default is None)
    assert settings["distributed.comm.timeouts.tcp"]["source"]["name"] == "distributed"
    printed = run().stdout
    assert printed.count("\n") == len(settings)
    assert "sealwire.gil.interval                null (50 us)" in printed


def test_an_empty_variable_sets_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shown what applies instead, as for null; of two settings it is an error."""
    defaults = told()[0]
    for key in schema.settings():
        monkeypatch.setenv(f"DASK_{key.replace('.', '__').replace('-', '_').upper()}", "")
    settings, findings, code = told()
    never = {"sealwire.tls.allowed-peers", "sealwire.unix.allow-plain"}
    assert ({each["subject"] for each in findings}, code) == (never, 2)
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    exceptions = page.partition("counts as not set")[2].partition("\n\n")[0]
    for key in schema.settings():
        assert (f"`{key.rpartition('.')[2]}`" in exceptions) is (key in never), key
        if key not in never:
            before = defaults[key]
            assert settings[key]["applies"] == (before["applies"] or str(before["value"])), key
    assert "sealwire.limits.max-queued           '' (no limit) " in run().stdout


def test_where_each_value_is_from(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = home / "a.yaml", home / "b.yml", home.parent / "own.json"
    first.write_text("sealwire: {limits: {max_queued: 1, backlog: 1, max-frames: 1}, tls: null}\n")
    second.write_text("sealwire: {limits: {max-queued: 2, max-frames: 2, backlog: 2}}\n")
    third.write_text('{"sealwire": {"limits": {"max_frames": 3, "backlog": 3}}}')
    monkeypatch.setenv("DASK_SEALWIRE__LIMITS__BACKLOG", "4")
    monkeypatch.setenv("DASK_SEALWIRE__UNIX__ALLOW_PLAIN", "true")
    monkeypatch.setenv("SEALWIRE_JOIN", "sched:8700")
    settings, findings, code = told(str(third), "--with", "sealwire.limits.read_ahead=5 MiB")
    assert (findings, code) == ([], 0)
    expected = {
        "limits.max-queued": (2, "file", str(second)),
        "limits.max-frames": (3, "file", str(third)),
        "limits.backlog": (4, "variable", "DASK_SEALWIRE__LIMITS__BACKLOG"),
        "unix.allow-plain": (True, "variable", "DASK_SEALWIRE__UNIX__ALLOW_PLAIN"),
        "limits.read-ahead": ("5 MiB", "argument", "sealwire.limits.read_ahead"),
        "join.address": ("sched:8700", "variable", "SEALWIRE_JOIN"),
        "limits.max-pending": (4096, "default", ""),
    }
    for key, (value, kind, name) in expected.items():
        found = settings[f"sealwire.{key}"]
        assert (found["value"], found["source"]) == (value, {"kind": kind, "name": name}), key


CONFIGURATIONS = [
    "sealwire: {tls: {crl_file: x, allowed-peers: {worker: [a]}}}",
    "sealwire: {tls: {allowed_peers: [b], crl-file: null}}",
    "sealwire: {tls: null, limits: 5}",
    "sealwire: {limits: {max-frames: {a: 1}}, tls: crl.pem}",
    "sealwire: {limits: {max_frames: 2}, gil: {}}\ndistributed: {comm: {tls: {ca_file: y}}}",
    "",
]


@pytest.mark.parametrize("turn", range(len(CONFIGURATIONS)))
def test_it_is_what_dask_reads(home: Path, turn: int) -> None:
    """Files and variables in any order, as `dask.config.collect` merges them."""
    for number, text in enumerate(CONFIGURATIONS[turn:] + CONFIGURATIONS[:turn]):
        (home / f"{number}.yaml").write_text(text)
    handed = dask.config.serialize({"sealwire": {"tls": {"hold_gil": False}}})
    environment = {
        **os.environ,
        sources.INHERITED: handed,
        "DASK_SEALWIRE__LIMITS__BACKLOG": "0x10" if turn % 2 else "None",
        "DASK_SEALWIRE__TLS__KEY_PASSWORD__WORKER": "p",
        "DASK_SEALWIRE__GIL__INTERVAL": "False",
    }
    places = config_files.places(environment)
    assert places == dask.config._get_paths()
    ours, wrong = sources.collected(places, environment, {})
    assert {each.code for each in wrong} <= {"displaced-value"}
    theirs = dict(sources._leaves(dask.config.collect(paths=places, env=environment)))
    assert {name: value.value for name, value in ours.items()} == theirs
    for name, (value, source) in ours.items():
        if not name.startswith(("sealwire.", "distributed.")):
            continue  # such as DASK_CONFIG itself
        if source.kind == "variable":
            assert source.name in environment
        else:
            text = Path(source.name).read_text().replace("null", "None")
            assert str(value).replace("'", "") in text, name


@pytest.mark.parametrize("value", ["[b]", "b", "null"])
def test_a_mapping_that_displaces_a_later_value_is_told(
    home: Path, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this Dask keeps it, as recent ones do."""
    (home / "a.yaml").write_text("sealwire: {tls: {allowed_peers: {worker: [a]}}}\n")
    monkeypatch.setenv("DASK_SEALWIRE__TLS__ALLOWED_PEERS", value.replace("b", "'b'"))
    _, findings, code = told()
    tree = dask.config.collect(paths=config_files.places(os.environ), env=os.environ)
    held = dask.config.get("sealwire.tls.allowed-peers", config=tree)
    if held != {"worker": ["a"]}:
        assert not findings
        return
    (finding,) = findings
    assert (finding["code"], code) == ("displaced-value", 1)
    assert finding["subject"] == "sealwire.tls.allowed-peers"
    assert finding["message"] == (
        f"Dask prefers the mapping in {home / 'a.yaml'} to the value in "
        f"DASK_SEALWIRE__TLS__ALLOWED_PEERS"
    )
    (home / "b.yaml").write_text(f"sealwire: {{tls: {{allowed-peers: {{worker: {value}}}}}}}\n")
    monkeypatch.delenv("DASK_SEALWIRE__TLS__ALLOWED_PEERS")
    assert told()[1:] == ([], 0) or value == "null"


def test_without_asking_dask_plain_values_are_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, text in enumerate((CONFIGURATIONS[0], CONFIGURATIONS[4], CONFIGURATIONS[1])):
        (home / f"{number}.yaml").write_text(text.replace("[b]", "{client: [b]}"))
    places = config_files.places(os.environ)
    asked, _ = sources.collected(places, os.environ, {})
    monkeypatch.setattr(sources, "_merged_by_dask", lambda *_: None)
    assert sources.collected(places, os.environ, {})[0] == asked


BAD = [
    ("tls", "crl-file", ["a"], "expected a path or PEM text as str, got list"),
    ("tls", "crl-file", {"a": "b"}, "got dict"),
    ("tls", "key-password", 1234, "put it in quotes"),
    ("tls", "key-password", {"schedular": "x"}, "unknown role 'schedular'"),
    ("tls", "allowed-peers", 5, "allowed_peers"),
    ("tls", "reload-interval", "soon", "expected a time"),
    ("tls", "reload-interval", True, "expected a time"),
    ("tls", "expiry-warning", [], "expected a time"),
    ("tls", "server-hostname", "a b", "server_hostname"),
    ("tls", "hold-gil", "maybe", "expected true or false"),
    ("limits", "max-frames", "many", "need a whole number"),
    ("limits", "max-queued", True, "need a size"),
    ("limits", "backlog", -1, "need a whole number"),
    ("limits", "close-timeout", float("nan"), "cannot|bad"),
    ("limits", "close-timeout", ["5 s"], "need a time"),
    ("gil", "interval", "2 s", "write for example 50 us"),
    ("unix", "allow-plain", "on", "write true or false"),
    ("join", "wait", "ages", "expected a time"),
    ("join", "token", TOKEN[:40], "token"),
    ("join", "address", "ftp://x", "address"),
]


@pytest.mark.parametrize(("section", "name", "value", "words"), BAD)
def test_what_cannot_be_used_is_told(
    home: Path, section: str, name: str, value: Any, words: str
) -> None:
    file = home / "sealwire.yaml"
    file.write_text(json.dumps({"sealwire": {section: {name: value}}}).replace("NaN", ".nan"))
    _, findings, code = told()
    (finding,) = [each for each in findings if each["code"] == "bad-value"]
    assert finding["subject"].startswith(f"sealwire.{section}.{name}")
    assert any(word in finding["message"] for word in words.split("|"))
    assert str(file) in finding["advice"]
    assert code == 2


@pytest.mark.parametrize(
    ("text", "subject", "nearest"),
    [
        ("sealwire: {tls: {Crl-File: x}}", "sealwire.tls.Crl-File", "sealwire.tls.crl-file"),
        ("sealwire: {TLS: {crl-file: x}}", "sealwire.TLS", "sealwire.tls"),
        ("SEALWIRE: {tls: {crl-file: x}}", "SEALWIRE", "sealwire"),
        ("seal-wire: {tls: {crl-file: x}}", "seal-wire", "sealwire"),
        ("sealwire: {limits: {max__frames: 1}}", "sealwire.limits.max--frames", "max-frames"),
        ("sealwire: {join: {tokens: x}}", "sealwire.join.tokens", "sealwire.join.token"),
        ("sealwire: {limits: {max-frames: {a: 1}}}", "sealwire.limits.max-frames.a", "max-frames"),
        ("distributed: {comm: {tls: {cafile: x}}}", "distributed.comm.tls.cafile", "ca-file"),
    ],
)
def test_unknown_keys_are_told(home: Path, text: str, subject: str, nearest: str | None) -> None:
    (home / "x.yaml").write_text(text)
    _, findings, code = told()
    (finding,) = findings
    assert (finding["code"], finding["subject"]) == ("unknown-key", subject)
    assert str(home / "x.yaml") in finding["message"]
    assert finding["advice"].endswith(nearest or "remove it")
    assert code == (2 if nearest else 1)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("SEALWIRE__TLS__CRL_FILE", "DASK_SEALWIRE__TLS__CRL_FILE"),
        ("dask_sealwire__tls__crl_file", "DASK_SEALWIRE__TLS__CRL_FILE"),
        ("SEALWIRE_TOKENFILE", "SEALWIRE_TOKEN_FILE"),
        ("SEALWIRE_QQQQQQQQQQQQQQQQQQQQQQQQQQQQQ", None),
    ],
)
def test_variables_that_nobody_reads(
    home: Path, name: str, near: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "x")
    _, findings, _ = told()
    assert [(each["code"], each["subject"]) for each in findings] == [("unknown-variable", name)]
    assert findings[0]["advice"] == (f"rename it to {near}" if near else "remove it")


def test_a_variable_of_a_wrong_section_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_SEALWIRE_TLS__CRL_FILE", "x")
    _, findings, code = told()
    assert [each["subject"] for each in findings] == ["sealwire-tls"]
    assert code == 2


@pytest.mark.parametrize("section", ["sealwire", "sealwire.tls", "sealwire.gil"])
def test_a_section_that_is_none_is_told(home: Path, section: str) -> None:
    text = "sealwire: 5" if section == "sealwire" else f"sealwire: {{{section[9:]}: [x]}}"
    (home / "x.yaml").write_text(text)
    _, findings, code = told()
    assert [(each["code"], each["subject"]) for each in findings] == [("bad-value", section)]
    assert code == 2


FILES = [
    (b"a: [", "file-malformed", "line 1, column 5"),
    (b"- sealwire", "file-malformed", "type list at its top"),
    (b"sealwire: {5: 6}", "file-malformed", "the name 5 in it is no text"),
    (b"sealwire: &a {tls: *b}", "file-malformed", "alias"),
    (b"sealwire: &a {limits: *a}", "file-malformed", "an alias in it refers to"),
    (b"sealwire: {limits: {max-queued: &a [1, [*a]]}}", "file-malformed", "an alias in it refers"),
    (b"elsewhere: &a [{b: *a}]", "file-malformed", "an alias in it refers to"),
    (b"\xff\xfe\xfa", "file-malformed", ""),
    (b"a: 2023-99-99", "file-malformed", "month"),
    (b"[\n" * 10_000, "file-malformed", ""),
    (b"x: " + b"y" * (10 << 20), "file-too-large", "10.5 MB"),
    (f"a: [\n{KEY}".encode(), "file-malformed", "line"),
]


@pytest.mark.parametrize(("content", "code", "words"), FILES)
def test_files_that_cannot_be_read(home: Path, content: bytes, code: str, words: str) -> None:
    file = home / "sealwire.yaml"
    file.write_bytes(content)
    (home / "z.yaml").write_text("sealwire: {limits: {backlog: 7}}")
    settings, findings, exit_code = told()
    assert [(each["code"], each["subject"]) for each in findings] == [(code, str(file))]
    assert words in findings[0]["message"]
    assert "MIGHAg" not in findings[0]["message"]
    assert settings["sealwire.limits.backlog"]["value"] == 7
    assert exit_code == 2


def test_an_alias_that_is_no_part_of_itself_is_a_value(home: Path) -> None:
    lines = [
        "a0: &a0 [x]",
        *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)),
    ]
    text = "\n".join([*lines, "b: &b {max-queued: 1}", "sealwire: {limits: *b}", "c: [*b, *b]"])
    (home / "sealwire.yaml").write_text(text)  # 9 ** 8 values, where each is looked at as written
    settings, findings, exit_code = told()
    assert (settings["sealwire.limits.max-queued"]["value"], findings, exit_code) == (1, [], 0)


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"---\n", b"null", b"\xef\xbb\xbfa: 1"])
def test_an_empty_file_is_none(home: Path, content: bytes) -> None:
    (home / "sealwire.yaml").write_bytes(content)
    assert told()[1:] == ([], 0)


def test_what_dask_passes_over_in_silence_is_told(home: Path) -> None:
    (home / "loop.yaml").symlink_to("loop.yaml")
    (home / "nowhere.yaml").symlink_to("/nowhere/x.yaml")
    (home / "folder.yaml").mkdir()
    _, findings, code = told()
    assert {Path(each["subject"]).name for each in findings} == {
        "loop.yaml",
        "nowhere.yaml",
        "folder.yaml",
    }
    assert {each["code"] for each in findings} == {"file-unreadable"}
    assert code == 1
    os.mkfifo(home / "pipe.yaml")
    assert "named pipe" in run().stdout


def test_secrets_are_not_printed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = {
        "distributed": {"comm": {"tls": {"worker": {"key": KEY, "cert": KEY}}}},
        "sealwire": {
            "tls": {"key-password": {"worker": PASSWORD}, PASSWORD: PASSWORD},
            "join": {"token": TOKEN, "address": TOKEN, "name": TOKEN},
        },
    }
    (home / "x.yaml").write_text(json.dumps(text))
    monkeypatch.setenv("DASK_SEALWIRE__TLS__KEY_PASSWORD__CLIENT", f"{PASSWORD}!")
    monkeypatch.setenv("SEALWIRE_TOKEN", TOKEN)
    for output in (run().output, run("--json").output):
        assert f"{PASSWORD}!" not in output
        assert TOKEN not in output
        assert "MIGHAg" not in output
        assert "<hidden>" in output
        assert "PEM text" in output


def test_a_password_of_digits_in_a_variable_is_a_text(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_SEALWIRE__TLS__KEY_PASSWORD", "1234")
    assert told()[1:] == ([], 0)


@pytest.mark.parametrize("text", ["x", "=5", "a..b=1", ".=1"])
def test_an_argument_that_is_none(home: Path, text: str) -> None:
    done = run("--with", text)
    assert done.exit_code == 2
    assert "write KEY=VALUE" in done.output


def test_a_file_that_is_not_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no such file" in run("nowhere.yaml").output
    monkeypatch.setenv("DASK_CONFIG", "/nowhere/dask.yaml")
    _, findings, code = told()
    assert [each["code"] for each in findings] == ["no-such-file"]
    assert code == 1


def test_without_dask(home: Path) -> None:
    (home / "x.yaml").write_text("sealwire: {tls: {crl-file: x}, limits: {backlog: soon}}")
    program = (
        "import sys; sys.modules['dask'] = sys.modules['distributed'] = None\n"
        "from sealwire.cli.main import main; main(['config', '--json'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    (finding,) = answer["findings"]
    assert (finding["code"], finding["subject"]) == ("needs-dask", "sealwire.limits.backlog")
    (row,) = [each for each in answer["settings"] if each["key"] == "sealwire.tls.crl-file"]
    assert row["value"] == "x"
