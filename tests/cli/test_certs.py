"""`sealwire certs`, command by command: what each writes, prints and refuses."""

from __future__ import annotations

import datetime
import functools
import json
import shlex
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from sealwire.security import config
from sealwire.security.x509.certinfo import CertificateInfo
from support import certs, folders
from support.certs_cli import ROLES, good, request, run, texts, told


def test_init_makes_what_a_cluster_needs(home: Path) -> None:
    folder = home / "certs"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for role in ROLES:
        info = CertificateInfo.of(folders.certificate(folder / f"{role}.pem"))
        assert (info.common_name, info.key) == (role, "P-256")
        assert info.purposes == ("serverAuth", "clientAuth")
    values = config.read(str(folder / "dask.yaml"))
    assert values["require_encryption"] is True
    assert values["tls_ca_file"] == str(folder / "ca.pem")
    assert values["tls_crl_file"] == str(folder / "crl.pem")
    assert values["tls_worker_cert"] == str(folder / "worker.pem")
    assert config.unknown_keys(str(folder / "dask.yaml")) == []


@pytest.mark.parametrize("options", [[], ["--seen-at", "/etc/tls"], ["--days", "9000"]], ids=str)
@pytest.mark.parametrize("name", ["certs", "my certs"])
def test_init_tells_what_to_do_next_on_one_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = good("init", name, *options)
    there = "/etc/tls" if "--seen-at" in options else str(tmp_path / name)
    named = shlex.quote(f"{there}/dask.yaml")
    assert f"export DASK_CONFIG={named}" in said
    assert "dask scheduler " in said
    assert "dask worker tls://" in said
    assert f"sealwire certs check {shlex.quote(name)}" in said
    assert "sealwire certs snippet" in said
    assert "sealwire certs serve" in said
    lines = said.splitlines()
    assert len(lines) < 24
    assert [line for line in lines if len(line) > 80 and str(tmp_path) not in line] == []
    read = yaml.safe_load((tmp_path / name / "dask.yaml").read_text())
    assert read["distributed"]["comm"]["tls"]["ca-file"] == f"{there}/ca.pem"


def test_init_never_touches_what_is_there(home: Path) -> None:
    before = texts(home / "certs")
    done = run("init", "certs")
    assert done.exit_code == 1
    assert "there is ca.pem, ca-key.pem, crl.pem" in done.output
    for name in list(before):
        if name != "worker.pem":
            (home / "certs" / name).unlink()
    done = run("init", "certs")
    assert done.exit_code == 1
    assert texts(home / "certs") == {"worker.pem": before["worker.pem"]}


def test_init_takes_other_keys_times_and_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # To make a key of 3072 bits takes longer than all else here, so all have the same.
    monkeypatch.setattr(rsa, "generate_private_key", functools.cache(rsa.generate_private_key))
    folder = tmp_path / "certs"
    options = ["--key", "rsa3072", "--days", "7", "--ca-days", "30", "--name", "lab CA"]
    good("init", str(folder), *options, "--name-constraint", "lab.example")
    ca, worker = (folders.certificate(folder / f"{name}.pem") for name in ("ca", "worker"))
    assert {CertificateInfo.of(each).key for each in (ca, worker)} == {"RSA 3072"}
    assert CertificateInfo.of(ca).subject == "CN=lab CA"
    assert 6 <= (worker.not_valid_after_utc - folders.now()).days <= 7
    assert 29 <= (ca.not_valid_after_utc - folders.now()).days <= 30
    assert CertificateInfo.of(worker).names == (), "its role is outside the bounds"
    assert run("issue", "worker", "x.evil", "--dir", str(folder)).exit_code == 1
    good("issue", "worker", "x.lab.example", "10.0.0.7", "--dir", str(folder))
    done = run("init", str(tmp_path / "b"), "--name-constraint", "not a domain")
    assert done.exit_code == 1
    assert "give a domain such as lab.example or a network such as 10.0.0.0/8" in done.output


