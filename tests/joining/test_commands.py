"""`certs token`, `serve` and `join`: what they print, write and leave, as real processes."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sealwire.cli.main import main
from sealwire.joining import Desk, Token
from sealwire.joining.client import signing_request
from sealwire.security import Security
from sealwire.security.x509 import keys
from support.certs_cli import good, run, told
from support.joined_cluster import SECRET
from support.joining import CA, token_of
from support.processes import Program


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    good("init", str(tmp_path / "ca"))
    return tmp_path / "ca"


class Serving:
    """`certs serve` as a process."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        arguments = ["certs", "serve", "--host", "127.0.0.1", "--port", "0", "--dir", str(folder)]
        before = dict(os.environ)
        os.environ.update(environment)
        try:
            self.program = Program(
                [sys.executable, "-m", "sealwire.cli", *arguments, *options], folder.parent
            )
        finally:
            os.environ.clear()
            os.environ.update(before)
        self.address = self.program.wait_for(r"serving the CA at tls://(\S+)")[1]

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        self.program.process.terminate()
        assert self.program.process.wait(30) == 0
        self.program.finish()
        assert "Traceback" not in self.output

    @property
    def output(self) -> str:
        return "".join(self.program.output)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a CA that `serving` serves, for tests that leave it whole."""
    made = tmp_path_factory.mktemp("served") / "ca"
    good("init", str(made))
    return made


@pytest.fixture(scope="module")
def serving(served: Path) -> Iterator[Serving]:
    with Serving(served) as service:
        yield service


def listed(folder: Path, text: str) -> Any:
    """What ``token --list`` says of a token."""
    rows = {each["id"]: each for each in told("token", "--list", "--dir", str(folder))["tokens"]}
    return rows[Token.parse(text).id]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_from_a_token_to_files_that_work(serving: Serving, served: Path, tmp_path: Path) -> None:
    text = token_of(served)
    here = tmp_path / "node" / "certs"
    out = good(
        "join", serving.address, "node7.lab", "10.0.0.7", "--dir", str(here), SEALWIRE_TOKEN=text
    )
    assert not SECRET.search(out)
    assert "joined as worker, for 24.0 h, not renewed by itself; " in out
    assert {p.name for p in here.iterdir()} == {
        "ca.pem", "crl.pem", "dask.yaml", "worker.pem", ".lock",
    }  # fmt: skip
    assert (mode(here), mode(here / "worker.pem"), mode(here / "ca.pem")) == (0o700, 0o600, 0o644)
    assert "all fits" in good("check", str(here))
    security = Security(tls_ca_file=here / "ca.pem", tls_worker_cert=here / "worker.pem")
    assert security.get_connection_args("worker")["ssl_context"] is not None
    row = listed(served, text)
    assert row["status"] == "used up"
    assert row["used"][0]["name"].startswith("joined/worker-node7.lab-")
    name, where = row["used"][0]["name"], ("--dir", str(served))
    places = {each["name"]: each["place"] for each in told("list", *where)}
    assert places[name] == places["joined/authority"] == "joined"
    assert re.search(rf"{name} +worker +\S+ +23 hours, joined +node7.lab\n", good("list", *where))
    good("revoke", name, *where)
    assert re.search(rf"{name} +worker +\S+ +revoked \S+, joined", good("list", *where))


def test_who_joined_needs_no_copies(tmp_path: Path) -> None:
    """The advice of commands that change what everybody must have."""
    words, ca = "processes that joined get it from `sealwire certs serve`", CA(tmp_path / "ca")
    where = ("--dir", str(ca.path))
    commands = (("revoke", "client", *where), ("rotate-ca", *where))
    for command in commands:
        assert words not in good(*command)
    Desk(ca.path).own()  # the service itself is nobody who joined
    assert words not in good("rotate-ca", *where)
    token, desk = ca.token(), Desk(ca.path)
    request = signing_request(keys.generate())
    desk.join(token.id, token.sign(b"x"), b"x", request, "", "there")
    for command in (("revoke", "worker", *where), ("rotate-ca", *where)):
        assert words in good(*command)


def test_a_rotation_waits_for_who_joined(tmp_path: Path) -> None:
    """They come along by themselves: left out before, they would be members no more."""
    ca = CA(tmp_path / "ca")
    where, token, desk = ("--dir", str(ca.path)), ca.token(), Desk(ca.path)
    request = signing_request(keys.generate())
    given = desk.join(token.id, token.sign(b"x"), b"x", request, "", "there")
    (name,) = ca.issued()
    good("rotate-ca", *where)
    good("renew", *where)
    refused = run("rotate-ca", "--complete", *where)
    assert refused.exit_code == 1
    assert (
        f"1 certificate of the old CA is in use, {name}; wait for the processes" in refused.output
    )
    assert f"over at {given.until:%Y-%m-%d %H:%M} UTC" in refused.output
    assert f"leave them out: sealwire certs rotate-ca --complete --dir {ca.path} --gone {name}" in (
        refused.output
    )
    assert "not there any more" not in refused.output
    old = x509.load_pem_x509_certificate(given.certificate.encode())
    desk.renew(old.public_bytes(Encoding.DER), signing_request(keys.generate()))
    good("rotate-ca", "--complete", *where)


def test_an_answer_that_was_lost_is_asked_for_again(
    serving: Serving, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command is killed after it was given the certificate, before it has written it."""
    from sealwire.joining import files

    text, here = token_of(served), tmp_path / "node"
    arguments = ("join", serving.address, "--dir", str(here))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.Place, "writes", killed)
        assert run(*arguments, SEALWIRE_TOKEN=text).exit_code != 0
    assert mode(here / "joining.key") == 0o600
    assert not (here / "worker.pem").exists()
    wrong = run(*arguments, "worker.", SEALWIRE_TOKEN=text)  # a refusal that is not of the token
    assert "does not allow the name" in wrong.output
    assert mode(here / "joining.key") == 0o600
    good(*arguments, SEALWIRE_TOKEN=text)
    assert not (here / "joining.key").exists()
    elsewhere = run("join", serving.address, "--dir", str(tmp_path / "b"), SEALWIRE_TOKEN=text)
    assert elsewhere.exit_code == 1
    assert "used before" in elsewhere.output
    assert not list((tmp_path / "b").glob("*.pem"))
    assert not list((tmp_path / "b").glob("*.key"))


