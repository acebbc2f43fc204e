"""What distributed's `Security` says of a role's files, which is written into command lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distributed.security import Security as Stock

from sealwire.dask_backend import uninstall
from support import certs
from support.parties import ROLES

NODE = certs.leaf(certs.root())
CONTENTS: dict[str, tuple[bytes, bool]] = {
    "certificate and key": ((NODE.pem + NODE.key_pem).encode(), True),
    "key and certificate": ((NODE.key_pem + NODE.pem).encode(), True),
    "an encrypted key": ((NODE.pem + NODE.encrypted_key_pem(b"hush")).encode(), True),
    "with other text": (b"\xef\xbb\xbf# caf\xc3\xa9\r\n" + NODE.key_pem.encode(), True),
    "certificate alone": (NODE.pem.encode(), False),
    "half a key": (NODE.pem.encode() + NODE.key_pem.encode()[:100], False),
    "nothing": (b"", False),
    "no text": (bytes(range(256)), False),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("content", CONTENTS)
def test_the_key_is_where_the_certificate_is_if_it_is_there(
    content: str, role: str, tmp_path: Path
) -> None:
    file = tmp_path / "identity.pem"
    data, has_key = CONTENTS[content]
    file.write_bytes(data)
    config = Stock(**{f"tls_{role}_cert": str(file)}).get_tls_config_for_role(role)
    assert config["key"] == (str(file) if has_key else None)
    uninstall()
    assert Stock(**{f"tls_{role}_cert": str(file)}).get_tls_config_for_role(role)["key"] is None


ELSEWHERE: dict[str, Callable[[Path], Any]] = {
    "a file that is not here": lambda folder: "worker.pem",
    "a folder": str,
    "PEM text": lambda folder: NODE.pem + NODE.key_pem,
    "no path": lambda folder: "a\0b",
    "nothing": lambda folder: None,
}


@pytest.mark.parametrize("value", ELSEWHERE)
def test_otherwise_it_says_what_it_was_given(value: str, tmp_path: Path) -> None:
    """As without us: a command line may be for another machine."""
    certificate = ELSEWHERE[value](tmp_path)
    given = Stock(tls_ca_file="ca.pem", tls_worker_cert=certificate)
    expected = {"ca_file": "ca.pem", "cert": certificate, "key": None, "ciphers": None}
    assert given.get_tls_config_for_role("worker") == expected


def test_a_key_of_its_own_stays(tmp_path: Path) -> None:
    file = tmp_path / "identity.pem"
    file.write_text(NODE.pem + NODE.key_pem)
    given = Stock(tls_client_cert=str(file), tls_client_key="key.pem")
    assert given.get_tls_config_for_role("client")["key"] == "key.pem"