@pytest.mark.parametrize("way", ["file", "variable"])
def test_a_password_is_never_asked_for(home: Path, way: str) -> None:
    (home / "password").write_text("s3cret\nsecond line\n")
    given = {"SEALWIRE_CA_PASSWORD": "s3cret"} if way == "variable" else {}
    option = ["--password-file", "password"] if way == "file" else []
    good("init", "locked", *option, **given)
    text = (home / "locked/ca-key.pem").read_text()
    with pytest.raises(TypeError):
        load_pem_private_key(text.encode(), None)
    assert load_pem_private_key(text.encode(), b"s3cret")
    issue = ["issue", "worker", "n.lab", "--dir", "locked"]
    done = run(*issue)
    assert done.exit_code == 1
    assert "encrypted and no password was given; give --password-file or SEALWIRE" in done.output
    done = run(*issue, SEALWIRE_CA_PASSWORD="wrong")
    assert done.exit_code == 1
    assert "the password does not open the private key" in done.output
    good(*issue, *option, **given)
    (home / "password").write_text("\n")
    assert (
        "its first line, the password, is empty"
        in run(*issue, "--password-file", "password").output
    )


def test_issue_tells_hosts_and_addresses_apart(home: Path) -> None:
    said = told("issue", "worker", "node7.lab", "*.pool.lab", "10.0.0.7", "::1", "--days", "30")
    assert said["names"] == ["node7.lab", "*.pool.lab", "10.0.0.7", "::1"]
    path = home / "certs/worker-node7.lab.pem"
    info = CertificateInfo.of(folders.certificate(path))
    assert (info.common_name, info.node) == ("worker", "node7.lab")
    assert info.names == tuple(said["names"])
    assert f"{info.serial:x}" in said["serial"]
    assert info.fingerprint == said["fingerprint"]
    done = run("issue", "worker", "node7.lab")
    assert done.exit_code == 1
    assert "it exists already" in done.output
    assert run("issue", "boss").exit_code == 2
    assert run("issue", "worker", "no good").exit_code == 1
    done = run("issue", "worker", "--out", "-")
    assert done.exit_code == 1
    assert "a key is never shown" in done.output


def test_a_key_stays_with_its_owner(home: Path) -> None:
    key = request(home / "own.csr", "anybody")
    good("issue", "worker", "node9.lab", "--csr", "own.csr")
    path = home / "certs/worker-node9.lab.pem"
    made = folders.certificate(path)
    assert made.public_key() == key.public_key()
    info = CertificateInfo.of(made)
    assert (info.common_name, info.names) == ("worker", ("node9.lab",))
    assert "PRIVATE" not in path.read_text()
    assert run("check", "certs").exit_code == 0


def test_sign_takes_the_names_of_the_request(home: Path) -> None:
    text = good("sign", "node8.csr", "--role", "worker", "--out", "-")
    made = x509.load_pem_x509_certificate(text.encode())
    assert CertificateInfo.of(made).names == ("node8.lab",)
    assert told("sign", "node8.csr", "--role", "scheduler")["role"] == "scheduler"
    assert (home / "certs/node8.pem").is_file()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: request(p, key=certs.rsa_key(1024)), "RSA of 1024 bits, below 2048"),
        (lambda p: request(p, "worker", None, x509.RFC822Name("a@b")), "asks for a RFC822Name"),
        (lambda p: p.write_text("nothing"), "it is no PEM certificate request, nor any other"),
        (lambda p: p.write_bytes(forged(p)), "not signed by the key it is for"),
    ],
    ids=["weak", "mail", "no CSR", "forged"],
)
def test_a_request_that_is_refused(home: Path, make: Any, words: str) -> None:
    make(home / "bad.csr")
    done = run("sign", "bad.csr", "--role", "worker")
    assert done.exit_code == 1
    assert words in " ".join(done.output.split())
    assert not (home / "certs/bad.pem").exists()


def forged(path: Path) -> bytes:
    request(path)
    der = x509.load_pem_x509_csr(path.read_bytes()).public_bytes(Encoding.DER)
    bad = x509.load_der_x509_csr(der[:-1] + bytes([der[-1] ^ 1]))
    return bad.public_bytes(Encoding.PEM)