def test_what_is_there_is_not_replaced(serving: Serving, served: Path, tmp_path: Path) -> None:
    text = token_of(served, "--uses", "9")
    good("init", str(tmp_path / "other"))
    here = tmp_path / "node"
    good("join", serving.address, "--dir", str(here), SEALWIRE_TOKEN=text)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "ca.pem").write_text((tmp_path / "other" / "ca.pem").read_text())
    for place, why in ((here, "worker.pem already"), (served, "folder of a CA"),
                       (stranger, "of another CA")):  # fmt: skip
        before = {p.name: p.read_bytes() for p in place.iterdir()}
        done = run("join", serving.address, "--dir", str(place), SEALWIRE_TOKEN=text)
        assert done.exit_code == 1
        assert why in done.output
        after = {p.name: p.read_bytes() for p in place.iterdir() if p.name != ".lock"}
        before.pop(".lock", None)
        if place == served:
            continue
        assert after == before
    assert len(listed(served, text)["used"]) == 1


def test_two_roles_share_a_folder(serving: Serving, served: Path, tmp_path: Path) -> None:
    here = tmp_path / "node"
    good("join", serving.address, "--dir", str(here), SEALWIRE_TOKEN=token_of(served))
    (here / "dask.yaml").write_text((here / "dask.yaml").read_text() + "# mine\n")
    done = run("token", "--role", "client", "--dir", str(served))
    text = SECRET.findall(done.output)[0]
    arguments = ("join", serving.address, "--role", "client", "--dir", str(here))
    both = (here / "worker.pem").read_text()  # of a process that was killed before it removed it
    key = both[both.index("-----BEGIN PRIVATE") :]
    (here / "joining.key").write_text(key)
    wrong = run(*arguments, SEALWIRE_TOKEN=token_of(served))
    assert wrong.exit_code == 1
    assert "for a worker" in wrong.output
    good(*arguments, SEALWIRE_TOKEN=text)
    assert key not in (here / "client.pem").read_text()
    assert not (here / "joining.key").exists()
    assert (here / "dask.yaml").read_text().endswith("# mine\n")


@pytest.mark.parametrize(
    ("arguments", "variables", "code"),
    [
        (["127.0.0.1:1"], {}, 2),
        (["127.0.0.1:1"], {"SEALWIRE_TOKEN": "  "}, 2),
        (["127.0.0.1:1"], {"SEALWIRE_TOKEN": "sealwire_join_abc"}, 1),
        (["127.0.0.1:1", "--token", "hunter2"], {}, 1),
        (["tcp://127.0.0.1:1"], {"SEALWIRE_TOKEN": "x"}, 1),
        (["http://127.0.0.1/"], {"SEALWIRE_TOKEN": "x"}, 1),
        ([""], {"SEALWIRE_TOKEN": "x"}, 1),
        (["a:b:c"], {"SEALWIRE_TOKEN": "x"}, 1),
        (["127.0.0.1:99999"], {"SEALWIRE_TOKEN": "x"}, 1),
    ],
)
def test_bad_arguments_are_told_before_anything_is_made(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], code: int
) -> None:
    done = run("join", *arguments, "--dir", str(tmp_path / "node"), **variables)
    assert done.exit_code == code, done.output
    assert "hunter2" not in done.output
    assert not (tmp_path / "node").exists()


