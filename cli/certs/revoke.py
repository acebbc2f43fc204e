"""`sealwire certs revoke`: revokes certificates."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealwire.cli.certs.common import (
    copying,
    finish,
    folder_options,
    opened,
    options,
)
from sealwire.cli.console import cell, visible

if TYPE_CHECKING:
    from rich.console import Console

    from sealwire.security.ca.journal import Record
    from sealwire.security.ca.store import Store

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
        help="Reason, as stated in the list.",
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

    Given a name or file, all its certificates that are still valid are revoked, including older
    ones; the file itself need not exist any more. The CRL, crl.pem, takes effect wherever
    `sealwire.tls.crl-file` names it (dask.yaml does): new connections are refused, and open ones
    are closed within seconds.

    \b
      sealwire certs revoke worker-node7.lab --reason keyCompromise
      sealwire certs revoke 3f:a2:…:07
      sealwire certs revoke worker-node7.lab --dry-run

    Exit codes: 0 it is revoked, 1 failed, 2 wrong usage.
    """
    with opened(folder, password_file, dry_run) as store:
        from rich.text import Text

        from sealwire.security.ca.renewal import revoke
        from sealwire.security.x509.certinfo import hexadecimal

        records, writes = revoke(store, what, reason)

        def tell(console: Console) -> None:
            from sealwire.cli.demo.report import table

            if not records:
                console.print(cell(what), "was revoked before", soft_wrap=True)
                return
            made = table("Revoked", "serial", "file", "reason")
            for each in records:
                file = each.subject if each.file == "-" else each.file
                row = (hexadecimal(each.serial), file, each.detail)
                made.add_row(*map(cell, row))
            console.print(made)

        def after(console: Console) -> None:
            if records and not dry_run:
                console.print(
                    Text(visible(then(store, folder, records), lines=True)), soft_wrap=True
                )

        rows = [
            {
                "serial": hexadecimal(each.serial),
                "subject": each.subject,
                "file": each.file,
                "reason": each.detail,
            }
            for each in records
        ]
        result = {"revoked": rows}
        finish(writes, dry_run=dry_run, as_json=as_json, result=result, tell=tell, after=after)


def then(store: Store, folder: Path, records: Sequence[Record]) -> str:
    """Return what is left to do after a revocation."""
    from sealwire.security.x509.certinfo import hexadecimal

    where = "" if str(folder) == "certs" else f" --dir {shlex.quote(str(folder))}"
    serials = " ".join(hexadecimal(each.serial) for each in records)
    return f"""
Now bring the list to every machine that has a copy:
{copying(store, folder, "crl.pem")}

Whoever has the list refuses the certificate, and ends open connections with it
within seconds; not those of distributed's own backend. The program that this
prints, run as a client of the cluster, says who has one open, and closes it:
  sealwire certs snippet drop {serials}{where}"""
