"""`sealwire certs revoke`: revokes certificates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealwire.cli.certs.common import (
    finish,
    folder_options,
    opened,
    options,
)
from sealwire.cli.console import cell

if TYPE_CHECKING:
    from rich.console import Console

# Those of RFC 5280 that apply to a process's certificate.
REASONS = (
    "unspecified",
    "keyCompromise",
    "superseded",
    "cessationOfOperation",
    "privilegeWithdrawn",
    "affiliationChanged",
)


@click.command("revoke", short_help="Revoke a certificate.")
@click.argument("what", metavar="NAME|FILE|SERIAL")
@options(
    click.option(
        "--reason",
        type=click.Choice(REASONS),
        default="unspecified",
        show_default=True,
        help="Said in the list.",
    ),
    *folder_options,
)
def command(
    what: str,
    reason: str,
    folder: Path,
    password_file: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Revoke an identity by name or file, or one certificate by its serial (hexadecimal).

    By name or file, all that was issued into it and is still valid is revoked, older certificates
    too. The list, crl.pem, takes effect wherever `sealwire.tls.crl-file` names it (dask.yaml does)
    at the next connection of each process; connections that are open stay open.

    \b
      sealwire certs revoke worker-node7.lab --reason keyCompromise
      sealwire certs revoke 3f:a2:…:07
      sealwire certs revoke worker-node7.lab --dry-run

    Exit codes: 0 it is revoked, 1 failed, 2 wrong usage.
    """
    with opened(folder, password_file, dry_run) as store:
        from sealwire.security.ca.renewal import revoke
        from sealwire.security.x509.certinfo import hexadecimal

        records, writes = revoke(store, what, reason)

        def tell(console: Console) -> None:
            from sealwire.cli.demo.report import table

            if not records:
                console.print(cell(what), "was revoked before", soft_wrap=True)
                return
            made = table("Revoked", "serial", "subject", "file", "reason")
            for each in records:
                row = (hexadecimal(each.serial), each.subject, each.file, each.detail)
                made.add_row(*map(cell, row))
            console.print(made)

        rows = [
            {
                "serial": hexadecimal(each.serial),
                "subject": each.subject,
                "file": each.file,
                "reason": each.detail,
            }
            for each in records
        ]
        finish(writes, dry_run=dry_run, as_json=as_json, result={"revoked": rows}, tell=tell)