def test_renew_ends_with_1_where_something_is_stuck(tmp_path: Path) -> None:
    folder = folders.found(tmp_path / "certs", ca_days=20)
    done = run("renew", "--dir", str(folder), "--if-expires-within", "30d")
    assert done.exit_code == 1
    assert "rotate-ca" in done.output
    assert run("renew", "--dir", str(folder), "--if-expires-within", "10d").exit_code == 0
    for text in ("10", "d", "1y", "-1d"):
        done = run("renew", "--dir", str(folder), f"--if-expires-within={text}")
        assert done.exit_code == 2
        assert "is no time; give one such as 30d" in done.output


def test_show(home: Path) -> None:
    good("revoke", "client")
    entries = {Path(each["file"]).name: each for each in told("show")}
    assert set(entries) == {"ca.pem", "crl.pem", *(f"{role}.pem" for role in ROLES)}
    made = folders.certificate(home / "certs/worker.pem")
    worker = entries["worker.pem"]
    assert worker["role"] == "worker"
    assert worker["issuer"] == "CN=sealwire CA"
    assert worker["key"] == "P-256"
    assert worker["private_key"] == "yes"
    assert worker["purposes"] == ["serverAuth", "clientAuth"]
    assert worker["fingerprint"] == made.fingerprint(hashes.SHA256()).hex()
    assert int(worker["serial"], 16) == made.serial_number
    assert worker["days_left"] == 364
    assert entries["ca.pem"]["role"] == "CA"
    assert entries["ca.pem"]["private_key"] == "no"
    client = folders.certificate(home / "certs/client.pem").serial_number
    assert [int(each, 16) for each in entries["crl.pem"]["revoked"]] == [client]
    shown = good("show", "certs/worker.pem", "certs/crl.pem")
    for text in ("CN=worker", worker["fingerprint"], "(364 days)", "serverAuth, clientAuth"):
        assert text in shown
    assert "PRIVATE" not in shown
    assert run("show", "certs/dask.yaml").exit_code == 1
    assert run("show", "certs/nothing").exit_code == 2
    assert told("show", SEALWIRE_CERTS=str(home / "certs"))[0]["subject"] == "CN=sealwire CA"
    done = run("show", SEALWIRE_CERTS="nowhere")
    assert done.exit_code == 1
    assert "cannot show nowhere: there is no such file or folder" in done.output


def test_validity_is_coloured_as_it_runs_out() -> None:
    from sealwire.cli.certs.common import day

    for left, colour in ((100, "green"), (20, "yellow"), (3, "red"), (-1, "bold red")):
        when = folders.now() + datetime.timedelta(days=left, minutes=1)
        assert day(when).startswith(f"[{colour}]")
    assert "expired" in day(folders.now() - datetime.timedelta(days=1))


def test_check_ends_by_what_it_found(home: Path) -> None:
    assert "all fits" in good("check", "certs")
    assert told("check", "certs") == []
    done = run("check", "certs", "--soon", "400d", "--json")
    assert done.exit_code == 1
    assert {each["code"] for each in json.loads(done.output)} == {"expires-soon"}
    (home / "certs/worker.pem").chmod(0o644)
    done = run("check", "certs")
    assert done.exit_code == 2
    assert f"chmod 600 {home / 'certs/worker.pem'}" in done.output


def test_check_reads_a_configuration_as_dask_does(home: Path) -> None:
    file = str(home / "certs/dask.yaml")
    assert told("check", file) == []
    worker = str(home / "certs/worker.pem")
    done = run("check", file, "--json", DASK_DISTRIBUTED__COMM__TLS__SCHEDULER__CERT=worker)
    assert done.exit_code == 1
    codes = {each["code"] for each in json.loads(done.output)}
    assert codes == {"wrong-role", "peer-not-allowed"}
    (home / "broken.yaml").write_text("distributed: [")
    (home / "empty").touch()
    for arguments in (["broken.yaml"], ["no such path"], ["certs", "--password-file", "empty"]):
        assert run("check", *arguments).exit_code == 2, "1 would be a warning"


def test_check_of_a_folder_made_for_another_place(home: Path) -> None:
    good("init", "k8s", "--seen-at", "/etc/no such place")
    assert told("check", "k8s") == []
    (home / "k8s/worker.pem").write_text((home / "certs/worker.pem").read_text())
    done = run("check", "k8s", "--json")
    assert done.exit_code == 2
    assert {each["code"] for each in json.loads(done.output)} == {"other-ca"}