@pytest.mark.parametrize("wait", ["0m", "0s"])
def test_a_service_that_is_not_there_is_told(folder: Path, tmp_path: Path, wait: str) -> None:
    text = token_of(folder)
    arguments = ("join", "127.0.0.1:1", "--wait", wait, "--dir", str(tmp_path / "node"))
    done = run(*arguments, SEALWIRE_TOKEN=text)
    assert done.exit_code == 1
    assert "cannot ask tls://127.0.0.1:1" in done.output
    assert not SECRET.search(done.output)


def test_nothing_secret_is_in_logs_or_the_list_of_processes(
    serving: Serving, served: Path, tmp_path: Path
) -> None:
    text, refused = token_of(served), token_of(served, "--names", "nobody")
    file = tmp_path / "token"
    file.write_text(text)
    command = [sys.executable, "-m", "sealwire.cli", "certs", "join", serving.address]
    joining = subprocess.Popen(
        [*command, "--token-file", str(file), "--dir", str(tmp_path / "node")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    lines: list[str] = []
    while not any("certs join" in line for line in lines) and joining.poll() is None:
        lines = [" ".join(each.cmdline()) for each in psutil.Process().children(recursive=True)]
    output, _ = joining.communicate(timeout=60)
    assert joining.returncode == 0, output
    again = run("join", serving.address, "--dir", str(tmp_path / "b"), SEALWIRE_TOKEN=refused)
    assert "does not allow" in again.output
    keys = [(tmp_path / "node/worker.pem").read_text(), (served / "ca-key.pem").read_text()]
    body = [line for key in keys for line in key.splitlines() if len(line) > 60]
    shown = "\n".join([*lines, output, again.output, serving.output])
    kept = "".join((served / name).read_text() for name in ("tokens.tsv", "journal.tsv"))
    assert any("certs join" in line for line in lines)
    for secret in (text, refused, text[-60:], refused[-60:], *body[:1]):
        assert secret not in shown
        assert secret not in kept


@pytest.mark.parametrize("how", ["file", "variable"])
def test_an_encrypted_ca_is_opened_without_a_prompt(tmp_path: Path, how: str) -> None:
    folder, file = tmp_path / "ca", tmp_path / "password"
    file.write_text("pässword 1\n")
    good("init", str(folder), "--password-file", str(file))
    text = token_of(folder)  # needs no password: the CA's certificate is enough
    secret = {"SEALWIRE_CA_PASSWORD": "pässword 1"} if how == "variable" else {}
    options = ["--password-file", str(file)] if how == "file" else []
    with Serving(folder, *options, **secret) as service:
        good("join", service.address, "--dir", str(tmp_path / "node"), SEALWIRE_TOKEN=text)
        assert "pässword" not in service.output
    for wrong in ({}, {"SEALWIRE_CA_PASSWORD": "wrong"}):
        done = run("serve", "--host", "127.0.0.1", "--port", "0", "--dir", str(folder), **wrong)
        assert done.exit_code == 1
        assert "password" in done.output


def test_what_cannot_be_served_is_told(tmp_path: Path, folder: Path, serving: Serving) -> None:
    where = ("serve", "--host", "127.0.0.1")
    assert "no ca.pem" in run(*where, "--dir", str(tmp_path / "none")).output
    port = serving.address.rpartition(":")[2]
    again = subprocess.run(
        [sys.executable, "-m", "sealwire.cli", "certs", *where, "--port", port, "--dir", folder],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert again.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in again.stderr
    (folder / "tokens.tsv").write_text("\t" * 9 + "\t.\n")
    done = run(*where, "--port", "0", "--dir", str(folder))
    assert done.exit_code == 1
    assert "line 1 is damaged" in done.output


def test_json(serving: Serving, served: Path, tmp_path: Path) -> None:
    made: Any = json.loads(run("token", "--role", "client", "--json", "--dir", str(served)).output)
    assert Token.parse(made["token"]).id == made["id"]
    joined = told(
        "join", serving.address, "--dir", str(tmp_path / "n"), SEALWIRE_TOKEN=made["token"]
    )
    assert joined["role"] == "client"
    assert {Path(each["path"]).name for each in joined["written"]} >= {"client.pem", "ca.pem"}
    assert "PRIVATE" not in json.dumps(joined)


@pytest.mark.parametrize("command", ["probe", "top"])
def test_commands_that_do_not_join_say_so(command: str) -> None:
    done = CliRunner().invoke(
        main, [command, "tls://127.0.0.1:1"], env={"SEALWIRE_JOIN": "127.0.0.1:1"}
    )
    assert done.exit_code == 3
    assert "does not join with a token; get files with `sealwire certs join`" in " ".join(
        done.output.split()
    )
