"""A folder of a worker's files, and the `Security` that follows them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sealwire.security import Security
from sealwire.security.contexts import background, reloading
from support import certs
from support.handshakes import client_context, security, server_context, shake

CA = certs.root("ca")
OTHER_CA = certs.root("other ca")
OLD = certs.leaf(CA, "old")
NEW = certs.leaf(CA, "new")
FOREIGN = certs.leaf(OTHER_CA, "foreign")
PEER = security(certs.leaf(CA, "peer"), [CA, OTHER_CA])


def give_checks_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let handshakes of this process wait for a check of files as long as a busy machine needs."""
    for module, name in ((background, "PATIENCE"), (reloading, "_RATHER")):
        assert hasattr(module, name)
        monkeypatch.setattr(module, name, 30.0)


class Folder:
    """The files of a worker, and the `Security` that follows them."""

    def __init__(self, path: Path, **fields: Any) -> None:
        self.path = path
        for name, text in {
            "ca.pem": CA.pem, "worker.pem": OLD.pem, "worker.key": OLD.key_pem
        }.items():  # fmt: skip
            self.write(name, text)
        self.security = Security(
            tls_ca_file=path / "ca.pem",
            tls_worker_cert=path / "worker.pem",
            tls_worker_key=path / "worker.key",
            **{"tls_reload_interval": 0, **fields},
        )
        self.server = server_context(self.security, "worker")
        self.client = client_context(self.security, "worker")

    def write(self, name: str, text: str) -> None:
        """In place, as an editor or `cp` writes."""
        path = self.path / name
        path.touch(mode=0o600)
        path.write_text(text)

    def replace(self, name: str, text: str) -> None:
        """By renaming, so that nobody ever sees half a file."""
        self.write(f"{name}.new", text)
        os.replace(self.path / f"{name}.new", self.path / name)

    def install(self, node: certs.Node) -> None:
        self.replace("worker.pem", node.pem)
        self.replace("worker.key", node.key_pem)

    def shows(self) -> bytes:
        """The certificate that both sides show in new handshakes."""
        for outcome in (
            shake(self.server, client_context(PEER)),
            shake(server_context(PEER), self.client),
        ):
            assert outcome.accepted, (outcome.server.error, outcome.client.error)
        seen = [
            shake(self.server, client_context(PEER)).client.tls.getpeercert(binary_form=True),
            shake(server_context(PEER), self.client).server.tls.getpeercert(binary_form=True),
        ]
        assert seen[0] == seen[1]
        assert seen[0] is not None
        return seen[0]

    def trusts(self, node: certs.Node) -> bool:
        other = security(node, [CA, OTHER_CA])
        as_client = shake(self.server, client_context(other)).accepted
        as_server = shake(server_context(other), self.client).accepted
        assert as_client is as_server
        return as_client
