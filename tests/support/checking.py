"""A folder of certificates, what is put into it, and what `check` says of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sealwire.security import config
from sealwire.security.checks.findings import Finding
from sealwire.security.checks.runner import check_configuration, check_folder
from support import certs
from support.folders import DAY

ROLES = ("client", "scheduler", "worker")


def said(found: list[Finding]) -> dict[str, str]:
    """Code -> severity of what was found, each with its words."""
    for each in found:
        assert all((each.message, each.advice, each.subject))
        assert "PRIVATE KEY" not in repr(each)
    return {each.code: each.severity for each in found}


def configured(folder: Path, **changes: Any) -> dict[str, Any]:
    """The values of the folder's dask.yaml, by field, with changes."""
    values = config.read(str(folder / "dask.yaml"))
    return {**values, **changes}


def look(folder: Path, **changes: Any) -> dict[str, str]:
    """What the folder and its configuration are found to lack."""
    return said(check_folder(folder) + check_configuration(configured(folder, **changes)))


def put(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def put_node(folder: Path, node: certs.Node, name: str = "worker") -> None:
    put(folder / f"{name}.pem", node.pem + node.key_pem)


def put_ca(folder: Path, node: certs.Node) -> None:
    """Trust this CA, and no lists: its key is nowhere here."""
    put(folder / "ca.pem", node.pem)
    for name in ("ca-key.pem", "crl.pem"):
        (folder / name).unlink()
    for role in ROLES:
        put_node(folder, certs.leaf(node, role), role)


def without_crl(folder: Path) -> dict[str, Any]:
    return configured(folder, tls_crl_file=None)


def far(node: Callable[..., certs.Node], *args: Any, **changes: Any) -> certs.Node:
    return node(*args, **{"end": 90 * DAY, **changes})
