"""Keys of every kind that people have, for a process and for a CA: what is said of them is true.

Whatever `check` refuses fails in handshakes, and what it does not refuse does not; and where a
process cannot use its key, it says so at once instead of refusing its peers for another reason.
"""

from __future__ import annotations

import functools
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest

from sealwire.security import PEMError, Security
from sealwire.security.checks.runner import check_folder
from support import certs, folders
from support.certs_cli import run
from support.handshakes import client_context, server_context, shake

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="keys that only openssl makes")

EC = ("EC", "-pkeyopt")
KINDS = {
    "Ed25519": ("ED25519",),
    "Ed448": ("ED448",),
    "RSA 1024": ("RSA", "-pkeyopt", "rsa_keygen_bits:1024"),
    "RSA-PSS": ("RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"),
    "P-192": (*EC, "ec_paramgen_curve:prime192v1"),
    "P-521": (*EC, "ec_paramgen_curve:P-521"),
    "secp256k1": (*EC, "ec_paramgen_curve:secp256k1"),
    "brainpool": (*EC, "ec_paramgen_curve:brainpoolP256r1"),
    "binary": (*EC, "ec_paramgen_curve:sect283k1"),
    "parameters": (*EC, "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit"),
    "DSA": (),
    "SM2": (*EC, "ec_paramgen_curve:SM2"),
}
FOR_PROCESSES = {"Ed25519", "Ed448", "RSA-PSS", "P-521"}
#: what newer versions take in TLS 1.3, and peers may not
DISPUTED = {"brainpool"} if ssl.OPENSSL_VERSION_INFO >= (3, 2) else set()
FOR_CAS = {*KINDS} - {"RSA 1024", "P-192", "parameters"}


def openssl(*arguments: str | Path) -> None:
    subprocess.run([str(OPENSSL), *map(str, arguments)], check=True, capture_output=True)


@functools.cache
def key_of(kind: str) -> str:
    """A private key of a kind, made once."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return make_key(Path(folder, "key"), kind).read_text()
        except subprocess.CalledProcessError:
            pytest.skip(f"this openssl makes no key of the kind {kind}")


def make_key(path: Path, kind: str) -> Path:
    if kind == "DSA":
        openssl("genpkey", "-genparam", "-algorithm", "DSA", "-out", path.with_suffix(".par"))
        openssl("genpkey", "-paramfile", path.with_suffix(".par"), "-out", path)
    else:
        openssl("genpkey", "-algorithm", *KINDS[kind], "-out", path)
    return path


@functools.cache
def sound() -> dict[str, str]:
    """A key, what a CA of it is, and a request for it, made once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "key").write_text(certs.root().key_pem)
        self_signed(folder / "key", folder / "ca")
        openssl("req", "-new", "-key", folder / "key", "-out", folder / "csr", "-subj",
                "/CN=worker")  # fmt: skip
        return {path.name: path.read_text() for path in folder.iterdir()}


def self_signed(key: Path, ca: Path) -> None:
    usages = "keyUsage=critical,keyCertSign,cRLSign"
    openssl("req", "-x509", "-new", "-key", key, "-out", ca, "-subj", "/CN=CA", "-days", "300",
            "-addext", usages)  # fmt: skip


def made(tmp_path: Path, kind: str, odd: str) -> Path:
    """A folder whose CA, or whose worker, has a key of a kind."""
    (tmp_path / "certs").mkdir()
    ca_key, key = [tmp_path / f"{name}.key" for name in ("ca", "worker")]
    for path in (ca_key, key):
        path.write_text(key_of(kind) if path.stem == odd else sound()["key"])
    purposes = "extendedKeyUsage=serverAuth,clientAuth"
    (tmp_path / "ext").write_text(f"{purposes}\nkeyUsage=digitalSignature\n")
    ca, csr, signed = tmp_path / "certs/ca.pem", tmp_path / "worker.csr", tmp_path / "worker.crt"
    if odd == "ca":
        self_signed(ca_key, ca)
        csr.write_text(sound()["csr"])
    else:
        ca.write_text(sound()["ca"])
        openssl("req", "-new", "-key", key, "-out", csr, "-subj", "/CN=worker")
    openssl("x509", "-req", "-in", csr, "-CA", ca, "-CAkey", ca_key, "-set_serial", "77",
            "-days", "200", "-out", signed, "-extfile", tmp_path / "ext")  # fmt: skip
    both = tmp_path / "certs/worker.pem"
    both.touch(0o600)
    both.write_text(signed.read_text() + key.read_text())
    return tmp_path / "certs"


