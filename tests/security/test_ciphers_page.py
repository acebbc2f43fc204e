"""docs/security.md: how ChaCha20-Poly1305 is chosen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[2] / "docs/security.md").read_text(encoding="utf-8")
(CONFIGURATION,) = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
(OPTIONS,) = re.findall(r"For TLS 1.2, use `(.*?)`", PAGE)
PROGRAM = f"""
import ssl
from sealwire.security import Security

for options in ({{}}, dict({OPTIONS})):
    security = Security.temporary(**options)
    client = security.get_connection_args("client")["ssl_context"]
    server = security.get_listen_args("scheduler")["ssl_context"]
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)]
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    print(*sides[0].cipher()[:2])
"""


def ciphers(**variables: str) -> list[str]:
    """Those of a handshake without options, and of one with the page's."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **variables}, text=True, timeout=60,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_ciphers_are_those_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "chacha.cnf").write_text(CONFIGURATION)
    chosen, older = ciphers(OPENSSL_CONF=str(tmp_path / "chacha.cnf"))
    assert chosen == "TLS_CHACHA20_POLY1305_SHA256 TLSv1.3"
    assert re.fullmatch(r"ECDHE-\w+-CHACHA20-POLY1305 TLSv1.2", older)
    assert "AES" in ciphers()[0], "by default it is another"
