"""Killed or failing at each write: no line is lost, no token used twice, none lost to its key."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sealwire.joining import Desk, Refused, Token
from sealwire.joining.client import signing_request
from sealwire.security import SecurityError
from sealwire.security.ca.store import Store
from sealwire.security.x509 import keys
from support import programs
from support.joining import CA

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="it kills forks of itself")


def join(desk: Desk, token: Token, key: Any) -> x509.Certificate:
    request = signing_request(key)
    given = desk.join(token.id, token.sign(request), request, request, "", "127.0.0.1:2")
    return x509.load_pem_x509_certificate(given.certificate.encode())


def digest(key: Any) -> str:
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def test_killed_at_each_write(tmp_path: Path) -> None:
    ca = CA(tmp_path / "ca")
    done = subprocess.run(
        [sys.executable, "-m", "support.programs.killed_desk", str(ca.path)],
        cwd=tmp_path, env=programs.environment(), capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    killed = [end for end in ends if end["killed"]]
    assert len(killed) >= 10, "there are so many writes"
    assert len(ends) - len(killed) == 2, "and each way ends with one that was not killed"
    desk = Desk(ca.path)
    for number, end in enumerate(ends):
        token, key = Token.parse(end["token"]), keys.read(end["key"], "")
        used = list(ca.grant(token).used)
        assert used in ([], [digest(key)]), end["moment"]
        serials = {record.serial for record in Store(ca.path).journal.issued()}
        if end["answer"]:
            answered = x509.load_pem_x509_certificate(end["answer"].encode())
            assert used, "an answer follows its lines"
            assert answered.serial_number in serials
        thief = keys.generate()
        if used:
            with pytest.raises(Refused) as caught:
                join(desk, token, thief)
            assert caught.value.kind == "used"
        elif number % 2:  # nothing was done for the one that was killed: either may be the first
            join(desk, token, thief)
            with pytest.raises(Refused):
                join(desk, token, key)
            continue
        again = join(desk, token, key)
        assert keys.same(again.public_key(), key.public_key())
        with pytest.raises(Refused):
            join(desk, token, thief)
    issued = Store(ca.path).journal.issued()
    assert len({record.serial for record in issued}) == len(issued)
    assert all(len(ca.grant(Token.parse(end["token"])).used) == 1 for end in ends)


@pytest.mark.parametrize("name", ["tokens.tsv", "journal.tsv"])
@pytest.mark.parametrize("room", [0, 1, 60, 100])
def test_a_disk_that_is_full(tmp_path: Path, name: str, room: int) -> None:
    """With so many bytes left: a part of a line may fit, and is taken back."""
    import resource

    ca = CA(tmp_path / "ca")
    token, key = ca.token(), keys.generate()
    desk = Desk(ca.path)
    path = ca.path / name
    other = ca.path / ("tokens.tsv" if name == "journal.tsv" else "journal.tsv")
    with path.open("a") as file:  # so that this one is the first to be full
        file.write(f"#{'x' * (other.stat().st_size + 1000)}\n")
    before, size = resource.getrlimit(resource.RLIMIT_FSIZE), path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, before[1]))
    try:
        with pytest.raises(SecurityError, match=f"cannot write .*{name}: file too large"):
            join(desk, token, key)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.stat().st_size == size
    assert not ca.issued()
    first, second = (key, keys.generate()) if name == "journal.tsv" else (keys.generate(), key)
    join(desk, token, first)
    with pytest.raises(Refused) as caught:
        join(Desk(ca.path), token, second)
    assert caught.value.kind == "used"
    assert list(ca.grant(token).used) == [digest(first)]
