"""Encrypted keys: opened by a password that is configured, never asked for and never shown."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.config
import pytest

from sealwire.security import ConfigError, PEMError, Security
from support import certs
from support.handshakes import client_context, server_context, shake

CA = certs.root()
NODE = certs.leaf(CA)
SECRET = "correct horse battery staple"
LOCKED = NODE.encrypted_key_pem(SECRET.encode())
OTHER = NODE.encrypted_key_pem(b"another")


def locked(key: str = LOCKED, **fields: Any) -> Security:
    return Security(
        tls_ca_file=CA.pem,
        tls_worker_cert=NODE.pem,
        tls_worker_key=key,
        tls_scheduler_cert=NODE.pem + OTHER,
        **fields,
    )


@pytest.mark.parametrize(
    "password",
    [SECRET, SECRET.encode(), {"worker": SECRET}, {"worker": SECRET, "scheduler": "another"}],
)
def test_one_for_all_or_one_for_each_role(password: Any) -> None:
    one = locked(tls_key_password=password)
    assert shake(server_context(one, "worker"), client_context(one, "worker")).accepted
    if isinstance(password, dict) and "scheduler" in password:
        assert shake(server_context(one), client_context(one, "worker")).accepted
    else:
        with pytest.raises(PEMError, match="tls_scheduler_cert"):
            server_context(one)


@pytest.mark.parametrize("as_file", [True, False], ids=["file", "text"])
@pytest.mark.parametrize(
    ("password", "words"),
    [
        (
            None,
            "its private key is encrypted and no password was given; set tls_key_password "
            r"\(configuration: sealwire\.tls\.key-password\)$",
        ),
        ({"scheduler": SECRET}, "its private key is encrypted and no password was given"),
        ("wrong horse", "the password does not open the private key; check tls_key_password$"),
    ],
)
def test_missing_and_wrong(password: Any, words: str, as_file: bool, tmp_path: Path) -> None:
    key = LOCKED
    if as_file:
        path = tmp_path / "worker.key"
        path.touch(mode=0o600)
        path.write_text(LOCKED)
        key = str(path)
    one = locked(key, tls_key_password=password)
    with pytest.raises(PEMError, match=rf"tls_worker_key \(.*\): {words}") as caught:
        client_context(one, "worker")
    assert "wrong horse" not in str(caught.value)
    assert SECRET not in str(caught.value)
    one.tls_key_password = SECRET
    client_context(one, "worker")


def test_a_key_that_is_not_encrypted_needs_none() -> None:
    one = locked(NODE.key_pem, tls_key_password="whatever")
    assert shake(server_context(one, "worker"), client_context(one, "worker")).accepted


@pytest.mark.parametrize("password", [SECRET, {"worker": SECRET, "client": "hush"}])
def test_it_is_never_shown_and_travels_like_a_key(
    password: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    one = locked(tls_key_password=password)
    context = client_context(one, "worker")
    material = one._material("worker")
    for text in (
        repr(one),
        str(one),
        one._repr_html_(),
        repr(context),
        repr(material),
        caplog.text,
    ):
        assert SECRET not in text
        assert "hush" not in text
    assert "tls_key_password=<hidden>" in repr(one)
    for clone in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one), Security(**one.fields())):
        assert clone.tls_key_password == password
        client_context(clone, "worker")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (7, "tls_key_password: expected str, got int; put it in quotes"),
        ({"worker": 7}, "tls_key_password of worker: expected str, got int"),
        ({"wroker": SECRET}, "tls_key_password: unknown role 'wroker'; expected client, scheduler"),
        ([SECRET], "tls_key_password: expected str, got list"),
        ("x" * 1025, "tls_key_password: it has 1025 bytes, OpenSSL takes 1024"),
        ("ü" * 513, "tls_key_password: it has 1026 bytes, OpenSSL takes 1024"),
    ],
)
def test_what_is_no_password(value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Security(tls_key_password=value)
    assert SECRET not in str(caught.value)
    assert Security(tls_key_password="").tls_key_password is None


def test_configured() -> None:
    with dask.config.set({"sealwire.tls.key-password": SECRET}):
        client_context(locked(), "worker")
    with dask.config.set({"sealwire.tls.key-password": {"worker": SECRET}}):
        client_context(locked(), "worker")
    with (
        dask.config.set({"sealwire.tls.key-password": 1234}),
        pytest.raises(ConfigError, match="expected str, got int; put it in quotes"),
    ):
        Security()


@pytest.mark.parametrize("password", ["0123", "12345", "1e5", "None", "[1]", "True", "1_0", "a b"])
@pytest.mark.parametrize("role", ["", "__WORKER"])
def test_the_environment_is_taken_as_it_is_written(
    password: str, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask takes what looks like a number for one."""
    monkeypatch.setenv(f"DASK_SEALWIRE__TLS__KEY_PASSWORD{role}", password)
    with dask.config.set(dask.config.collect_env()):
        got = Security().tls_key_password
    assert got == ({"worker": password} if role else password) or password == "None"
    if not role:
        assert got == password


PROMPTING = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
open("/dev/tty").close()
certificate, key, how = sys.argv[1:]
if how == "ssl":
    import ssl
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key)
from sealwire.security import PEMError, Security
one = Security(tls_ca_file=certificate, tls_worker_cert=certificate, tls_worker_key=key)
for password, words in ((None, "no password was given"), ("wrong", "does not open")):
    one.tls_key_password = password
    try:
        one.get_listen_args("worker")
    except PEMError as error:
        assert words in str(error), error
    else:
        raise AssertionError("taken")
print("done")
"""


@pytest.mark.skipif(os.name != "posix", reason="there are no terminals of this kind elsewhere")
@pytest.mark.parametrize("how", ["ours", "ssl"])
def test_a_terminal_is_never_asked(how: str, tmp_path: Path) -> None:
    """In a process that has one. `ssl` alone does ask, which shows that it would be seen."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_text(NODE.pem)
    key.touch(mode=0o600)
    key.write_text(LOCKED)
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROMPTING, str(certificate), str(key), how],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""
    try:
        while how == "ours" or b"pass phrase" not in said:
            said += os.read(ours, 1000)
            assert b"pass phrase" not in said or how == "ssl"
    except OSError:  # the other end is closed
        pass
    finally:
        if how == "ssl":
            process.kill()
        process.wait(60)
        os.close(ours)
    if how == "ssl":
        assert b"pass phrase" in said
    else:
        assert said.split() == [b"done"], said
