"""Options of commands that connect to a cluster: whose certificate to show, from which files."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from sealwire.security import Role

__all__ = ["identity_options", "missing"]

_F = TypeVar("_F", bound=Callable[..., Any])

_ROLES: tuple[Role, ...] = ("client", "scheduler", "worker")


def identity_options(command: _F) -> _F:
    """Add ``--as``, ``--ca``, ``--cert`` and ``--key``: parameters `role`, `ca`, `cert`, `key`."""
    options = (
        click.option(
            "--as",
            "role",
            type=click.Choice(_ROLES),
            help="Role whose certificate to present.  "
            "[default: client, or the role whose file is here]",
        ),
        click.option("--ca", help="CA file, instead of the configured one."),
        click.option("--cert", help="Certificate file, instead of the configured one."),
        click.option(
            "--key", help="Key file; may be left out if the certificate's file has the key."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def missing(role: Role) -> str:
    """Return that there is no certificate, and what to do.

    Commands do not join: each call would use up a token.
    """
    advice = (
        "this command does not join with a token; get files with `sealwire certs join`, and set "
        "DASK_CONFIG to their dask.yaml"
        if os.environ.get("SEALWIRE_JOIN")
        else "give --ca and --cert, or set distributed.comm.tls.ca-file and "
        f"distributed.comm.tls.{role}.cert"
    )
    return f"there is no certificate for role {role}; {advice}"
