"""`sealwire certs` called in this process, and what its tests give it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from sealwire.cli.main import main
from support import certs

ROLES = ("client", "scheduler", "worker")
WRITERS = {
    "init": ["init", "new"],
    "issue": ["issue", "worker", "node7.lab"],
    "sign": ["sign", "node8.csr", "--role", "worker"],
    "renew": ["renew"],
    "revoke": ["revoke", "worker"],
    "rotate-ca": ["rotate-ca"],
    "config": ["config", "--seen-at", "/etc/sealwire"],
    "pack": ["pack", "--to", "deploy"],
    "token": ["token", "--role", "worker", "--out", "worker.token"],
}


def run(*arguments: str, **variables: str) -> Result:
    return CliRunner().invoke(main, ["certs", *arguments], env=variables, terminal_width=100)


def good(*arguments: str, **variables: str) -> str:
    done = run(*arguments, **variables)
    assert done.exit_code == 0, done.output
    return done.output


def told(*arguments: str, **variables: str) -> Any:
    """What a command says with --json."""
    return json.loads(good(*arguments, "--json", **variables))


def codes(*arguments: str, code: int = 0) -> dict[str, str]:
    """What ``certs check`` finds, with its severity."""
    done = run("check", *arguments, "--json")
    assert done.exit_code == code, done.output
    return {each["code"]: each["severity"] for each in json.loads(done.output)}


def request(path: Path, name: str = "worker", key: Any = None, *sans: x509.GeneralName) -> Any:
    """A CSR, and its key."""
    key = key or certs.p256()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    wanted = x509.SubjectAlternativeName(sans or [x509.DNSName("node8.lab")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    signed = builder.add_extension(wanted, False).sign(key, hashes.SHA256())
    path.write_bytes(signed.public_bytes(Encoding.PEM))
    return key


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.name != ".lock"}