def outcome(folder: Path, **fields: str) -> str:
    """Whether a worker can talk to another, and who says why it cannot."""
    here = str(folder / "worker.pem")
    ours = Security(tls_ca_file=str(folder / "ca.pem"), tls_worker_cert=here, **fields)
    try:
        done = shake(server_context(ours, "worker"), client_context(ours))
    except PEMError as error:
        return str(error)
    return "" if done.accepted else str(done.client.error)


@pytest.mark.parametrize("odd", ["worker", "ca"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_check_says_is_what_handshakes_do(tmp_path: Path, kind: str, odd: str) -> None:
    folder = made(tmp_path, kind, odd)
    fits = kind in (FOR_CAS if odd == "ca" else FOR_PROCESSES)
    found = [each for each in check_folder(folder) if each.severity == "error"]
    assert [each.code for each in found] == ([] if fits else ["weak-key"]), found
    assert {each.subject for each in found} <= {str(folder / f"{odd}.pem")}
    for version in ("1.2", "1.3"):
        told = outcome(folder, tls_min_version=version, tls_max_version=version)
        if odd == "worker" and kind in DISPUTED:
            continue
        assert (told == "") == fits, told
        if not fits and kind != "parameters":
            assert "use a key of P-256" in told or "or P-256" in told, "where it is configured"
        assert not fits or "version" not in told, "that is not why"
    for command in (["show", str(folder)], ["list", "--dir", str(folder)]):
        assert run(*command).exit_code == 0


@pytest.mark.parametrize("kind", KINDS)
def test_requests_for_it(tmp_path: Path, kind: str) -> None:
    folder = folders.found(tmp_path / "certs")
    key = tmp_path / "key"
    key.write_text(key_of(kind))
    csr = tmp_path / "node.csr"
    openssl("req", "-new", "-key", key, "-out", csr, "-subj", "/CN=worker",
            "-addext", "subjectAltName=DNS:n1.lab")  # fmt: skip
    done = run("sign", str(csr), "--role", "worker", "--dir", str(folder))
    if kind in FOR_PROCESSES or kind == "parameters":  # the certificate has the curve's name
        assert done.exit_code == 0, done.output
    else:
        assert done.exit_code == 1
        assert "its key is" in done.output
        assert "use P-256 or RSA" in done.output
    assert isinstance(done.exception, SystemExit | None)


@pytest.mark.parametrize("ciphers", ["ECDHE+CHACHA20", "ECDHE+AESCCM", "ECDHE-ECDSA-AES256-SHA384"])
def test_a_choice_of_ciphers_is_no_fault_of_the_key(tmp_path: Path, ciphers: str) -> None:
    folder = made(tmp_path, "secp256k1", "ca")
    assert outcome(folder, tls_ciphers=ciphers, tls_max_version="1.2") == ""


def test_nothing_is_tried_with_common_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folders.found(tmp_path / "certs")
    monkeypatch.setattr(ssl.SSLContext, "wrap_bio", lambda *_, **__: pytest.fail("a trial"))
    ours = Security(tls_ca_file=str(folder / "ca.pem"), tls_worker_cert=str(folder / "worker.pem"))
    ours.get_listen_args("worker")


@pytest.mark.parametrize(
    ("kind", "level", "advice"),
    [
        ("RSA-PSS", 2, None),
        ("RSA-PSS", 3, "RSA of 3072 bits or more, or P-256, and a SHA-2 signature"),
        ("P-521", 3, None),
        ("Ed25519", 4, "RSA of 7680 bits or more, or P-384, and a SHA-384 signature"),
        ("Ed448", 5, "RSA of 15360 bits or more, or P-521, and a SHA-512 signature"),
    ],
)
def test_what_a_higher_security_level_asks_for(
    tmp_path: Path, kind: str, level: int, advice: str | None
) -> None:
    """Of tls_ciphers, or of OpenSSL's configuration, where a system's Python follows it."""
    told = outcome(made(tmp_path, kind, "worker"), tls_ciphers=f"ALL:@SECLEVEL={level}")
    if advice is None:
        assert told == ""
    else:
        assert f"for TLS at security level {level} (" in told
        assert told.endswith(f"; use {advice}")
